//! A busybox image, made here: no registry is needed.

use std::fs::File;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What containers of the tests run.
pub const BUSYBOX: &str = "flotilla.test/busybox:1";
/// What sandboxes run.
pub const PAUSE: &str = "flotilla.test/pause:1";

const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "ls", "httpd", "wget", "nc", "touch", "rm", "true", "false",
    "kill", "id", "env", "date", "mkdir", "head", "seq",
];

/// Writes a docker archive with both images.
pub fn write_archive(path: &Path) {
    let layer = layer();
    let digest = hex::encode(Sha256::digest(&layer));
    let mut archive = Builder::new(File::create(path).unwrap());
    add(&mut archive, "layer.tar", &layer, 0o644);
    let mut manifest = Vec::new();
    for (tag, command) in [(BUSYBOX, json!(["sh"])), (PAUSE, json!(["sleep", "2147483647"]))] {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
            "history": [{"created_by": tag}]
        })
        .to_string();
        let name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        add(&mut archive, &name, config.as_bytes(), 0o644);
        manifest.push(json!({"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}));
    }
    add(&mut archive, "manifest.json", json!(manifest).to_string().as_bytes(), 0o644);
    archive.finish().unwrap();
}

fn layer() -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .expect("busybox-static is installed");
    let mut layer = Builder::new(Vec::new());
    for dir in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/", "www/"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(if dir == "tmp/" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, dir, &[][..]).unwrap();
    }
    add(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in APPLETS {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    add(&mut layer, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644);
    layer.into_inner().unwrap()
}

fn add<W: std::io::Write>(archive: &mut Builder<W>, name: &str, data: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    archive.append_data(&mut header, name, data).unwrap();
}
