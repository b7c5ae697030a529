//! Runs one step after the other: shows the command, shows what it printed, and stops at the first failure.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Suite;

/// Lines of output that are shown of a step.
const SHOWN: usize = 14;

/// Runs steps in a shell that knows the suite.
#[derive(Debug)]
pub struct Runner {
    env: Vec<(String, String)>,
    number: usize,
}

impl Runner {
    /// A runner whose commands find our programs and the suite's kubeconfig.
    pub fn new(bin_dir: &Path, suite: &Suite) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let env = vec![
            ("PATH".to_owned(), format!("{}:{path}:/usr/sbin:/sbin", bin_dir.display())),
            ("KUBECONFIG".to_owned(), suite.kubeconfig.display().to_string()),
            ("ETCDCTL_API".to_owned(), "3".to_owned()),
        ];
        Self { env, number: 0 }
    }

    /// Runs a command that must succeed; returns its output.
    pub fn shell(&mut self, title: &str, command: &str) -> Result<String, String> {
        self.until(title, command, Duration::ZERO, |_| Ok(()))
    }

    /// Runs a command again and again until its output is as wanted, at most `limit` long.
    pub fn until(
        &mut self,
        title: &str,
        command: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, String> {
        self.announce(title, command);
        let deadline = Instant::now() + limit;
        loop {
            let (succeeded, output) = self.execute(command)?;
            let verdict =
                if succeeded { wanted(&output) } else { Err("the command failed".to_owned()) };
            match verdict {
                Ok(()) => {
                    show(&output);
                    return Ok(output);
                }
                Err(reason) if Instant::now() >= deadline => {
                    show(&output);
                    return Err(format!("step {} ({title}) failed: {reason}", self.number));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Output of a command nobody needs to see.
    pub fn quiet(&self, command: &str) -> Result<String, String> {
        self.execute(command).map(|(_, output)| output)
    }

    /// Shows a step that is not a command.
    #[allow(clippy::print_stdout, reason = "the demo is for reading")]
    pub fn announce(&mut self, title: &str, command: &str) {
        self.number += 1;
        println!("\n[{}] {title}\n    $ {}", self.number, command.replace('\n', "\n      "));
    }

    /// The last lines of every log in a folder.
    pub fn log_tails(&self, dir: &Path) -> String {
        const LINES: usize = 6;
        let mut text = String::new();
        let mut logs: Vec<_> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        logs.sort();
        for log in logs {
            let content = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = content.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            if !last.is_empty() {
                let name = log.file_name().unwrap_or_default().to_string_lossy();
                text.push_str(&format!("\n--- {name}\n{}", last.join("\n")));
            }
        }
        text
    }

    fn execute(&self, command: &str) -> Result<(bool, String), String> {
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {command}\n}} 2>&1")])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .map_err(|error| format!("cannot run a shell: {error}"))?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

#[allow(clippy::print_stdout, reason = "the demo is for reading")]
fn show(output: &str) {
    let lines: Vec<&str> = output.lines().collect();
    for line in lines.iter().take(SHOWN) {
        println!("    {line}");
    }
    if lines.len() > SHOWN {
        println!("    ... {} more lines", lines.len() - SHOWN);
    }
}
