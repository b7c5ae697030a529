//! What the machine must offer; each missing thing is named with its fix.

use std::fs;
use std::path::Path;

use flotilla_config::ExitError;

/// Checks privileges and kernel features before anything is made.
///
/// # Errors
/// Names the first thing that is missing.
pub fn check(root: &Path, state: &Path) -> Result<(), ExitError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ExitError::unavailable(
            "running containers needs root: run as root or with `sudo`",
        ));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap_or(u64::MAX);
    for (number, name) in
        [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN"), (27, "CAP_MKNOD"), (18, "CAP_SYS_CHROOT")]
    {
        if effective & (1 << number) == 0 {
            let text = format!(
                "the capability {name} is missing: run as root, in a container with --privileged"
            );
            return Err(ExitError::unavailable(text));
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\toverlay")) {
        return Err(ExitError::unavailable(
            "the kernel has no overlay file system: run `modprobe overlay`",
        ));
    }
    rt_shim::cgroup::Cgroups::detect().map_err(|error| {
        ExitError::unavailable(format!("{error}: mount cgroup2 there or run with --cgroupns=host"))
    })?;
    for (flag, dir) in [("--root", root), ("--state", state)] {
        fs::create_dir_all(dir).map_err(|error| {
            ExitError::unavailable(format!("{flag} {}: {error}", dir.display()))
        })?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(dir, mode).map_err(|error| {
            ExitError::unavailable(format!("{flag} {}: {error}", dir.display()))
        })?;
    }
    Ok(())
}
