//! What the application answers, and what it counts.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 6] = [0.0005, 0.001, 0.005, 0.01, 0.1, 1.0];

/// State of the application; shared by all connections.
pub struct App {
    /// What `APP_VERSION` says.
    pub version: String,
    /// What `POD_NAME` or `HOSTNAME` says.
    pub pod: String,
    draining: AtomicBool,
    active: AtomicU64,
    requests: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    total_micros: AtomicU64,
}

/// An answer.
pub struct Answer {
    /// Status code and reason.
    pub status: &'static str,
    /// Body, as plain text.
    pub body: String,
}

impl App {
    /// Reads version and pod name from the environment.
    pub fn from_env() -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok());
        Self {
            version: first(&["APP_VERSION"]).unwrap_or_else(|| "dev".to_owned()),
            pod: first(&["POD_NAME", "HOSTNAME"]).unwrap_or_else(|| "unknown".to_owned()),
            draining: AtomicBool::new(false),
            active: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS.len()],
            total_micros: AtomicU64::new(0),
        }
    }

    /// From now on `/ready` says no and connections close after their answer.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Waits until no request is being answered, at most `limit`.
    pub fn wait_until_idle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.active.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Answers one request and counts it.
    pub fn answer(&self, path: &str) -> Answer {
        let started = Instant::now();
        self.active.fetch_add(1, Ordering::SeqCst);
        let answer = self.route(path);
        if path == "/" {
            self.count(started.elapsed());
        }
        self.active.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn route(&self, path: &str) -> Answer {
        let ok = |body| Answer { status: "200 OK", body };
        match path {
            "/" => ok(format!("hello from {} version {}\n", self.pod, self.version)),
            "/healthz" => ok("ok\n".to_owned()),
            "/ready" if self.is_draining() => {
                Answer { status: "503 Service Unavailable", body: "draining\n".to_owned() }
            }
            "/ready" => ok("ok\n".to_owned()),
            "/metrics" => ok(self.metrics()),
            "/exit" => {
                eprintln!("asked to end");
                std::process::exit(3)
            }
            _ => Answer { status: "404 Not Found", body: "no such page\n".to_owned() },
        }
    }

    fn count(&self, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.total_micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            if took.as_secs_f64() <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn metrics(&self) -> String {
        let requests = self.requests.load(Ordering::Relaxed);
        let version = &self.version;
        let mut text = format!(
            "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter\n\
             http_requests_total{{version=\"{version}\"}} {requests}\n\
             # HELP http_request_duration_seconds Time to answer.\n# TYPE http_request_duration_seconds histogram\n"
        );
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            let count = bucket.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "http_request_duration_seconds_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.total_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = write!(
            text,
            "http_request_duration_seconds_bucket{{le=\"+Inf\"}} {requests}\n\
             http_request_duration_seconds_sum {sum}\nhttp_request_duration_seconds_count {requests}\n"
        );
        text
    }
}
