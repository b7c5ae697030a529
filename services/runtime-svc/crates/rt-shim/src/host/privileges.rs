//! Taking on a user, groups and capabilities.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{Step, sys};
use crate::spec::{Identity, ProcessSpec};
use crate::wire::Failure;

/// Highest capability number there may ever be in the two-word sets.
const MAX_CAPABILITY: u8 = 63;

/// Drops everything `process` is not meant to have. The order matters: what comes later needs privileges that
/// what came earlier still had.
pub(super) fn take_on(process: &ProcessSpec, identity: &Identity) -> Result<(), Failure> {
    let wanted = set(&process.capabilities);
    for capability in 0..=MAX_CAPABILITY {
        match sys::in_bounding(capability) {
            Err(_) => break,
            Ok(true) if wanted & (1 << capability) == 0 => {
                sys::drop_bounding(capability).step(|| format!("drop capability {capability}"))?;
            }
            Ok(_) => {}
        }
    }
    // A filter needs either no_new_privs or CAP_SYS_ADMIN, and the latter goes away below.
    if let (Some(filter), false) = (&process.seccomp, process.no_new_privs) {
        sys::install_seccomp(filter).step(|| "install the seccomp filter".to_owned())?;
    }
    sys::keep_capabilities().step(|| "keep capabilities".to_owned())?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).step(|| "set supplementary groups".to_owned())?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).step(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).step(|| format!("become user {uid}"))?;
    let ambient = set(&process.ambient) & wanted;
    sys::set_capabilities(wanted, wanted, ambient).step(|| "set capabilities".to_owned())?;
    for capability in 0..=MAX_CAPABILITY {
        if ambient & (1 << capability) != 0 {
            sys::raise_ambient(capability)
                .step(|| format!("raise ambient capability {capability}"))?;
        }
    }
    if process.no_new_privs {
        sys::no_new_privileges().step(|| "set no_new_privs".to_owned())?;
        if let Some(filter) = &process.seccomp {
            sys::install_seccomp(filter).step(|| "install the seccomp filter".to_owned())?;
        }
    }
    Ok(())
}

/// Bit set of the capabilities this kernel knows and this process may still give.
fn set(capabilities: &[u8]) -> u64 {
    let known = capabilities
        .iter()
        .filter(|c| **c <= MAX_CAPABILITY && sys::in_bounding(**c).unwrap_or(false));
    known.fold(0, |bits, capability| bits | 1 << capability)
}
