//! Programs and files of the node: nft, conntrack, the bridge's netfilter switch.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::ProxyError;
use crate::engine::{Family, Flow};

const MAX_MESSAGE: usize = 2000;

/// Checks that nft can be run.
///
/// # Errors
/// When it cannot.
pub async fn check() -> Result<(), ProxyError> {
    let status = Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    status.map(drop).map_err(ProxyError::NoNft)
}

/// Hands one transaction to the kernel: all of it or nothing.
///
/// # Errors
/// What nft says.
pub async fn apply(text: &str) -> Result<(), ProxyError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ProxyError::NoNft)?;
    if let Some(mut stdin) = child.stdin.take() {
        // An nft that ends early says why on stderr.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(ProxyError::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    tracing::debug!(text, "refused transaction");
    Err(ProxyError::Refused(message.chars().take(MAX_MESSAGE).collect()))
}

/// Whether the table exists.
pub async fn has_table(family: Family, table: &str) -> bool {
    let status = Command::new("nft")
        .args(["list", "chains", family.name()])
        .stderr(Stdio::null())
        .output()
        .await;
    status.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).contains(&format!(" {table} {{"))
    })
}

/// Makes the kernel show bridged packets to the rules: pods on one bridge answer each other directly, and the
/// answer must pass the translation again.
pub fn allow_bridged() {
    for file in [
        "/proc/sys/net/bridge/bridge-nf-call-iptables",
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    ] {
        let off = std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "0");
        if let (true, Err(error)) = (off, std::fs::write(file, "1")) {
            tracing::warn!(file, %error, "pods on one bridge may not reach each other through Services");
        }
    }
}

/// Drops the kernel's memory of UDP flows to endpoints that are gone: it would send there for ever.
pub async fn forget_flows(flows: &[Flow]) {
    for flow in flows {
        let mut command = Command::new("conntrack");
        command
            .args(["-D", "-p", "udp", "--orig-dst"])
            .arg(flow.address.to_string())
            .args(["--dst-nat"])
            .arg(flow.endpoint.to_string());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if let Err(error) = status {
            tracing::debug!(%error, "no conntrack: UDP flows to an endpoint that is gone end by their timeout");
            return;
        }
    }
}
