//! A gateway under test.

use std::process::Command;
use std::time::Duration;

use flotilla_testkit::Process;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway.
pub struct Gateway {
    pub process: Process,
    /// Port of the listener `main`, or 0 when there is none.
    pub port: u16,
    pub admin: u16,
}

/// The binary.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["--drain-time-s", "5"]);
    command
}

/// The port a log line `"address":"127.0.0.1:PORT"` after `marker` names.
pub fn port_of(output: &str, marker: &str) -> Option<u16> {
    let line =
        output.lines().find(|line| line.contains("\"listening\"") && line.contains(marker))?;
    let (_, rest) = line.split_once("\"address\":\"")?;
    rest.split('"').next()?.rsplit(':').next()?.parse().ok()
}

impl Gateway {
    /// Starts one with this bootstrap; the admin port is chosen by the kernel.
    pub fn start(bootstrap: &str) -> Self {
        let admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n";
        let mut process =
            Process::spawn(command().args(["--config-yaml", &format!("{admin}{bootstrap}")]));
        process.wait_for_line("all listeners are up", PATIENCE);
        let output = process.output();
        let port = port_of(&output, "\"listener\":\"main\"").unwrap_or(0);
        Self { admin: port_of(&output, "\"admin\":true").unwrap(), port, process }
    }

    /// One HTTP listener `main` with these routes and clusters, both as YAML flow lists.
    pub fn with(routes: &str, clusters: &str) -> Self {
        Self::start(&http(0, "", routes, clusters))
    }

    /// A page of the admin port.
    pub async fn admin(&self, path: &str) -> String {
        super::client::get(self.admin, path, &[]).await.body
    }

    /// The value of a stat.
    pub async fn stat(&self, name: &str) -> i64 {
        let page = self.admin("/stats").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no stat {name} in\n{page}")).parse().unwrap()
    }
}

/// A bootstrap with one HTTP listener. `options` are fields of the connection manager.
pub fn http(port: u16, options: &str, routes: &str, clusters: &str) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: main, {options}
          access_log: [{{name: stdout, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}}}],
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}],
          route_config: {{name: main, virtual_hosts: [{{name: all, domains: ["*"], routes: {routes}}}]}}}}
  clusters: {clusters}
"#
    )
}

/// A static cluster as a YAML flow mapping. `options` are more fields, each followed by a comma.
pub fn cluster(name: &str, ports: &[u16], options: &str) -> String {
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"))
        .collect();
    format!(
        "{{name: {name}, {options} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}",
        endpoints.join(", ")
    )
}

/// The options of a cluster that speaks HTTP/2.
pub const H2: &str = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}},"#;
