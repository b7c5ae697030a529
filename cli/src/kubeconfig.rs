//! `flotilla kubeconfig`.

use flotilla_config::ExitError;

use crate::args::RootArgs;
use crate::layout::Layout;

/// Prints the administrator's kubeconfig.
pub fn run(args: &RootArgs) -> Result<(), ExitError> {
    let path = Layout::new(&args.root).kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        ExitError::unavailable(format!(
            "cannot read {}: {error}; `flotilla up` writes it",
            path.display()
        ))
    })?;
    #[allow(clippy::print_stdout, reason = "the answer")]
    {
        print!("{text}");
    }
    Ok(())
}
