//! `flotilla status`.

use flotilla_config::ExitError;

use crate::args::RootArgs;
use crate::layout::Layout;
use crate::state::State;
use crate::{probe, table};

/// Prints one line a service.
///
/// # Errors
/// When nothing runs below this root, or a service is not ready.
pub async fn run(args: &RootArgs) -> Result<(), ExitError> {
    let layout = Layout::new(&args.root);
    let state = State::load(&layout.state()).map_err(ExitError::runtime)?;
    let state = state.filter(|state| state.supervisor.is_alive()).ok_or_else(|| {
        ExitError::unavailable(format!(
            "nothing runs below {}; `flotilla up` starts it",
            args.root.display()
        ))
    })?;
    let mut rows = Vec::new();
    let mut unready = Vec::new();
    for service in &state.services {
        let process = service.process.filter(|process| process.is_alive());
        let ready = process.is_some() && probe::answers(&service.ready_url, &[200, 401]).await;
        if !ready {
            unready.push(service.name.clone());
        }
        let condition = if ready {
            "ready"
        } else if process.is_some() {
            "starting"
        } else {
            "down"
        };
        let places: Vec<&str> = service.endpoints.iter().map(|(_, place)| place.as_str()).collect();
        rows.push(vec![
            service.name.clone(),
            condition.to_owned(),
            process.map(|p| p.pid.to_string()).unwrap_or_default(),
            process.map(|p| age(p.age_seconds())).unwrap_or_default(),
            service.restarts.to_string(),
            places.join("  "),
        ]);
    }
    #[allow(clippy::print_stdout, reason = "the answer")]
    {
        print!(
            "{}",
            table::render(&["SERVICE", "STATE", "PID", "AGE", "RESTARTS", "WHERE"], &rows)
        );
    }
    if unready.is_empty() {
        Ok(())
    } else {
        Err(ExitError::unavailable(format!("not ready: {}", unready.join(", "))))
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}
