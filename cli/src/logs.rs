//! `flotilla logs`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use flotilla_config::ExitError;

use crate::args::LogsArgs;
use crate::layout::Layout;

/// Prints the end of the logs and, if asked, what is added until Ctrl-C.
pub async fn run(args: &LogsArgs) -> Result<(), ExitError> {
    let layout = Layout::new(&args.root.root);
    let mut logs = open(&layout, args.service.as_deref())?;
    for log in &mut logs {
        let text = log.read_new().map_err(ExitError::runtime)?;
        let lines: Vec<&str> = text.lines().collect();
        log.show(&lines[lines.len().saturating_sub(args.tail)..].join("\n"));
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for log in &mut logs {
            let text = log.read_new().map_err(ExitError::runtime)?;
            log.show(&text);
        }
    }
}

struct Log {
    service: String,
    file: File,
    show_name: bool,
}

impl Log {
    /// What was added since the last call; starts over when the file was cut.
    fn read_new(&mut self) -> std::io::Result<String> {
        if self.file.metadata()?.len() < self.file.stream_position()? {
            self.file.seek(SeekFrom::Start(0))?;
        }
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[allow(clippy::print_stdout, reason = "the answer")]
    fn show(&self, text: &str) {
        for line in text.lines() {
            if self.show_name {
                println!("{:>13} | {line}", self.service)
            } else {
                println!("{line}")
            }
        }
    }
}

fn open(layout: &Layout, service: Option<&str>) -> Result<Vec<Log>, ExitError> {
    let mut files: Vec<PathBuf> = match service {
        Some(name) => vec![layout.log(name)],
        None => std::fs::read_dir(layout.logs())
            .map_err(|error| {
                ExitError::unavailable(format!(
                    "no logs below {}: {error}",
                    layout.logs().display()
                ))
            })?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect(),
    };
    files.sort();
    files
        .iter()
        .map(|path| {
            let file = File::open(path).map_err(|error| {
                ExitError::unavailable(format!("no log {}: {error}", path.display()))
            })?;
            let service = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Log { service, file, show_name: files.len() > 1 })
        })
        .collect()
}
