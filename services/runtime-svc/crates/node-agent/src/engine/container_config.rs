//! A container of a pod as the runtime's configuration.

use flotilla_proto::cri::runtime::v1 as cri;

use super::expand::expand;
use super::kube::{Container, Pod, PodSecurityContext, SecurityContext};
use super::sandbox_config::{groups, namespaces, profile, selinux};
use super::{names, resources};

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
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
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the node prepared for a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerFacts {
    /// Image id or digest the runtime resolved.
    pub image_ref: String,
    /// User the image names: number, or name.
    pub image_user: ImageUser,
    /// Variables in order.
    pub env: Vec<(String, String)>,
    /// Mounts of volumes, hosts file and termination log.
    pub mounts: Vec<cri::Mount>,
    /// Restarts before this run.
    pub attempt: u32,
    /// The node's memory in bytes.
    pub memory_capacity: i64,
    /// Folder of localhost seccomp profiles.
    pub seccomp_folder: String,
    /// Run whose process namespace an ephemeral container joins.
    pub target: Option<String>,
}

/// The user an image runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ImageUser {
    /// Not said: root.
    #[default]
    Unset,
    /// A number.
    Uid(i64),
    /// A name, which only the runtime can look up.
    Name(String),
}

/// Makes the configuration.
///
/// # Errors
/// When the container may not run as it asks; the text is its waiting message.
pub fn container_config(
    pod: &Pod,
    container: &Container,
    facts: ContainerFacts,
) -> Result<cri::ContainerConfig, String> {
    check_user(pod, container, &facts)?;
    let lookup = |name: &str| {
        facts.env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let expand_all = |words: &[String]| words.iter().map(|word| expand(word, lookup)).collect();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: facts.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: facts.image_ref.clone(),
            user_specified_image: container.image.clone(),
            ..cri::ImageSpec::default()
        }),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone(),
        envs: facts
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        labels: names::container_labels(pod, &container.name).into_iter().collect(),
        annotations: annotations(pod, container, facts.attempt),
        log_path: names::log_file(&container.name, facts.attempt),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::container_resources(pod, container, facts.memory_capacity)),
            security_context: Some(security(pod, container, &facts)),
        }),
        stop_signal: stop_signal(container)?,
        mounts: facts.mounts,
        ..cri::ContainerConfig::default()
    })
}

fn annotations(
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> std::collections::HashMap<String, String> {
    let path = if container.termination_message_path.is_empty() {
        "/dev/termination-log"
    } else {
        &container.termination_message_path
    };
    let policy = if container.termination_message_policy.is_empty() {
        "File"
    } else {
        &container.termination_message_policy
    };
    [
        (names::CONTAINER_HASH, names::container_hash(container)),
        (names::RESTART_COUNT, attempt.to_string()),
        (names::TERMINATION_PATH, path.to_owned()),
        (names::TERMINATION_POLICY, policy.to_owned()),
        (names::GRACE_PERIOD, pod.spec.termination_grace_period_seconds.unwrap_or(30).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn stop_signal(container: &Container) -> Result<i32, String> {
    let Some(name) = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()) else {
        return Ok(0);
    };
    let proto = name.replace("RTMIN+", "RTMINPLUS").replace("RTMAX-", "RTMAXMINUS");
    cri::Signal::from_str_name(&proto)
        .map(i32::from)
        .ok_or_else(|| format!("unknown stop signal {name}"))
}

fn contexts<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> (Option<&'a PodSecurityContext>, Option<&'a SecurityContext>) {
    (pod.spec.security_context.as_ref(), container.security_context.as_ref())
}

fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let (pod, own) = contexts(pod, container);
    own.and_then(|c| c.run_as_user).or(pod.and_then(|c| c.run_as_user))
}

fn check_user(pod: &Pod, container: &Container, facts: &ContainerFacts) -> Result<(), String> {
    let (pod_context, own) = contexts(pod, container);
    let wanted =
        own.and_then(|c| c.run_as_non_root).or(pod_context.and_then(|c| c.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let id = || {
        format!(
            "pod: \"{}_{}({})\", container: {}",
            pod.metadata.name,
            pod.metadata.namespace,
            pod.uid(),
            container.name
        )
    };
    match (run_as_user(pod, container), &facts.image_user) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy ({})", id())),
        (Some(_), _) => Ok(()),
        (None, ImageUser::Uid(0) | ImageUser::Unset) => {
            Err(format!("container has runAsNonRoot and image will run as root ({})", id()))
        }
        (None, ImageUser::Uid(_)) => Ok(()),
        (None, ImageUser::Name(name)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root ({})",
            id()
        )),
    }
}

fn security(
    pod: &Pod,
    container: &Container,
    facts: &ContainerFacts,
) -> cri::LinuxContainerSecurityContext {
    let (pod_context, own) = contexts(pod, container);
    let (no_pod, no_own) = (PodSecurityContext::default(), SecurityContext::default());
    let (pod_context, own) = (pod_context.unwrap_or(&no_pod), own.unwrap_or(&no_own));
    let privileged = own.privileged == Some(true);
    let user = run_as_user(pod, container);
    let mut namespaces = namespaces(pod);
    if let Some(target) = &facts.target {
        namespaces.pid = cri::NamespaceMode::Target.into();
        namespaces.target_id.clone_from(target);
    }
    // A group without a user needs the image's user beside it.
    let image_user = match &facts.image_user {
        ImageUser::Uid(uid) => Some(*uid),
        _ => None,
    };
    let username = match (&facts.image_user, user) {
        (ImageUser::Name(name), None) => name.clone(),
        _ => String::new(),
    };
    let group = own.run_as_group.or(pod_context.run_as_group);
    let user = user.or(image_user).or_else(|| group.filter(|_| username.is_empty()).map(|_| 0));
    let seccomp = own.seccomp_profile.as_ref().or(pod_context.seccomp_profile.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(pod_context.app_armor_profile.as_ref());
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |all: &[&str]| {
        if unmasked { Vec::new() } else { all.iter().map(|p| (*p).to_owned()).collect() }
    };
    let unconfined = cri::security_profile::ProfileType::Unconfined;
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: own
            .se_linux_options
            .as_ref()
            .or(pod_context.se_linux_options.as_ref())
            .map(selinux),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: group.map(|value| cri::Int64Value { value }),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod_context),
        supplemental_groups_policy: match pod_context.supplemental_groups_policy.as_deref() {
            Some("Strict") => cri::SupplementalGroupsPolicy::Strict.into(),
            _ => cri::SupplementalGroupsPolicy::Merge.into(),
        },
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(match seccomp {
            Some(wanted) if !privileged => profile(wanted, &facts.seccomp_folder),
            _ => cri::SecurityProfile {
                profile_type: unconfined.into(),
                localhost_ref: String::new(),
            },
        }),
        apparmor: apparmor.filter(|_| !privileged).map(|wanted| profile(wanted, "")),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(
        pod: Value,
        container: Value,
        facts: ContainerFacts,
    ) -> Result<cri::ContainerConfig, String> {
        let mut spec =
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": pod});
        spec["spec"]["containers"] = json!([container]);
        let pod: Pod = serde_json::from_value(spec).unwrap();
        container_config(&pod, &pod.spec.containers[0], facts)
    }

    #[test]
    fn words_are_expanded_and_identity_is_attached() {
        let facts = ContainerFacts {
            env: vec![("A".into(), "1".into())],
            attempt: 3,
            image_ref: "sha256:x".into(),
            ..ContainerFacts::default()
        };
        let got = build(json!({}), json!({"name": "c", "image": "i", "command": ["run", "$(A)"], "args": ["$$(A)", "$(B)"]}), facts).unwrap();
        assert_eq!(got.command, ["run", "1"]);
        assert_eq!(got.args, ["$(A)", "$(B)"]);
        assert_eq!(got.log_path, "c/3.log");
        assert_eq!(got.annotations["io.kubernetes.container.restartCount"], "3");
        assert_eq!(got.labels["io.kubernetes.container.name"], "c");
        assert_eq!(got.image.unwrap().user_specified_image, "i");
    }

    #[test]
    fn container_context_wins_over_the_pods() {
        let pod = json!({"securityContext": {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "seccompProfile": {"type": "RuntimeDefault"}}});
        let container = json!({"name": "c", "securityContext": {"runAsUser": 9, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}});
        let got = build(pod, container, ContainerFacts::default())
            .unwrap()
            .linux
            .unwrap()
            .security_context
            .unwrap();
        assert_eq!((got.run_as_user.unwrap().value, got.run_as_group.unwrap().value), (9, 6));
        assert_eq!(
            (got.no_new_privs, got.readonly_rootfs, got.supplemental_groups.as_slice()),
            (true, true, &[7_i64][..])
        );
        assert_eq!(got.seccomp.unwrap().profile_type, 0);
        assert_eq!(got.capabilities.unwrap().drop_capabilities, ["ALL"]);
        let got = build(
            json!({}),
            json!({"name": "c", "securityContext": {"privileged": true}}),
            ContainerFacts::default(),
        )
        .unwrap();
        let got = got.linux.unwrap().security_context.unwrap();
        assert!(got.privileged && got.masked_paths.is_empty());
    }

    #[test]
    fn non_root_is_enforced() {
        let context = json!({"securityContext": {"runAsNonRoot": true}});
        let try_user = |user: ImageUser| {
            build(
                context.clone(),
                json!({"name": "c"}),
                ContainerFacts { image_user: user, ..ContainerFacts::default() },
            )
        };
        assert!(try_user(ImageUser::Unset).unwrap_err().contains("image will run as root"));
        assert!(
            try_user(ImageUser::Name("web".into())).unwrap_err().contains("non-numeric user (web)")
        );
        assert!(try_user(ImageUser::Uid(1000)).is_ok());
    }

    #[test]
    fn stop_signal_is_translated() {
        let get = |name: &str| {
            build(
                json!({}),
                json!({"name": "c", "lifecycle": {"stopSignal": name}}),
                ContainerFacts::default(),
            )
            .map(|c| c.stop_signal)
        };
        assert_eq!(get("SIGUSR1"), Ok(29));
        assert_eq!(get("SIGRTMIN+3"), Ok(38));
        assert!(get("SIGX").is_err());
    }
}
