//! Starting and removing sandboxes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::spec::SandboxSpec;

use super::error::{Error, Result};
use super::events::Change;
use super::identity::new_id;
use super::node::{Node, Sandbox};
use super::ports::{Machine, PodFiles, PodNetwork, PortMapping};
use super::records::{SandboxPhase, SandboxRecord};
use super::{hosts_files, stop};

/// Size of a pod's /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

impl Node {
    /// Starts a sandbox and returns its id. A failed step undoes the ones before it.
    ///
    /// # Errors
    /// When the request is malformed, its name is taken or a step fails.
    pub async fn run_sandbox(
        self: &Arc<Self>,
        config: cri::PodSandboxConfig,
        handler: &str,
        engine_owned: bool,
    ) -> Result<String> {
        validate(&config, handler)?;
        let mut record = SandboxRecord {
            id: new_id(),
            config,
            runtime_handler: handler.to_owned(),
            created_at: self.machine.now(),
            engine_owned,
            ..SandboxRecord::default()
        };
        let name = record.reserved_name();
        self.reserve_name(&name, &record.id, "sandbox")?;
        if !record.host_network() {
            let Some(ip) = self.index.lock().addresses.allocate() else {
                self.release_name(&name);
                let range = self.settings.pod_cidr;
                return Err(Error::Failed(format!(
                    "no free address in {range}: remove pods or use a larger --pod-cidr"
                )));
            };
            record.ip = ip.to_string();
        }
        record.cgroup_parent = self.cgroup_parent(&record);
        let sandbox = Sandbox::new(record);
        let saved = self.records.save_sandbox(&sandbox.record());
        self.index.lock().sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        let _operation = sandbox.operation.lock().await;
        let started = match saved {
            Ok(()) => self.start_sandbox(&sandbox).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            if let Err(left) = self.erase_sandbox(&sandbox).await {
                tracing::warn!(sandbox = sandbox.id, error = %left, "a failed sandbox is removed at the next start");
            }
            return Err(error);
        }
        self.tell(&sandbox.id, &sandbox.id, Change::Created);
        self.tell(&sandbox.id, &sandbox.id, Change::Started);
        Ok(sandbox.id.clone())
    }

    fn cgroup_parent(&self, record: &SandboxRecord) -> String {
        let asked = record
            .config
            .linux
            .as_ref()
            .map(|linux| linux.cgroup_parent.trim_matches('/'))
            .unwrap_or_default();
        if asked.is_empty() {
            format!("/{}/pod-{}", self.settings.cgroup_parent.trim_matches('/'), &record.id[..16])
        } else {
            format!("/{asked}")
        }
    }

    async fn start_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let record = sandbox.record();
        let hostname = hostname(&record, self.machine.as_ref());
        let files = PodFiles {
            resolv_conf: hosts_files::resolv_conf(record.config.dns_config.as_ref())?,
            hosts: (!record.host_network()).then(|| hosts_files::hosts(&record.ip, &hostname)),
            hostname: format!("{hostname}\n"),
        };
        let missing = self.machine.missing_cgroups(&record.cgroup_parent);
        self.update_sandbox(sandbox, |record| record.made_cgroups = missing)?;
        self.machine.make_cgroup(&record.cgroup_parent)?;
        self.machine.make_pod(&sandbox.id, &files)?;
        let pid = self.shims.spawn(&self.shim_spec(&record, hostname)).await?;
        self.update_sandbox(sandbox, |record| record.shim_pid = pid)?;
        if let Some(network) = pod_network(&sandbox.record())? {
            self.network.attach(&network).await?;
        }
        let reports = self.shims.watch(&self.machine.socket(&sandbox.id)).await?;
        self.update_sandbox(sandbox, |record| record.set_phase(SandboxPhase::Ready))?;
        self.follow(sandbox.clone(), reports);
        Ok(())
    }

    fn shim_spec(&self, record: &SandboxRecord, hostname: String) -> SandboxSpec {
        let namespaces = record.namespaces();
        let own_net = !record.host_network();
        SandboxSpec {
            id: record.id.clone(),
            dir: self.machine.pod_state(&record.id),
            socket: self.machine.socket(&record.id),
            hostname,
            own_net,
            own_ipc: namespaces.ipc() != cri::NamespaceMode::Node,
            own_uts: own_net,
            shared_pid: namespaces.pid() == cri::NamespaceMode::Pod,
            sysctls: record.config.linux.iter().flat_map(|linux| linux.sysctls.clone()).collect(),
            shm_size: SHM_SIZE,
            cgroup: shim_cgroup(record),
        }
    }

    /// Removes a sandbox with its containers, stopping what runs. An unknown id is fine.
    ///
    /// # Errors
    /// When something cannot be removed; the call can be repeated.
    pub async fn remove_sandbox(self: &Arc<Self>, part: &str) -> Result<()> {
        let sandbox = match self.sandbox(part) {
            Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        let _operation = sandbox.operation.lock().await;
        if sandbox.phase() == SandboxPhase::Ready {
            stop::stop_locked(self, &sandbox).await?;
        }
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.update_sandbox(&sandbox, |record| record.set_phase(SandboxPhase::Removing))?;
        self.erase_sandbox(&sandbox).await?;
        self.tell(&sandbox.id, &sandbox.id, Change::Deleted);
        Ok(())
    }

    /// Takes away everything a sandbox may hold, whatever step it reached. Can be repeated.
    pub(super) async fn erase_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let record = sandbox.record();
        stop::end_shim(self, &record).await;
        self.network.detach(&sandbox.id).await?;
        self.machine.destroy_cgroup(&shim_cgroup(&record))?;
        for cgroup in record.made_cgroups.iter().rev() {
            self.machine.drop_cgroup(cgroup);
        }
        self.machine.remove_pod(&sandbox.id)?;
        self.records.delete_sandbox(&sandbox.id)?;
        self.release_address(&record.ip);
        self.release_name(&record.reserved_name());
        self.index.lock().sandboxes.remove(&sandbox.id);
        Ok(())
    }
}

/// The cgroup of a sandbox's shim.
pub(super) fn shim_cgroup(record: &SandboxRecord) -> String {
    format!("{}/shim-{}", record.cgroup_parent.trim_end_matches('/'), &record.id[..16])
}

/// The pod's host name: as asked for, else the host's.
pub(super) fn hostname(record: &SandboxRecord, machine: &dyn Machine) -> String {
    let asked = &record.config.hostname;
    if asked.is_empty() { machine.hostname() } else { asked.clone() }
}

/// Where the pod is in the network; `None` in the host's.
pub(super) fn pod_network(record: &SandboxRecord) -> Result<Option<PodNetwork>> {
    let Ok(ip) = record.ip.parse::<Ipv4Addr>() else { return Ok(None) };
    let ports: Vec<PortMapping> = record
        .config
        .port_mappings
        .iter()
        .filter_map(|p| port(p).transpose())
        .collect::<Result<_>>()?;
    Ok(Some(PodNetwork { id: record.id.clone(), ip, pid: record.shim_pid, ports }))
}

/// A host port; `None` when the mapping names none.
fn port(mapping: &cri::PortMapping) -> Result<Option<PortMapping>> {
    if mapping.host_port == 0 {
        return Ok(None);
    }
    let number = |port: i32| {
        u16::try_from(port)
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| Error::Invalid(format!("port {port} is out of range (1 to 65535)")))
    };
    let protocol = match mapping.protocol() {
        cri::Protocol::Tcp => "tcp",
        cri::Protocol::Udp => "udp",
        cri::Protocol::Sctp => "sctp",
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => match text.parse() {
            Ok(ip) => Some(ip),
            Err(_) => {
                return Err(Error::Unsupported(format!(
                    "host port on address {text:?} (IPv4 only)"
                )));
            }
        },
    };
    let (host_port, container_port) = (number(mapping.host_port)?, number(mapping.container_port)?);
    Ok(Some(PortMapping { protocol, host_ip, host_port, container_port }))
}

fn validate(config: &cri::PodSandboxConfig, handler: &str) -> Result<()> {
    let Some(meta) = &config.metadata else {
        return Err(Error::Invalid("sandbox config must include metadata".to_owned()));
    };
    if meta.name.is_empty() {
        return Err(Error::Invalid("sandbox metadata must include a name".to_owned()));
    }
    if !matches!(handler, "" | "default") {
        return Err(Error::Failed(format!(
            "failed to get sandbox runtime: no runtime for {handler:?} is configured"
        )));
    }
    if config.windows.is_some() {
        return Err(Error::Unsupported("windows sandboxes".to_owned()));
    }
    if config.hostname.len() > 64 {
        return Err(Error::Invalid(format!(
            "host name {:?} is longer than 64 characters",
            config.hostname
        )));
    }
    let Some(linux) = &config.linux else { return Ok(()) };
    if linux.cgroup_parent.split('/').any(|part| part == "..")
        || linux.cgroup_parent.ends_with(".slice")
    {
        return Err(Error::Invalid(format!(
            "cgroup parent {:?} is not a path of the cgroupfs driver",
            linux.cgroup_parent
        )));
    }
    let context = linux.security_context.clone().unwrap_or_default();
    let namespaces = context.namespace_options.unwrap_or_default();
    if namespaces.userns_options.is_some_and(|options| options.mode() == cri::NamespaceMode::Pod) {
        return Err(Error::Unsupported("user namespaces".to_owned()));
    }
    config.port_mappings.iter().try_for_each(|mapping| port(mapping).map(drop))
}
