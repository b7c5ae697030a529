//! The command lines people use.

use std::process::Stdio;

use flotilla_testkit::{Process, eventually};

use crate::cluster::{Cluster, LIMIT, skip};

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - {name: c, image: 'nginx:1.25', ports: [{containerPort: 80}], readinessProbe: {httpGet: {path: /, port: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: app}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: app}
spec:
  rules:
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
";

#[test]
fn manifests_are_applied_changed_and_deleted() {
    if skip("manifests_are_applied_changed_and_deleted") {
        return;
    }
    let c = Cluster::start();
    assert!(c.kubectl(&["apply", "-f", "-"], APP).contains("deployment.apps/app created"));
    assert!(c.kubectl(&["apply", "-f", "-"], APP).contains("deployment.apps/app unchanged"));
    let changed = APP.replace("replicas: 1", "replicas: 3");
    assert!(c.kubectl(&["apply", "-f", "-"], &changed).contains("deployment.apps/app configured"));
    assert!(c.kubectl(&["get", "deploy,svc,ing"], "").contains("0/3"));
    c.kubectl(&["scale", "deploy/app", "--replicas=5"], "");
    c.kubectl(&["label", "deploy/app", "x=y"], "");
    c.kubectl(&["annotate", "deploy/app", "n=m"], "");
    c.kubectl(&["set", "image", "deploy/app", "c=nginx:1.27"], "");
    let yaml = c.kubectl(&["get", "deploy", "app", "-o", "yaml"], "");
    for want in [
        "replicas: 5",
        "x: \"y\"",
        "image: nginx:1.27",
        "progressDeadlineSeconds: 600",
        "maxSurge: 25%",
    ] {
        assert!(yaml.contains(want), "{want} in {yaml}");
    }
    assert!(c.kubectl(&["describe", "deploy", "app"], "").contains("nginx:1.27"));
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d","image":"x:1"}]}}}}"#;
    c.kubectl(&["patch", "deploy", "app", "-p", patch], "");
    assert!(c.kubectl(&["get", "deploy", "app", "-o", "wide"], "").contains("x:1"));
    assert!(c.kubectl(&["delete", "-f", "-"], APP).contains("deployment.apps \"app\" deleted"));
    assert!(
        c.kubectl_fails(&["get", "deploy", "app"], "")
            .contains("deployments.apps \"app\" not found")
    );
}

#[test]
fn imperative_commands_work() {
    if skip("imperative_commands_work") {
        return;
    }
    let c = Cluster::start();
    c.kubectl(&["create", "ns", "demo"], "");
    c.kubectl(&["-n", "demo", "create", "configmap", "cm", "--from-literal=a=b"], "");
    c.kubectl(&["-n", "demo", "create", "secret", "generic", "s", "--from-literal=a=b"], "");
    c.kubectl(&["-n", "demo", "create", "deployment", "web", "--image=nginx"], "");
    c.kubectl(&["-n", "demo", "expose", "deploy", "web", "--port=80", "--type=NodePort"], "");
    c.kubectl(&["-n", "demo", "create", "job", "j", "--image=busybox", "--", "true"], "");
    c.kubectl(
        &["-n", "demo", "run", "p", "--image=busybox", "--restart=Never", "--", "sleep", "9"],
        "",
    );
    c.kubectl(&["-n", "demo", "create", "sa", "me"], "");
    let token = c.kubectl(&["-n", "demo", "create", "token", "me"], "");
    let me = c.call_as(
        token.trim(),
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        &["Content-Type: application/json"],
        "{}",
    );
    assert_eq!(
        me.json()["status"]["userInfo"]["username"],
        "system:serviceaccount:demo:me",
        "{}",
        me.body
    );
    let all = c.kubectl(&["-n", "demo", "get", "all"], "");
    for want in ["pod/p", "service/web", "deployment.apps/web", "job.batch/j"] {
        assert!(all.contains(want), "{want} in {all}");
    }
    assert!(c.kubectl(&["explain", "pod.spec.containers.ports"], "").contains("containerPort"));
    assert!(c.kubectl(&["api-resources"], "").contains("deploy"));
    assert!(c.kubectl(&["auth", "can-i", "create", "pods"], "").contains("yes"));
    let denied = c.kubectl_fails(
        &["auth", "can-i", "create", "pods", "--as=system:serviceaccount:demo:me"],
        "",
    );
    assert!(denied.contains("no"), "{denied}");
    c.kubectl(
        &[
            "-n",
            "demo",
            "create",
            "rolebinding",
            "me",
            "--clusterrole=edit",
            "--serviceaccount=demo:me",
        ],
        "",
    );
    eventually("the binding takes effect", LIMIT, || {
        c.kubectl_command(&[
            "-n",
            "demo",
            "auth",
            "can-i",
            "create",
            "pods",
            "--as=system:serviceaccount:demo:me",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
    });
    assert!(c.kubectl(&["-n", "demo", "delete", "pod", "p"], "").contains("deleted"));
    assert!(c.kubectl(&["version"], "").contains("Server Version: v1.35"));
}

#[test]
fn bad_manifests_are_refused_with_the_originals_words() {
    if skip("bad_manifests_are_refused_with_the_originals_words") {
        return;
    }
    let c = Cluster::start();
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndat: {a: b}\n";
    assert!(
        c.kubectl_fails(&["apply", "-f", "-"], unknown)
            .contains("strict decoding error: unknown field \"dat\"")
    );
    let broken = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {}}}\n";
    let said = c.kubectl_fails(&["create", "-f", "-"], broken);
    assert!(said.contains("`selector` does not match template `labels`"), "{said}");
    assert!(said.contains("spec.template.spec.containers: Required value"), "{said}");
    let said = c.kubectl_fails(
        &["create", "-f", "-", "-n", "nowhere"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
    );
    assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");
    let said = c.kubectl_fails(&["create", "ns", "default"], "");
    assert!(said.contains("namespaces \"default\" already exists"), "{said}");
}

#[test]
fn get_with_watch_shows_changes() {
    if skip("get_with_watch_shows_changes") {
        return;
    }
    let c = Cluster::start();
    let mut watch = Process::spawn(&mut c.kubectl_command(&["get", "cm", "-w"]));
    // The list comes first; an object made before it is shown must not be waited for twice.
    c.kubectl(&["create", "configmap", "one", "--from-literal=a=b"], "");
    watch.wait_for_line("one ", LIMIT);
    c.kubectl(&["create", "configmap", "two"], "");
    watch.wait_for_line("two ", LIMIT);
}

#[test]
fn server_side_apply_shares_an_object() {
    if skip("server_side_apply_shares_an_object") {
        return;
    }
    let c = Cluster::start();
    let apply = |manager: &str, text: &str, more: &[&str]| {
        let name = format!("--field-manager={manager}");
        let mut args = vec!["apply", "--server-side", name.as_str(), "-f", "-"];
        args.extend(more);
        if more.contains(&"fails") {
            args.retain(|a| *a != "fails");
            return c.kubectl_fails(&args, text);
        }
        c.kubectl(&args, text)
    };
    assert!(apply("one", APP, &[]).contains("deployment.apps/app serverside-applied"));
    let version =
        || c.kubectl(&["get", "deploy", "app", "-o", "jsonpath={.metadata.resourceVersion}"], "");
    let before = version();
    apply("one", APP, &[]);
    assert_eq!(version(), before, "applying the same again writes nothing");
    let scaled = APP.replace("replicas: 1", "replicas: 4");
    let said = apply("two", &scaled, &["fails"]);
    assert!(said.contains("conflict with \"one\" using apps/v1: .spec.replicas"), "{said}");
    apply("two", &scaled, &["--force-conflicts"]);
    assert_eq!(c.kubectl(&["get", "deploy", "app", "-o", "jsonpath={.spec.replicas}"], ""), "4");
    // What one alone applied and no longer applies goes; what both applied stays.
    let less = APP
        .replace("  replicas: 1\n", "")
        .replace(", readinessProbe: {httpGet: {path: /, port: 80}}", "");
    apply("one", &less, &[]);
    assert_eq!(c.kubectl(&["get", "deploy", "app", "-o", "jsonpath={.spec.replicas}"], ""), "4");
    c.kubectl(&["scale", "deploy/app", "--replicas=9"], "");
    let owners = c.kubectl(
        &[
            "get",
            "deploy",
            "app",
            "-o",
            "jsonpath={.metadata.managedFields[*].manager}",
            "--show-managed-fields",
        ],
        "",
    );
    assert!(
        owners.contains("one") && owners.contains("two") && owners.contains("kubectl"),
        "{owners}"
    );
}
