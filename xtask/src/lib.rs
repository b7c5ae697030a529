//! The tasks behind `cargo xtask`, as a library so that tests can call them.

pub mod images;
pub mod lint_rooms;
pub mod protos;
pub mod rocksdb;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  gen-protos          write crates/proto/src/gen from proto/
  images              build the container images with a local Docker engine
  lint-rooms          check the layout rules that cargo and clippy do not know
  rocksdb-prebuild    compile RocksDB once into the user's cache and print its folder
";

/// Runs the task that the arguments name.
pub fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["gen-protos"] => protos::generate(&root().join("crates/proto/src")),
        ["images"] => images::build(),
        ["lint-rooms"] => lint_rooms::check(&root()),
        ["rocksdb-prebuild"] => rocksdb::prebuild(),
        [] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown task {other:?}\n{USAGE}"),
    }
}

/// The workspace root.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace root")
        .to_path_buf()
}
