//! A small HTTP/1.1 application: what the demo builds, deploys, scrapes, kills and rolls out.
//!
//! `GET /` answers with version and pod name, `/ready` and `/healthz` serve probes, `/metrics` serves counters,
//! `/exit` ends the process (to show a restart). SIGTERM drains: `/ready` turns to 503, answers carry
//! `Connection: close`, and after `DRAIN_SECONDS` (default 3) the process ends with 0.

mod app;
mod http;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use app::App;
use nix::sys::signal::{SigSet, Signal};

fn main() -> std::io::Result<()> {
    // Blocked in every thread and taken by sigwait below: no handler, nothing to get wrong in one.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;

    let port = variable("PORT", 8080);
    let drain = Duration::from_secs(variable("DRAIN_SECONDS", 3));
    let app = Arc::new(App::from_env());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    eprintln!("hello {} on {} listens on {}", app.version, app.pod, listener.local_addr()?);
    let server = app.clone();
    std::thread::spawn(move || http::serve(&listener, &server));

    let signal = signals.wait()?;
    eprintln!("{signal}: draining for {drain:?}");
    app.start_draining();
    std::thread::sleep(drain);
    app.wait_until_idle(Duration::from_secs(10));
    Ok(())
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
