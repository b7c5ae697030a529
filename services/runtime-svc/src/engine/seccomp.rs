//! Seccomp profiles: which one a container gets.

use flotilla_proto::cri::runtime::v1 as cri;

use super::error::{Error, Result};
use super::ports::Machine;

/// The compiled filter, or none for an unconfined container.
pub(super) fn filter(
    context: &cri::LinuxContainerSecurityContext,
    _machine: &dyn Machine,
) -> Result<Option<Vec<u8>>> {
    let profile = context.seccomp.clone().unwrap_or(cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::Unconfined as i32,
        localhost_ref: String::new(),
    });
    match profile.profile_type() {
        cri::security_profile::ProfileType::Unconfined => Ok(None),
        _ if context.privileged => Ok(None),
        other => Err(Error::Unsupported(format!("seccomp profile {}", other.as_str_name()))),
    }
}
