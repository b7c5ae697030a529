use serde_json::{Value, json};

use super::super::observed::Sandbox;
use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn seen(runs: Vec<Run>) -> Observed {
    let sandbox = Sandbox {
        id: "s0".into(),
        ready: true,
        ips: vec!["10.0.0.9".into()],
        ..Sandbox::default()
    };
    Observed { sandboxes: vec![sandbox], runs }
}

fn run(name: &str, state: RunState) -> Run {
    Run {
        id: format!("{name}-id"),
        name: name.into(),
        sandbox: "s0".into(),
        state,
        started_at: 1_700_000_000_000_000_000,
        finished_at: 1_700_000_001_000_000_000,
        ..Run::default()
    }
}

fn make(pod: &Pod, seen: &Observed, waiting: &[(&str, &str)], ready: bool) -> PodStatus {
    let waiting =
        waiting.iter().map(|(n, r)| ((*n).to_owned(), ((*r).to_owned(), String::new()))).collect();
    status(&StatusInput {
        pod,
        seen,
        runtime: "x",
        waiting: &waiting,
        verdict: &|_| Verdict { started: true, ready, ..Verdict::default() },
        host_ip: "192.0.2.1",
        ended: false,
        failure: None,
        now: 1_700_000_100_000_000_000,
    })
}

fn cond(status: &PodStatus, kind: &str) -> (String, String) {
    let found = status.conditions.iter().find(|c| c.kind == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn running_pod_is_ready() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "i"}]}));
    let got = make(&pod, &seen(vec![run("a", RunState::Running)]), &[], true);
    assert_eq!(
        (got.phase.as_str(), got.pod_ip.as_str(), got.host_ip.as_str()),
        ("Running", "10.0.0.9", "192.0.2.1")
    );
    let a = &got.container_statuses[0];
    assert_eq!((a.ready, a.started, a.container_id.as_str()), (true, Some(true), "x://a-id"));
    for kind in OWN_CONDITIONS {
        assert_eq!(cond(&got, kind).0, "True", "{kind}");
    }
    let got = make(&pod, &seen(vec![run("a", RunState::Running)]), &[], false);
    assert_eq!(cond(&got, "Ready"), ("False".into(), "ContainersNotReady".into()));
    assert_eq!(got.phase, "Running");
}

#[test]
fn crash_loop_shows_the_last_run() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut ended = run("a", RunState::Exited);
    (ended.exit_code, ended.attempt) = (3, 2);
    let got = make(&pod, &seen(vec![ended.clone()]), &[("a", "CrashLoopBackOff")], true);
    let a = &got.container_statuses[0];
    assert_eq!(a.state.waiting.as_ref().unwrap().reason, "CrashLoopBackOff");
    assert_eq!(a.last_state.terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!((a.restart_count, got.phase.as_str()), (2, "Running"));
    let mut fresh = run("a", RunState::Running);
    fresh.attempt = 3;
    let got = make(&pod, &seen(vec![fresh, ended]), &[], true);
    let a = &got.container_statuses[0];
    assert!(a.state.running.is_some());
    assert_eq!(a.last_state.terminated.as_ref().unwrap().reason, "Error");
}

#[test]
fn waiting_pod_says_what_it_waits_for() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let got = make(&pod, &seen(vec![]), &[("i", "ErrImagePull")], true);
    assert_eq!(
        got.init_container_statuses[0].state.waiting.as_ref().unwrap().reason,
        "ErrImagePull"
    );
    assert_eq!(got.container_statuses[0].state.waiting.as_ref().unwrap().reason, "PodInitializing");
    assert_eq!(cond(&got, "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    assert_eq!(got.phase, "Pending");
}

#[test]
fn transition_time_changes_only_with_the_status() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    let view = seen(vec![run("a", RunState::Running)]);
    pod.status = make(&pod, &view, &[], true);
    for condition in &mut pod.status.conditions {
        condition.last_transition_time = Some("2020-01-01T00:00:00Z".into());
    }
    let got = make(&pod, &view, &[], false);
    let time = |kind: &str| {
        got.conditions
            .iter()
            .find(|c| c.kind == kind)
            .unwrap()
            .last_transition_time
            .clone()
            .unwrap()
    };
    assert_eq!(time("Initialized"), "2020-01-01T00:00:00Z");
    assert_ne!(time("Ready"), "2020-01-01T00:00:00Z");
}

#[test]
fn readiness_gate_holds_the_pod_back() {
    let mut pod =
        pod(json!({"readinessGates": [{"conditionType": "lb"}], "containers": [{"name": "a"}]}));
    let view = seen(vec![run("a", RunState::Running)]);
    assert_eq!(cond(&make(&pod, &view, &[], true), "Ready").1, "ReadinessGatesNotReady");
    pod.status.conditions.push(PodCondition {
        kind: "lb".into(),
        status: "True".into(),
        ..PodCondition::default()
    });
    assert_eq!(cond(&make(&pod, &view, &[], true), "Ready").0, "True");
}

#[test]
fn finished_job_keeps_its_end() {
    let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let got = make(&pod, &seen(vec![run("a", RunState::Exited)]), &[], true);
    assert_eq!((got.phase.as_str(), cond(&got, "Ready").1.as_str()), ("Succeeded", "PodCompleted"));
    pod.status = got;
    let got = make(&pod, &Observed::default(), &[], true);
    assert_eq!(got.phase, "Succeeded");
    assert_eq!(got.container_statuses[0].state.terminated.as_ref().unwrap().reason, "Completed");
}
