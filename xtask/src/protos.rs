//! Generates the Rust code of every wire schema under `proto/`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;

use crate::root;

/// One module of the proto crate.
pub struct Api {
    /// Module name, and folder under `gen/`.
    pub module: &'static str,
    /// Cargo feature that turns the module on.
    pub feature: &'static str,
    /// Root files, relative to `proto/`; what they import is generated with them.
    pub files: &'static [&'static str],
    /// Whether client and server stubs are wanted besides the messages.
    pub services: bool,
}

/// Every API, in alphabetical order of module.
pub const APIS: &[Api] = &[
    Api {
        module: "containerd",
        feature: "containerd",
        files: &[
            "containerd/services/content/v1/content.proto",
            "containerd/services/diff/v1/diff.proto",
            "containerd/services/images/v1/images.proto",
            "containerd/services/leases/v1/leases.proto",
            "containerd/services/namespaces/v1/namespace.proto",
            "containerd/services/snapshots/v1/snapshots.proto",
            "containerd/services/version/v1/version.proto",
        ],
        services: true,
    },
    Api { module: "cri", feature: "cri", files: &["runtime/v1/api.proto"], services: true },
    Api { module: "dns", feature: "dns", files: &["flotilla/dns/v1/dns.proto"], services: true },
    Api {
        module: "engine",
        feature: "engine",
        files: &["flotilla/engine/v1/engine.proto"],
        services: true,
    },
    Api {
        module: "envoy",
        feature: "envoy",
        files: &[
            "envoy/config/bootstrap/v3/bootstrap.proto",
            "envoy/config/route/v3/route.proto",
            "envoy/extensions/access_loggers/file/v3/file.proto",
            "envoy/extensions/access_loggers/stream/v3/stream.proto",
            "envoy/extensions/filters/http/router/v3/router.proto",
            "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
            "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
            "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
            "envoy/extensions/transport_sockets/tls/v3/tls.proto",
            "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
            "envoy/service/discovery/v3/ads.proto",
        ],
        services: true,
    },
    Api {
        module: "etcd",
        feature: "etcd",
        files: &[
            "etcd/etcdserverpb/rpc.proto",
            "etcd/etcdserverpb/raft_internal.proto",
            "etcd/leasepb/lease.proto",
            "etcd/v3electionpb/v3election.proto",
            "etcd/v3lockpb/v3lock.proto",
        ],
        services: true,
    },
    Api {
        module: "gateway",
        feature: "gateway",
        files: &["flotilla/gateway/v1/registry.proto"],
        services: true,
    },
    Api {
        module: "image",
        feature: "image",
        files: &["flotilla/image/v1/build.proto", "flotilla/image/v1/image_ops.proto"],
        services: true,
    },
    Api {
        module: "kube",
        feature: "kube",
        files: &["flotilla/kube/v1/kube.proto"],
        services: true,
    },
    Api {
        module: "kv_admin",
        feature: "kv-admin",
        files: &["flotilla/kv/v1/admin.proto"],
        services: true,
    },
    Api {
        module: "metrics",
        feature: "metrics",
        files: &["flotilla/metrics/v1/admin.proto", "flotilla/metrics/v1/query.proto"],
        services: true,
    },
    Api {
        module: "scheduler",
        feature: "scheduler",
        files: &["flotilla/scheduler/v1/scheduler.proto"],
        services: true,
    },
];

/// Writes `gen/`, `apis.rs` and `descriptors.rs` below `out`.
pub fn generate(out: &Path) -> Result<()> {
    let mut list = String::new();
    let mut descriptors = String::from("&[\n");
    for api in APIS {
        generate_api(api, &out.join("gen").join(api.module))
            .with_context(|| format!("generate {}", api.module))?;
        list.push_str(&format!("api!(\"{}\", {});\n", api.feature, api.module));
        descriptors
            .push_str(&format!("    include_bytes!(\"gen/{}/descriptors.bin\"),\n", api.module));
    }
    descriptors.push_str("]\n");
    fs::write(out.join("descriptors.rs"), descriptors).context("write descriptors.rs")?;
    fs::write(out.join("apis.rs"), list).context("write apis.rs")
}

fn generate_api(api: &Api, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    let proto = root().join("proto");
    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_source_info(true).include_imports(true);
    for file in api.files {
        compiler.open_file(proto.join(file)).with_context(|| format!("compile {file}"))?;
    }
    let with_comments = compiler.file_descriptor_set();
    let mut config = tonic_prost_build::Config::new();
    config.out_dir(dir).include_file("mod.rs").bytes(["."]);
    tonic_prost_build::configure()
        .build_client(api.services)
        .build_server(api.services)
        .build_transport(true)
        .out_dir(dir)
        .compile_fds_with_config(with_comments.clone(), config)?;
    let mut bare = with_comments;
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    fs::write(dir.join("descriptors.bin"), bare.encode_to_vec())?;
    Ok(())
}
