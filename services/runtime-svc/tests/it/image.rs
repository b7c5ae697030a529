//! A tiny image as an OCI archive, made of the host's static busybox.

use std::fs;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Name the image is known by after its import.
pub const NAME: &str = "docker.io/library/flotilla-busybox:1";

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layer() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |name: &str, mode: u32, kind: tar::EntryType, body: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, name, body).unwrap();
    };
    for dir in ["bin", "etc", "root", "var", "proc", "sys", "dev"] {
        put(&format!("{dir}/"), 0o755, tar::EntryType::Directory, &[], None);
    }
    put("tmp/", 0o1777, tar::EntryType::Directory, &[], None);
    put("bin/busybox", 0o755, tar::EntryType::Regular, &busybox, None);
    for applet in [
        "sh", "cat", "echo", "sleep", "ls", "id", "ps", "kill", "nc", "wget", "ping", "ip",
        "mount", "touch", "dd", "env", "hostname", "grep", "stty", "true", "false", "yes", "head",
        "tr", "seq", "trap", "httpd", "mkdir",
    ] {
        put(&format!("bin/{applet}"), 0o755, tar::EntryType::Link, &[], Some("bin/busybox"));
    }
    put(
        "etc/passwd",
        0o644,
        tar::EntryType::Regular,
        b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var:/bin/sh\n",
        None,
    );
    put(
        "etc/group",
        0o644,
        tar::EntryType::Regular,
        b"root:x:0:\nwww:x:33:\naudio:x:29:www\n",
        None,
    );
    // What an attacker might ship.
    put("evil", 0o777, tar::EntryType::Symlink, &[], Some("/proc/1/root/etc"));
    put("noexec", 0o644, tar::EntryType::Regular, b"text", None);
    tar.into_inner().unwrap()
}

/// Writes the archive to `path`.
pub fn write_archive(path: &Path) {
    let layer = layer();
    let layer_digest = digest(&layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sleep", "1000"], "WorkingDir": "/tmp" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    })
    .to_string()
    .into_bytes();
    let config_digest = digest(&config);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config_digest}"), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{layer_digest}"), "size": layer.len() }],
    })
    .to_string()
    .into_bytes();
    let manifest_digest = digest(&manifest);
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{manifest_digest}"), "size": manifest.len(),
            "annotations": { "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME },
        }],
    })
    .to_string()
    .into_bytes();
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    for (name, body) in [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        (blob(&layer_digest), layer),
        (blob(&config_digest), config),
        (blob(&manifest_digest), manifest),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        tar.append_data(&mut header, name, body.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().flush().unwrap();
}
