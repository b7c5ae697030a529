//! TLS at the listener and towards endpoints: one gateway speaks TLS to another.

use crate::client::get;
use crate::gateway::{Gateway, cluster, http};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_terminated_and_originated() {
    let upstream = Upstream::start("u").await;
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["inner.test".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert_path, key_path) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&cert_path, cert.pem()).unwrap();
    std::fs::write(&key_path, signing_key.serialize_pem()).unwrap();
    let inner = http(
        0,
        "",
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    );
    let socket = format!(
        "    - transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]}}}}}}\n      filters:",
        cert_path.display(),
        key_path.display()
    );
    let inner = Gateway::start(&inner.replace("    - filters:", &socket));
    let tls = |ca: &str, sni: &str, alpn: &str| {
        format!(
            "transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: {sni}, common_tls_context: {{{alpn} {ca}}}}}}},"
        )
    };
    let trusted =
        format!("validation_context: {{trusted_ca: {{filename: {}}}}}", cert_path.display());
    let h2 =
        format!("{} {}", crate::gateway::H2, tls(&trusted, "inner.test", "alpn_protocols: [h2],"));
    let clusters = format!(
        "[{}, {}, {}, {}]",
        cluster("good", &[inner.port], &tls(&trusted, "inner.test", "")),
        cluster("wrong", &[inner.port], &tls(&trusted, "other.test", "")),
        cluster("any", &[inner.port], &tls("", "whatever.test", "")),
        cluster("h2", &[inner.port], &h2)
    );
    let routes = "[{match: {prefix: /good}, route: {cluster: good}}, {match: {prefix: /wrong}, route: {cluster: wrong}}, {match: {prefix: /any}, route: {cluster: any}}, {match: {prefix: /h2}, route: {cluster: h2}}]";
    let outer = Gateway::with(routes, &clusters);
    for path in ["/good", "/any", "/h2"] {
        let answer = get(outer.port, path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-upstream")),
            (200, "u"),
            "{path}: {}",
            answer.body
        );
    }
    assert!(get(outer.port, "/wrong", &[]).await.body.contains("remote connection failure"));
    assert!(inner.stat("http.main.downstream_cx_ssl_total").await >= 3);
    assert!(inner.stat("http.main.downstream_cx_http2_total").await >= 1);
}
