//! `--chown` and `--chmod`: names are looked up in the image itself.

use crate::unpack::View;

/// Reads `USER[:GROUP]` against the image's passwd and group files.
pub(super) fn parse(view: &View, text: &str) -> Result<(u32, u32), String> {
    let (user, group) =
        text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let uid = lookup(view, "/etc/passwd", user, "user")?;
    let gid = match group {
        Some(group) => lookup(view, "/etc/group", group, "group")?,
        // As docker: the group has the number of the user.
        None => uid,
    };
    Ok((uid, gid))
}

fn lookup(view: &View, file: &str, name: &str, what: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse::<u32>() {
        return Ok(id);
    }
    let text = view.text(file).map_err(|error| format!("{file}: {error}"))?.unwrap_or_default();
    let entry = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name));
    let id = entry.and_then(|fields| fields.get(2)?.parse().ok());
    id.ok_or_else(|| format!("no {what} {name:?} in {file} of the image; use its number"))
}

/// Reads an octal mode.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let valid = (3..=5).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let mode =
        valid.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("--chmod {text:?} is no octal mode such as 0755"))
}
