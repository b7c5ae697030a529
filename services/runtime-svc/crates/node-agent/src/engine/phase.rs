//! The phase of a pod: one word for all its containers.

use super::kube::{Container, ContainerStatus, PodSpec, RestartPolicy};

/// `Pending`, `Running`, `Succeeded` or `Failed`. `ended` says that nothing of the pod will run again.
pub fn phase(
    spec: &PodSpec,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    ended: bool,
) -> &'static str {
    let find = |all: &[ContainerStatus], container: &Container| {
        all.iter().find(|s| s.name == container.name).cloned().unwrap_or_default()
    };
    let (mut pending, mut failed) = (false, false);
    for container in &spec.init_containers {
        let status = find(init, container);
        let state = &status.state;
        if container.is_sidecar() {
            pending |= state.running.is_some() && status.started != Some(true)
                || (state.waiting.is_some() && status.last_state.terminated.is_none());
            continue;
        }
        match (&state.terminated, &status.last_state.terminated) {
            (Some(done), _) if done.exit_code == 0 => {}
            (Some(_), _) => failed = true,
            (None, Some(last)) if state.waiting.is_some() && last.exit_code != 0 => failed = true,
            _ => pending = true,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        let status = find(regular, container);
        if status.state.running.is_some() {
            running += 1;
        } else if let Some(done) = &status.state.terminated {
            stopped += 1;
            succeeded += usize::from(done.exit_code == 0);
        } else if status.last_state.terminated.is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if failed && spec.restart_policy == RestartPolicy::Never {
        return "Failed";
    }
    if ended && running == 0 {
        // What never ran did not succeed.
        return if waiting == 0 && stopped == succeeded && !failed {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if (pending || failed) && running == 0 && stopped == 0 || waiting > 0 {
        return "Pending";
    }
    if running > 0 || spec.restart_policy == RestartPolicy::Always {
        return "Running";
    }
    match (stopped == succeeded, spec.restart_policy) {
        (true, _) => "Succeeded",
        (false, RestartPolicy::Never) => "Failed",
        (false, _) => "Running",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn get(policy: &str, states: &[Value], ended: bool) -> &'static str {
        let names: Vec<Value> = (0..states.len()).map(|n| json!({"name": n.to_string()})).collect();
        let spec: PodSpec =
            serde_json::from_value(json!({"restartPolicy": policy, "containers": names})).unwrap();
        let statuses: Vec<ContainerStatus> = states
            .iter()
            .enumerate()
            .map(|(n, state)| {
                serde_json::from_value(json!({"name": n.to_string(), "state": state})).unwrap()
            })
            .collect();
        phase(&spec, &[], &statuses, ended)
    }

    #[test]
    fn regular_containers_make_the_phase() {
        let run = json!({"running": {}});
        let ok = json!({"terminated": {"exitCode": 0}});
        let bad = json!({"terminated": {"exitCode": 1}});
        let wait = json!({"waiting": {}});
        for (policy, states, want) in [
            ("Always", vec![&wait], "Pending"),
            ("Always", vec![&run, &wait], "Pending"),
            ("Always", vec![&run, &run], "Running"),
            ("Always", vec![&run, &bad], "Running"),
            ("Always", vec![&ok], "Running"),
            ("OnFailure", vec![&ok, &ok], "Succeeded"),
            ("OnFailure", vec![&ok, &bad], "Running"),
            ("Never", vec![&ok, &ok], "Succeeded"),
            ("Never", vec![&ok, &bad], "Failed"),
            ("Never", vec![&run, &bad], "Running"),
        ] {
            let states: Vec<Value> = states.into_iter().cloned().collect();
            assert_eq!(get(policy, &states, false), want, "{policy} {states:?}");
        }
        assert_eq!(get("Always", &[ok], true), "Succeeded");
        assert_eq!(get("Always", &[bad], true), "Failed");
        assert_eq!(get("Always", &[wait], true), "Failed");
    }

    #[test]
    fn init_containers_hold_the_pod_pending() {
        let get = |policy: &str, init: Value| {
            let spec: PodSpec = serde_json::from_value(json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})).unwrap();
            let init: ContainerStatus = serde_json::from_value(init).unwrap();
            let waiting: ContainerStatus =
                serde_json::from_value(json!({"name": "a", "state": {"waiting": {}}})).unwrap();
            phase(&spec, &[init], &[waiting], false)
        };
        assert_eq!(get("Always", json!({"name": "i", "state": {"running": {}}})), "Pending");
        let failed = json!({"name": "i", "state": {"terminated": {"exitCode": 1}}});
        assert_eq!(get("Always", failed.clone()), "Pending");
        assert_eq!(get("Never", failed), "Failed");
    }
}
