//! Who asks, and what they may do.

mod authenticate;
mod authorize;
mod bootstrap_roles;
mod certs;
mod impersonate;
mod service_tokens;

pub use authenticate::{Authenticator, User};
pub use authorize::{Attributes, Authorizer, Mode};
pub use bootstrap_roles::bootstrap_roles;
pub use certs::Certs;
pub use service_tokens::{ServiceTokens, TokenSubject};
