//! `--help` and `--version`.

use crate::config::ETCD_VERSION;
use crate::config::flags::{FLAGS, Group, Support};

/// What `--version` prints; the first line is etcd's, which scripts read.
pub fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: kv-svc-{}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\n",
        flotilla_telemetry::VERSION,
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// What `--help` prints.
pub fn help() -> String {
    let mut text =
        "kv-svc: a key-value store that speaks etcd's v3 API.\n\nUsage:\n  kv-svc [flags]\n  \
                    kv-svc healthcheck [--address IP:PORT]\n"
            .to_owned();
    for group in Group::ALL {
        text.push_str(&format!("\n{}:\n", group.title()));
        for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
            let note = match flag.support {
                Support::Used => "",
                Support::Later => " (not supported yet)",
                Support::Moot => " (accepted; nothing to tune)",
            };
            text.push_str(&format!(
                "  --{} '{}'{note}\n      {}\n",
                flag.name, flag.default, flag.about
            ));
        }
    }
    text
}
