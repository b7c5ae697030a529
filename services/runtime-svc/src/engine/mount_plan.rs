//! Which mounts a container gets, and in what order.

use std::path::Path;

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::spec::{MountKind, MountSpec, Propagation, RootMount};

use super::error::{Error, Result};
use super::ports::Machine;

/// What the plan depends on.
pub(super) struct MountInputs<'a> {
    pub(super) sandbox_id: &'a str,
    pub(super) config: &'a cri::ContainerConfig,
    pub(super) privileged: bool,
    pub(super) image_mounts: Vec<(usize, Vec<RootMount>)>,
    pub(super) machine: &'a dyn Machine,
}

/// All mounts, parents before children.
pub(super) fn plan(inputs: MountInputs<'_>) -> Result<Vec<MountSpec>> {
    let own = own_mounts(&inputs)?;
    let taken = |path: &str| own.iter().any(|mount| mount.destination == path);
    let readonly = !inputs.privileged;
    let mut all = vec![
        mount("/proc", MountKind::Proc),
        mount("/dev", MountKind::Dev),
        mount("/dev/pts", MountKind::Devpts),
        mount("/dev/mqueue", MountKind::Mqueue),
        mount("/sys", MountKind::Sysfs { readonly }),
        mount("/sys/fs/cgroup", MountKind::Cgroup { readonly }),
        mount("/dev/shm", MountKind::Shm),
    ];
    let files = inputs.machine.pod_files(inputs.sandbox_id);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let readonly = inputs
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .is_some_and(|context| context.readonly_rootfs);
        all.push(mount(
            &format!("/etc/{name}"),
            bind(files.join(name), readonly, false, Propagation::Private),
        ));
    }
    all.retain(|mount| !taken(&mount.destination));
    all.extend(own);
    // Stable: equals keep the order they were asked for in.
    all.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(all)
}

fn mount(destination: &str, kind: MountKind) -> MountSpec {
    MountSpec { destination: destination.to_owned(), kind }
}

fn bind(
    source: std::path::PathBuf,
    readonly: bool,
    recursive_readonly: bool,
    propagation: Propagation,
) -> MountKind {
    MountKind::Bind { source, readonly, recursive_readonly, propagation }
}

fn own_mounts(inputs: &MountInputs<'_>) -> Result<Vec<MountSpec>> {
    let one = |(index, asked): (usize, &cri::Mount)| {
        let destination = clean(&asked.container_path)?;
        let kind = match inputs.image_mounts.iter().find(|(at, _)| *at == index) {
            Some((_, mounts)) => image_kind(asked, mounts)?,
            None => bind_kind(asked, inputs.machine)?,
        };
        Ok(MountSpec { destination, kind })
    };
    inputs.config.mounts.iter().enumerate().map(one).collect()
}

fn image_kind(asked: &cri::Mount, mounts: &[RootMount]) -> Result<MountKind> {
    if !asked.readonly {
        return Err(Error::Invalid("readonly must be true for an image mount".to_owned()));
    }
    if asked.image_sub_path.split('/').any(|part| part == "..")
        || asked.image_sub_path.starts_with('/')
    {
        return Err(Error::Invalid(format!(
            "image sub path {:?} must stay inside the image",
            asked.image_sub_path
        )));
    }
    Ok(MountKind::Rootfs { mounts: mounts.to_vec(), sub_path: asked.image_sub_path.clone() })
}

fn bind_kind(asked: &cri::Mount, machine: &dyn Machine) -> Result<MountKind> {
    if !asked.uid_mappings.is_empty() || !asked.gid_mappings.is_empty() {
        return Err(Error::Unsupported("id-mapped mounts".to_owned()));
    }
    if !Path::new(&asked.host_path).is_absolute() {
        return Err(Error::Invalid(format!(
            "host path {:?} of a mount must be absolute",
            asked.host_path
        )));
    }
    let source = machine.mount_source(&asked.host_path)?;
    let propagation = match asked.propagation() {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::Slave,
        cri::MountPropagation::PropagationBidirectional => Propagation::Shared,
    };
    let (shared, slave) = machine.propagation(&source);
    if propagation == Propagation::Shared && !shared {
        return Err(Error::Failed(format!(
            "path {:?} is not on a shared mount; run `mount --make-rshared` on it",
            asked.host_path
        )));
    }
    if propagation == Propagation::Slave && !shared && !slave {
        return Err(Error::Failed(format!(
            "path {:?} is not on a shared or slave mount; run `mount --make-rshared` on it",
            asked.host_path
        )));
    }
    if asked.recursive_read_only {
        if !asked.readonly {
            return Err(Error::Invalid(
                "recursive read-only mount needs to be read-only".to_owned(),
            ));
        }
        if propagation != Propagation::Private {
            return Err(Error::Invalid(
                "recursive read-only mount needs private propagation".to_owned(),
            ));
        }
    }
    Ok(bind(source, asked.readonly, asked.recursive_read_only, propagation))
}

/// An absolute destination without `.` and doubled slashes.
fn clean(path: &str) -> Result<String> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
        return Err(Error::Invalid(format!(
            "container path {path:?} of a mount must name a place below /, without .."
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned_or_refused() {
        assert_eq!(clean("/a//b/./c/").unwrap(), "/a/b/c");
        assert_eq!(clean("data").unwrap(), "/data");
        for bad in ["", "/", "/a/../b", "..", "/a\0b"] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
