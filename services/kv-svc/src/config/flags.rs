//! Every flag of etcd 3.7, with its default.

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Switch,
    Number,
    Duration,
}

/// What becomes of a value that is not the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is followed.
    Used,
    /// It is refused.
    Later,
    /// It is accepted with a warning: there is nothing here to tune.
    Moot,
}

/// Groups of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Misc,
}

impl Group {
    pub const ALL: &'static [Self] = &[
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Misc,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and monitoring",
            Self::Logging => "Logging",
            Self::Misc => "Miscellaneous",
        }
    }
}

/// A flag.
#[derive(Debug)]
pub struct Flag {
    pub group: Group,
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub support: Support,
    pub about: &'static str,
}

const fn flag(
    group: Group,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    about: &'static str,
) -> Flag {
    Flag { group, name, kind, default, support, about }
}

use Group::{Auth, Clustering, Logging, Member, Misc, Monitoring, Security};
use Kind::{Duration, Number, Switch, Text};
use Support::{Later, Moot, Used};

/// The table.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag(Member, "name", Text, "default", Used, "Name of this member."),
    flag(Member, "data-dir", Text, "", Used, "Folder of everything that is kept; NAME.etcd when empty."),
    flag(Member, "wal-dir", Text, "", Used, "Folder of the log, if another."),
    flag(Member, "snapshot-count", Number, "10000", Used, "Log entries between two flushes of the store."),
    flag(Member, "snapshot-catchup-entries", Number, "5000", Used, "Log entries kept for members that lag."),
    flag(Member, "heartbeat-interval", Number, "100", Used, "Milliseconds between two heartbeats."),
    flag(Member, "election-timeout", Number, "1000", Used, "Milliseconds without a heartbeat before an election."),
    flag(Member, "initial-election-tick-advance", Switch, "true", Moot, "Start the first election early."),
    flag(Member, "listen-peer-urls", Text, "http://localhost:2380", Moot, "Where peers connect."),
    flag(Member, "listen-client-urls", Text, "http://localhost:2379", Used, "Where clients connect."),
    flag(Member, "listen-client-http-urls", Text, "", Later, "Where only HTTP clients connect."),
    flag(Member, "listen-metrics-urls", Text, "", Used, "Where /metrics and the health pages are served besides."),
    flag(Member, "max-snapshots", Number, "5", Moot, "Snapshot files to keep."),
    flag(Member, "max-wals", Number, "5", Moot, "Log files to keep."),
    flag(Member, "quota-backend-bytes", Number, "0", Used, "Bytes the store may have; 0 means 2 GiB."),
    flag(Member, "backend-bbolt-freelist-type", Text, "map", Moot, "Free list of bbolt."),
    flag(Member, "backend-batch-interval", Duration, "", Moot, "Longest time a bbolt transaction stays open."),
    flag(Member, "backend-batch-limit", Number, "0", Moot, "Operations of a bbolt transaction."),
    flag(Member, "max-txn-ops", Number, "128", Used, "Operations a transaction may have."),
    flag(Member, "max-request-bytes", Number, "1572864", Used, "Bytes a request may have."),
    flag(Member, "max-concurrent-streams", Number, "4294967295", Used, "Streams a client may open on a connection."),
    flag(Member, "grpc-keepalive-min-time", Duration, "5s", Moot, "Shortest time between two pings of a client."),
    flag(Member, "grpc-keepalive-interval", Duration, "2h0m0s", Used, "Idle time after which a connection is pinged."),
    flag(Member, "grpc-keepalive-timeout", Duration, "20s", Moot, "Time a ping may take."),
    flag(Member, "socket-reuse-port", Switch, "false", Later, "Set SO_REUSEPORT."),
    flag(Member, "socket-reuse-address", Switch, "false", Moot, "Set SO_REUSEADDR."),
    flag(Member, "raft-read-timeout", Duration, "5s", Moot, "Read time-out between peers."),
    flag(Member, "raft-write-timeout", Duration, "5s", Moot, "Write time-out between peers."),
    flag(Member, "memory-mlock", Switch, "false", Later, "Keep pages in memory."),
    flag(Clustering, "initial-advertise-peer-urls", Text, "http://localhost:2380", Used, "How peers reach this member."),
    flag(Clustering, "initial-cluster", Text, "", Used, "First members: NAME=PEER_URL,..."),
    flag(Clustering, "initial-cluster-state", Text, "new", Later, "new or existing."),
    flag(Clustering, "initial-cluster-token", Text, "etcd-cluster", Used, "Token that makes ids of this cluster differ from others."),
    flag(Clustering, "advertise-client-urls", Text, "http://localhost:2379", Used, "How clients reach this member."),
    flag(Clustering, "discovery-endpoints", Text, "", Later, "Endpoints of the discovery service."),
    flag(Clustering, "discovery-token", Text, "", Later, "Discovery token."),
    flag(Clustering, "discovery-dial-timeout", Duration, "2s", Later, "Time a connection to discovery may take."),
    flag(Clustering, "discovery-request-timeout", Duration, "5s", Later, "Time a request to discovery may take."),
    flag(Clustering, "discovery-keepalive-time", Duration, "2s", Later, "Ping interval of discovery."),
    flag(Clustering, "discovery-keepalive-timeout", Duration, "6s", Later, "Ping time-out of discovery."),
    flag(Clustering, "discovery-insecure-transport", Switch, "true", Later, "Discovery without TLS."),
    flag(Clustering, "discovery-insecure-skip-tls-verify", Switch, "false", Later, "Discovery without checking certificates."),
    flag(Clustering, "discovery-cert", Text, "", Later, "Certificate for discovery."),
    flag(Clustering, "discovery-key", Text, "", Later, "Key for discovery."),
    flag(Clustering, "discovery-cacert", Text, "", Later, "CA of discovery."),
    flag(Clustering, "discovery-user", Text, "", Later, "User of discovery."),
    flag(Clustering, "discovery-password", Text, "", Later, "Password of discovery."),
    flag(Clustering, "discovery-srv", Text, "", Later, "DNS domain with the first members."),
    flag(Clustering, "discovery-srv-name", Text, "", Later, "Service name in DNS."),
    flag(Clustering, "discovery-fallback", Text, "exit", Later, "What to do when discovery fails."),
    flag(Clustering, "strict-reconfig-check", Switch, "true", Later, "Refuse changes that would lose the quorum."),
    flag(Clustering, "pre-vote", Switch, "true", Later, "Ask before raising the term."),
    flag(Clustering, "auto-compaction-retention", Text, "0", Used, "History to keep; 0 keeps all."),
    flag(Clustering, "auto-compaction-mode", Text, "periodic", Used, "periodic or revision."),
    flag(Clustering, "max-learners", Number, "1", Later, "Learners a cluster may have."),
    flag(Clustering, "v2-deprecation", Text, "write-only-drop-data", Moot, "Stage of the v2 store."),
    flag(Security, "cert-file", Text, "", Used, "Certificate for clients."),
    flag(Security, "key-file", Text, "", Used, "Key for clients."),
    flag(Security, "client-cert-file", Text, "", Later, "Certificate of the gateway."),
    flag(Security, "client-key-file", Text, "", Later, "Key of the gateway."),
    flag(Security, "client-cert-auth", Switch, "false", Used, "Ask clients for certificates."),
    flag(Security, "client-crl-file", Text, "", Later, "Revoked client certificates."),
    flag(Security, "client-cert-allowed-hostname", Text, "", Later, "Names client certificates may have."),
    flag(Security, "trusted-ca-file", Text, "", Used, "CA of clients."),
    flag(Security, "auto-tls", Switch, "false", Later, "Make a certificate for clients."),
    flag(Security, "peer-cert-file", Text, "", Later, "Certificate for peers."),
    flag(Security, "peer-key-file", Text, "", Later, "Key for peers."),
    flag(Security, "peer-client-cert-file", Text, "", Later, "Certificate shown to peers."),
    flag(Security, "peer-client-key-file", Text, "", Later, "Key of the certificate shown to peers."),
    flag(Security, "peer-client-cert-auth", Switch, "false", Later, "Ask peers for certificates."),
    flag(Security, "peer-trusted-ca-file", Text, "", Later, "CA of peers."),
    flag(Security, "peer-cert-allowed-cn", Text, "", Later, "Common names peers may have."),
    flag(Security, "peer-cert-allowed-hostname", Text, "", Later, "Names peer certificates may have."),
    flag(Security, "peer-auto-tls", Switch, "false", Later, "Make a certificate for peers."),
    flag(Security, "peer-crl-file", Text, "", Later, "Revoked peer certificates."),
    flag(Security, "peer-skip-client-san-verification", Switch, "false", Later, "Accept any name in peer certificates."),
    flag(Security, "self-signed-cert-validity", Number, "1", Later, "Years a made certificate is valid."),
    flag(Security, "cipher-suites", Text, "", Later, "TLS cipher suites."),
    flag(Security, "tls-min-version", Text, "TLS1.2", Later, "Oldest TLS version."),
    flag(Security, "tls-max-version", Text, "", Later, "Newest TLS version."),
    flag(Security, "cors", Text, "*", Later, "Origins browsers may call from."),
    flag(Security, "host-whitelist", Text, "*", Later, "Host names requests may be for."),
    flag(Auth, "auth-token", Text, "simple", Later, "simple, or jwt with its options."),
    flag(Auth, "bcrypt-cost", Number, "10", Used, "Cost of a password hash."),
    flag(Auth, "auth-token-ttl", Number, "300", Used, "Seconds a token is valid."),
    flag(Monitoring, "enable-pprof", Switch, "false", Later, "Serve profiles."),
    flag(Monitoring, "metrics", Text, "basic", Later, "basic or extensive."),
    flag(Monitoring, "enable-distributed-tracing", Switch, "false", Later, "Export traces; OTEL_EXPORTER_OTLP_ENDPOINT does that here."),
    flag(Monitoring, "distributed-tracing-address", Text, "localhost:4317", Later, "Where traces go."),
    flag(Monitoring, "distributed-tracing-service-name", Text, "etcd", Later, "Service name of traces."),
    flag(Monitoring, "distributed-tracing-instance-id", Text, "", Later, "Instance id of traces."),
    flag(Monitoring, "distributed-tracing-sampling-rate", Number, "0", Later, "Traces per million."),
    flag(Monitoring, "watch-progress-notify-interval", Duration, "10m0s", Used, "Time between two bookmarks of an idle watcher."),
    flag(Monitoring, "warning-apply-duration", Duration, "100ms", Moot, "Applying longer than this is logged."),
    flag(Monitoring, "warning-unary-request-duration", Duration, "300ms", Moot, "Requests longer than this are logged."),
    flag(Monitoring, "corrupt-check-time", Duration, "0s", Later, "Time between two checks of the cluster."),
    flag(Monitoring, "compact-hash-check-time", Duration, "1m0s", Later, "Time between two checks of compaction hashes."),
    flag(Monitoring, "downgrade-check-time", Duration, "5s", Moot, "Time between two looks at a downgrade."),
    flag(Logging, "logger", Text, "zap", Later, "Only zap is known."),
    flag(Logging, "log-outputs", Text, "default", Later, "Where lines go; stderr here."),
    flag(Logging, "log-level", Text, "info", Used, "debug, info, warn or error."),
    flag(Logging, "log-format", Text, "json", Used, "json or console."),
    flag(Logging, "enable-log-rotation", Switch, "false", Later, "Rotate a log file."),
    flag(Logging, "log-rotation-config-json", Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Later, "How a log file is rotated."),
    flag(Misc, "config-file", Text, "", Used, "YAML file that replaces all other flags."),
    flag(Misc, "version", Switch, "false", Used, "Print the version and exit."),
    flag(Misc, "enable-grpc-gateway", Switch, "true", Moot, "Serve JSON on the client port."),
    flag(Misc, "feature-gates", Text, "", Moot, "Feature gates of etcd."),
    flag(Misc, "compaction-batch-limit", Number, "1000", Moot, "Revisions a compaction removes at once."),
    flag(Misc, "compaction-sleep-interval", Duration, "10ms", Moot, "Pause of a compaction between two batches."),
    flag(Misc, "bootstrap-defrag-threshold-megabytes", Number, "0", Moot, "Defragment at the start when it frees this much."),
    flag(Misc, "unsafe-no-fsync", Switch, "false", Used, "Do not wait for the disk; a crash loses data."),
    flag(Misc, "force-new-cluster", Switch, "false", Later, "Make this member a cluster of its own."),
];
