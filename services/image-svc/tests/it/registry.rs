//! The distribution protocol, case by case.

use http::Method;
use image_svc::engine::{Algorithm, Digest};
use serde_json::json;

use super::server::{MANIFEST, Server};

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn chunks_must_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let bytes = body(3000);
    let place = server.start_upload("a/b").await;
    let range = |r: &'static str| [("content-range", r)];
    let first = server.send(Method::PATCH, &place, &range("0-999"), bytes[..1000].to_vec()).await;
    assert_eq!((first.status.as_u16(), first.header("range")), (202, "0-999"));
    for wrong in ["0-999", "500-1499", "1001-2000"] {
        let answer = server
            .send(Method::PATCH, &place, &[("content-range", wrong)], bytes[..1000].to_vec())
            .await;
        assert_eq!((answer.status.as_u16(), answer.header("range")), (416, "0-999"), "{wrong}");
        assert_eq!(answer.code(), "RANGE_INVALID");
    }
    let short =
        server.send(Method::PATCH, &place, &range("1000-1999"), bytes[1000..1500].to_vec()).await;
    assert_eq!((short.status.as_u16(), short.code().as_str()), (400, "SIZE_INVALID"));
    let status = server.get(&place).await;
    assert_eq!((status.status.as_u16(), status.header("range")), (204, "0-999"));
    server.send(Method::PATCH, &place, &range("1000-1999"), bytes[1000..2000].to_vec()).await;
    let digest = Digest::sha256(&bytes);
    let last = server
        .send(
            Method::PUT,
            &format!("{place}?digest={digest}"),
            &range("2000-2999"),
            bytes[2000..].to_vec(),
        )
        .await;
    assert_eq!(
        (last.status.as_u16(), last.header("docker-content-digest")),
        (201, digest.as_str())
    );
    assert_eq!(server.get(last.header("location")).await.body, bytes);
    assert_eq!(server.get(&place).await.status, 404);
}

#[tokio::test]
async fn wrong_digest_keeps_the_upload_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let bytes = body(100_000);
    let place = server.start_upload("a").await;
    server.send(Method::PATCH, &place, &[], bytes.clone()).await;
    let wrong = Digest::sha256(b"other");
    let answer = server.send(Method::PUT, &format!("{place}?digest={wrong}"), &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(server.get(&format!("/v2/a/blobs/{wrong}")).await.status, 404);
    for bad in ["", "sha256:x", "md5:abc", "sha256:..%2f..%2fetc"] {
        let answer = server.send(Method::PUT, &format!("{place}?digest={bad}"), &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "DIGEST_INVALID"),
            "{bad}"
        );
    }
    let sha512 = Digest::of(Algorithm::Sha512, &bytes);
    let answer = server.send(Method::PUT, &format!("{place}?digest={sha512}"), &[], "").await;
    assert_eq!(answer.status, 201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{sha512}")).await.body, bytes);
}

#[tokio::test]
async fn blobs_are_served_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for length in [1000usize, 1_000_000] {
        let bytes = body(length);
        let digest = server.push_blob("a", &bytes).await;
        let path = format!("/v2/a/blobs/{digest}");
        for (range, start, end) in [
            ("bytes=0-9", 0, 9),
            ("bytes=990-", 990, length - 1),
            ("bytes=-10", length - 10, length - 1),
        ] {
            let answer = server.send(Method::GET, &path, &[("range", range)], "").await;
            assert_eq!(answer.status, 206);
            assert_eq!(answer.body, bytes[start..=end], "{range}");
            assert_eq!(answer.header("content-range"), format!("bytes {start}-{end}/{length}"));
        }
        for range in ["bytes=5-2", "bytes=5000000-", "bytes=-0"] {
            let answer = server.send(Method::GET, &path, &[("range", range)], "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("content-range")),
                (416, format!("bytes */{length}").as_str()),
                "{range}"
            );
        }
        let head = server.send(Method::HEAD, &path, &[], "").await;
        assert_eq!(
            (head.status.as_u16(), head.header("content-length")),
            (200, length.to_string().as_str())
        );
        assert_eq!(head.header("docker-content-digest"), digest.as_str());
        let etag = head.header("etag").to_owned();
        assert_eq!(
            server.send(Method::GET, &path, &[("if-none-match", &etag)], "").await.status,
            304
        );
    }
}

#[tokio::test]
async fn uploads_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let bytes = body(200_000);
    let place = server.start_upload("a").await;
    server.send(Method::PATCH, &place, &[], bytes[..150_000].to_vec()).await;
    server.process.kill();
    let server = Server::start(dir.path());
    let status = server.get(&place).await;
    assert_eq!((status.status.as_u16(), status.header("range")), (204, "0-149999"));
    let digest = Digest::sha256(&bytes);
    let answer = server
        .send(Method::PUT, &format!("{place}?digest={digest}"), &[], bytes[150_000..].to_vec())
        .await;
    assert_eq!(answer.status, 201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.body, bytes);
    let left = std::fs::read_dir(dir.path().join("root/ingest")).unwrap().count();
    assert_eq!(left, 0, "unfinished files stay behind");
}

#[tokio::test]
async fn mounts_need_the_blob_in_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.push_blob("a", b"content").await;
    let post = |query: String| format!("/v2/b/blobs/uploads/?{query}");
    let other = server.send(Method::POST, &post(format!("mount={digest}&from=c")), &[], "").await;
    assert_eq!(other.status, 202);
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).await.status, 404);
    let mounted = server.send(Method::POST, &post(format!("mount={digest}&from=a")), &[], "").await;
    assert_eq!(mounted.status, 201);
    assert_eq!(
        server.send(Method::DELETE, &format!("/v2/a/blobs/{digest}"), &[], "").await.status,
        202
    );
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.status, 404);
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).await.body, "content");
}

#[tokio::test]
async fn manifests_come_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let config = server.push_blob("a", b"{}").await;
    let text = format!(
        "{{ \"schemaVersion\" : 2,\n \"config\":{{\"mediaType\":\"x/y\",\"digest\":\"{config}\",\"size\":2}},\t\"layers\":[] }}\n"
    );
    let digest = Digest::sha256(text.as_bytes());
    assert_eq!(
        server.put_manifest("a", "v1", &text).await.header("docker-content-digest"),
        digest.as_str()
    );
    for reference in ["v1", digest.as_str()] {
        let path = format!("/v2/a/manifests/{reference}");
        let answer = server.get(&path).await;
        assert_eq!(
            (answer.body.as_ref(), answer.header("content-type")),
            (text.as_bytes(), MANIFEST)
        );
        let head = server.send(Method::HEAD, &path, &[], "").await;
        for name in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(head.header(name), answer.header(name), "{name}");
        }
    }
    let missing = text.replace(config.as_str(), Digest::sha256(b"gone").as_str());
    let answer = server.put_manifest("a", "v2", &missing).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    let both = text.replace("\"layers\"", "\"manifests\":[],\"layers\"");
    assert_eq!(server.put_manifest("a", "v2", &both).await.code(), "MANIFEST_INVALID");
    assert_eq!(server.put_manifest("a", &"t".repeat(129), &text).await.code(), "TAG_INVALID");
    assert_eq!(server.get("/v2/a/manifests/v2").await.code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn deleting_a_manifest_takes_its_tags() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.push_image("a/b", "v1", &[b"".to_vec()]).await;
    let manifest = server.get("/v2/a/b/manifests/v1").await.body;
    let text = std::str::from_utf8(&manifest).unwrap();
    for tag in ["v2", "v3"] {
        server.put_manifest("a/b", tag, text).await;
    }
    assert_eq!(
        server.get("/v2/a/b/tags/list").await.json(),
        json!({"name": "a/b", "tags": ["v1", "v2", "v3"]})
    );
    let page = server.get("/v2/a/b/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], json!(["v1", "v2"]));
    assert_eq!(page.header("link"), "</v2/a/b/tags/list?last=v2&n=2>; rel=\"next\"");
    assert_eq!(server.get("/v2/a/b/tags/list?n=-1").await.code(), "PAGINATION_NUMBER_INVALID");
    assert_eq!(server.send(Method::DELETE, "/v2/a/b/manifests/v2", &[], "").await.status, 202);
    assert_eq!(server.get("/v2/a/b/tags/list").await.json()["tags"], json!(["v1", "v3"]));
    assert_eq!(
        server.send(Method::DELETE, &format!("/v2/a/b/manifests/{digest}"), &[], "").await.status,
        202
    );
    assert_eq!(server.get("/v2/a/b/tags/list").await.json()["tags"], json!([]));
    assert_eq!(server.get("/v2/a/b/manifests/v1").await.status, 404);
    assert_eq!(server.get("/v2/_catalog").await.json(), json!({"repositories": ["a/b"]}));
    assert_eq!(server.get("/v2/none/tags/list").await.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn referrers_appear_before_and_after_their_subject() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let empty = server.push_blob("a", b"{}").await;
    let subject = Digest::sha256(b"a subject that is not there");
    let text = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x.sbom", "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 27}, "annotations": {"k": "v"},
    })
    .to_string();
    let digest = Digest::sha256(text.as_bytes());
    let put = server.put_manifest("a", digest.as_str(), &text).await;
    assert_eq!((put.status.as_u16(), put.header("oci-subject")), (201, subject.as_str()));
    let all = server.get(&format!("/v2/a/referrers/{subject}")).await;
    assert_eq!(all.json()["manifests"][0]["digest"], digest.as_str());
    assert_eq!(all.json()["manifests"][0]["annotations"]["k"], "v");
    let none = server.get(&format!("/v2/a/referrers/{subject}?artifactType=x")).await;
    assert_eq!(
        (none.json()["manifests"].as_array().unwrap().len(), none.header("oci-filters-applied")),
        (0, "artifactType")
    );
}

#[tokio::test]
async fn bad_names_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let long = "a".repeat(256);
    for name in ["A/b", "a//b", "..%2f..%2fetc", "_a", "a..b", long.as_str()] {
        let answer =
            server.send(Method::POST, &format!("/v2/{name}/blobs/uploads/"), &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "NAME_INVALID"),
            "{name}"
        );
    }
    assert_eq!(server.get("/v2/_catalog").await.json(), json!({"repositories": []}));
    let answer = server.send(Method::PUT, "/v2/a/tags/list", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET"));
    assert_eq!(std::fs::read_dir(dir.path().join("root/ingest")).unwrap().count(), 0);
}
