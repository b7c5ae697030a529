//! The main job: build, push, deploy, resolve, reach, measure, kill, roll out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Suite;
use super::load::Load;
use super::runner::Runner;

const HOST: &str = "hello.example";
const SOON: Duration = Duration::from_secs(20);

/// Runs every step against a suite that is ready.
pub async fn run(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    store(runner, suite)?;
    build_and_push(runner, suite)?;
    deploy(runner, suite)?;
    reach(runner, suite)?;
    measure(runner, suite).await?;
    heal(runner)?;
    roll_out(runner, suite).await?;
    runner.shell(
        "take the application away",
        "kubectl delete deployment,service,ingress hello --wait=true",
    )?;
    runner.until(
        "its pods are gone",
        "kubectl get pods -l app=hello --no-headers",
        SOON,
        |output| {
            if output.contains("hello-") { Err("pods are left".to_owned()) } else { Ok(()) }
        },
    )?;
    Ok(())
}

fn image(suite: &Suite, version: &str) -> String {
    format!("127.0.0.1:{}/hello:{version}", suite.ports.registry)
}

fn store(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let command = format!(
        "etcdctl --endpoints {0} put greeting hello && etcdctl --endpoints {0} get greeting",
        suite.kv
    );
    runner
        .until(
            "the store speaks etcd",
            &command,
            Duration::ZERO,
            contains(&["OK", "greeting", "hello"]),
        )
        .map(drop)
}

fn build_and_push(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let endpoint = format!("--image-endpoint http://127.0.0.1:{}", suite.ports.registry);
    for version in ["v1", "v2"] {
        let tag = image(suite, version);
        let command = format!(
            "flotilla image build {endpoint} -t {tag} --build-arg VERSION={version} {}",
            suite.app.display()
        );
        runner.shell(&format!("build the application's image, {version}"), &command)?;
        runner
            .shell("push it to the registry", &format!("flotilla image push {endpoint} {tag}"))?;
    }
    let command = format!("curl -s http://127.0.0.1:{}/v2/hello/tags/list", suite.ports.registry);
    runner
        .until("the registry has both", &command, Duration::ZERO, contains(&["v1", "v2"]))
        .map(drop)
}

fn deploy(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let manifest = suite.app.join("manifests/hello.yaml");
    let command = format!(
        "sed 's#IMAGE#{}#' {} | kubectl apply -f -",
        image(suite, "v1"),
        manifest.display()
    );
    runner.shell("apply Deployment, Service and Ingress", &command)?;
    runner
        .shell("wait for the rollout", "kubectl rollout status deployment/hello --timeout=40s")?;
    runner.until(
        "the pods run",
        "kubectl get pods -o wide",
        SOON,
        contains(&["hello-", "1/1", "Running"]),
    )?;
    let command = "for pid in $(pgrep -x hello); do grep -q kubepods /proc/$pid/cgroup || continue; \
                   echo \"pid $pid $(readlink /proc/$pid/ns/net) $(readlink /proc/$pid/ns/mnt) $(grep -m1 memory /proc/$pid/cgroup)\"; done";
    let own = std::fs::read_link("/proc/self/ns/net")
        .map(|link| link.display().to_string())
        .unwrap_or_default();
    runner.until(
        "in namespaces and cgroups of their own",
        command,
        Duration::ZERO,
        move |output| {
            let pods = output
                .lines()
                .filter(|line| line.contains("kubepods") && !line.contains(&own))
                .count();
            if pods == 2 {
                Ok(())
            } else {
                Err(format!("{pods} containers are isolated, 2 expected"))
            }
        },
    )?;
    Ok(())
}

fn reach(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let address = runner.quiet("kubectl get service hello -o jsonpath='{.spec.clusterIP}'")?;
    let command =
        format!("dig @127.0.0.1 -p {} +short hello.default.svc.cluster.local", suite.ports.dns);
    runner.until("DNS knows the Service", &command, SOON, contains(&[address.trim()]))?;
    let command = format!("curl -s --max-time 5 http://{}/", address.trim());
    runner.until(
        "its address answers",
        &command,
        SOON,
        contains(&["hello from hello-", "version v1"]),
    )?;
    let command =
        format!("curl -s --max-time 5 -H 'Host: {HOST}' http://127.0.0.1:{}/", suite.ports.ingress);
    runner.until(
        "the gateway leads there by host name",
        &command,
        SOON,
        contains(&["hello from hello-", "version v1"]),
    )?;
    Ok(())
}

async fn measure(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let load = Load::start(gateway(suite), HOST);
    let query = "sum by (app) (rate(http_requests_total[20s]))";
    let command = format!(
        "curl -sG http://127.0.0.1:{}/api/v1/query --data-urlencode 'query={query}'",
        suite.ports.metrics
    );
    let seen = runner.until(
        "PromQL tells its request rate",
        &command,
        Duration::from_secs(30),
        |output| {
            if rate(output) > 10.0 {
                Ok(())
            } else {
                Err("the rate does not show the load".to_owned())
            }
        },
    );
    let tally = load.stop().await;
    seen?;
    no_failure(&tally.failures)
}

fn heal(runner: &mut Runner) -> Result<(), String> {
    let command = "for pid in $(pgrep -x hello); do grep -q kubepods /proc/$pid/cgroup && kill -9 $pid && echo killed $pid && break; done";
    runner.until("kill a container", command, Duration::ZERO, contains(&["killed"]))?;
    let command = "kubectl get pods -l app=hello -o jsonpath='{range .items[*]}{.metadata.name} restarts={.status.containerStatuses[0].restartCount} ready={.status.containerStatuses[0].ready}{\"\\n\"}{end}'";
    runner.until("it comes back", command, SOON, |output| {
        let back = output.contains("restarts=1")
            && !output.contains("ready=false")
            && output.lines().count() == 2;
        if back { Ok(()) } else { Err("it did not come back".to_owned()) }
    })?;
    Ok(())
}

async fn roll_out(runner: &mut Runner, suite: &Suite) -> Result<(), String> {
    let load = Load::start(gateway(suite), HOST);
    let command = format!(
        "kubectl set image deployment/hello hello={} && kubectl rollout status deployment/hello --timeout=60s",
        image(suite, "v2")
    );
    let rolled = runner.shell("roll out the new version under load", &command);
    let command =
        format!("curl -s --max-time 5 -H 'Host: {HOST}' http://127.0.0.1:{}/", suite.ports.ingress);
    let reached =
        runner.until("the new version answers", &command, SOON, contains(&["version v2"]));
    let command = "kubectl get pods -l app=hello --no-headers";
    let settled = runner.until("the old pods are gone", command, SOON, |output| {
        if output.lines().count() == 2 { Ok(()) } else { Err("old pods are left".to_owned()) }
    });
    let tally = load.stop().await;
    rolled?;
    reached?;
    settled?;
    report(&format!("{} requests during the rollout, {} failed", tally.good, tally.failures.len()));
    if !tally.last.contains("version v2") {
        return Err(format!("the load still saw {:?} at the end", tally.last.trim()));
    }
    no_failure(&tally.failures)
}

fn gateway(suite: &Suite) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, suite.ports.ingress).into()
}

fn no_failure(failures: &[String]) -> Result<(), String> {
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} requests failed; the first: {first}", failures.len())),
    }
}

/// The value of the first sample of an instant query's answer.
fn rate(output: &str) -> f64 {
    let answer: serde_json::Value = serde_json::from_str(output.trim()).unwrap_or_default();
    answer["data"]["result"][0]["value"][1]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn contains<'a>(words: &'a [&'a str]) -> impl Fn(&str) -> Result<(), String> + 'a {
    move |output| match words.iter().find(|word| !output.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("{word:?} is not in the output")),
    }
}

#[allow(clippy::print_stdout, reason = "the demo is for reading")]
fn report(text: &str) {
    println!("    {text}");
}

/// The same steps with the reader's own tools.
pub fn for_the_reader() -> String {
    let lines = [
        "\nThe same with your own tools:",
        "  flotilla up                                            # in another terminal",
        "  export KUBECONFIG=/var/lib/flotilla/pki/admin.kubeconfig",
        "  docker build -t 127.0.0.1:5000/hello:v1 DIR && docker push 127.0.0.1:5000/hello:v1",
        "  kubectl create deployment hello --image=127.0.0.1:5000/hello:v1 --port=8080",
        "  kubectl expose deployment hello --port=80 --target-port=8080",
        "  dig @127.0.0.1 -p 1053 hello.default.svc.cluster.local",
        "  kubectl create ingress hello --rule='hello.example/*=hello:80'",
        "  curl -H 'Host: hello.example' http://127.0.0.1:8000/",
        "  promtool query instant http://127.0.0.1:9090 'sum(rate(http_requests_total[1m]))'",
        "  etcdctl --endpoints 127.0.0.1:2379 get --prefix /registry/ --keys-only",
    ];
    lines.join("\n")
}
