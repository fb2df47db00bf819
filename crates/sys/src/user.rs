//! Users of the system, and children that run as one of them.

use std::{ffi::CString, io, mem::MaybeUninit, os::unix::process::CommandExt as _, process::Command, ptr};

/// The longest line of the user database that is read.
const LINE_BYTES: usize = 64 * 1024;
/// The most groups a user may be in here.
const GROUPS_MAX: usize = 1024;

/// A user with all groups: what a login would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number.
    pub uid: u32,
    /// Of the first group.
    pub gid: u32,
    /// All groups, the first one among them.
    pub groups: Vec<u32>,
}

impl User {
    /// Looks the name up. May wait for a directory service, as far as the C library asks one.
    ///
    /// # Errors
    /// `NotFound` when there is no such user; what the system says when it cannot tell.
    pub fn named(name: &str) -> io::Result<Self> {
        let text = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let mut line = vec![0; LINE_BYTES];
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are to live memory of the given sizes, which the call fills and does not keep.
        let code = unsafe {
            libc::getpwnam_r(text.as_ptr(), entry.as_mut_ptr(), line.as_mut_ptr(), line.len(), &raw mut found)
        };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        if found.is_null() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such user"));
        }
        // SAFETY: success with a non-null result means that `entry` was filled.
        let (uid, gid) = unsafe { ((*found).pw_uid, (*found).pw_gid) };
        let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_MAX];
        let mut count = libc::c_int::try_from(GROUPS_MAX).unwrap_or(libc::c_int::MAX);
        // SAFETY: at most `count` numbers are written to as many places; the name ends with a zero byte.
        let code = unsafe { libc::getgrouplist(text.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if code < 0 {
            return Err(io::Error::other(format!("the user is in more than {GROUPS_MAX} groups")));
        }
        groups.truncate(usize::try_from(count).unwrap_or(0));
        Ok(Self { uid, gid, groups })
    }

    /// Makes the command's child run as this user, with these groups and no others. What was registered before (see
    /// [`crate::child::detach`]) still runs with our rights. The start fails when this process may not become that user.
    pub fn take_over(&self, command: &mut Command) {
        let Self { uid, gid, groups } = self.clone();
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes three
        // plain system calls with numbers that were looked up before, and allocates nothing.
        unsafe { command.pre_exec(move || become_user(uid, gid, &groups)) };
    }
}

/// Groups first: afterwards there are no rights left to change them.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let ours = rustix::process::geteuid();
    if ours.as_raw() == uid && !ours.is_root() {
        // Who is it already, and has no rights, has the groups that he has.
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
        for name in ["no such user", "", "a\0b"] {
            assert_eq!(User::named(name).unwrap_err().kind(), io::ErrorKind::NotFound, "{name:?}");
        }
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
            // Only root may.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(!rustix::process::geteuid().is_root());
            }
        }
    }
}
