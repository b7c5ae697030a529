//! Runs the stages of a Dockerfile.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::config::Config;
use super::dockerfile::{DockerfileError, Instruction, Op, Scope, parse};
use super::ignore::Ignore;
use super::{BuildError, BuildOptions, Built, Context, Event, Events};
use crate::engine::manifest::{OCI_CONFIG, OCI_LAYER_GZIP};
use crate::engine::{Descriptor, Digest, Manifest, Platform, Reference};
use crate::node::{Node, NodeError, PullOptions};
use crate::store::{NewContent, Pin, StoreError};
use crate::unpack::View;

/// A stage as written.
#[derive(Debug)]
struct Plan {
    /// Name or number.
    name: String,
    from: Instruction,
    steps: Vec<Instruction>,
}

/// A stage as far as it is built.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) config: Config,
    pub(super) layers: Vec<Descriptor>,
    pub(super) diff_ids: Vec<Digest>,
    pub(super) scope: Scope,
    pub(super) command_set: bool,
    pub(super) pins: Vec<Arc<Pin>>,
}

/// One build.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) node: Node,
    pub(super) context: Arc<Context>,
    pub(super) ignore: Arc<Ignore>,
    pub(super) options: BuildOptions,
    pub(super) created: String,
    events: Events,
    escape: char,
    plans: Vec<Plan>,
    global: Scope,
    names: Vec<String>,
    pub(super) warnings: Vec<String>,
    used_args: std::collections::BTreeSet<String>,
    steps: (usize, usize),
    built: HashMap<usize, Stage>,
}

impl Run {
    pub(super) fn prepare(
        node: &Node,
        context: Context,
        options: BuildOptions,
        events: Events,
    ) -> Result<Self, BuildError> {
        let name =
            if options.dockerfile.is_empty() { "Dockerfile" } else { options.dockerfile.as_str() };
        let view = context.view()?;
        let plain = view.resolve(Path::new(name)).map_err(BuildError::Context)?;
        let missing = || BuildError::NoDockerfile(name.to_owned());
        let mut bytes = Vec::new();
        let mut file = view.file(&plain).map_err(|_| missing())?;
        std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|_| missing())?;
        let (instructions, escape) = parse(&bytes)?;
        let mut names = Vec::new();
        for tag in &options.tags {
            names.push(tag.parse::<Reference>().map_err(NodeError::from)?.to_string());
        }
        let ignore = Arc::new(context.ignore(name)?);
        let stamp = options.epoch.and_then(|at| jiff::Timestamp::from_second(at).ok());
        let created = stamp.unwrap_or_else(jiff::Timestamp::now).to_string();
        let mut run = Self {
            node: node.clone(),
            context: Arc::new(context),
            ignore,
            created,
            events,
            escape,
            plans: Vec::new(),
            global: Scope::new(escape),
            names,
            warnings: Vec::new(),
            used_args: std::collections::BTreeSet::new(),
            steps: (0, 0),
            built: HashMap::new(),
            options,
        };
        run.plan(instructions)?;
        Ok(run)
    }

    /// Splits the instructions into stages; ARGs before the first FROM are global.
    fn plan(&mut self, instructions: Vec<Instruction>) -> Result<(), BuildError> {
        for (name, value) in self.platform_args() {
            self.global.set(name, &value);
        }
        for instruction in instructions {
            match &instruction.op {
                Op::From { alias, .. } => {
                    let name = alias.clone().unwrap_or_else(|| self.plans.len().to_string());
                    self.plans.push(Plan { name, from: instruction, steps: Vec::new() });
                }
                Op::Arg(args) if self.plans.is_empty() => {
                    for (name, default) in args.clone() {
                        let default = default.map(|text| self.global.expand(&text)).transpose();
                        let default = default
                            .map_err(|reason| DockerfileError::new(instruction.line, reason))?;
                        let given = self.options.args.get(&name).cloned();
                        if given.is_some() {
                            self.used_args.insert(name.clone());
                        }
                        if let Some(value) = given.or(default) {
                            self.global.set(&name, &value);
                        }
                    }
                }
                _ => {
                    if let Some(plan) = self.plans.last_mut() {
                        plan.steps.push(instruction);
                    }
                }
            }
        }
        Ok(())
    }

    fn platform_args(&self) -> [(&'static str, String); 6] {
        let host = Platform::host();
        let target = self.options.platform.clone().unwrap_or_else(Platform::host);
        [
            ("BUILDPLATFORM", host.to_string()),
            ("BUILDOS", host.os),
            ("BUILDARCH", host.architecture),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os),
            ("TARGETARCH", target.architecture),
        ]
    }

    pub(super) async fn build(mut self) -> Result<Built, BuildError> {
        let target = self.target()?;
        let needed = self.needed(target)?;
        self.steps.1 = needed.iter().map(|index| self.plans[*index].steps.len() + 1).sum();
        for index in needed {
            let stage = self.build_stage(index).await?;
            self.built.insert(index, stage);
        }
        let stage = self
            .built
            .remove(&target)
            .ok_or_else(|| BuildError::NoDockerfile("a stage".to_owned()))?;
        let unused: Vec<&str> = self
            .options
            .args
            .keys()
            .map(String::as_str)
            .filter(|name| !self.used_args.contains(*name) && !PREDEFINED.contains(name))
            .collect();
        if !unused.is_empty() {
            self.warnings.push(format!(
                "[Warning] One or more build-args [{}] were not consumed",
                unused.join(" ")
            ));
        }
        self.finish(stage).await
    }

    fn target(&self) -> Result<usize, BuildError> {
        let wanted = self.options.target.to_ascii_lowercase();
        if wanted.is_empty() {
            return Ok(self.plans.len().saturating_sub(1));
        }
        let found = self.plans.iter().rposition(|plan| plan.name == wanted);
        let known: Vec<&str> = self.plans.iter().map(|plan| plan.name.as_str()).collect();
        found.ok_or_else(|| {
            DockerfileError::new(
                1,
                format!(
                    "target stage {wanted:?} could not be found; stages are {}",
                    known.join(", ")
                ),
            )
            .into()
        })
    }

    /// Stage `name` among those before `limit`.
    fn stage_index(&self, name: &str, limit: usize) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let named = self.plans[..limit].iter().rposition(|plan| plan.name == name);
        named.or_else(|| name.parse::<usize>().ok().filter(|index| *index < limit))
    }

    /// Stages that `target` needs, each after those it needs itself.
    fn needed(&self, target: usize) -> Result<Vec<usize>, BuildError> {
        let mut marked = vec![false; self.plans.len()];
        marked[target] = true;
        for index in (0..=target).rev() {
            if !marked[index] {
                continue;
            }
            let plan = &self.plans[index];
            if let Op::From { image, .. } = &plan.from.op {
                let image = self.expand(&self.global, image, plan.from.line)?;
                if let Some(base) =
                    self.plans[..index].iter().rposition(|p| p.name == image.to_ascii_lowercase())
                {
                    marked[base] = true;
                }
            }
            for step in &plan.steps {
                let Op::Copy(copy) = &step.op else { continue };
                if let Some(from) =
                    copy.from.as_ref().and_then(|from| self.stage_index(from, index))
                {
                    marked[from] = true;
                }
            }
        }
        Ok((0..self.plans.len()).filter(|index| marked[*index]).collect())
    }

    pub(super) fn expand(
        &self,
        scope: &Scope,
        text: &str,
        line: usize,
    ) -> Result<String, DockerfileError> {
        scope.expand(text).map_err(|reason| DockerfileError::new(line, reason))
    }

    async fn announce(&mut self, instruction: &Instruction, stage: &str) {
        self.steps.0 += 1;
        let event = Event::Step {
            number: self.steps.0,
            total: self.steps.1,
            line: instruction.line,
            text: instruction.text.clone(),
            stage: stage.to_owned(),
        };
        // Nobody listens any more when this fails; the build goes on for the next one who asks.
        let _ = self.events.send(event).await;
    }

    async fn build_stage(&mut self, index: usize) -> Result<Stage, BuildError> {
        let (name, from) = (self.plans[index].name.clone(), self.plans[index].from.clone());
        self.announce(&from, &name).await;
        let mut stage = self.base(index, &from).await?;
        let steps = std::mem::take(&mut self.plans[index].steps);
        for step in steps {
            self.announce(&step, &name).await;
            self.step(&mut stage, &step, index).await?;
        }
        Ok(stage)
    }

    async fn base(&mut self, index: usize, from: &Instruction) -> Result<Stage, BuildError> {
        let Op::From { image, platform, .. } = &from.op else {
            return Err(BuildError::NoDockerfile("FROM".into()));
        };
        let fail = |reason: String| DockerfileError::new(from.line, reason);
        let image = self.expand(&self.global, image, from.line)?;
        if image.is_empty() {
            return Err(fail(
                "base name should not be blank; give the ARG it uses a value".to_owned(),
            )
            .into());
        }
        let mut platform_wanted = self.options.platform.clone();
        if let Some(text) = platform {
            let text = self.expand(&self.global, text, from.line)?;
            let wrong = || fail(format!("platform {text:?}: write OS/ARCH, such as linux/amd64"));
            platform_wanted = Some(Platform::parse(&text).ok_or_else(wrong)?);
        }
        if let Some(base) =
            self.plans[..index].iter().rposition(|plan| plan.name == image.to_ascii_lowercase())
        {
            let mut stage = self
                .built
                .get(&base)
                .cloned()
                .ok_or_else(|| fail(format!("stage {image} is not built")))?;
            stage.scope = self.stage_scope(&stage.config);
            stage.command_set = false;
            return Ok(stage);
        }
        let mut stage = if image == "scratch" {
            let platform = platform_wanted.unwrap_or_else(Platform::host);
            Stage {
                config: Config::scratch(&platform),
                layers: Vec::new(),
                diff_ids: Vec::new(),
                scope: Scope::new(self.escape),
                command_set: false,
                pins: Vec::new(),
            }
        } else {
            self.image(&image, platform_wanted, from.line).await?
        };
        stage.scope = self.stage_scope(&stage.config);
        Ok(stage)
    }

    /// A stage that begins as an image of the store, pulled when it is not there.
    pub(super) async fn image(
        &self,
        name: &str,
        platform: Option<Platform>,
        line: usize,
    ) -> Result<Stage, BuildError> {
        let fail = |reason: String| DockerfileError::new(line, reason);
        let found = if self.options.pull {
            Err(NodeError::NotFound(name.to_owned()))
        } else {
            self.node.find(name)
        };
        let record = match found {
            Ok(image) => image.record,
            Err(NodeError::NotFound(_)) => {
                let options = PullOptions { platform, ..PullOptions::default() };
                let pulled = self.node.pull(name, &options, &None).await;
                let record = pulled.map_err(|error| fail(format!("{name}: {error}")))?;
                let text = format!("pulled {}@{}\n", record.name, record.target.digest);
                // As with steps: the build goes on when nobody listens.
                let _ = self.events.send(Event::Log(text.into())).await;
                record
            }
            Err(error) => return Err(error.into()),
        };
        let mut pins = Vec::new();
        for digest in record.blobs() {
            pins.push(Arc::new(self.node.store().pin(digest).await));
        }
        let (raw, parsed) = self.node.config(&record).await?;
        let bytes = self.node.manifest(&record).await?;
        let manifest = Manifest::parse("", &bytes).map_err(|error| fail(error.to_string()))?;
        Ok(Stage {
            config: Config::from_base(&raw).map_err(fail)?,
            layers: manifest.layers.into_iter().map(oci_layer).collect(),
            diff_ids: parsed.rootfs.diff_ids,
            scope: Scope::new(self.escape),
            command_set: false,
            pins,
        })
    }

    fn stage_scope(&self, config: &Config) -> Scope {
        let mut scope = Scope::new(self.escape);
        for (name, value) in config.env() {
            scope.set(&name, &value);
        }
        scope
    }

    /// Declares an ARG in a stage. ENV of the same name wins, as in docker.
    pub(super) fn declare(&mut self, stage: &mut Stage, name: &str, default: Option<String>) {
        if stage.config.env().iter().any(|(known, _)| known == name) {
            return;
        }
        let given = self.options.args.get(name).cloned();
        if given.is_some() {
            self.used_args.insert(name.to_owned());
        }
        if let Some(value) = given.or(default).or_else(|| self.global.get(name).map(str::to_owned))
        {
            stage.scope.set(name, &value);
        }
    }

    /// The layers that `--from` names: a stage or an image, and what keeps them.
    pub(super) async fn source(
        &mut self,
        from: &str,
        index: usize,
        line: usize,
    ) -> Result<Stage, BuildError> {
        if let Some(found) = self.stage_index(from, index) {
            let missing = || {
                DockerfileError::new(line, format!("stage {from:?} is not built before this one"))
            };
            return Ok(self.built.get(&found).cloned().ok_or_else(missing)?);
        }
        self.image(from, self.options.platform.clone(), line).await
    }

    /// The layers of a stage as one tree.
    pub(super) fn view(&self, diff_ids: &[Digest]) -> Result<View, BuildError> {
        let folders: Vec<PathBuf> = self.node.layer_folders(diff_ids)?;
        View::open(&folders).map_err(BuildError::Context)
    }

    /// Stores a written layer on top of a stage.
    pub(super) async fn push_layer(
        &self,
        stage: &mut Stage,
        written: super::layer::Written,
    ) -> Result<Digest, BuildError> {
        let store = self.node.store();
        let digest = written.file.mark().hasher().clone().finish();
        let descriptor = Descriptor::new(OCI_LAYER_GZIP, digest.clone(), written.file.offset());
        stage.pins.push(Arc::new(store.pin(&digest).await));
        store
            .commit_blob(&digest, NewContent::File(written.file), |_| Ok::<_, StoreError>(()))
            .await?;
        stage.layers.push(descriptor);
        stage.diff_ids.push(written.diff_id.clone());
        self.node.unpack_layers(&stage.layers, &stage.diff_ids, &None).await?;
        Ok(written.diff_id)
    }

    async fn finish(mut self, mut stage: Stage) -> Result<Built, BuildError> {
        let labels: BTreeMap<String, String> = std::mem::take(&mut self.options.labels);
        for (name, value) in labels {
            stage.config.add_to("Labels", &name, value.into());
        }
        let store = self.node.store();
        let bytes = Bytes::from(stage.config.finish(&self.created));
        let id = Digest::sha256(&bytes);
        let config = Descriptor::new(OCI_CONFIG, id.clone(), bytes.len() as u64);
        let _pin = store.pin(&id).await;
        store.commit_blob(&id, NewContent::Bytes(bytes), |_| Ok::<_, StoreError>(())).await?;
        let documents = self.node.compose(config, stage.layers, BTreeMap::new()).await?;
        let digest = documents.target.digest.clone();
        let mut names = self.names.clone();
        if names.is_empty() {
            names.push(format!("docker.io/library/none@{digest}"));
        }
        let record = self.node.adopt(documents, names, &None).await?;
        Ok(Built { digest, id, tags: self.names, size: record.size, warnings: self.warnings })
    }
}

/// Build arguments that need no ARG.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A layer of a docker manifest as OCI names it; the bytes are the same.
fn oci_layer(mut layer: Descriptor) -> Descriptor {
    if layer.media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip" {
        layer.media_type = OCI_LAYER_GZIP.to_owned();
    }
    layer
}
