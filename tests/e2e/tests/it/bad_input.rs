//! What people get wrong: one line that names the thing and the fix, and nothing half-created stays.

use std::net::TcpListener;
use std::process::Command;

use flotilla_testkit::{binary, skip_unless_program, skip_unless_root};

use crate::suite::Suite;

#[test]
fn taken_port_is_named_and_nothing_is_started() {
    if skip_unless_root("taken_port_is_named_and_nothing_is_started") {
        return;
    }
    let mut suite = Suite::new(3);
    let _holder = TcpListener::bind(("127.0.0.1", suite.port(2))).unwrap();
    let output = suite.up(&[]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("image-svc port {}", suite.port(2))), "{text}");
    assert!(!suite.root.path().join("state.json").exists());
}

#[test]
fn without_root_the_way_out_is_named() {
    if skip_unless_root("without_root_the_way_out_is_named")
        || skip_unless_program("without_root_the_way_out_is_named", "setpriv")
    {
        return;
    }
    let suite = Suite::new(4);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(binary("flotilla"))
        .args(["up", "--root", "/nonexistent"])
        .args(suite.network_flags())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    // A target folder that other users cannot enter ends earlier; that too is one line.
    assert!(!output.status.success());
    assert!(text.contains("--without-runtime") || text.contains("Permission denied"), "{text}");
}

#[test]
fn broken_manifest_and_unknown_image_are_explained() {
    let test = "broken_manifest_and_unknown_image_are_explained";
    if skip_unless_root(test) || skip_unless_program(test, "kubectl") {
        return;
    }
    let mut suite = Suite::new(5);
    let output = suite.up(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let broken = suite.root.path().join("broken.yaml");
    std::fs::write(
        &broken,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
         template:\n    metadata: {labels: {a: c}}\n    spec: {containers: [{name: x, image: app}]}\n",
    )
    .unwrap();
    let output = suite.kubectl(&["apply", "-f", &broken.display().to_string()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("`selector` does not match template `labels`"), "{text}");
    assert!(
        String::from_utf8_lossy(&suite.kubectl(&["get", "deployments"]).stderr)
            .contains("No resources found")
    );

    let image = format!("127.0.0.1:{}/none:v1", suite.port(2));
    suite.kubectl(&["run", "lost", "--image", &image]);
    let mut reason = String::new();
    flotilla_testkit::eventually(
        "the pod says that its image is missing",
        std::time::Duration::from_secs(20),
        || {
            let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
            reason =
                String::from_utf8_lossy(&suite.kubectl(&["get", "pod", "lost", "-o", path]).stdout)
                    .into_owned();
            reason.contains("ErrImagePull") || reason.contains("ImagePullBackOff")
        },
    );
}
