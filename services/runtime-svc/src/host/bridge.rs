//! The pod network: a bridge with the gateway's address, and a veth pair a pod.
//!
//! The host's end of a pair is named after the sandbox, so that strays are found by name. Addresses of cards
//! follow from IP addresses, so that neighbours' caches stay right when an address is used again.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use tokio::net::{TcpSocket, TcpStream};

use super::netns;
use super::nft::Nft;
use crate::engine::error::{Error, Result};
use crate::engine::ipam::Cidr;
use crate::engine::ports::{Network, PodNetwork};

/// What the network is made of.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Name of the bridge.
    pub name: String,
    /// Range of the pods' addresses.
    pub range: Cidr,
}

/// The bridge of one daemon.
pub struct BridgeNetwork {
    config: BridgeConfig,
    links: Handle,
    bridge: u32,
    mtu: u32,
    nft: Nft,
}

fn fail(what: impl std::fmt::Display) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |error| Error::Failed(format!("{what}: {}", reason(&error)))
}

fn reason(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}

fn has_code(error: &rtnetlink::Error, kind: io::ErrorKind) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.to_io().kind() == kind)
}

fn card_address(ip: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58][..], &ip.octets()].concat()
}

impl BridgeNetwork {
    /// Makes or adopts the bridge, turns forwarding on and writes the packet filter's table.
    ///
    /// # Errors
    /// Says what could not be made.
    pub async fn open(config: BridgeConfig, nft: Nft) -> Result<Self> {
        let (connection, links, _) = rtnetlink::new_connection()
            .map_err(|error| Error::failed("open a netlink socket", error))?;
        tokio::spawn(connection);
        let mtu = default_mtu(&links).await;
        let gateway = config.range.gateway();
        let name = config.name.clone();
        let wanted = LinkBridge::new(&name).address(card_address(gateway)).mtu(mtu).up().build();
        match links.link().add(wanted).execute().await {
            Err(error) if !has_code(&error, io::ErrorKind::AlreadyExists) => {
                return Err(fail(format!("make the bridge {name}"))(error));
            }
            _ => {}
        }
        let bridge = index_of(&links, &name)
            .await?
            .ok_or_else(|| Error::Failed(format!("the bridge {name} vanished")))?;
        let up = LinkUnspec::new_with_index(bridge).up().build();
        links.link().set(up).execute().await.map_err(fail(format!("set the bridge {name} up")))?;
        match links.address().add(bridge, IpAddr::V4(gateway), config.range.prefix).execute().await
        {
            Err(error) if !has_code(&error, io::ErrorKind::AlreadyExists) => {
                return Err(fail(format!("give {gateway} to the bridge {name}"))(error));
            }
            _ => {}
        }
        for (path, what) in [
            ("/proc/sys/net/ipv4/ip_forward".to_owned(), "turn IPv4 forwarding on"),
            (format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "route loopback to pods"),
        ] {
            std::fs::write(&path, "1")
                .map_err(|error| Error::failed(format!("{what} ({path})"), error))?;
        }
        nft.make(&config).await?;
        Ok(Self { config, links, bridge, mtu, nft })
    }

    async fn connect_pod(&self, pod: &PodNetwork) -> Result<()> {
        let name = host_end(&pod.id);
        let pid = u32::try_from(pod.pid)
            .map_err(|_| Error::Failed("the pod's shim has no PID".to_owned()))?;
        let inside = LinkMessageBuilder::<LinkUnspec>::default()
            .name("eth0")
            .address(card_address(pod.ip))
            .mtu(self.mtu)
            .setns_by_pid(pid)
            .build();
        let pair = LinkVeth::new(&name, "eth0")
            .set_info_data(rtnetlink::packet_route::link::InfoData::Veth(
                rtnetlink::packet_route::link::InfoVeth::Peer(inside),
            ))
            .controller(self.bridge)
            .mtu(self.mtu)
            .up()
            .build();
        self.links
            .link()
            .add(pair)
            .execute()
            .await
            .map_err(fail("connect the pod to the bridge"))?;
        // A pod may reach itself through a service address. Without sysfs of this namespace it cannot.
        let _ = std::fs::write(format!("/sys/class/net/{name}/brport/hairpin_mode"), "1");
        let made = netns::within(pod.pid, rtnetlink::new_connection).await;
        let (connection, links, _) =
            made.map_err(|error| Error::failed("enter the pod's network", error))?;
        let connection = tokio::spawn(connection);
        let configured = self.configure_inside(&links, pod).await;
        connection.abort();
        configured
    }

    async fn configure_inside(&self, links: &Handle, pod: &PodNetwork) -> Result<()> {
        let index = index_of(links, "eth0")
            .await?
            .ok_or_else(|| Error::Failed("the pod has no eth0".to_owned()))?;
        // Only now: a device of a pair cannot be up before its peer exists.
        let up = LinkUnspec::new_with_index(index).up().build();
        links.link().set(up).execute().await.map_err(fail("set the pod's eth0 up"))?;
        let address = links.address().add(index, IpAddr::V4(pod.ip), self.config.range.prefix);
        address.execute().await.map_err(fail(format!("give {} to the pod", pod.ip)))?;
        let gateway = self.config.range.gateway();
        let route =
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        links
            .route()
            .add(route)
            .execute()
            .await
            .map_err(fail(format!("route the pod through {gateway}")))
    }

    async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(index) = index_of(&self.links, name).await? else { return Ok(()) };
        match self.links.link().del(index).execute().await {
            Err(error)
                if !has_code(&error, io::ErrorKind::NotFound)
                    && !error.to_string().contains("No such device") =>
            {
                Err(fail(format!("delete the device {name}"))(error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Network for BridgeNetwork {
    async fn attach(&self, pod: &PodNetwork) -> Result<()> {
        self.connect_pod(pod).await?;
        self.nft.add_ports(pod).await
    }

    async fn detach(&self, id: &str) -> Result<()> {
        self.nft.remove_ports(id).await?;
        self.delete_link(&host_end(id)).await
    }

    async fn sweep(&self, known: &[PodNetwork]) -> Result<()> {
        self.nft.set_ports(known).await?;
        let keep: HashSet<String> = known.iter().map(|pod| host_end(&pod.id)).collect();
        let all: Vec<LinkMessage> = self
            .links
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(fail("list network devices"))?;
        for link in all {
            let ours = link
                .attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::Controller(index) if *index == self.bridge));
            let name = name_of(&link);
            if ours && name.starts_with(PREFIX) && !keep.contains(&name) {
                self.delete_link(&name).await?;
            }
        }
        Ok(())
    }

    async fn connect(&self, pid: i32, port: u16) -> Result<TcpStream> {
        let what = format!("connect to port {port} of the pod");
        let v4 = netns::within(pid, TcpSocket::new_v4)
            .await
            .map_err(|error| Error::failed(&what, error))?;
        match v4.connect((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => Ok(stream),
            Err(first) => {
                let v6 = netns::within(pid, TcpSocket::new_v6)
                    .await
                    .map_err(|error| Error::failed(&what, error))?;
                let reached = v6.connect((std::net::Ipv6Addr::LOCALHOST, port).into()).await;
                reached.map_err(|_| Error::failed(&what, first))
            }
        }
    }
}

const PREFIX: &str = "flt";

/// Name of the host's end of a pod's pair; device names hold 15 characters.
fn host_end(id: &str) -> String {
    format!("{PREFIX}{}", &id[..id.len().min(12)])
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

async fn index_of(links: &Handle, name: &str) -> Result<Option<u32>> {
    let mut found = links.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error)
            if has_code(&error, io::ErrorKind::NotFound)
                || reason(&error).contains("No such device") =>
        {
            Ok(None)
        }
        Err(error) => Err(fail(format!("look for the device {name}"))(error)),
    }
}

/// MTU of the device the default route leads out of, 1500 without one.
async fn default_mtu(links: &Handle) -> u32 {
    const ETHERNET: u32 = 1500;
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let device = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then(|| name.to_owned())
    });
    let Some(device) = device else { return ETHERNET };
    let found = links.link().get().match_name(device).execute().try_next().await;
    let mtu = found.ok().flatten().and_then(|link| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    });
    mtu.unwrap_or(ETHERNET).clamp(576, 65_535)
}
