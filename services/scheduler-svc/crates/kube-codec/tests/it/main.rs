//! Codec checks against the original's own fixtures (k8s.io/api testdata), fetched through the Go module proxy.
//! Without Go or network they say so and pass.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;
use std::process::Command;

use kube_codec::{proto, typed, unwrap_unknown, wrap_unknown};
use serde_json::Value;

fn fixtures() -> Option<PathBuf> {
    let dir = tempdir();
    let run = |args: &[&str]| {
        Command::new("go").args(args).current_dir(&dir).env("GOFLAGS", "-mod=mod").output().ok()
    };
    run(&["mod", "init", "fixtures"])?;
    let output = run(&["mod", "download", "-json", "k8s.io/api@v0.35.0"])?;
    std::fs::remove_dir_all(&dir).ok();
    let facts: Value = serde_json::from_slice(&output.stdout).ok()?;
    let path = PathBuf::from(facts["Dir"].as_str()?).join("testdata/HEAD");
    path.exists().then_some(path)
}

fn tempdir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("kube-codec-fixtures-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn fixtures_of_the_original_transcode_byte_for_byte() {
    let Some(dir) = fixtures() else {
        println!(
            "SKIPPED fixtures_of_the_original_transcode_byte_for_byte: needs go and the Go module proxy"
        );
        return;
    };
    let (mut checked, mut failures) = (0, Vec::new());
    for resource in kube_spec::resources() {
        let group = if resource.group.is_empty() { "core" } else { resource.group };
        let base = dir.join(format!("{group}.{}.{}", resource.version, resource.kind));
        let base = base.display();
        let Ok(json) = std::fs::read(format!("{base}.json")) else { continue };
        let pb = std::fs::read(format!("{base}.pb")).unwrap();
        checked += 1;
        if let Err(reason) = check(resource, &json, &pb) {
            failures.push(format!("{}: {reason}", resource.kind));
        }
    }
    assert!(checked > 40, "only {checked} fixtures");
    assert!(failures.is_empty(), "{} of {checked}:\n{}", failures.len(), failures.join("\n"));
}

fn check(resource: &kube_spec::Resource, json: &[u8], pb: &[u8]) -> Result<(), String> {
    let spec = resource.type_id().get();
    let want: Value = serde_json::from_slice(json).unwrap();
    let envelope = unwrap_unknown(pb).map_err(|e| e.to_string())?;
    assert_eq!(envelope.kind, resource.kind);
    let mut got = proto::decode(spec, envelope.raw).map_err(|e| e.to_string())?;
    got["apiVersion"] = resource.api_version().into();
    got["kind"] = resource.kind.into();
    if let Some(difference) = difference("", &want, &got) {
        return Err(format!("protobuf to JSON: {difference}"));
    }
    let mut unknown = Vec::new();
    let canonical = typed(spec, want.clone(), &mut unknown).map_err(|e| e.to_string())?;
    if !unknown.is_empty() {
        return Err(format!("unknown fields {unknown:?}"));
    }
    if let Some(difference) = difference("", &want, &canonical) {
        return Err(format!("JSON to canonical: {difference}"));
    }
    let encoded = proto::encode(spec, &canonical).map_err(|e| e.to_string())?;
    let wrapped = wrap_unknown(&resource.api_version(), resource.kind, &encoded);
    if wrapped != pb {
        let at = wrapped.iter().zip(pb).position(|(a, b)| a != b);
        return Err(format!(
            "JSON to protobuf differs at {at:?} of {} (want {})",
            wrapped.len(),
            pb.len()
        ));
    }
    Ok(())
}

fn difference(path: &str, want: &Value, got: &Value) -> Option<String> {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|k| {
                difference(
                    &format!("{path}.{k}"),
                    a.get(k).unwrap_or(&Value::Null),
                    b.get(k).unwrap_or(&Value::Null),
                )
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b)),
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        (a, b) if a == b => None,
        (a, b) => Some(format!("{path}: want {a}, got {b}")),
    }
}

#[test]
fn damaged_messages_never_panic() {
    use rand::{Rng, SeedableRng};
    let spec = kube_spec::types().find("core/v1.Pod").unwrap().get();
    let pod = serde_json::json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]}});
    let good = proto::encode(spec, &typed(spec, pod, &mut Vec::new()).unwrap()).unwrap();
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..bad.len());
            bad[at] = rng.random();
        }
        bad.truncate(rng.random_range(0..=bad.len()));
        let wrapped = wrap_unknown("v1", "Pod", &bad);
        let envelope = unwrap_unknown(&wrapped).unwrap();
        if let Ok(value) = proto::decode(spec, envelope.raw) {
            let _ = proto::encode(spec, &value);
        }
    }
}
