//! The command line of the suite.
//!
//! `up` starts every service as its own process, exactly as compose and Helm do, and supervises them; the other
//! commands look at or talk to what runs. The suite's state lives under one root folder ([`layout::Layout`]):
//! data, generated configuration, logs, and `state.json`, which names the processes.
//!
//! This crate knows flags and public protocols of the services, never their code.

mod args;
mod config_files;
mod demo;
mod doctor;
mod down;
pub mod image;
mod init;
mod kubeconfig;
mod layout;
mod logs;
mod pki;
mod plan;
mod probe;
mod state;
mod status;
mod supervisor;
mod table;
mod up;

pub use args::{Cli, Command};
use flotilla_config::ExitError;

/// Runs one command.
///
/// # Errors
/// One line that names the thing and the fix; the exit code goes with its kind.
pub async fn run(cli: Cli) -> Result<(), ExitError> {
    match cli.command {
        Command::Up(args) => up::run(args).await,
        Command::Down(args) => down::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Logs(args) => logs::run(&args).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Image(args) => image::run(args).await,
        Command::Init(args) => init::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
    }
}
