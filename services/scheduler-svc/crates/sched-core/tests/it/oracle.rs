//! The decision, worked out from the JSON objects in the most direct way. Slow and separate on purpose.

use serde_json::{Value, json};

pub struct World {
    pub nodes: Vec<Value>,
    /// Placed pods; `spec.nodeName` says where.
    pub pods: Vec<Value>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    match value {
        Value::String(s) => {
            let scale = [("Gi", 1 << 30), ("Mi", 1 << 20)];
            match scale.iter().find_map(|(unit, by)| s.strip_suffix(unit).map(|n| (n, *by))) {
                Some((n, by)) => n.parse::<i64>().unwrap() * by,
                None => s.parse().unwrap(),
            }
        }
        other => other.as_i64().unwrap_or(0),
    }
}

fn millis(value: &Value) -> i64 {
    match value.as_str() {
        Some(s) => s
            .strip_suffix('m')
            .map_or_else(|| s.parse::<i64>().unwrap() * 1000, |n| n.parse().unwrap()),
        None => value.as_i64().unwrap_or(0) * 1000,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

fn request(pod: &Value, name: &str, scored: bool) -> i64 {
    list(&pod["spec"]["containers"])
        .iter()
        .map(|c| {
            let value = &c["resources"]["requests"][name];
            match (name, value.is_null()) {
                ("cpu", true) => {
                    if scored {
                        100
                    } else {
                        0
                    }
                }
                ("memory", true) => {
                    if scored {
                        200 << 20
                    } else {
                        0
                    }
                }
                ("cpu", false) => millis(value),
                _ => number(value),
            }
        })
        .sum()
}

fn tolerated(pod: &Value, taint: &Value) -> bool {
    list(&pod["spec"]["tolerations"]).iter().any(|t| {
        (t["effect"].is_null() || t["effect"] == taint["effect"])
            && t["key"] == taint["key"]
            && (t["operator"] == "Exists" || t["value"] == taint["value"])
    })
}

fn requirement(r: &Value, value: Option<&str>) -> bool {
    let has = || list(&r["values"]).iter().any(|v| Some(text(v)) == value);
    match text(&r["operator"]) {
        "In" => has(),
        "NotIn" => !has(),
        "Exists" => value.is_some(),
        _ => value.is_none(),
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    selector["matchLabels"].as_object().into_iter().flatten().all(|(k, v)| labels[k] == *v)
        && list(&selector["matchExpressions"])
            .iter()
            .all(|r| requirement(r, labels[text(&r["key"])].as_str()))
}

fn node_term(term: &Value, node: &Value) -> bool {
    let all = list(&term["matchExpressions"]);
    !all.is_empty() && all.iter().all(|r| requirement(r, label(node, text(&r["key"]))))
}

fn affine(pod: &Value, node: &Value) -> bool {
    let selector = pod["spec"]["nodeSelector"].as_object();
    let affinity =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    selector.into_iter().flatten().all(|(k, v)| label(node, k) == v.as_str())
        && (affinity.is_null()
            || list(&affinity["nodeSelectorTerms"]).iter().any(|t| node_term(t, node)))
}

fn terms<'a>(pod: &'a Value, side: &str) -> &'a [Value] {
    list(&pod["spec"]["affinity"][side]["requiredDuringSchedulingIgnoredDuringExecution"])
}

fn means(term: &Value, owner: &Value, pod: &Value) -> bool {
    owner["metadata"]["namespace"] == pod["metadata"]["namespace"]
        && selects(&term["labelSelector"], &pod["metadata"]["labels"])
}

impl World {
    fn on<'a>(&'a self, node: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.pods.iter().filter(|p| p["spec"]["nodeName"] == node["metadata"]["name"])
    }

    fn used(&self, node: &Value, name: &str, scored: bool) -> i64 {
        self.on(node).map(|p| request(p, name, scored)).sum()
    }

    fn node_of(&self, pod: &Value) -> Option<&Value> {
        self.nodes.iter().find(|n| n["metadata"]["name"] == pod["spec"]["nodeName"])
    }

    pub fn feasible(&self, pod: &Value, node: &Value) -> bool {
        let cordon = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
        if node["spec"]["unschedulable"] == true && !tolerated(pod, &cordon) {
            return false;
        }
        let taints = list(&node["spec"]["taints"]);
        if taints.iter().any(|t| t["effect"] != "PreferNoSchedule" && !tolerated(pod, t)) {
            return false;
        }
        if !affine(pod, node)
            || self.on(node).count() as i64 >= number(&node["status"]["allocatable"]["pods"])
        {
            return false;
        }
        let allocatable = &node["status"]["allocatable"];
        for (name, free) in [
            ("cpu", millis(&allocatable["cpu"]) - self.used(node, "cpu", false)),
            ("memory", number(&allocatable["memory"]) - self.used(node, "memory", false)),
            (
                "example.com/gpu",
                number(&allocatable["example.com/gpu"]) - self.used(node, "example.com/gpu", false),
            ),
        ] {
            let wanted = request(pod, name, false);
            if wanted > 0 && wanted > free {
                return false;
            }
        }
        let ports = |p: &Value| -> Vec<i64> {
            let all =
                list(&p["spec"]["containers"]).iter().flat_map(|c| list(&c["ports"]).to_vec());
            all.filter_map(|p| p["hostPort"].as_i64()).collect()
        };
        let wanted = ports(pod);
        if self.on(node).any(|p| ports(p).iter().any(|port| wanted.contains(port))) {
            return false;
        }
        self.spread(pod, node) && self.affinity(pod, node)
    }

    fn spread(&self, pod: &Value, node: &Value) -> bool {
        list(&pod["spec"]["topologySpreadConstraints"]).iter().all(|c| {
            let key = text(&c["topologyKey"]);
            let Some(here) = label(node, key) else { return false };
            let keys: Vec<&str> = list(&pod["spec"]["topologySpreadConstraints"])
                .iter()
                .map(|c| text(&c["topologyKey"]))
                .collect();
            let counted: Vec<&Value> = self
                .nodes
                .iter()
                .filter(|n| keys.iter().all(|k| label(n, k).is_some()) && affine(pod, n))
                .collect();
            let count = |domain: &str| {
                let inside = counted.iter().filter(|n| label(n, key) == Some(domain));
                inside
                    .flat_map(|n| self.on(n))
                    .filter(|p| {
                        p["metadata"]["namespace"] == pod["metadata"]["namespace"]
                            && selects(&c["labelSelector"], &p["metadata"]["labels"])
                    })
                    .count() as i64
            };
            let least = counted
                .iter()
                .filter_map(|n| label(n, key))
                .map(count)
                .min()
                .unwrap_or(i64::from(i32::MAX));
            let own = i64::from(selects(&c["labelSelector"], &pod["metadata"]["labels"]));
            let present = counted.iter().any(|n| label(n, key) == Some(here));
            let now = if present { count(here) } else { 0 };
            now + own - least <= c["maxSkew"].as_i64().unwrap()
        })
    }

    fn affinity(&self, pod: &Value, node: &Value) -> bool {
        let near = |other: &Value, key: &str| {
            self.node_of(other)
                .and_then(|n| label(n, key))
                .is_some_and(|d| label(node, key) == Some(d))
        };
        let repels = |owner: &Value, other: &Value, at: &Value| {
            terms(owner, "podAntiAffinity")
                .iter()
                .any(|t| means(t, owner, other) && near(at, text(&t["topologyKey"])))
        };
        if self.pods.iter().any(|other| repels(pod, other, other) || repels(other, pod, other)) {
            return false;
        }
        let wanted = terms(pod, "podAffinity");
        if wanted.is_empty() {
            return true;
        }
        if wanted.iter().any(|t| label(node, text(&t["topologyKey"])).is_none()) {
            return false;
        }
        let all = |other: &&Value| wanted.iter().all(|t| means(t, pod, other));
        let met = wanted
            .iter()
            .all(|t| self.pods.iter().filter(all).any(|o| near(o, text(&t["topologyKey"]))));
        let somewhere = self.pods.iter().filter(all).any(|o| {
            self.node_of(o)
                .is_some_and(|n| wanted.iter().any(|t| label(n, text(&t["topologyKey"])).is_some()))
        });
        met || (!somewhere && all(&pod))
    }

    /// The names of the nodes with the highest score.
    pub fn best(&self, pod: &Value) -> Vec<String> {
        let fit: Vec<&Value> = self.nodes.iter().filter(|n| self.feasible(pod, n)).collect();
        let bad = |n: &Value| {
            list(&n["spec"]["taints"])
                .iter()
                .filter(|t| t["effect"] == "PreferNoSchedule" && !tolerated(pod, t))
                .count() as i64
        };
        let liked = |n: &Value| {
            let all = list(
                &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"],
            );
            all.iter()
                .filter(|p| node_term(&p["preference"], n))
                .map(|p| p["weight"].as_i64().unwrap())
                .sum::<i64>()
        };
        let most_bad = fit.iter().map(|n| bad(n)).max().unwrap_or(0);
        let most_liked = fit.iter().map(|n| liked(n)).max().unwrap_or(0);
        // Placed pods that must be near pods like this one pull it with weight 1.
        let pull = |n: &Value| -> i64 {
            self.pods
                .iter()
                .flat_map(|other| terms(other, "podAffinity").iter().map(move |t| (other, t)))
                .filter(|(other, t)| means(t, other, pod))
                .filter(|(other, t)| {
                    let key = text(&t["topologyKey"]);
                    self.node_of(other)
                        .and_then(|at| label(at, key))
                        .is_some_and(|d| label(n, key) == Some(d))
                })
                .count() as i64
        };
        let pulls: Vec<i64> = fit.iter().map(|n| pull(n)).collect();
        let (weakest, strongest) =
            (pulls.iter().min().copied().unwrap_or(0), pulls.iter().max().copied().unwrap_or(0));
        let score = |n: &Value| {
            let near = if strongest == weakest {
                0
            } else {
                (100.0 * ((pull(n) - weakest) as f64 / (strongest - weakest) as f64)) as i64
            };
            let capacity = [
                millis(&n["status"]["allocatable"]["cpu"]),
                number(&n["status"]["allocatable"]["memory"]),
            ];
            let mut least = 0;
            let mut fractions = [0.0; 2];
            for (i, name) in ["cpu", "memory"].into_iter().enumerate() {
                let asked = self.used(n, name, true) + request(pod, name, true);
                if asked <= capacity[i] {
                    least += (capacity[i] - asked) * 100 / capacity[i];
                }
                let exact = self.used(n, name, false) + request(pod, name, false);
                fractions[i] = (exact as f64 / capacity[i] as f64).min(1.0);
            }
            let asks =
                ["cpu", "memory", "example.com/gpu"].iter().any(|r| request(pod, r, false) > 0);
            let balanced = ((1.0 - ((fractions[0] - fractions[1]) / 2.0_f64).abs()) * 100.0) as i64;
            let taints = if most_bad == 0 { 100 } else { 100 - 100 * bad(n) / most_bad };
            let affinity = if most_liked == 0 { 0 } else { 100 * liked(n) / most_liked };
            least / 2 + if asks { balanced } else { 0 } + 3 * taints + 2 * affinity + 2 * near
        };
        let highest = fit.iter().map(|n| score(n)).max();
        let best = fit.iter().filter(|n| Some(score(n)) == highest);
        best.map(|n| text(&n["metadata"]["name"]).to_owned()).collect()
    }
}
