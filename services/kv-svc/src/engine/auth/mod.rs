//! Who may do what: users, roles, permissions, tokens.
//!
//! Users and roles are replicated and checked when a request is applied; a request carries the user and the
//! revision of the rules its sender saw, and is refused when the rules changed since.

pub mod administer;
pub mod check;
pub mod permission;
pub mod rules;
pub mod tokens;

/// The one user and the one role that may do everything.
pub const ROOT: &str = "root";

/// Who sends a request. Empty while authentication is off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub user: String,
    /// Revision of the rules when the user was recognised.
    pub revision: u64,
}
