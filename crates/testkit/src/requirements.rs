//! Tests that need more than a compiler say so plainly when they cannot run.

use std::process::{Command, Stdio};

/// Whether `program` is on the PATH.
pub fn have_program(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// True (after printing why) when the test must be skipped because it does not run as root.
pub fn skip_unless_root(test: &str) -> bool {
    let skip = !nix::unistd::geteuid().is_root();
    if skip {
        println!("SKIPPED {test}: needs root (namespaces, mounts, cgroups)");
    }
    skip
}

/// True (after printing why) when the test must be skipped because `program` is missing.
pub fn skip_unless_program(test: &str, program: &str) -> bool {
    let skip = !have_program(program);
    if skip {
        println!("SKIPPED {test}: needs {program}; `make setup` installs it");
    }
    skip
}
