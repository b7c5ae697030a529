//! Volumes of a pod as folders of the node, and folders as mounts of a container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use flotilla_proto::cri::runtime::v1 as cri;

use super::agent::Agent;
use crate::engine::expand::expand;
use crate::engine::kube::{
    Container, DownwardApiVolume, HostPath, KeyToPath, Pod, ProjectedVolume, TokenProjection,
    Volume,
};
use crate::engine::sandbox_config::full_hostname;
use crate::engine::{field, quantity, time};
use crate::host::atomic_dir::{self, FileContent, Files};
use crate::host::tmpfs;
use crate::remote::api_server::{Data, Token};

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// Tokens of one pod, kept until most of their life is over: by audience and life.
pub type Tokens = BTreeMap<(String, i64), (Token, i64)>;

/// Folders by volume name.
pub type Folders = BTreeMap<String, PathBuf>;

/// Makes or refreshes every volume of the pod.
///
/// # Errors
/// Which volume cannot be had and why, as in the event `FailedMount`.
pub async fn prepare(
    agent: &Agent,
    pod: &Pod,
    tokens: &mut Tokens,
    pod_ips: &[String],
) -> Result<Folders, String> {
    let mut folders = Folders::new();
    let mut preparer = Preparer { agent, pod, tokens, pod_ips };
    for volume in &pod.spec.volumes {
        let folder = preparer.volume(volume).await;
        let folder = folder.map_err(|error| {
            format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
        })?;
        folders.insert(volume.name.clone(), folder);
    }
    Ok(folders)
}

struct Preparer<'a> {
    agent: &'a Agent,
    pod: &'a Pod,
    tokens: &'a mut Tokens,
    pod_ips: &'a [String],
}

impl Preparer<'_> {
    async fn volume(&mut self, volume: &Volume) -> Result<PathBuf, String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = |kind: &str| self.agent.paths.volume(self.pod.uid(), kind, &volume.name);
        if let Some(path) = &volume.host_path {
            return host_path(path);
        }
        if let Some(scratch) = &volume.empty_dir {
            let dir = folder("kubernetes.io~empty-dir");
            let limit =
                scratch.size_limit.as_ref().and_then(|q| quantity::value(&q.0)).unwrap_or(0);
            match scratch.medium.as_str() {
                "" => self.scratch(&dir).map_err(text)?,
                "Memory" => {
                    tmpfs::ensure_tmpfs(&dir, u64::try_from(limit).unwrap_or(0)).map_err(text)?;
                    self.scratch(&dir).map_err(text)?;
                }
                other => return Err(format!("not supported yet: emptyDir medium {other}")),
            }
            return Ok(dir);
        }
        let (dir, files, in_memory) = if let Some(map) = &volume.config_map {
            let data = self.config_map(&map.name, map.optional).await?;
            (
                folder("kubernetes.io~configmap"),
                select(data, &map.items, map.default_mode, map.optional, "configmap")?,
                false,
            )
        } else if let Some(secret) = &volume.secret {
            let data = self.secret(&secret.secret_name, secret.optional).await?;
            (
                folder("kubernetes.io~secret"),
                select(data, &secret.items, secret.default_mode, secret.optional, "secret")?,
                true,
            )
        } else if let Some(fields) = &volume.downward_api {
            (folder("kubernetes.io~downward-api"), self.fields(fields, fields.default_mode)?, false)
        } else if let Some(projected) = &volume.projected {
            (folder("kubernetes.io~projected"), self.projected(projected).await?, true)
        } else {
            let kind = volume.others.keys().find(|key| *key != "name");
            return Err(format!(
                "not supported yet: {}",
                kind.map_or("a volume without a source", String::as_str)
            ));
        };
        // Secrets never reach the disk.
        if in_memory {
            tmpfs::ensure_tmpfs(&dir, 0).map_err(text)?;
        }
        atomic_dir::write(&dir, &files, self.group()).map_err(text)?;
        Ok(dir)
    }

    fn group(&self) -> Option<u32> {
        self.pod
            .spec
            .security_context
            .as_ref()?
            .fs_group
            .and_then(|group| u32::try_from(group).ok())
    }

    fn scratch(&self, dir: &Path) -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut mode = 0o777;
        if let Some(group) = self.group() {
            chown(dir, None, Some(group))?;
            mode |= 0o2000;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Data, String> {
        let data = self
            .agent
            .api
            .config_map(&self.pod.metadata.namespace, name)
            .await
            .map_err(|e| e.to_string())?;
        found(data, optional, || format!("configmap \"{name}\" not found"))
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<Data, String> {
        let data = self
            .agent
            .api
            .secret(&self.pod.metadata.namespace, name)
            .await
            .map_err(|e| e.to_string())?;
        found(data, optional, || format!("secret \"{name}\" not found"))
    }

    fn fields(
        &self,
        volume: &DownwardApiVolume,
        default_mode: Option<i32>,
    ) -> Result<Files, String> {
        let node = self.agent.node_facts();
        let mut files = Files::new();
        for item in &volume.items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(wanted), _) => {
                    field::field(self.pod, &wanted.field_path, &node, self.pod_ips)?
                }
                (None, Some(wanted)) => field::resource(self.pod, "", wanted, &node)?,
                (None, None) => continue,
            };
            files.insert(item.path.clone(), content(value.into_bytes(), item.mode, default_mode));
        }
        Ok(files)
    }

    async fn projected(&mut self, volume: &ProjectedVolume) -> Result<Files, String> {
        let mut files = Files::new();
        let mode = volume.default_mode;
        for source in &volume.sources {
            if let Some(map) = &source.config_map {
                let data = self.config_map(&map.name, map.optional).await?;
                files.extend(select(data, &map.items, mode, map.optional, "configmap")?);
            } else if let Some(secret) = &source.secret {
                let data = self.secret(&secret.name, secret.optional).await?;
                files.extend(select(data, &secret.items, mode, secret.optional, "secret")?);
            } else if let Some(fields) = &source.downward_api {
                files.extend(self.fields(fields, mode)?);
            } else if let Some(wanted) = &source.service_account_token {
                if let Some(token) = self.token(wanted).await? {
                    files.insert(wanted.path.clone(), content(token.into_bytes(), None, mode));
                }
            } else {
                let kind =
                    source.others.keys().next().map_or("a source without a kind", String::as_str);
                return Err(format!("not supported yet: projected {kind}"));
            }
        }
        Ok(files)
    }

    /// A token, fresh enough; `None` where the API server issues none.
    async fn token(&mut self, wanted: &TokenProjection) -> Result<Option<String>, String> {
        let seconds = wanted.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
        let key = (wanted.audience.clone(), seconds);
        let now = time::now();
        if let Some((token, taken)) = self.tokens.get(&key) {
            // Renewed after four fifths of its life, or a day.
            let life = (token.expires - taken).max(0);
            if now < taken + (life / 5 * 4).min(24 * 3600 * 1_000_000_000) {
                return Ok(Some(token.token.clone()));
            }
        }
        match self.agent.api.token(self.pod, &wanted.audience, seconds).await {
            Ok(token) => {
                let text = token.token.clone();
                self.tokens.insert(key, (token, now));
                Ok(Some(text))
            }
            Err(error) if error.is_not_found() || error.is_status(405) || error.is_status(501) => {
                tracing::warn!(pod = self.pod.full_name(), %error, "no service account token: the pod runs without");
                Ok(None)
            }
            Err(error) => Err(format!("failed to fetch token: {error}")),
        }
    }
}

fn found(
    data: Option<Data>,
    optional: Option<bool>,
    missing: impl Fn() -> String,
) -> Result<Data, String> {
    match data {
        Some(data) => Ok(data),
        None if optional == Some(true) => Ok(Data::new()),
        None => Err(missing()),
    }
}

fn content(data: Vec<u8>, own: Option<i32>, default: Option<i32>) -> FileContent {
    let mode = own.or(default).unwrap_or(DEFAULT_MODE);
    FileContent { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777 }
}

fn select(
    data: Data,
    items: &[KeyToPath],
    mode: Option<i32>,
    optional: Option<bool>,
    kind: &str,
) -> Result<Files, String> {
    if items.is_empty() {
        return Ok(data
            .into_iter()
            .map(|(key, value)| (key, content(value, None, mode)))
            .collect());
    }
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                drop(files.insert(item.path.clone(), content(value.clone(), item.mode, mode)))
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

fn host_path(volume: &HostPath) -> Result<PathBuf, String> {
    let path = PathBuf::from(&volume.path);
    let text = |error: std::io::Error| format!("hostPath {}: {error}", volume.path);
    let kind = volume.kind.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => fs::create_dir_all(&path).map_err(text)?,
        "FileOrCreate" if !path.exists() => drop(fs::File::create(&path).map_err(text)?),
        "" if !path.exists() => fs::create_dir_all(&path).map_err(text)?,
        _ => {}
    }
    let found = fs::metadata(&path).map_err(text)?.file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => true,
    };
    if fits {
        Ok(path)
    } else {
        Err(format!("hostPath type check failed: {} is not a {kind}", volume.path))
    }
}

/// The mounts of one run: volumes, /etc/hosts and the file for last words.
///
/// # Errors
/// When a mount cannot be had; the text is the waiting message.
pub fn mounts(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    folders: &Folders,
    env: &[(String, String)],
    pod_ips: &[String],
) -> Result<Vec<cri::Mount>, String> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().enumerate() {
        let folder = folders.get(&wanted.name).ok_or_else(|| {
            format!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                wanted.name, container.name
            )
        })?;
        let lookup = |name: &str| {
            env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        let sub = if wanted.sub_path_expr.is_empty() {
            wanted.sub_path.clone()
        } else {
            expand(&wanted.sub_path_expr, lookup)
        };
        let host_path = if sub.is_empty() {
            folder.clone()
        } else {
            if Path::new(&sub).is_absolute()
                || Path::new(&sub).components().any(|part| part == std::path::Component::ParentDir)
            {
                return Err(format!("subPath {sub:?} must be a path inside the volume"));
            }
            let target = agent
                .paths
                .pod(pod.uid())
                .join("volume-subpaths")
                .join(&wanted.name)
                .join(&container.name)
                .join(index.to_string());
            let bound = tmpfs::bind_sub_path(folder, Path::new(&sub), &target);
            bound.map_err(|error| {
                format!(
                    "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                    wanted.name, container.name
                )
            })?
        };
        mounts.push(cri::Mount {
            container_path: wanted.mount_path.clone(),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: wanted.read_only,
            recursive_read_only: wanted.recursive_read_only.as_deref() == Some("Enabled"),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
                _ => cri::MountPropagation::PropagationPrivate,
            }
            .into(),
            ..cri::Mount::default()
        });
    }
    let taken = |path: &str| {
        mounts.iter().any(|mount: &cri::Mount| mount.container_path.trim_end_matches('/') == path)
    };
    let words_path = if container.termination_message_path.is_empty() {
        "/dev/termination-log"
    } else {
        &container.termination_message_path
    };
    let mut own = Vec::new();
    if !taken("/etc/hosts") {
        let hosts = agent.paths.hosts(pod.uid());
        fs::write(&hosts, hosts_file(agent, pod, pod_ips))
            .map_err(|e| format!("cannot write {}: {e}", hosts.display()))?;
        own.push((hosts, "/etc/hosts"));
    }
    let words = agent.paths.termination_log(pod.uid(), &container.name, attempt);
    last_words_file(&words).map_err(|e| format!("cannot write {}: {e}", words.display()))?;
    own.push((words, words_path));
    mounts.extend(own.into_iter().map(|(host, path)| cri::Mount {
        container_path: path.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..cri::Mount::default()
    }));
    Ok(mounts)
}

fn last_words_file(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "")?;
    // Whoever the container runs as may write it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

fn hosts_file(agent: &Agent, pod: &Pod, pod_ips: &[String]) -> String {
    let mut text = if pod.spec.host_network {
        format!(
            "# Kubernetes-managed hosts file (host network).\n{}",
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        )
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let full = full_hostname(pod, &agent.settings.cluster_domain)
            .map(|name| format!("{name}\t"))
            .unwrap_or_default();
        for ip in pod_ips {
            text.push_str(&format!("{ip}\t{full}{}\n", pod.hostname()));
        }
        text
    };
    if !pod.spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    text
}
