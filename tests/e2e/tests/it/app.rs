//! The demo's application: a folder with its Dockerfile, its static binary and its manifests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static CONTEXT: OnceLock<PathBuf> = OnceLock::new();

/// The build context, made once.
pub fn context() -> &'static Path {
    CONTEXT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .expect("tests/e2e lies two below the root");
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let status = Command::new(env!("CARGO"))
            .args(["rustc", "--quiet", "--release", "--package", "hello", "--target", &triple])
            .args(["--", "-C", "target-feature=+crt-static"])
            .current_dir(root)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the application does not build");
        let test = std::env::current_exe().expect("a test knows its executable");
        let target =
            test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").to_path_buf();
        let context = target.join("e2e-app");
        fs::create_dir_all(context.join("manifests")).expect("a folder below target");
        let source = root.join("examples/hello");
        for file in ["Dockerfile", "manifests/hello.yaml"] {
            fs::copy(source.join(file), context.join(file)).expect("a file of the example");
        }
        fs::copy(target.join(triple).join("release/hello"), context.join("hello"))
            .expect("the binary");
        context
    })
}
