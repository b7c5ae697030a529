//! Prometheus itself as the oracle: the same folder, the same questions, the same answers.
//!
//! Debian's Prometheus 2.42 differs from version 3, which ours follows, in ways the questions go around: 2.42
//! counts the left border of a range in (no border here ever meets a sample), keeps the name with `atan2`, says 0
//! for the deviation of one infinite value, and stretches rates of small or negative values further.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use flotilla_testkit::{Process, eventually, free_port, skip_unless_program};
use metrics_model::{Labels, Matcher, stale_nan};
use metrics_tsdb::{Db, Options};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::http::{encode, get, try_request};
use crate::server::{LONG, Server, command, launch};

const STEP: i64 = 15_000;

/// Four hours of data, so that there is a block and a head.
fn fill(dir: &Path, base: i64) {
    let db = Db::open(dir, Options::default()).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let mut counters: BTreeMap<Labels, f64> = BTreeMap::new();
    for tick in 0..960 {
        let time = base + tick * STEP + 7;
        let mut appender = db.appender();
        let mut put = |labels: Labels, value: f64| {
            let series = appender.series(&labels);
            appender.append(series, time, value).unwrap();
        };
        for job in ["api", "web"] {
            for instance in ["a", "b", "c"] {
                let own = |name: &str, more: &[(&str, &str)]| {
                    let mut pairs = vec![("__name__", name), ("job", job), ("instance", instance)];
                    pairs.extend_from_slice(more);
                    Labels::from_pairs(pairs)
                };
                for code in ["200", "500"] {
                    let labels = own("requests_total", &[("code", code)]);
                    let value = counters.entry(labels.clone()).or_insert(1e6);
                    *value += f64::from(rng.random_range(0..50u32));
                    if rng.random_ratio(1, 300) {
                        *value = 5e5;
                    }
                    put(labels, *value);
                }
                if !(200..260).contains(&tick) || instance != "b" {
                    put(own("load", &[]), rng.random_range(-5.0..20.0));
                }
                let value = match (tick == 500, instance) {
                    (true, "c") => stale_nan(),
                    (_, "a") => f64::NAN,
                    (_, "b") => f64::INFINITY,
                    _ => 3.0,
                };
                put(own("odd", &[]), value);
                let mut total = 0.0;
                for le in ["0.1", "0.5", "1", "+Inf"] {
                    let labels = own("latency_bucket", &[("le", le)]);
                    let value = counters.entry(labels.clone()).or_insert(0.0);
                    *value += f64::from(rng.random_range(0..9u32));
                    total += *value;
                    put(labels, total);
                }
                put(own("info", &[("version", if instance == "c" { "2" } else { "1" })]), 1.0);
            }
        }
        appender.commit().unwrap();
    }
    db.maintain(base + 960 * STEP).unwrap();
    assert!(!db.blocks().is_empty());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let path = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &path);
        } else {
            fs::copy(entry.path(), path).unwrap();
        }
    }
}

struct Oracle {
    process: Process,
    address: SocketAddr,
}

impl Oracle {
    fn start(dir: &Path) -> Self {
        let config = dir.join("oracle.yml");
        fs::write(&config, "").unwrap();
        let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.args([
            format!("--web.listen-address={address}"),
            "--query.lookback-delta=5m".to_owned(),
        ]);
        let process = Process::spawn(&mut command);
        eventually("Prometheus is ready", LONG, || {
            try_request(address, "GET", "/-/ready", "").is_ok_and(|r| r.status == 200)
        });
        Self { process, address }
    }
}

/// A result in a form that can be compared: labels to values.
fn normal(reply: &Value) -> Result<BTreeMap<String, Vec<(f64, f64)>>, String> {
    if reply["status"] != "success" {
        return Err(reply["errorType"].as_str().unwrap_or_default().to_owned());
    }
    let number = |v: &Value| {
        v.as_str().map_or(f64::NAN, |s| s.replace("Inf", "inf").parse().unwrap_or(f64::NAN))
    };
    let pair = |v: &Value| (v[0].as_f64().unwrap_or_default(), number(&v[1]));
    let result = &reply["data"]["result"];
    if reply["data"]["resultType"] == "scalar" {
        return Ok(BTreeMap::from([(String::new(), vec![pair(result)])]));
    }
    let list = result.as_array().cloned().unwrap_or_default();
    Ok(list
        .iter()
        .map(|s| {
            let samples = s["values"]
                .as_array()
                .map_or_else(|| vec![pair(&s["value"])], |all| all.iter().map(pair).collect());
            let labels: BTreeMap<String, String> =
                serde_json::from_value(s["metric"].clone()).unwrap_or_default();
            (format!("{labels:?}"), samples)
        })
        .collect())
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
}

fn same(ours: &Value, theirs: &Value) -> Result<(), String> {
    match (normal(ours), normal(theirs)) {
        (Ok(ours), Ok(theirs)) => {
            let keys =
                |m: &BTreeMap<String, Vec<(f64, f64)>>| m.keys().cloned().collect::<Vec<_>>();
            if keys(&ours) != keys(&theirs) {
                return Err(format!(
                    "series differ:\n ours   {:?}\n theirs {:?}",
                    keys(&ours),
                    keys(&theirs)
                ));
            }
            for (labels, mine) in &ours {
                let other = &theirs[labels];
                let equal = mine.len() == other.len()
                    && mine.iter().zip(other).all(|(a, b)| close(a.0, b.0) && close(a.1, b.1));
                if !equal {
                    let first =
                        mine.iter().zip(other).find(|(a, b)| !close(a.0, b.0) || !close(a.1, b.1));
                    return Err(format!(
                        "{labels}: {} against {} samples, first difference {first:?}",
                        mine.len(),
                        other.len()
                    ));
                }
            }
            Ok(())
        }
        (Err(ours), Err(theirs)) if ours == theirs => Ok(()),
        (ours, theirs) => Err(format!("ours {:?}, theirs {:?}", ours.err(), theirs.err())),
    }
}

const FIXED: &[&str] = &[
    "load",
    "load{job=\"api\"}",
    "load{job=~\"a.*\",instance!=\"b\"}",
    "{__name__=~\"lo.d\"}",
    "load offset 7m",
    "load offset -3m",
    "load @ 1e3",
    "load @ start()",
    "load @ end()",
    "sum(load)",
    "sum by (job) (load)",
    "sum without (instance) (load)",
    "avg(load)",
    "min by (job) (load)",
    "max(load)",
    "count(load)",
    "group by (job) (load)",
    "stddev(load)",
    "stdvar by (job) (load)",
    "topk(2, load)",
    "bottomk(2, load)",
    "topk by (job) (1, load)",
    "quantile(0.3, load)",
    "quantile by (job) (1.5, load)",
    "count_values(\"v\", info)",
    "count_values by (job) (\"v\", round(load))",
    "rate(requests_total[5m])",
    "increase(requests_total[11m])",
    "delta(load[5m])",
    "irate(requests_total[5m])",
    "idelta(load[5m])",
    "deriv(load[10m])",
    "predict_linear(load[10m], 600)",
    "changes(load[10m])",
    "resets(requests_total[1h])",
    "avg_over_time(load[6m])",
    "min_over_time(load[6m])",
    "max_over_time(load[6m])",
    "sum_over_time(load[6m])",
    "count_over_time(load[6m])",
    "stddev_over_time(load[6m])",
    "stdvar_over_time(load[6m])",
    "quantile_over_time(0.8, load[6m])",
    "last_over_time(load[6m])",
    "present_over_time(load[6m])",
    "absent(load)",
    "absent(nothing{x=\"y\",z=~\"a\"})",
    "absent_over_time(nothing{x=\"y\"}[5m])",
    "absent_over_time(load[5m])",
    "absent(sum(nothing))",
    "histogram_quantile(0.9, rate(latency_bucket[5m]))",
    "histogram_quantile(0.5, sum by (le) (rate(latency_bucket[5m])))",
    "histogram_quantile(0.5, sum by (le, job) (latency_bucket))",
    "histogram_quantile(-1, latency_bucket)",
    "histogram_quantile(2, latency_bucket)",
    "load + 1",
    "1 - load",
    "load * load",
    "load / on (job, instance) load",
    "load % 3",
    "load ^ 2",
    "-load",
    "-load ^ 2",
    "+load",
    "2 ^ 3 ^ 2",
    "load > 5",
    "load > bool 5",
    "5 < load",
    "load == load",
    "load != bool load",
    "1 > bool 2",
    "load >= on (job, instance) (load offset 1m)",
    "requests_total / on (job, instance) group_left requests_total{code=\"200\"}",
    "load * on (job, instance) group_left (version) info",
    "info * on (job, instance) group_right load",
    "load * ignoring (version) group_left info",
    "load + on (job) load",
    "requests_total + ignoring (code) load",
    "load and on (instance) info{version=\"1\"}",
    "load or info",
    "load unless on (instance) info{version=\"2\"}",
    "load and (load > 3)",
    "load or (load > 3)",
    "load unless (load > 3)",
    "(load atan2 load) + 0",
    "sum(load) / count(load)",
    "max_over_time(rate(requests_total[5m])[30m:1m])",
    "avg_over_time(load[20m:47s])",
    "sum_over_time(sum(load)[10m:30s] offset 3m)",
    "rate(sum(requests_total)[10m:1m])",
    "max_over_time((load > 3)[10m:1m])",
    "min_over_time(load[10m:])",
    "quantile_over_time(0.5, (load * 2)[10m:1m] @ end())",
    "abs(load)",
    "ceil(load)",
    "floor(load)",
    "round(load)",
    "round(load, 0.25)",
    "exp(load)",
    "ln(load)",
    "log2(load)",
    "log10(load)",
    "sqrt(load)",
    "sgn(load)",
    "sin(load)",
    "cos(load)",
    "tan(load)",
    "asin(load / 30)",
    "acos(load / 30)",
    "atan(load)",
    "sinh(load)",
    "cosh(load)",
    "tanh(load)",
    "asinh(load)",
    "acosh(load)",
    "atanh(load / 30)",
    "deg(load)",
    "rad(load)",
    "pi()",
    "clamp(load, 0, 5)",
    "clamp_min(load, 0)",
    "clamp_max(load, 5)",
    "clamp(load, 5, 0)",
    "time()",
    "vector(time())",
    "scalar(sum(load))",
    "scalar(load)",
    "timestamp(load)",
    "timestamp(load * 2)",
    "minute()",
    "hour()",
    "month()",
    "year()",
    "day_of_month()",
    "day_of_week(load * 1e8)",
    "day_of_year(vector(1e9))",
    "days_in_month(vector(1e9))",
    "hour(vector(1e9))",
    "label_replace(load, \"x\", \"$1-y\", \"instance\", \"(a|b)\")",
    "label_replace(load, \"job\", \"\", \"\", \"\")",
    "label_join(load, \"x\", \"-\", \"job\", \"instance\")",
    "label_replace(load, \"instance\", \"same\", \"\", \"\")",
    "sort(load)",
    "sort_desc(load)",
    "odd",
    "sum(odd)",
    "max(odd)",
    "min by (instance) (odd)",
    "avg by (instance) (odd)",
    "topk(3, odd)",
    "rate(odd[5m])",
    "max_over_time(odd[5m])",
    "odd > 1",
    "odd == odd",
    "count(odd)",
    "sum_over_time(odd[5m])",
    "stddev(odd)",
    "quantile(0.5, odd)",
    "resets(odd[5m])",
    "changes(odd[5m])",
    "round(odd)",
    "abs(odd)",
    "nothing",
    "sum(nothing)",
    "nothing or vector(1)",
    "count(nothing) or vector(0)",
    "1 + 2 * 3 - 4 / 2 % 3",
    "(1 + 2) * 3",
    "0 / 0",
    "1 / 0",
    "-1 / 0",
    "NaN",
    "Inf",
    "0x1F",
    "bottomk(100, load)",
    "topk(0, load)",
    "topk(-1, load)",
    "sum by (nolabel) (load)",
    "load{instance=\"\"}",
    "load{nolabel=\"\"}",
    "load{nolabel!=\"\"}",
    "sum(rate(requests_total{code=~\"5..\"}[5m])) / sum(rate(requests_total[5m]))",
    "sum by (job) (rate(requests_total[5m])) > 1",
    "max by (job) (max_over_time(load[15m])) - min by (job) (min_over_time(load[15m]))",
    "rate(load",
    "sum(load) by (job) + ",
    "foo(load)",
    "rate(load)",
    "load[5m]",
    "load[3m] offset 1m",
];

fn vector(rng: &mut StdRng, depth: u32) -> String {
    let pick = |rng: &mut StdRng, list: &[&str]| list[rng.random_range(0..list.len())].to_owned();
    if depth == 0 {
        let base = pick(
            rng,
            &[
                "load",
                "info",
                "requests_total",
                "load{job=\"api\"}",
                "requests_total{code!=\"500\"}",
                "odd{instance=\"c\"}",
            ],
        );
        let tail = pick(rng, &["", "", "", " offset 2m", " offset -1m", " @ end()"]);
        return base + &tail;
    }
    let inner = vector(rng, depth - 1);
    match rng.random_range(0..8) {
        0 => format!(
            "{}({inner})",
            pick(rng, &["abs", "floor", "sgn", "exp", "-", "sort", "timestamp"])
        ),
        1 => {
            let labels = pick(rng, &["job", "instance", "job, instance", "code"]);
            let how = pick(rng, &["by", "without"]);
            format!(
                "{} {how} ({labels}) ({inner})",
                pick(rng, &["sum", "avg", "min", "max", "count", "stddev", "group"])
            )
        }
        2 => format!(
            "({inner}) {} {}",
            pick(rng, &["+", "*", "-", ">", "<= bool", "!="]),
            rng.random_range(-3..9)
        ),
        3 => {
            let other = vector(rng, depth - 1);
            format!(
                "({inner}) {} ({other})",
                pick(rng, &["and", "or", "unless", "and on (job)", "unless ignoring (code)"])
            )
        }
        4 => {
            let other = vector(rng, depth - 1);
            let op = pick(rng, &["+", "/", "<", "== bool"]);
            format!("sum by (job) ({inner}) {op} on (job) max by (job) ({other})")
        }
        5 => format!(
            "{}(({inner})[{}m:{}s] offset 13ms)",
            pick(
                rng,
                &["avg_over_time", "max_over_time", "count_over_time", "delta", "last_over_time"]
            ),
            rng.random_range(3..12),
            rng.random_range(31..90)
        ),
        6 => {
            let minutes = rng.random_range(1..15);
            match rng.random_range(0..2) {
                0 => format!(
                    "{}(requests_total[{minutes}m])",
                    pick(rng, &["rate", "increase", "irate", "resets"])
                ),
                _ => format!(
                    "{}(load[{minutes}m])",
                    pick(rng, &["delta", "changes", "sum_over_time", "deriv", "stddev_over_time"])
                ),
            }
        }
        _ => {
            let other = vector(rng, depth - 1);
            format!("({inner}) * on (job, instance) group_left () avg by (job, instance) ({other})")
        }
    }
}

fn compare(ours: SocketAddr, theirs: SocketAddr, queries: &[String], base: i64) -> Vec<String> {
    let mut failures = Vec::new();
    // In the block, across its border, in the head, beyond the end; never where a sample or subquery step is.
    let instants = [base + 1_801_503, base + 5_402_503, base + 14_101_503, base + 14_702_503];
    for query in queries {
        let mut paths: Vec<String> = instants
            .iter()
            .map(|t| format!("/api/v1/query?time={}&query={}", *t as f64 / 1000.0, encode(query)))
            .collect();
        let (start, end) = (base + 1_203_503, base + 14_405_503);
        paths.push(format!(
            "/api/v1/query_range?start={}&end={}&step=137&query={}",
            start as f64 / 1000.0,
            end as f64 / 1000.0,
            encode(query)
        ));
        for path in paths {
            if let Err(why) = same(&get(ours, &path).json(), &get(theirs, &path).json()) {
                failures.push(format!("{query}\n  {path}\n  {why}"));
                break;
            }
        }
    }
    failures
}

#[test]
fn prometheus_opens_our_folder_and_answers_alike() {
    if skip_unless_program("prometheus_opens_our_folder_and_answers_alike", "prometheus") {
        return;
    }
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = crate::differential::now();
    let base = (now - 4 * 3_600_000) / 7_200_000 * 7_200_000;
    // The database is dropped without closing, as a killed process leaves it.
    fill(&mine.path().join("data"), base);
    copy(&mine.path().join("data"), &other.path().join("data"));
    let server = Server::start_in(mine, "");
    let oracle = Oracle::start(other.path());
    assert!(!oracle.process.output().contains("level=error"), "{}", oracle.process.output());
    let mut queries: Vec<String> = FIXED.iter().map(|q| (*q).to_owned()).collect();
    let mut rng = StdRng::seed_from_u64(23);
    queries.extend((0..400).map(|i| vector(&mut rng, 1 + i % 3)));
    let failures = compare(server.address, oracle.address, &queries, base);
    assert!(
        failures.is_empty(),
        "{} of {} queries differ:\n{}",
        failures.len(),
        queries.len(),
        failures.join("\n")
    );
}

pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn we_open_the_folder_of_a_killed_prometheus() {
    if skip_unless_program("we_open_the_folder_of_a_killed_prometheus", "prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = crate::target::Target::start("m{a=\"1\"} 5\nm{a=\"2\"} 7\n");
    let config = format!(
        "scrape_configs:\n- job_name: app\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: ['{}']\n",
        target.address
    );
    fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let mut oracle = Process::spawn(
        Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}")),
    );
    let query = |address: SocketAddr| {
        let path = format!("/api/v1/query?query={}", encode("m[1h]"));
        try_request(address, "GET", &path, "")
            .ok()
            .filter(|r| r.status == 200)
            .map(|r| r.json()["data"]["result"].clone())
    };
    eventually("Prometheus has samples", LONG, || {
        query(address).is_some_and(|r| r[0]["values"].as_array().is_some_and(|v| v.len() > 10))
    });
    let before = query(address).unwrap();
    oracle.kill();
    drop(target);
    fs::write(dir.path().join("prometheus.yml"), "").unwrap();
    let (process, ours) = launch(&mut command(dir.path()));
    let after = query(ours).unwrap();
    for series in before.as_array().unwrap() {
        let same =
            after.as_array().unwrap().iter().find(|s| s["metric"] == series["metric"]).unwrap();
        let (old, new) = (series["values"].as_array().unwrap(), same["values"].as_array().unwrap());
        assert_eq!(new[..old.len()], old[..]);
    }
    drop(process);
    // And back again.
    let again = Oracle::start(dir.path());
    assert!(query(again.address).is_some_and(|r| r.as_array().is_some_and(|a| a.len() == 2)));
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    if skip_unless_program("promtool_finds_nothing_to_complain_about", "promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fill(&data, (now() - 4 * 3_600_000) / 7_200_000 * 7_200_000);
    for args in [&["tsdb", "analyze"][..], &["tsdb", "list"][..]] {
        let output = Command::new("promtool").args(args).arg(&data).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let dump = Command::new("promtool").args(["tsdb", "dump"]).arg(&data).output().unwrap();
    let theirs = String::from_utf8_lossy(&dump.stdout).lines().count();
    let db = Db::open(&data, Options::default()).unwrap();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let all = [Matcher::new(metrics_model::MatchOp::Regex, "__name__", ".+").unwrap()];
    for series in db.select(i64::MIN, i64::MAX, &all).unwrap() {
        series.samples(i64::MIN, i64::MAX, &mut times, &mut values).unwrap();
    }
    assert_eq!(theirs, times.len());
}
