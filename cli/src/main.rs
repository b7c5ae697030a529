//! `flotilla`: starts, watches and stops the suite on one machine.

use flotilla_config::{ExitError, exit_with, parse_args};

fn main() {
    if let Err(error) = run() {
        exit_with("flotilla", &error);
    }
}

fn run() -> Result<(), ExitError> {
    let cli = parse_args::<flotilla::Cli>(std::env::args())?;
    tokio::runtime::Runtime::new().map_err(ExitError::runtime)?.block_on(flotilla::run(cli))
}
