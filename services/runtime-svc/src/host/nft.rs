//! The packet filter's part: masquerade for traffic that leaves the pods, and host ports.
//!
//! Everything lies in one table of our own. Rules are written once; host ports are elements of a map, so that a
//! pod without host ports changes nothing. Rulesets are handed to `nft -f -`, which applies each as a whole.

use std::collections::HashMap;
use std::fmt::Write;
use std::process::Stdio;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::bridge::BridgeConfig;
use crate::engine::error::{Error, Result};
use crate::engine::ports::PodNetwork;

/// The table of one daemon.
#[derive(Debug)]
pub struct Nft {
    table: String,
    /// Elements by sandbox.
    ports: Mutex<HashMap<String, Vec<Element>>>,
}

/// One host port: whether it is in the map of ports on a given address, its key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    map: &'static str,
    key: String,
    value: String,
}

impl Nft {
    /// Uses table `ip NAME`.
    pub fn new(table: &str) -> Self {
        Self { table: table.to_owned(), ports: Mutex::default() }
    }

    /// Writes the table anew, without host ports.
    pub(super) async fn make(&self, bridge: &BridgeConfig) -> Result<()> {
        let (table, range, name) = (&self.table, bridge.range, &bridge.name);
        let dnat = "dnat ip to meta l4proto . th dport map @anywhere";
        let dnat_at = "dnat ip to ip daddr . meta l4proto . th dport map @address";
        let ruleset = format!(
            "table ip {table} {{}}\nflush table ip {table}\ndelete table ip {table}\n\
             table ip {table} {{\n\
             map anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}\n\
             map address {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}\n\
             chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;\n\
             fib daddr type local {dnat_at}\nfib daddr type local {dnat}\n}}\n\
             chain output {{ type nat hook output priority -100; policy accept;\n\
             fib daddr type local {dnat_at}\nfib daddr type local {dnat}\n}}\n\
             chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;\n\
             ip saddr {range} ip daddr != {range} ip daddr != 224.0.0.0/4 oifname != \"{name}\" masquerade\n\
             ip saddr {range} oifname \"{name}\" ct status dnat masquerade\n\
             ip saddr 127.0.0.0/8 oifname \"{name}\" masquerade\n\
             }}\n}}\n"
        );
        self.apply(&ruleset).await
    }

    /// Opens a pod's host ports.
    pub(super) async fn add_ports(&self, pod: &PodNetwork) -> Result<()> {
        let elements = elements(pod);
        if elements.is_empty() {
            return Ok(());
        }
        self.refuse_taken(pod, &elements)?;
        let done = self.apply(&self.lines("add", &elements)).await;
        if done.is_err() {
            self.ports.lock().remove(&pod.id);
        }
        done.map_err(|error| error.during("open the pod's host ports"))
    }

    fn refuse_taken(&self, pod: &PodNetwork, elements: &[Element]) -> Result<()> {
        let mut ports = self.ports.lock();
        for element in elements {
            let same = |other: &Element| other.map == element.map && other.key == element.key;
            if let Some((holder, _)) =
                ports.iter().find(|(id, all)| **id != pod.id && all.iter().any(same))
            {
                return Err(Error::Failed(format!(
                    "host port {} is taken by pod {holder}",
                    element.key
                )));
            }
        }
        ports.insert(pod.id.clone(), elements.to_vec());
        Ok(())
    }

    /// Closes a pod's host ports.
    pub(super) async fn remove_ports(&self, id: &str) -> Result<()> {
        let Some(elements) = self.ports.lock().get(id).cloned() else { return Ok(()) };
        self.apply(&self.lines("delete", &elements))
            .await
            .map_err(|error| error.during("close the pod's host ports"))?;
        self.ports.lock().remove(id);
        Ok(())
    }

    /// Makes the host ports those of `pods` alone.
    pub(super) async fn set_ports(&self, pods: &[PodNetwork]) -> Result<()> {
        let all: HashMap<String, Vec<Element>> = pods
            .iter()
            .map(|pod| (pod.id.clone(), elements(pod)))
            .filter(|(_, elements)| !elements.is_empty())
            .collect();
        let mut text = String::new();
        for map in ["anywhere", "address"] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "flush map ip {} {map}", self.table);
        }
        for elements in all.values() {
            text += &self.lines("add", elements);
        }
        self.apply(&text).await?;
        *self.ports.lock() = all;
        Ok(())
    }

    fn lines(&self, verb: &str, elements: &[Element]) -> String {
        let mut text = String::new();
        for Element { map, key, value } in elements {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{verb} element ip {} {map} {{ {key} : {value} }}", self.table);
        }
        text
    }

    async fn apply(&self, ruleset: &str) -> Result<()> {
        let start = |error: std::io::Error| {
            Error::Failed(format!(
                "cannot run nft: {error}; install nftables (`apt-get install nftables`)"
            ))
        };
        let mut command = Command::new("nft");
        command
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(ruleset.as_bytes()).await.map_err(start)?;
        }
        let output = child.wait_with_output().await.map_err(start)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Failed(format!(
            "nft refused the rules of table {}: {}",
            self.table,
            said.lines().next().unwrap_or_default()
        )))
    }
}

fn elements(pod: &PodNetwork) -> Vec<Element> {
    let one = |port: &crate::engine::ports::PortMapping| {
        let key = format!("{} . {}", port.protocol, port.host_port);
        let value = format!("{} . {}", pod.ip, port.container_port);
        match port.host_ip {
            None => Element { map: "anywhere", key, value },
            Some(ip) => Element { map: "address", key: format!("{ip} . {key}"), value },
        }
    };
    pod.ports.iter().map(one).collect()
}
