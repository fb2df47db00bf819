//! Users of the system, and children that run as such a user.

use std::{fs, io, os::unix::process::CommandExt as _, process::Command};

/// A user with all its groups, as after a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number of the user.
    pub uid: u32,
    /// The number of its primary group.
    pub gid: u32,
    /// The numbers of all its groups, including the primary one.
    pub groups: Vec<u32>,
}

impl User {
    /// Looks up the name in this machine's own files. Directory services are not asked: one that does not answer would
    /// block the caller, and a program without shared libraries cannot safely load their modules.
    ///
    /// # Errors
    /// `NotFound` if there is no such user here; the system's error if the files cannot be read.
    pub fn named(name: &str) -> io::Result<Self> {
        let users = fs::read_to_string("/etc/passwd")?;
        // A user may have no further groups.
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::find(name, &users, &groups)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such user in /etc/passwd"))
    }

    /// passwd(5): `name:password:uid:gid:…`; group(5): `name:password:gid:user,user`.
    fn find(name: &str, users: &str, groups: &str) -> Option<Self> {
        let mut fields = users
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (!name.is_empty() && fields.next() == Some(name)).then_some(fields))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let others = groups.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let (number, members) = (fields.next()?.parse::<u32>().ok()?, fields.next()?);
            members.split(',').any(|member| member == name).then_some(number)
        });
        let mut all = vec![gid];
        all.extend(others.filter(|&other| other != gid));
        Some(Self { uid, gid, groups: all })
    }

    /// Makes the command's child run as this user, with exactly these groups. Functions registered before (see
    /// [`crate::child::detach`]) still run with our rights. The start fails if this process may not become that user.
    pub fn take_over(&self, command: &mut Command) {
        let Self { uid, gid, groups } = self.clone();
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes three
        // plain system calls with numbers that were looked up before, and allocates nothing.
        unsafe { command.pre_exec(move || become_user(uid, gid, &groups)) };
    }
}

/// Groups first: afterwards the rights to change them are gone.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let ours = rustix::process::geteuid();
    if ours.as_raw() == uid && !ours.is_root() {
        // A process that is this user already and has no rights has the user's groups.
        return Ok(());
    }
    // SAFETY: plain system calls; the slice is alive and its length is its own. In the child of a fork there is one
    // thread, so the C library's calling of the others is no matter.
    let done = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setgid(gid) == 0
            && libc::setuid(uid) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_nobody_at_all() {
        let root = User::named("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        for name in ["no such user", "", "a\0b", "root:x"] {
            assert_eq!(User::named(name).unwrap_err().kind(), io::ErrorKind::NotFound, "{name:?}");
        }
    }

    #[test]
    fn all_groups_are_found_and_the_first_one_once() {
        let users = "root:x:0:0:root:/root:/bin/sh\nhacluster:x:694:690::/:/bin/false\nbad:x:y:1::/:\n";
        let groups =
            "haclient:x:690:hacluster\nbackup:x:34:root,hacluster\nempty:x:35:\nbroken\nodd:x:z:hacluster\n";
        let find = |name| User::find(name, users, groups);
        assert_eq!(find("hacluster"), Some(User { uid: 694, gid: 690, groups: vec![690, 34] }));
        assert_eq!(find("root"), Some(User { uid: 0, gid: 0, groups: vec![0, 34] }));
        assert_eq!((find("bad"), find("haclient"), find("")), (None, None, None));
    }

    #[test]
    fn a_child_is_the_user_and_in_its_groups_only() {
        let user = User { uid: 1234, gid: 2345, groups: vec![2345, 3456] };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "id -u; id -g; id -G"]);
        crate::child::detach(&mut command, None);
        user.take_over(&mut command);
        match command.output() {
            Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "1234\n2345\n2345 3456\n"),
            // Only root may become another user.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(!rustix::process::geteuid().is_root());
            }
        }
    }
}
