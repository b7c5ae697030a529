//! The Corefile: text in, server blocks out.
//!
//! The grammar is Caddyfile v1 as CoreDNS uses it: `{$ENV}` expansion, quotes, `#` comments, snippets, `import`,
//! server blocks with a list of `SCHEME://ZONE:PORT` keys. What a directive means is not known here.

mod keys;
mod lexer;
mod parser;

pub use keys::{Scheme, ServerKey, reverse_zone};
pub use parser::{Directive, ParseError, ServerBlock, parse};
