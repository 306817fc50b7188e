//! Users by name, from `/etc/passwd` and `/etc/group`: a small read that is the same on every machine, without the
//! libraries that name services load into the process.

use std::fs;
use std::path::Path;

use super::error::RuntimeError;
use super::spec::User;

/// Finds a user of this machine.
pub(super) fn resolve(name: &str) -> Result<User, RuntimeError> {
    let read = |path: &'static str| {
        fs::read_to_string(path).map_err(RuntimeError::file("read", Path::new(path)))
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let unknown = || RuntimeError::UnknownUser {
        name: name.to_owned(),
        path: "/etc/passwd".into(),
    };
    find(&passwd, &group, name).ok_or_else(unknown)
}

fn find(passwd: &str, group: &str, name: &str) -> Option<User> {
    let (uid, gid) = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name && !name.is_empty();
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then_some((uid, gid))
    })?;
    let member_of = group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let id: u32 = fields.nth(2)?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|member| member == name)
            .then_some(id)
    });
    let mut groups: Vec<u32> = member_of.chain([gid]).collect();
    groups.sort_unstable();
    groups.dedup();
    Some(User {
        name: name.to_owned(),
        uid,
        gid,
        groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# a comment\nwww:x:33:33::/var/www:/bin/false\n+::::::\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\ndisk:x:6:root,www\nssl:x:99:www\nbroken\n";

    #[test]
    fn a_user_comes_with_every_group() {
        let www = find(PASSWD, GROUP, "www").expect("a user");
        assert_eq!((www.uid, www.gid, www.groups), (33, 33, vec![6, 33, 99]));
    }

    #[test]
    fn an_unknown_user_is_none() {
        for name in ["", "ww", "www:x", "+", "0"] {
            assert_eq!(find(PASSWD, GROUP, name), None, "{name:?}");
        }
        let error = resolve("no-such-user").expect_err("unknown");
        assert!(error.to_string().contains("no-such-user"), "{error}");
    }
}
