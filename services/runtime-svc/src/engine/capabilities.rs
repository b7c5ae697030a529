//! Linux capabilities by name.

use super::error::{Error, Result};

/// Names in the order of the kernel's numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers get unless told otherwise.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn number(name: &str) -> Result<u8> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    // There are fewer than 256.
    NAMES.iter().position(|known| *known == short).map(|n| n as u8).ok_or_else(|| {
        Error::Invalid(format!("unknown capability {name:?}; write for example NET_ADMIN"))
    })
}

/// Every capability.
pub fn all() -> Vec<u8> {
    (0..NAMES.len() as u8).collect()
}

/// The default set with some added and dropped. `ALL` adds or drops everything, before single names apply.
///
/// # Errors
/// Names an unknown capability.
pub fn adjusted(add: &[String], drop: &[String]) -> Result<Vec<u8>> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set: Vec<u8> = if drop.iter().any(is_all) {
        Vec::new()
    } else if add.iter().any(is_all) {
        all()
    } else {
        DEFAULT.iter().map(|name| number(name)).collect::<Result<_>>()?
    };
    if drop.iter().any(is_all) && add.iter().any(is_all) {
        set = all();
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        let number = number(name)?;
        if !set.contains(&number) {
            set.push(number);
        }
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        let number = number(name)?;
        set.retain(|n| *n != number);
    }
    set.sort_unstable();
    Ok(set)
}

/// Numbers of single names.
///
/// # Errors
/// Names an unknown capability.
pub fn numbers(names: &[String]) -> Result<Vec<u8>> {
    names.iter().map(|name| number(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn add_and_drop_combine() {
        assert_eq!(adjusted(&[], &[]).unwrap().len(), 14);
        assert_eq!(adjusted(&names(&["ALL"]), &[]).unwrap(), all());
        assert_eq!(adjusted(&names(&["ALL"]), &names(&["CHOWN"])).unwrap().len(), 40);
        assert_eq!(adjusted(&names(&["CAP_NET_ADMIN"]), &names(&["ALL"])).unwrap(), [12]);
        assert_eq!(adjusted(&names(&["sys_time"]), &[]).unwrap().len(), 15);
        assert!(adjusted(&names(&["FLY"]), &[]).unwrap_err().to_string().contains("FLY"));
    }
}
