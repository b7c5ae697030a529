//! The last steps of a process: identity, working folder, executable.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::{Step, failure, privileges, sys, tree, users};
use crate::spec::{Identity, ProcessSpec};
use crate::wire::{Failure, FailureKind};

/// Where a program is searched when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the program. Returns only to say why that failed.
///
/// `report` is called with the identity before privileges are dropped; `own_exe` is (device, inode) of the
/// launcher itself, which a container must not get to run.
pub(super) fn become_program(
    process: &ProcessSpec,
    own_exe: (u64, u64),
    report: impl FnOnce(&Identity) -> Result<(), Failure>,
) -> Result<Infallible, Failure> {
    let (identity, home) = users::resolve(&process.user)?;
    set_oom_score(process.oom_score_adj);
    let cwd = if process.cwd.is_empty() { "/" } else { process.cwd.as_str() };
    if fs::metadata(cwd).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        tree::make_dirs(cwd).step(|| format!("make working directory {cwd}"))?;
    }
    let entered = nix::unistd::chdir(cwd);
    for fd in 0..3 {
        own_stream(fd, &identity);
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    report(&identity)?;
    sys::cloexec_from(3).step(|| "close descriptors".to_owned())?;
    privileges::take_on(process, &identity)?;
    if entered.is_err() {
        // Root without all capabilities may lack what the user has.
        nix::unistd::chdir(cwd).step(|| format!("enter working directory {cwd}"))?;
    }
    let here = std::env::current_dir().step(|| format!("working directory {cwd}"))?;
    if !here.is_absolute() {
        return Err(failure(format!("working directory {cwd} lies outside of the container")));
    }
    execute(process, &home, own_exe)
}

/// Lowering the score below the present one needs CAP_SYS_RESOURCE; without it the present one stays.
fn set_oom_score(wanted: Option<i32>) {
    if let Some(score) = wanted {
        let _ = fs::write("/proc/self/oom_score_adj", score.clamp(-1000, 1000).to_string());
    }
}

/// Pipes and terminals of stdio belong to the user, so that /dev/stderr can be opened. /dev/null stays root's.
fn own_stream(fd: i32, identity: &Identity) {
    let Ok(meta) = fs::metadata(format!("/proc/self/fd/{fd}")) else { return };
    if meta.rdev() == libc::makedev(1, 3) {
        return;
    }
    let fd = match fd {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    };
    // A stream of another kind that cannot change hands still works.
    let gid = (meta.rdev() == 0).then_some(Gid::from_raw(identity.gid));
    let _ = nix::unistd::fchown(fd, Some(Uid::from_raw(identity.uid)), gid);
}

fn execute(process: &ProcessSpec, home: &str, own_exe: (u64, u64)) -> Result<Infallible, Failure> {
    let mut env = process.env.clone();
    if !env.iter().any(|line| line.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    let name = process.args.first().ok_or_else(|| failure("no command specified"))?;
    let path = find(name, &env)?;
    if fs::metadata(&path).is_ok_and(|meta| (meta.dev(), meta.ino()) == own_exe) {
        return Err(failure(format!(
            "exec: {name:?}: the runtime itself is not a program of the container"
        )));
    }
    let texts = |list: &[String]| -> Result<Vec<CString>, Failure> {
        list.iter()
            .map(|text| CString::new(text.as_str()).step(|| format!("{text:?} holds a zero byte")))
            .collect()
    };
    let (args, env) = (texts(&process.args)?, texts(&env)?);
    let program = CString::new(path.as_str()).step(|| format!("{path:?} holds a zero byte"))?;
    nix::unistd::execve(&program, &args, &env).map_err(|errno| refused(name, errno))
}

fn find(name: &str, env: &[String]) -> Result<String, Failure> {
    if name.contains('/') {
        return match fs::metadata(name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure {
                kind: FailureKind::NoExecutable,
                message: format!("exec: {name:?}: stat {name}: no such file or directory"),
            }),
            _ => Ok(name.to_owned()),
        };
    }
    let path = env.iter().find_map(|line| line.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut forbidden = false;
    for dir in path.split(':') {
        let candidate = format!("{}/{name}", if dir.is_empty() { "." } else { dir });
        let Ok(meta) = fs::metadata(&candidate) else { continue };
        if meta.is_file()
            && nix::unistd::access(candidate.as_str(), nix::unistd::AccessFlags::X_OK).is_ok()
        {
            return Ok(candidate);
        }
        forbidden |= meta.is_file();
    }
    if forbidden {
        return Err(refused(name, Errno::EACCES));
    }
    Err(Failure {
        kind: FailureKind::NoExecutable,
        message: format!("exec: {name:?}: executable file not found in $PATH"),
    })
}

fn refused(name: &str, errno: Errno) -> Failure {
    let (kind, text) = match errno {
        Errno::ENOENT => (FailureKind::NoExecutable, "no such file or directory"),
        Errno::EACCES | Errno::EISDIR => (FailureKind::NotExecutable, "permission denied"),
        Errno::ENOEXEC => (FailureKind::NotExecutable, "exec format error"),
        other => return failure(format!("exec: {name:?}: {}", other.desc())),
    };
    Failure { kind, message: format!("exec: {name:?}: {text}") }
}
