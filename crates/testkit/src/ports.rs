//! Free ports for programs that cannot bind port 0 themselves.

use std::net::TcpListener;

/// A TCP port on loopback that nobody listened on a moment ago.
///
/// Ours bind port 0 and print it; this is for the originals.
///
/// # Panics
/// When loopback has no free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
