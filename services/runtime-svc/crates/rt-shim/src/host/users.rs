//! Who a process runs as: names looked up in the container's own /etc/passwd and /etc/group.
//!
//! Runs after `pivot_root`, so symlinks end inside the container. Files are read up to a limit.

use std::fs::File;
use std::io::Read;

use super::failure;
use crate::spec::{Identity, UserSpec};
use crate::wire::Failure;

const MAX_FILE: u64 = 4 << 20;

/// A line of /etc/passwd that matters.
#[derive(Debug, Default, Clone)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// The identity `spec` asks for, and the home folder.
pub(super) fn resolve(spec: &UserSpec) -> Result<(Identity, String), Failure> {
    resolve_in(spec, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        // A partial file still answers for the names it holds.
        let _ = file.take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn resolve_in(spec: &UserSpec, passwd: &str, group: &str) -> Result<(Identity, String), Failure> {
    let (user, group_name) = spec.user.split_once(':').unwrap_or((&spec.user, ""));
    let account = account(user, passwd)?;
    let gid = match (spec.gid, group_name) {
        (Some(gid), _) => gid,
        (None, "") => account.gid,
        (None, name) => group_id(name, group)?,
    };
    let mut groups: Vec<u32> = Vec::new();
    if !spec.strict_groups && !account.name.is_empty() {
        groups.extend(groups_of(&account.name, group));
    }
    groups.extend(&spec.supplemental);
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = if account.home.is_empty() { "/".to_owned() } else { account.home };
    Ok((Identity { uid: account.uid, gid, groups }, home))
}

fn account(user: &str, passwd: &str) -> Result<Account, Failure> {
    let accounts = || passwd.lines().filter_map(parse_account);
    if user.is_empty() {
        let root =
            Account { name: "root".to_owned(), home: "/root".to_owned(), ..Account::default() };
        return Ok(accounts().find(|account| account.uid == 0).unwrap_or(root));
    }
    if user.bytes().all(|b| b.is_ascii_digit()) {
        let uid = number(user)
            .ok_or_else(|| failure(format!("user id {user} is out of range (0 to 2147483647)")))?;
        return Ok(accounts()
            .find(|account| account.uid == uid)
            .unwrap_or(Account { uid, ..Account::default() }));
    }
    accounts().find(|account| account.name == user).ok_or_else(|| {
        failure(format!("unable to find user {user}: no matching entries in passwd file"))
    })
}

fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    let home = fields.nth(1).unwrap_or_default().to_owned();
    Some(Account { name, uid, gid, home })
}

fn group_id(name: &str, group: &str) -> Result<u32, Failure> {
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return number(name)
            .ok_or_else(|| failure(format!("group id {name} is out of range (0 to 2147483647)")));
    }
    group
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .ok_or_else(|| {
            failure(format!("unable to find group {name}: no matching entries in group file"))
        })
}

fn groups_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
    })
}

/// An id as the kernel takes it; ids above 2^31 - 1 are refused because some programs read them as negative.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| *id <= i32::MAX.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\nbroken\nx:y:z:w\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\naudio:x:29:www, other\nbad:line\n";

    fn user(text: &str) -> Result<(Identity, String), Failure> {
        resolve_in(&UserSpec { user: text.to_owned(), ..UserSpec::default() }, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_resolve() {
        let (www, home) = user("www").unwrap();
        assert_eq!(
            (www.uid, www.gid, www.groups, home.as_str()),
            (33, 33, vec![29, 33], "/var/www")
        );
        assert_eq!(user("33:0").unwrap().0, Identity { uid: 33, gid: 0, groups: vec![0, 29] });
        assert_eq!(user("1002").unwrap().0, Identity { uid: 1002, gid: 0, groups: vec![0] });
        assert_eq!(user("root:audio").unwrap().0.gid, 29);
        assert_eq!(user("").unwrap().1, "/root");
    }

    #[test]
    fn bad_names_are_refused() {
        for text in [
            "nobody",
            "99999999999",
            "2147483648",
            "root:nogroup",
            "root:99999999999",
            "-1",
            "ro ot",
        ] {
            assert!(user(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn strict_leaves_out_granted_groups() {
        let spec = UserSpec {
            user: "www".into(),
            supplemental: vec![7],
            strict_groups: true,
            gid: Some(5),
        };
        assert_eq!(resolve_in(&spec, PASSWD, GROUP).unwrap().0.groups, vec![5, 7]);
    }
}
