use serde_json::{Value, json};

use super::super::observed::Sandbox;
use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: format!("s{attempt}"),
        attempt,
        ready,
        created_at: 1,
        ips: vec!["10.0.0.1".into()],
    }
}

fn run(pod: &Pod, name: &str, state: RunState, exit_code: i32) -> Run {
    let hash = names::container_hash(&pod.container(name).unwrap());
    Run {
        id: format!("{name}0"),
        name: name.into(),
        sandbox: "s0".into(),
        state,
        exit_code,
        hash,
        ..Run::default()
    }
}

fn fine(_: &Run) -> Verdict {
    Verdict { started: true, ready: true, ..Verdict::default() }
}

fn start(names: &[&str]) -> Plan {
    Plan { start: names.iter().map(|n| (*n).to_owned()).collect(), ..Plan::default() }
}

#[test]
fn sandbox_comes_first() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let got = plan(&pod, &Observed::default(), &fine);
    assert_eq!(got, Plan { new_sandbox: Some(0), ..Plan::default() });
    let dead = Observed { sandboxes: vec![sandbox(0, false)], runs: vec![] };
    assert_eq!(
        plan(&pod, &dead, &fine),
        Plan { new_sandbox: Some(1), end_pod: true, ..Plan::default() }
    );
}

#[test]
fn init_containers_run_in_order() {
    let pod = pod(
        json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}, {"name": "b"}]}),
    );
    let mut seen = Observed { sandboxes: vec![sandbox(0, true)], runs: vec![] };
    assert_eq!(plan(&pod, &seen, &fine), start(&["i"]));
    seen.runs = vec![run(&pod, "i", RunState::Running, 0)];
    assert_eq!(plan(&pod, &seen, &fine), Plan::default());
    seen.runs = vec![run(&pod, "i", RunState::Exited, 1)];
    assert_eq!(plan(&pod, &seen, &fine), start(&["i"]));
    seen.runs = vec![run(&pod, "i", RunState::Exited, 0)];
    assert_eq!(plan(&pod, &seen, &fine), start(&["j"]));
    seen.runs.push(run(&pod, "j", RunState::Exited, 0));
    assert_eq!(plan(&pod, &seen, &fine), start(&["a", "b"]));
    seen.runs = vec![run(&pod, "a", RunState::Running, 0), run(&pod, "b", RunState::Running, 0)];
    assert_eq!(
        plan(&pod, &seen, &fine),
        Plan::default(),
        "removed init containers do not run again"
    );
}

#[test]
fn failed_init_with_policy_never_ends_the_pod() {
    let pod = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
    );
    let seen = Observed {
        sandboxes: vec![sandbox(0, true)],
        runs: vec![run(&pod, "i", RunState::Exited, 1)],
    };
    assert_eq!(plan(&pod, &seen, &fine), Plan { end_pod: true, ..Plan::default() });
}

#[test]
fn policy_decides_about_restarts() {
    for (policy, code, again) in
        [("Always", 0, true), ("OnFailure", 1, true), ("OnFailure", 0, false), ("Never", 1, false)]
    {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let mut seen = Observed {
            sandboxes: vec![sandbox(0, true)],
            runs: vec![run(&pod, "a", RunState::Exited, code)],
        };
        let want = if again { start(&["a"]) } else { Plan { end_pod: true, ..Plan::default() } };
        assert_eq!(plan(&pod, &seen, &fine), want, "{policy} {code}");
        if !again {
            seen.sandboxes = vec![sandbox(0, false)];
            assert_eq!(plan(&pod, &seen, &fine), Plan::default(), "an ended pod stays ended");
        }
    }
}

#[test]
fn sidecars_start_before_and_outlive_restarts() {
    let pod = pod(
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}),
    );
    let mut seen = Observed { sandboxes: vec![sandbox(0, true)], runs: vec![] };
    assert_eq!(plan(&pod, &seen, &fine), start(&["s"]));
    seen.runs = vec![run(&pod, "s", RunState::Running, 0)];
    assert_eq!(
        plan(&pod, &seen, &|_| Verdict::default()),
        Plan::default(),
        "waits until it has started"
    );
    assert_eq!(plan(&pod, &seen, &fine), start(&["a"]));
    seen.runs = vec![run(&pod, "s", RunState::Exited, 0), run(&pod, "a", RunState::Running, 0)];
    assert_eq!(plan(&pod, &seen, &fine), start(&["s"]));
}

#[test]
fn changed_and_dead_containers_are_replaced() {
    let pod = pod(
        json!({"containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 3}}]}),
    );
    let mut seen = Observed {
        sandboxes: vec![sandbox(0, true)],
        runs: vec![run(&pod, "a", RunState::Running, 0)],
    };
    let got = plan(&pod, &seen, &|run| Verdict { dead: true, ..fine(run) });
    assert_eq!((got.end[0].id.as_str(), got.end[0].grace), ("a0", Some(3)));
    assert_eq!(got.end[0].message, "Container a failed liveness probe, will be restarted");
    assert_eq!(got.start, ["a"]);
    seen.runs[0].hash = "89abcdef".into();
    assert_eq!(plan(&pod, &seen, &fine), Plan::default(), "kubelet's hash says nothing");
    seen.runs[0].hash = "0123456789abcdef".into();
    assert_eq!(
        plan(&pod, &seen, &fine).end[0].message,
        "Container a definition changed, will be restarted"
    );
}

#[test]
fn run_that_never_began_is_replaced() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let seen = Observed {
        sandboxes: vec![sandbox(0, true)],
        runs: vec![run(&pod, "a", RunState::Created, 0)],
    };
    assert_eq!(plan(&pod, &seen, &fine), Plan { discard: vec!["a0".into()], ..start(&["a"]) });
}

#[test]
fn restart_count_continues() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    assert_eq!(next_attempt(&pod, &Observed::default(), "a"), 0);
    let seen = Observed {
        runs: vec![Run { attempt: 4, ..run(&pod, "a", RunState::Exited, 0) }],
        ..Observed::default()
    };
    assert_eq!(next_attempt(&pod, &seen, "a"), 5);
    pod.status = serde_json::from_value(
        json!({"containerStatuses": [{"name": "a", "restartCount": 2, "containerID": "x://1"}]}),
    )
    .unwrap();
    assert_eq!(next_attempt(&pod, &Observed::default(), "a"), 3);
}
