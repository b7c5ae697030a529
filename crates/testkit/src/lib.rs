//! What black-box tests share: start a process and end exactly that one, find a free port, wait for a condition.
//!
//! Tests never sleep for luck: [`eventually`] polls a condition until it holds or the deadline passes, and says
//! what it waited for. A [`Process`] keeps its output, ends by pid when dropped, and shows the output's tail
//! when a wait fails.

mod binaries;
mod originals;
mod ports;
mod process;
mod requirements;
mod wait;

pub use binaries::binary;
pub use originals::{etcd, pip_package};
pub use ports::free_port;
pub use process::Process;
pub use requirements::{have_program, skip_unless_program, skip_unless_root};
pub use wait::eventually;
