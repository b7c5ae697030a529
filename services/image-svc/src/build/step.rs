//! Executes one instruction of a stage.

use std::path::Path;

use serde_json::json;

use super::add::{Job, is_remote, lexical};
use super::dockerfile::{Copy, DockerfileError, Instruction, Op, Scope};
use super::layer::{self, Content, Entries, Entry, Written};
use super::stage::{Run, Stage};
use super::{BuildError, owner};
use crate::store::StoreError;
use crate::unpack::{NodeInfo, NodeKind, join};

impl Run {
    pub(super) async fn step(
        &mut self,
        stage: &mut Stage,
        step: &Instruction,
        index: usize,
    ) -> Result<(), BuildError> {
        let line = step.line;
        let fail = |reason: String| DockerfileError::new(line, reason);
        match &step.op {
            Op::Arg(args) => {
                for (name, default) in args {
                    let default = default
                        .as_ref()
                        .map(|text| self.expand(&stage.scope, text, line))
                        .transpose()?;
                    self.declare(stage, name, default);
                }
            }
            Op::Env(pairs) => {
                // All values see the variables as they were before the instruction.
                let before = stage.scope.clone();
                for (name, value) in pairs {
                    let (name, value) =
                        (self.expand(&before, name, line)?, self.expand(&before, value, line)?);
                    stage.scope.set(&name, &value);
                    stage.config.set_env(&name, &value);
                }
            }
            Op::Label(pairs) => {
                for (name, value) in pairs {
                    let name = self.expand(&stage.scope, name, line)?;
                    let value = self.expand(&stage.scope, value, line)?;
                    stage.config.add_to("Labels", &name, json!(value));
                }
            }
            Op::Copy(copy) => return self.copy(stage, copy, step, index).await,
            Op::Workdir(dir) => return self.workdir(stage, dir, step).await,
            Op::User(user) => {
                let user = self.expand(&stage.scope, user, line)?;
                stage.config.set("User", json!(user));
            }
            Op::Expose(ports) => {
                for text in ports {
                    for port in expose(&self.expand(&stage.scope, text, line)?).map_err(fail)? {
                        stage.config.add_to("ExposedPorts", &port, json!({}));
                    }
                }
            }
            Op::Volume(paths) => {
                for path in paths {
                    let path = self.expand(&stage.scope, path, line)?;
                    if path.trim().is_empty() {
                        return Err(
                            fail("VOLUME specified can not be an empty string".to_owned()).into()
                        );
                    }
                    stage.config.add_to("Volumes", &path, json!({}));
                }
            }
            Op::Entrypoint(form) => {
                stage.config.set_command("Entrypoint", form);
                if !stage.command_set {
                    stage.config.unset("Cmd");
                }
            }
            Op::Cmd(form) => {
                stage.config.set_command("Cmd", form);
                stage.command_set = true;
            }
            Op::Stopsignal(signal) => {
                let signal = self.expand(&stage.scope, signal, line)?;
                stage.config.set("StopSignal", json!(signal));
            }
            Op::Shell(words) => stage.config.set("Shell", json!(words)),
            Op::Healthcheck(check) => stage.config.set_healthcheck(check),
            Op::Maintainer(name) => stage.config.set_author(name),
            Op::From { .. } => return Err(fail("FROM inside a stage".to_owned()).into()),
        }
        if !matches!(step.op, Op::Arg(_)) {
            stage.config.record(&step.text, &self.created, None);
        }
        Ok(())
    }

    async fn copy(
        &mut self,
        stage: &mut Stage,
        copy: &Copy,
        step: &Instruction,
        index: usize,
    ) -> Result<(), BuildError> {
        let line = step.line;
        let fail = |reason: String| BuildError::from(DockerfileError::new(line, reason));
        let expand = |run: &Self, scope: &Scope, text: &str| run.expand(scope, text, line);
        let mut sources = Vec::new();
        for source in &copy.sources {
            let source = expand(self, &stage.scope, source)?;
            if copy.add && is_remote(&source) {
                return Err(fail(format!("not supported yet: ADD {source}")));
            }
            sources.push(source);
        }
        let to = self.view(&stage.diff_ids)?;
        let chown = copy.chown.as_ref().map(|text| expand(self, &stage.scope, text)).transpose()?;
        let chmod = copy.chmod.as_ref().map(|text| expand(self, &stage.scope, text)).transpose()?;
        let job = Job {
            add: copy.add,
            sources,
            dest: expand(self, &stage.scope, &copy.dest)?,
            working_dir: stage.config.working_dir(),
            owner: chown.map(|text| owner::parse(&to, &text)).transpose().map_err(fail)?,
            mode: chmod.map(|text| owner::mode(&text)).transpose().map_err(fail)?,
            keep_owner: copy.from.is_some(),
            epoch: self.options.epoch,
            scratch: self.context.scratch("archives"),
        };
        let (from, ignore, kept) = match &copy.from {
            None => (self.context.view()?, Some(self.ignore.clone()), None),
            Some(name) => {
                let name = self.expand(&stage.scope, name, line)?;
                let source = self.source(&name, index, line).await?;
                (self.view(&source.diff_ids)?, None, Some(source))
            }
        };
        let (store, context) = (self.node.store().clone(), self.context.clone());
        let work = move || -> Result<Written, WorkError> {
            let entries = job.entries(&from, &to, ignore.as_deref()).map_err(WorkError::Step);
            let written =
                entries.and_then(|entries| layer::write(&store, entries).map_err(WorkError::Store));
            // Archives unpacked by ADD; swept at the next start otherwise.
            let _ = std::fs::remove_dir_all(&job.scratch);
            drop(context);
            written
        };
        let written = run_blocking(work).await.map_err(|error| error.at(line))?;
        drop(kept);
        let diff_id = self.push_layer(stage, written).await?;
        stage.config.record(&step.text, &self.created, Some(&diff_id));
        Ok(())
    }

    async fn workdir(
        &mut self,
        stage: &mut Stage,
        dir: &str,
        step: &Instruction,
    ) -> Result<(), BuildError> {
        let line = step.line;
        let dir = self.expand(&stage.scope, dir, line)?;
        let path = lexical(&Path::new(&stage.config.working_dir()).join(dir));
        stage.config.set("WorkingDir", json!(path.display().to_string()));
        let view = self.view(&stage.diff_ids)?;
        let plain =
            view.resolve(&path).map_err(|error| DockerfileError::new(line, error.to_string()))?;
        let mut entries = Entries::new();
        for depth in 1..=plain.len() {
            let info = view
                .info(&plain[..depth])
                .map_err(|error| DockerfileError::new(line, error.to_string()))?;
            match info {
                Some(NodeInfo { kind: NodeKind::Folder, .. }) => {}
                Some(_) => {
                    let reason = format!("/{} is no folder", join(&plain[..depth]).display());
                    return Err(DockerfileError::new(line, reason).into());
                }
                None => {
                    let mtime = self.options.epoch.unwrap_or(0);
                    let entry =
                        Entry { content: Content::Folder, mode: 0o755, uid: 0, gid: 0, mtime };
                    entries.insert(join(&plain[..depth]), entry);
                }
            }
        }
        if entries.is_empty() {
            stage.config.record(&step.text, &self.created, None);
            return Ok(());
        }
        let store = self.node.store().clone();
        let written =
            run_blocking(move || layer::write(&store, entries).map_err(WorkError::Store)).await;
        let diff_id = self.push_layer(stage, written.map_err(|error| error.at(line))?).await?;
        stage.config.record(&step.text, &self.created, Some(&diff_id));
        Ok(())
    }
}

enum WorkError {
    Step(String),
    Store(StoreError),
}

impl WorkError {
    fn at(self, line: usize) -> BuildError {
        match self {
            Self::Step(reason) => DockerfileError::new(line, reason).into(),
            Self::Store(error) => error.into(),
        }
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkError> + Send + 'static,
) -> Result<T, WorkError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(WorkError::Store(StoreError::Closed(error.to_string()))))
}

/// `80`, `80/udp` or `8000-8010/tcp` as the config writes ports.
fn expose(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let wrong = || format!("invalid containerPort: {text:?}; write PORT, PORT/udp or FIRST-LAST");
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
