//! Creating, starting and removing containers.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::spec::{ContainerSpec, Resources};
use rt_shim::wire::{Answer, ContainerReport, Failure, Request};

use super::error::{Error, Result};
use super::events::Change;
use super::identity::new_id;
use super::node::{Container, Node, Sandbox};
use super::records::{ContainerPhase, ContainerRecord, SandboxPhase};
use super::spec_build;

impl Node {
    /// Creates a container and returns its id. A failed step undoes the ones before it.
    ///
    /// # Errors
    /// When the request is malformed, the sandbox or image is unknown, the name is taken or a step fails.
    pub async fn create_container(
        self: &Arc<Self>,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> Result<String> {
        let sandbox = self.sandbox(sandbox)?;
        if sandbox.phase() != SandboxPhase::Ready {
            return Err(Error::State(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        validate(&config)?;
        let image = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.images.find(&image).await?;
        let id = new_id();
        let cgroup = format!("{}/{id}", sandbox.record().cgroup_parent.trim_end_matches('/'));
        let log_path = log_path(&sandbox, &config)?;
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            config,
            image_id: image.id.clone(),
            image_ref: image.reference.clone(),
            created_at: self.machine.now(),
            snapshots: vec![id.clone()],
            log_path,
            cgroup,
            ..ContainerRecord::default()
        };
        let name = record.reserved_name();
        self.reserve_name(&name, &id, "container")?;
        let container = Container::new(record);
        let saved = self.records.save_container(&container.record());
        self.index.lock().containers.insert(id.clone(), container.clone());
        let _operation = container.operation.lock().await;
        let built = match saved {
            Ok(()) => self.build(&sandbox, &container, &image).await,
            Err(error) => Err(error),
        };
        if let Err(error) = built {
            if let Err(left) = self.erase_container(&container).await {
                tracing::warn!(container = id, error = %left, "a failed container is removed at the next start");
            }
            return Err(error);
        }
        self.tell(&id, &sandbox.id, Change::Created);
        Ok(id)
    }

    async fn build(
        &self,
        sandbox: &Sandbox,
        container: &Container,
        image: &super::image_config::ImageInfo,
    ) -> Result<()> {
        let rootfs = self.images.prepare(&container.id, &image.chain_id).await?;
        let rootfs_dir = self.machine.make_container(&sandbox.id, &container.id)?;
        let (sandbox, record) = (sandbox.record(), container.record());
        let mut views = Vec::new();
        for (index, mount) in record.config.mounts.iter().enumerate() {
            let Some(image) = mount.image.as_ref().filter(|image| !image.image.is_empty()) else {
                continue;
            };
            let found = self.images.find(&image.image).await?;
            let key = format!("{}-image-{index}", container.id);
            self.update_container(container, |record| record.snapshots.push(key.clone()))?;
            views.push((index, self.images.view(&key, &found.chain_id).await?));
        }
        let target = self.target_pid(&record)?;
        let plan = spec_build::Inputs {
            sandbox: &sandbox,
            container: &record,
            image: &image.config,
            rootfs,
            rootfs_dir,
            image_mounts: views,
            target,
            machine: self.machine.as_ref(),
        };
        let (spec, stop_signal) = spec_build::build(plan)?;
        let text = serde_json::to_vec(&spec)
            .map_err(|error| Error::failed("encode the container", error))?;
        self.update_container(container, |record| {
            record.spec = text;
            record.stop_signal = stop_signal;
            record.set_phase(ContainerPhase::Created);
        })
    }

    /// PID of the container whose PID namespace is asked for.
    fn target_pid(&self, record: &ContainerRecord) -> Result<Option<i32>> {
        let context =
            record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let namespaces =
            context.and_then(|context| context.namespace_options.clone()).unwrap_or_default();
        if namespaces.pid() != cri::NamespaceMode::Target {
            return Ok(None);
        }
        let target = self
            .container(&namespaces.target_id)
            .map_err(|e| e.during("invalid target container"))?;
        let target = target.record();
        if target.sandbox_id != record.sandbox_id {
            return Err(Error::Invalid(format!(
                "target container {:?} is in another sandbox",
                target.id
            )));
        }
        if target.phase() != ContainerPhase::Running {
            return Err(Error::State(format!("target container {:?} does not run", target.id)));
        }
        Ok(Some(target.pid))
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// When it is unknown, was started before, or its program cannot be run.
    pub async fn start_container(self: &Arc<Self>, part: &str) -> Result<()> {
        let container = self.container(part)?;
        let _operation = container.operation.lock().await;
        let record = container.record();
        if record.phase() != ContainerPhase::Created {
            return Err(Error::State(format!(
                "container {:?} is in {} state",
                container.id,
                state_name(record.phase())
            )));
        }
        let sandbox = self.sandbox(&record.sandbox_id)?;
        if sandbox.phase() != SandboxPhase::Ready {
            return Err(Error::State(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        let spec: ContainerSpec = serde_json::from_slice(&record.spec)
            .map_err(|error| Error::failed("decode the container", error))?;
        self.update_container(&container, |record| record.set_phase(ContainerPhase::Starting))?;
        let answer = self
            .shims
            .ask(&self.machine.socket(&sandbox.id), &Request::Start(Box::new(spec)))
            .await;
        let failure = match answer {
            Ok(Answer::Started { .. }) => {
                // The shim's report carries time and exit; it may have come first.
                self.await_report(&container).await;
                return Ok(());
            }
            Ok(Answer::Failed(failure)) => start_failure(&failure),
            Ok(_) => Error::Failed("the shim gave an answer that does not fit".to_owned()),
            Err(error) => error,
        };
        let now = self.machine.now();
        self.update_container(&container, |record| {
            record.set_phase(ContainerPhase::Exited);
            record.exit_code = 128;
            record.finished_at = now;
            record.started_at = 0;
            record.reason = "StartError".to_owned();
            record.message = failure.to_string();
        })?;
        self.tell(&container.id, &sandbox.id, Change::Stopped);
        Err(failure)
    }

    /// Waits until the shim's report of a started container is in its record.
    async fn await_report(&self, container: &Container) {
        let reported = async {
            let mut changes = container.changed.subscribe();
            while container.phase() == ContainerPhase::Starting {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), reported).await.is_err() {
            tracing::warn!(
                container = container.id,
                "the shim did not report a container it started"
            );
        }
    }

    /// Removes a container, killing it if it runs. An unknown id is fine.
    ///
    /// # Errors
    /// When something cannot be removed; the call can be repeated.
    pub async fn remove_container(self: &Arc<Self>, part: &str) -> Result<()> {
        let container = match self.container(part) {
            Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        let _operation = container.operation.lock().await;
        self.stop(&container, Duration::ZERO).await?;
        self.update_container(&container, |record| record.set_phase(ContainerPhase::Removing))?;
        self.erase_container(&container).await?;
        let record = container.record();
        self.tell(&container.id, &record.sandbox_id, Change::Deleted);
        Ok(())
    }

    /// Takes away everything a container may hold, whatever step it reached. Can be repeated.
    pub(super) async fn erase_container(&self, container: &Container) -> Result<()> {
        let record = container.record();
        self.machine.destroy_cgroup(&record.cgroup)?;
        for snapshot in record.snapshots.iter().rev() {
            self.images.remove(snapshot).await?;
        }
        let forget = Request::Forget { id: container.id.clone() };
        // A shim that is gone has forgotten already.
        let _ = self.shims.ask(&self.machine.socket(&record.sandbox_id), &forget).await;
        self.machine.remove_container(&record.sandbox_id, &container.id)?;
        self.records.delete_container(&container.id)?;
        self.release_name(&record.reserved_name());
        self.index.lock().containers.remove(&container.id);
        container.changed.send_replace(());
        Ok(())
    }

    /// Takes over what a shim reports of a container.
    pub(super) fn apply(&self, container: &Container, report: &ContainerReport) -> Result<()> {
        let before = container.phase();
        let open = matches!(before, ContainerPhase::Starting | ContainerPhase::Running);
        if !open {
            return Ok(());
        }
        self.update_container(container, |record| {
            record.pid = report.pid;
            record.started_at = report.started_at;
            record.user = Some(user(report));
            record.set_phase(ContainerPhase::Running);
            if let Some(exit) = report.exit {
                record.set_phase(ContainerPhase::Exited);
                record.pid = 0;
                record.exit_code = exit.code;
                record.finished_at = exit.at;
                record.reason = if exit.oom {
                    "OOMKilled"
                } else if exit.code == 0 {
                    "Completed"
                } else {
                    "Error"
                }
                .to_owned();
            }
        })?;
        let sandbox = container.record().sandbox_id;
        if before == ContainerPhase::Starting {
            self.tell(&container.id, &sandbox, Change::Started);
        }
        if report.exit.is_some() {
            self.tell(&container.id, &sandbox, Change::Stopped);
        }
        Ok(())
    }

    /// Ends the record of a container whose shim is gone.
    pub(super) fn settle_lost(&self, container: &Container) -> Result<()> {
        let record = container.record();
        if !matches!(record.phase(), ContainerPhase::Starting | ContainerPhase::Running) {
            return Ok(());
        }
        if let Some(report) = self.machine.written_exit(&record.sandbox_id, &container.id) {
            return self.apply(container, &report);
        }
        let now = self.machine.now();
        self.update_container(container, |record| {
            record.set_phase(ContainerPhase::Exited);
            record.pid = 0;
            record.exit_code = 255;
            record.finished_at = now;
            record.reason = "Unknown".to_owned();
            record.message = "the container's shim ended without an exit code".to_owned();
        })?;
        self.tell(&container.id, &record.sandbox_id, Change::Stopped);
        Ok(())
    }

    /// Changes the limits of a container.
    ///
    /// # Errors
    /// When it is unknown or has ended, or the kernel refuses a value.
    pub fn update_resources(
        &self,
        part: &str,
        wanted: &cri::LinuxContainerResources,
    ) -> Result<()> {
        let container = self.container(part)?;
        let record = container.record();
        let limits: Resources = spec_build::resources(Some(wanted));
        match record.phase() {
            ContainerPhase::Running => self.machine.limit_cgroup(&record.cgroup, &limits)?,
            ContainerPhase::Created => {}
            phase => {
                return Err(Error::State(format!(
                    "container {:?} is in {} state",
                    container.id,
                    state_name(phase)
                )));
            }
        }
        self.update_container(&container, |record| spec_build::merge_resources(record, wanted))
    }

    /// Opens a container's log anew, after its file was moved away.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn reopen_log(&self, part: &str) -> Result<()> {
        let container = self.container(part)?;
        let record = container.record();
        if record.phase() != ContainerPhase::Running {
            return Err(Error::State("container is not running".to_owned()));
        }
        let request = Request::ReopenLog { id: container.id.clone() };
        match self.shims.ask(&self.machine.socket(&record.sandbox_id), &request).await? {
            Answer::Failed(failure) => Err(Error::Failed(failure.message)),
            _ => Ok(()),
        }
    }
}

fn user(report: &ContainerReport) -> cri::LinuxContainerUser {
    cri::LinuxContainerUser {
        uid: i64::from(report.identity.uid),
        gid: i64::from(report.identity.gid),
        supplemental_groups: report.identity.groups.iter().copied().map(i64::from).collect(),
    }
}

fn start_failure(failure: &Failure) -> Error {
    Error::Failed(format!("failed to start the container: {}", failure.message))
}

fn state_name(phase: ContainerPhase) -> &'static str {
    match phase {
        ContainerPhase::Creating | ContainerPhase::Created => "CONTAINER_CREATED",
        ContainerPhase::Starting | ContainerPhase::Running => "CONTAINER_RUNNING",
        ContainerPhase::Exited => "CONTAINER_EXITED",
        ContainerPhase::Removing => "CONTAINER_UNKNOWN",
    }
}

fn log_path(sandbox: &Sandbox, config: &cri::ContainerConfig) -> Result<String> {
    let dir = sandbox.record().config.log_directory;
    if dir.is_empty() || config.log_path.is_empty() {
        return Ok(String::new());
    }
    if config.log_path.split('/').any(|part| part == "..") || config.log_path.starts_with('/') {
        return Err(Error::Invalid(format!(
            "log path {:?} must stay below the log directory",
            config.log_path
        )));
    }
    Ok(format!("{}/{}", dir.trim_end_matches('/'), config.log_path))
}

fn validate(config: &cri::ContainerConfig) -> Result<()> {
    if config.metadata.as_ref().is_none_or(|meta| meta.name.is_empty()) {
        return Err(Error::Invalid("container config must include metadata".to_owned()));
    }
    if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
        return Err(Error::Invalid("container config must include an image".to_owned()));
    }
    if let Some(device) = config.cdi_devices.first() {
        return Err(Error::Unsupported(format!("CDI device {:?}", device.name)));
    }
    Ok(())
}
