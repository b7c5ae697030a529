//! A pod as the configuration of its sandbox.

use flotilla_proto::cri::runtime::v1 as cri;

use super::kube::{Pod, PodSecurityContext, Profile, SeLinuxOptions};
use super::names;
use super::resources::{self, CgroupDriver};

/// What the node adds to a sandbox.
#[derive(Debug, Clone, Default)]
pub struct SandboxFacts {
    /// Cgroup below which `kubepods` lies.
    pub cgroup_root: String,
    /// How the runtime names cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Folder of all pods' logs.
    pub log_root: String,
    /// Resolvers of `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub host_dns: cri::DnsConfig,
}

/// The configuration of the `attempt`-th sandbox of a pod.
pub fn sandbox_config(pod: &Pod, attempt: u32, facts: &SandboxFacts) -> cri::PodSandboxConfig {
    let meta = &pod.metadata;
    let mut annotations = meta.annotations.clone();
    annotations.entry("kubernetes.io/config.source".to_owned()).or_insert_with(|| "api".to_owned());
    let folder = names::log_folder(&meta.namespace, &meta.name, &meta.uid);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            attempt,
        }),
        hostname: if pod.spec.host_network { String::new() } else { fqdn(pod, facts) },
        log_directory: format!("{}/{folder}", facts.log_root.trim_end_matches('/')),
        dns_config: Some(dns(pod, facts)),
        port_mappings: port_mappings(pod),
        labels: names::pod_labels(pod).into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        linux: Some(linux(pod, facts)),
        windows: None,
    }
}

fn fqdn(pod: &Pod, facts: &SandboxFacts) -> String {
    let name = pod.hostname();
    if pod.spec.set_hostname_as_fqdn == Some(true) && !pod.spec.subdomain.is_empty() {
        return format!(
            "{name}.{}.{}.svc.{}",
            pod.spec.subdomain, pod.metadata.namespace, facts.cluster_domain
        );
    }
    name
}

/// The pod's full name in the cluster's DNS, when it has one.
pub fn full_hostname(pod: &Pod, domain: &str) -> Option<String> {
    let (subdomain, namespace) = (&pod.spec.subdomain, &pod.metadata.namespace);
    (!subdomain.is_empty())
        .then(|| format!("{}.{subdomain}.{namespace}.svc.{domain}", pod.hostname()))
}

fn dns(pod: &Pod, facts: &SandboxFacts) -> cri::DnsConfig {
    let host = &facts.host_dns;
    let policy = match pod.spec.dns_policy.as_str() {
        "" | "ClusterFirst" if pod.spec.host_network => "Default",
        "" => "ClusterFirst",
        policy => policy,
    };
    let mut dns = match policy {
        "None" => cri::DnsConfig::default(),
        "Default" => host.clone(),
        // Without a cluster resolver the node's own is all there is.
        _ if facts.cluster_dns.is_empty() => host.clone(),
        _ => {
            let domain = &facts.cluster_domain;
            let mut searches = vec![
                format!("{}.svc.{domain}", pod.metadata.namespace),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            searches.extend(host.searches.iter().cloned());
            cri::DnsConfig {
                servers: facts.cluster_dns.clone(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    if let Some(own) = &pod.spec.dns_config {
        dns.servers.extend(own.nameservers.iter().cloned());
        dns.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let text = option
                .value
                .as_ref()
                .map_or_else(|| option.name.clone(), |value| format!("{}:{value}", option.name));
            dns.options.retain(|old| old.split(':').next() != Some(option.name.as_str()));
            dns.options.push(text);
        }
    }
    let mut seen = std::collections::HashSet::new();
    dns.servers.retain(|server| seen.insert(server.clone()));
    dns.searches.retain(|search| seen.insert(search.clone()));
    dns
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if pod.spec.host_network {
        return Vec::new();
    }
    let ports = pod
        .spec
        .init_containers
        .iter()
        .filter(|c| c.is_sidecar())
        .chain(&pod.spec.containers)
        .flat_map(|c| &c.ports);
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => cri::Protocol::Udp,
                "SCTP" => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
        })
        .collect()
}

/// Which namespaces the pod shares.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let mode = |host: bool| if host { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let pid = match (pod.spec.host_pid, pod.spec.share_process_namespace) {
        (true, _) => cri::NamespaceMode::Node,
        (false, Some(true)) => cri::NamespaceMode::Pod,
        (false, _) => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: mode(pod.spec.host_network).into(),
        pid: pid.into(),
        ipc: mode(pod.spec.host_ipc).into(),
        target_id: String::new(),
        userns_options: None,
    }
}

fn linux(pod: &Pod, facts: &SandboxFacts) -> cri::LinuxPodSandboxConfig {
    let none = PodSecurityContext::default();
    let context = pod.spec.security_context.as_ref().unwrap_or(&none);
    let privileged = pod
        .all_containers()
        .any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    cri::LinuxPodSandboxConfig {
        cgroup_parent: resources::cgroup_parent(&facts.cgroup_root, pod, facts.cgroup_driver),
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            selinux_options: context.se_linux_options.as_ref().map(selinux),
            run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
            run_as_group: context
                .run_as_user
                .and(context.run_as_group)
                .map(|value| cri::Int64Value { value }),
            supplemental_groups: groups(context),
            privileged,
            seccomp: Some(cri::SecurityProfile {
                profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
                localhost_ref: String::new(),
            }),
            ..cri::LinuxSandboxSecurityContext::default()
        }),
        sysctls: context.sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
        overhead: None,
        resources: Some(resources::pod_resources(pod)),
    }
}

/// Supplemental groups of every process of the pod, the volumes' group included.
pub fn groups(context: &PodSecurityContext) -> Vec<i64> {
    context.supplemental_groups.iter().copied().chain(context.fs_group).collect()
}

/// SELinux options as CRI has them.
pub fn selinux(options: &SeLinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

/// A seccomp or AppArmor profile as CRI has it; `folder` holds localhost profiles.
pub fn profile(profile: &Profile, folder: &str) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, reference) = match profile.kind.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => {
            let name = profile.localhost_profile.clone().unwrap_or_default();
            (
                ProfileType::Localhost,
                if folder.is_empty() { name } else { format!("{folder}/{name}") },
            )
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sandbox_carries_identity_dns_and_ports() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
            "spec": {
                "dnsConfig": {"options": [{"name": "ndots", "value": "2"}], "searches": ["x.y"]},
                "securityContext": {"fsGroup": 7, "supplementalGroups": [5]},
                "containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]
            }
        }))
        .unwrap();
        let facts = SandboxFacts {
            log_root: "/var/log/pods".into(),
            cluster_dns: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            ..SandboxFacts::default()
        };
        let got = sandbox_config(&pod, 2, &facts);
        assert_eq!(got.log_directory, "/var/log/pods/ns_p_u");
        assert_eq!(got.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(got.labels["app"], "x");
        let dns = got.dns_config.unwrap();
        assert_eq!(
            dns.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "x.y"]
        );
        assert_eq!(
            (dns.servers, dns.options),
            (vec!["10.96.0.10".to_owned()], vec!["ndots:2".to_owned()])
        );
        assert_eq!((got.port_mappings.len(), got.port_mappings[0].host_port), (1, 8080));
        let linux = got.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
        let context = linux.security_context.unwrap();
        assert_eq!(context.supplemental_groups, [5, 7]);
        assert_eq!(
            context.namespace_options.unwrap().pid,
            i32::from(cri::NamespaceMode::Container)
        );
    }
}
