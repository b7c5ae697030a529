//! Requests that end at a node's kubelet: a small HTTPS server stands in for it.

use std::process::Command;

use flotilla_testkit::Process;
use serde_json::json;

use crate::cluster::{Cluster, LIMIT, skip};

const KUBELET: &str = r#"
import http.server, ssl, sys
class Kubelet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Authorization") != "Bearer kubelet-secret":
            self.send_response(401); self.send_header("Content-Length", "0"); self.end_headers(); return
        if self.headers.get("Upgrade") == "echo":
            self.send_response(101); self.send_header("Connection", "Upgrade"); self.send_header("Upgrade", "echo"); self.end_headers()
            self.wfile.write(b"<" + self.rfile.readline().strip() + b">\n"); self.wfile.flush(); self.close_connection = True; return
        if self.path.startswith("/redirect"):
            self.send_response(302); self.send_header("Location", "https://example.com"); self.send_header("Content-Length", "0"); self.end_headers(); return
        body = ("you asked for " + self.path + "\n").encode()
        self.send_response(200); self.send_header("Content-Type", "text/plain"); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubelet)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("port", server.server_address[1], flush=True)
server.serve_forever()
"#;

fn kubelet(c: &Cluster) -> (Process, u16) {
    let certs = c.dir.path().join("certs");
    let mut command = Command::new("python3");
    command.args(["-c", KUBELET]).arg(certs.join("apiserver.crt")).arg(certs.join("apiserver.key"));
    let mut process = Process::spawn(&mut command);
    let line = process.wait_for_line("port ", LIMIT);
    let port = line.rsplit(' ').next().unwrap().parse().unwrap();
    (process, port)
}

#[test]
fn logs_and_streams_go_through_to_the_node() {
    if skip("logs_and_streams_go_through_to_the_node") {
        return;
    }
    let c = Cluster::with(&["--kubelet-client-token", "kubelet-secret"]);
    let (_kubelet, port) = kubelet(&c);
    let node = json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(c.post("/api/v1/nodes", &node).code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    assert_eq!(c.post(pods, &pod).code, 201);
    let logs = c.kubectl(&["logs", "p", "-c", "b", "--tail=5"], "");
    assert!(logs.contains("you asked for /containerLogs/default/p/b?tailLines=5"), "{logs}");
    let which = c.get(&format!("{pods}/p/log"));
    assert!(
        which
            .message()
            .contains("a container name must be specified for pod p, choose one of: [a b]"),
        "{}",
        which.body
    );
    let none = c.get(&format!("{pods}/p/log?container=x"));
    assert!(none.message().contains("container x is not valid for pod p"), "{}", none.body);
    let proxied = c.get("/api/v1/nodes/n1/proxy/redirect");
    assert_eq!(proxied.code, 500, "redirects are not followed: {}", proxied.body);
    let exec =
        format!("https://{}{pods}/p/exec?container=a&command=sh&stdin=1&stdout=1", c.address);
    // curl keeps the connection open after 101, so a raw TLS client speaks here.
    let script = format!(
        "import socket,ssl\nx=ssl._create_unverified_context().wrap_socket(socket.create_connection(('127.0.0.1',{port})))\n\
         x.sendall(b'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {token}\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n')\n\
         x.settimeout(10)\nhead=b''\nwhile b'\\r\\n\\r\\n' not in head: head+=x.recv(1)\nx.sendall(b'hello\\n')\nprint(head.decode(), x.recv(99).decode())",
        port = c.address.rsplit(':').next().unwrap(),
        path = exec.split_once(&c.address).unwrap().1,
        token = c.token,
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("101 Switching Protocols") && text.contains("<hello>"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
