//! Every day's commands with etcdctl 3.5.1, and with the distribution's when there is one.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use flotilla_testkit::{Process, have_program};

use crate::harness::{Member, SOON};

fn clients() -> Vec<PathBuf> {
    let mut clients = vec![flotilla_testkit::etcd().join("etcdctl")];
    if have_program("etcdctl") {
        clients.push(PathBuf::from("etcdctl"));
    }
    clients
}

struct Etcdctl<'a> {
    program: &'a PathBuf,
    address: &'a str,
}

impl Etcdctl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.env("ETCDCTL_API", "3").args(["--endpoints", self.address]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("etcdctl runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn feed(&self, args: &[&str], input: &str) -> String {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcdctl runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        String::from_utf8(output.stdout).expect("text")
    }
}

#[test]
fn the_usual_commands_work() {
    for program in &clients() {
        let member = Member::start(&[]);
        let etcdctl = Etcdctl { program, address: &member.address };
        assert_eq!(etcdctl.run(&["put", "a", "1"]), "OK\n");
        assert_eq!(etcdctl.run(&["put", "--prev-kv", "a", "2"]), "OK\na\n1\n");
        etcdctl.run(&["put", "ab", "3"]);
        assert_eq!(etcdctl.run(&["get", "--prefix", "a"]), "a\n2\nab\n3\n");
        assert_eq!(etcdctl.run(&["get", "--rev=2", "a"]), "a\n1\n");
        assert_eq!(
            etcdctl.run(&["get", "--prefix", "--order=DESCEND", "--keys-only", "a"]),
            "ab\n\na\n\n"
        );
        let txn = etcdctl.feed(&["txn"], "value(\"a\") = \"2\"\n\nput b 4\nget a\n\nput c 5\n\n");
        assert!(txn.starts_with("SUCCESS\n\nOK\n\na\n2\n"), "{txn}");
        let mut watch = Process::spawn(&mut etcdctl.command(&["watch", "--rev=2", "--prefix", ""]));
        watch.wait_until("it saw the first put", SOON, |output| output.contains("PUT\na\n1\n"));
        assert_eq!(etcdctl.run(&["del", "--prefix", "a"]), "2\n");
        watch.wait_until("it saw the deletion", SOON, |output| output.contains("DELETE\nab\n"));
        let lease = etcdctl.run(&["lease", "grant", "300"]);
        let id = lease.split(' ').nth(1).expect("an id").to_owned();
        etcdctl.run(&["put", "--lease", &id, "leased", "x"]);
        assert!(etcdctl.run(&["lease", "timetolive", "--keys", &id]).contains("leased"));
        assert!(
            etcdctl
                .run(&["lease", "keep-alive", "--once", &id])
                .contains("keepalived with TTL(300)")
        );
        assert!(etcdctl.run(&["lease", "list"]).contains(&id));
        etcdctl.run(&["lease", "revoke", &id]);
        assert_eq!(etcdctl.run(&["get", "leased"]), "");
        assert_eq!(etcdctl.run(&["compact", "3"]), "compacted revision 3\n");
        assert!(etcdctl.run(&["member", "list"]).contains("8e9e05c52164694d, started, default"));
        etcdctl.run(&["endpoint", "status"]);
        etcdctl.run(&["endpoint", "hashkv"]);
        etcdctl.run(&["defrag"]);
        assert_eq!(etcdctl.run(&["alarm", "list"]), "");
        etcdctl.run(&["endpoint", "health"]);
    }
}
