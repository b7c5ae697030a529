//! A node namespace that routes between pod namespaces. Everything goes when it is dropped.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

pub struct Net {
    id: u32,
    pods: u8,
}

pub fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Net {
    /// A namespace for the node, and `pods` pods 10.77.0.2, .3, ... on its bridge 10.77.0.1.
    pub fn new(pods: u8) -> Self {
        let net = Self { id: rand::random::<u32>() % 0xff_ffff, pods };
        let node = net.node();
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        ip(&format!("-n {node} link add br0 type bridge"));
        ip(&format!("-n {node} addr add 10.77.0.1/24 dev br0"));
        ip(&format!("-n {node} link set br0 up"));
        // Service addresses need some route to leave by; the rules turn them around before they do.
        ip(&format!("-n {node} route add default via 10.77.0.254"));
        net.inside(&node, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        for number in 0..pods {
            let pod = net.pod(number);
            ip(&format!("netns add {pod}"));
            ip(&format!("-n {node} link add v{number} type veth peer name eth0 netns {pod}"));
            ip(&format!("-n {node} link set v{number} master br0"));
            ip(&format!("-n {node} link set v{number} up"));
            let output = Command::new("ip")
                .args([
                    "netns",
                    "exec",
                    &node,
                    "sh",
                    "-c",
                    &format!("echo 1 > /sys/class/net/v{number}/brport/hairpin_mode"),
                ])
                .status()
                .unwrap();
            assert!(output.success());
            ip(&format!("-n {pod} link set lo up"));
            ip(&format!("-n {pod} link set eth0 up"));
            ip(&format!("-n {pod} addr add {}/24 dev eth0", net.address(number)));
            ip(&format!("-n {pod} route add default via 10.77.0.1"));
        }
        net
    }

    pub fn node(&self) -> String {
        format!("flt-n-{:x}", self.id)
    }

    pub fn pod(&self, number: u8) -> String {
        format!("flt-p{number}-{:x}", self.id)
    }

    pub fn address(&self, number: u8) -> String {
        format!("10.77.0.{}", number + 2)
    }

    /// Runs `work` on a thread inside a namespace.
    pub fn inside<T: Send>(&self, namespace: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(namespace);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// A TCP server in a pod that answers with the pod's number and the client's address.
    pub fn serve(&self, number: u8, port: u16) {
        let listener =
            self.inside(&self.pod(number), || TcpListener::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let _ =
                    std::io::Write::write_all(&mut stream, format!("{number} {peer}").as_bytes());
            }
        });
    }

    /// A UDP server in a pod that answers with the pod's number.
    pub fn serve_udp(&self, number: u8, port: u16) {
        let socket = self.inside(&self.pod(number), || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(number.to_string().as_bytes(), peer);
            }
        });
    }

    /// What a server answers to a client in `namespace`.
    pub fn ask(&self, namespace: &str, address: &str) -> std::io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(namespace, || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// The ruleset of the node.
    pub fn ruleset(&self) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.node(), "nft", "list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in (0..self.pods).map(|n| self.pod(n)).chain([self.node()]) {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
    }
}
