//! From what kubelet asks and what the image says to what the shim launches.

use std::path::PathBuf;

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::spec::{
    ContainerSpec, DeviceRule, DeviceSpec, PidMode, ProcessSpec, Resources, RootMount, UserSpec,
};

use super::capabilities;
use super::error::{Error, Result};
use super::image_config::{ImageConfig, command_line, merge_env, signal_number};
use super::mount_plan::{MountInputs, plan};
use super::ports::Machine;
use super::records::{ContainerRecord, SandboxRecord};
use super::seccomp;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a specification is built from.
pub(super) struct Inputs<'a> {
    pub(super) sandbox: &'a SandboxRecord,
    pub(super) container: &'a ContainerRecord,
    pub(super) image: &'a ImageConfig,
    pub(super) rootfs: Vec<RootMount>,
    pub(super) rootfs_dir: PathBuf,
    /// Image volumes by index of the mount.
    pub(super) image_mounts: Vec<(usize, Vec<RootMount>)>,
    /// Host PID of the target of a TARGET namespace.
    pub(super) target: Option<i32>,
    pub(super) machine: &'a dyn Machine,
}

/// Builds the specification and finds the stop signal.
pub(super) fn build(inputs: Inputs<'_>) -> Result<(ContainerSpec, i32)> {
    let config = &inputs.container.config;
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.clone().unwrap_or_default();
    let sandbox_context =
        inputs.sandbox.config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    if context.privileged && !sandbox_context.unwrap_or_default().privileged {
        return Err(Error::Invalid("no privileged container allowed in sandbox".to_owned()));
    }
    let (devices, rules) = devices(config, context.privileged, inputs.machine)?;
    let mut limits = resources(linux.resources.as_ref());
    limits.devices = rules;
    let process = process(&inputs, &context, linux.resources.as_ref())?;
    let paths = |asked: &[String], default: &[&str]| -> Vec<String> {
        if context.privileged {
            Vec::new()
        } else if asked.is_empty() {
            default.iter().map(|path| (*path).to_owned()).collect()
        } else {
            asked.to_vec()
        }
    };
    let mounts = plan(MountInputs {
        sandbox_id: &inputs.sandbox.id,
        config,
        privileged: context.privileged,
        image_mounts: inputs.image_mounts,
        machine: inputs.machine,
    })?;
    let stop_signal = stop_signal(config, inputs.image)?;
    let spec = ContainerSpec {
        id: inputs.container.id.clone(),
        rootfs: inputs.rootfs,
        rootfs_dir: inputs.rootfs_dir,
        readonly_rootfs: context.readonly_rootfs,
        mounts,
        masked_paths: paths(&context.masked_paths, MASKED),
        readonly_paths: paths(&context.readonly_paths, READONLY),
        devices,
        all_devices: context.privileged,
        pid: pid_mode(
            inputs.sandbox,
            context.namespace_options.unwrap_or_default(),
            inputs.target,
        )?,
        own_cgroup_ns: inputs.machine.cgroup_v2() && !context.privileged,
        cgroup: inputs.container.cgroup.clone(),
        resources: limits,
        process,
        log: (!inputs.container.log_path.is_empty())
            .then(|| inputs.container.log_path.clone().into()),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
    };
    Ok((spec, stop_signal))
}

fn pid_mode(
    sandbox: &SandboxRecord,
    namespaces: cri::NamespaceOption,
    target: Option<i32>,
) -> Result<PidMode> {
    Ok(match (namespaces.pid(), target) {
        (cri::NamespaceMode::Target, Some(pid)) => PidMode::Target(pid),
        (cri::NamespaceMode::Target, None) => {
            return Err(Error::Invalid("target_id of the PID namespace is missing".to_owned()));
        }
        (cri::NamespaceMode::Pod, _) if sandbox.namespaces().pid() == cri::NamespaceMode::Pod => {
            PidMode::Pod
        }
        (cri::NamespaceMode::Pod, _) => PidMode::Own,
        (cri::NamespaceMode::Container, _) => PidMode::Own,
        (cri::NamespaceMode::Node, _) => PidMode::Host,
    })
}

fn process(
    inputs: &Inputs<'_>,
    context: &cri::LinuxContainerSecurityContext,
    limits: Option<&cri::LinuxContainerResources>,
) -> Result<ProcessSpec> {
    let (config, image) = (&inputs.container.config, inputs.image);
    let caps = context.capabilities.clone().unwrap_or_default();
    let capabilities = if context.privileged {
        capabilities::all()
    } else {
        capabilities::adjusted(&caps.add_capabilities, &caps.drop_capabilities)?
    };
    let seccomp = seccomp::filter(context, &capabilities, inputs.machine)?;
    let hostname = super::sandbox::hostname(inputs.sandbox, inputs.machine);
    let mut base = vec![PATH.to_owned()];
    if config.tty {
        base.push("TERM=xterm".to_owned());
    }
    base.push(format!("HOSTNAME={hostname}"));
    let image_env = image.env.clone().unwrap_or_default();
    let env = merge_env(base, image_env.iter().filter_map(|line| line.split_once('=')));
    let env =
        merge_env(env, config.envs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())));
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    let cwd = cwd.cloned().unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!("working directory {cwd:?} must be absolute")));
    }
    // A limit section without the field means 0 on the wire as well; kubelet always sets it.
    let oom_score_adj = limits.map(|limits| limits.oom_score_adj).filter(|score| *score != 0);
    Ok(ProcessSpec {
        args: command_line(&config.command, &config.args, image)?,
        env,
        cwd,
        user: user(context, image)?,
        capabilities,
        ambient: capabilities::numbers(&caps.add_ambient_capabilities)?,
        no_new_privs: context.no_new_privs,
        tty: config.tty,
        oom_score_adj: Some(oom_score_adj.and_then(|score| i32::try_from(score).ok()).unwrap_or(0)),
        seccomp,
    })
}

fn user(context: &cri::LinuxContainerSecurityContext, image: &ImageConfig) -> Result<UserSpec> {
    let id = |value: i64| {
        u32::try_from(value)
            .ok()
            .filter(|id| *id <= i32::MAX.cast_unsigned())
            .ok_or_else(|| Error::Invalid(format!("id {value} is out of range (0 to 2147483647)")))
    };
    let gid = context.run_as_group.map(|group| id(group.value)).transpose()?;
    let user = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(user), _) => id(user.value)?.to_string(),
        (None, "") => image.user.clone(),
        (None, name) => name.to_owned(),
    };
    if gid.is_some() && user.is_empty() {
        return Err(Error::Invalid("user group is specified without user".to_owned()));
    }
    Ok(UserSpec {
        user,
        gid,
        supplemental: context
            .supplemental_groups
            .iter()
            .map(|group| id(*group))
            .collect::<Result<_>>()?,
        strict_groups: context.supplemental_groups_policy()
            == cri::SupplementalGroupsPolicy::Strict,
    })
}

/// Limits as the shim takes them. Zero means "not set" on the wire.
pub(super) fn resources(asked: Option<&cri::LinuxContainerResources>) -> Resources {
    let Some(asked) = asked else { return Resources::default() };
    let set = |value: i64| (value != 0).then_some(value);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    Resources {
        memory_limit: set(asked.memory_limit_in_bytes),
        memory_swap_limit: set(asked.memory_swap_limit_in_bytes)
            .or(set(asked.memory_limit_in_bytes)),
        cpu_shares: u64::try_from(asked.cpu_shares).ok().filter(|shares| *shares != 0),
        cpu_quota: set(asked.cpu_quota),
        cpu_period: u64::try_from(asked.cpu_period).ok().filter(|period| *period != 0),
        cpuset_cpus: text(&asked.cpuset_cpus),
        cpuset_mems: text(&asked.cpuset_mems),
        pids_limit: asked.unified.get("pids.max").and_then(|limit| limit.parse().ok()),
        hugepages: asked
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: asked.unified.clone().into_iter().collect(),
        devices: None,
    }
}

/// Takes changed limits over into a container's record, field by field.
pub(super) fn merge_resources(record: &mut ContainerRecord, wanted: &cri::LinuxContainerResources) {
    let linux = record.config.linux.get_or_insert_default();
    let kept = linux.resources.get_or_insert_default();
    for (kept, wanted) in [
        (&mut kept.cpu_period, wanted.cpu_period),
        (&mut kept.cpu_quota, wanted.cpu_quota),
        (&mut kept.cpu_shares, wanted.cpu_shares),
        (&mut kept.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut kept.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
        (&mut kept.oom_score_adj, wanted.oom_score_adj),
    ] {
        if wanted != 0 {
            *kept = wanted;
        }
    }
    for (kept, wanted) in
        [(&mut kept.cpuset_cpus, &wanted.cpuset_cpus), (&mut kept.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !wanted.is_empty() {
            kept.clone_from(wanted);
        }
    }
    kept.unified.extend(wanted.unified.clone());
    if let Ok(mut spec) = serde_json::from_slice::<ContainerSpec>(&record.spec) {
        let devices = spec.resources.devices.take();
        spec.resources = Resources { devices, ..resources(linux.resources.as_ref()) };
        if let Ok(text) = serde_json::to_vec(&spec) {
            record.spec = text;
        }
    }
}

fn devices(
    config: &cri::ContainerConfig,
    privileged: bool,
    machine: &dyn Machine,
) -> Result<(Vec<DeviceSpec>, Option<Vec<DeviceRule>>)> {
    let rule = |kind, major, minor, access: &str| DeviceRule {
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule('c', Some(major), Some(minor), "rwm"));
    }
    rules.push(rule('c', Some(136), None, "rwm"));
    let mut devices = Vec::new();
    for asked in &config.devices {
        let (host, inside) =
            (PathBuf::from(&asked.host_path), asked.container_path.trim_end_matches('/'));
        let found = machine.devices_below(&host);
        if found.is_empty() {
            return Err(Error::Invalid(format!(
                "{:?} is no device and holds none",
                asked.host_path
            )));
        }
        for path in found {
            let rest = path.strip_prefix(&host).ok().filter(|rest| !rest.as_os_str().is_empty());
            let container_path =
                rest.map_or(inside.to_owned(), |rest| format!("{inside}/{}", rest.display()));
            let (kind, major, minor) = machine
                .device(&path)
                .ok_or_else(|| Error::Invalid(format!("{} is not a device", path.display())))?;
            let access =
                if asked.permissions.is_empty() { "rwm" } else { asked.permissions.as_str() };
            if !access.chars().all(|c| "rwm".contains(c)) {
                return Err(Error::Invalid(format!(
                    "device permissions {access:?} may hold r, w and m only"
                )));
            }
            rules.push(rule(kind, Some(major), Some(minor), access));
            devices.push(DeviceSpec {
                host_path: path,
                container_path,
                permissions: access.to_owned(),
            });
        }
    }
    Ok((devices, (!privileged).then_some(rules)))
}

fn stop_signal(config: &cri::ContainerConfig, image: &ImageConfig) -> Result<i32> {
    let asked = config.stop_signal();
    if asked == cri::Signal::RuntimeDefault {
        return signal_number(&image.stop_signal);
    }
    let name = asked.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
    signal_number(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_signal_of_the_wire_is_known() {
        for number in 1..=65 {
            let mut config = cri::ContainerConfig::default();
            config.set_stop_signal(cri::Signal::try_from(number).unwrap());
            let signal = stop_signal(&config, &ImageConfig::default()).unwrap();
            assert!((1..=64).contains(&signal), "{number}");
        }
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        let mut context = cri::LinuxContainerSecurityContext {
            run_as_user: Some(cri::Int64Value { value: 1 << 31 }),
            ..Default::default()
        };
        assert!(user(&context, &ImageConfig::default()).is_err());
        context.run_as_user = None;
        context.run_as_group = Some(cri::Int64Value { value: 5 });
        assert!(
            user(&context, &ImageConfig::default())
                .unwrap_err()
                .to_string()
                .contains("without user")
        );
    }
}
