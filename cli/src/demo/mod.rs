//! `flotilla demo`: the main job, step by step, each one seen to work.
//!
//! Starts the suite below a folder of its own, builds and deploys the example application, and takes everything
//! away again. With `--attach` it uses a suite that runs already, as compose starts it.

mod load;
mod runner;
mod steps;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use clap::Args;
use flotilla_config::ExitError;

use crate::layout::Ports;
use runner::Runner;

/// Flags of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the demo's data; removed at the end
    #[arg(long, default_value = "/var/lib/flotilla-demo")]
    pub root: PathBuf,
    /// First of the ports the demo takes
    #[arg(long, default_value_t = 17_000, value_name = "PORT")]
    pub port_base: u16,
    /// Folder with the application: its Dockerfile, its binary `hello`, and manifests/hello.yaml
    #[arg(long, value_name = "DIR")]
    pub app: PathBuf,
    /// Folder with the service binaries [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Use the suite that answers on the originals' default ports, with this kubeconfig
    #[arg(long, value_name = "KUBECONFIG")]
    pub attach: Option<PathBuf>,
    /// etcd to use instead of starting kv-svc
    #[arg(long, value_name = "URL", conflicts_with = "attach")]
    pub kv_endpoints: Option<String>,
    /// Name of the demo's pod bridge
    #[arg(long, default_value = "fltdemo0")]
    pub bridge_name: String,
    /// Addresses of the demo's pods
    #[arg(long, default_value = "10.245.0.0/24")]
    pub pod_cidr: String,
    /// Addresses of the demo's Services
    #[arg(long, default_value = "10.97.0.0/16")]
    pub service_cidr: String,
    /// Leave everything running at the end
    #[arg(long)]
    pub keep: bool,
}

/// What the steps need to know of the suite.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Ports.
    pub ports: Ports,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// etcd's address.
    pub kv: String,
    /// The application's folder.
    pub app: PathBuf,
}

/// Runs the demo.
///
/// # Errors
/// The name of the step that failed, with what it printed and the end of the logs.
#[allow(clippy::print_stdout, reason = "the demo is for reading")]
pub async fn run(args: &DemoArgs) -> Result<(), ExitError> {
    let bin_dir = crate::up::bin_dir(args.bin_dir.clone())?;
    for file in ["Dockerfile", "hello", "manifests/hello.yaml"] {
        if !args.app.join(file).exists() {
            return Err(ExitError::usage(format!(
                "{} is missing; `make demo` prepares it",
                args.app.join(file).display()
            )));
        }
    }
    let started = Instant::now();
    let suite = suite(args);
    let mut runner = Runner::new(&bin_dir, &suite);
    let result = match args.attach {
        Some(_) => steps::run(&mut runner, &suite).await,
        None => with_own_suite(args, &mut runner, &suite, &bin_dir).await,
    };
    match result {
        Ok(()) => {
            println!("\nEvery step worked, in {:.0} s.", started.elapsed().as_secs_f64());
            println!("{}", steps::for_the_reader());
            Ok(())
        }
        Err(reason) => Err(ExitError::runtime(reason)),
    }
}

async fn with_own_suite(
    args: &DemoArgs,
    runner: &mut Runner,
    suite: &Suite,
    bin_dir: &std::path::Path,
) -> Result<(), String> {
    let root = args.root.display();
    let mut up = format!(
        "flotilla up --detach --root {root} --bin-dir {} --port-base {} --bridge-name {} --pod-cidr {} --service-cidr {}",
        bin_dir.display(),
        args.port_base,
        args.bridge_name,
        args.pod_cidr,
        args.service_cidr
    );
    if let Some(url) = &args.kv_endpoints {
        up.push_str(&format!(" --kv-endpoints {url}"));
    }
    let before = leftovers(&args.bridge_name);
    let result = match runner.shell("start the services", &up) {
        Ok(_) => steps::run(runner, suite).await,
        Err(reason) => Err(reason),
    };
    if args.keep {
        return result;
    }
    let result =
        result.map_err(|reason| format!("{reason}{}", runner.log_tails(&args.root.join("logs"))));
    let stopped = runner.shell("stop everything", &format!("flotilla down --root {root} --purge"));
    result?;
    stopped?;
    let after = leftovers(&args.bridge_name);
    let new: Vec<&String> = after.iter().filter(|thing| !before.contains(thing)).collect();
    if new.is_empty() { Ok(()) } else { Err(format!("the demo left behind: {new:?}")) }
}

fn suite(args: &DemoArgs) -> Suite {
    let ports = Ports::choose(args.attach.is_none().then_some(args.port_base));
    let kubeconfig =
        args.attach.clone().unwrap_or_else(|| crate::layout::Layout::new(&args.root).kubeconfig());
    let kv = args.kv_endpoints.clone().unwrap_or_else(|| format!("127.0.0.1:{}", ports.kv));
    Suite { ports, kubeconfig, kv, app: args.app.clone() }
}

/// What a machine must not have more of afterwards: mounts, named network namespaces, interfaces, tables, cgroups.
fn leftovers(bridge: &str) -> Vec<String> {
    let mut list = Vec::new();
    let mut add = |what: &str, text: &str, keep: &dyn Fn(&str) -> bool| {
        list.extend(text.lines().filter(|line| keep(line)).map(|line| format!("{what}: {line}")));
    };
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    add("mount", &mounts, &|line| line.contains("flotilla"));
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    };
    add("interface", &output("ip", &["-o", "link"]), &|line| line.contains(bridge));
    add("nft table", &output("nft", &["list", "tables"]), &|line| line.contains(bridge));
    add(
        "cgroup",
        &output(
            "sh",
            &[
                "-c",
                "ls -d /sys/fs/cgroup/*/kubepods/*/pod* /sys/fs/cgroup/kubepods/*/pod* 2>/dev/null",
            ],
        ),
        &|_| true,
    );
    add("process", &output("pgrep", &["-fa", "runtime-svc shim"]), &|line| {
        line.contains("flotilla-demo")
    });
    list
}
