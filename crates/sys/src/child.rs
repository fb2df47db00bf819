//! Keeps what only a real-time daemon should have away from its child processes.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit of open files before [`raise_file_limit`]; zero until then.
static FILES_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Raises the limit of open files to this process's hard limit: many groups that move at once need many pipes. A child
/// made with [`detach`] gets back the old limit, because programs that use select(2) cannot handle descriptors above
/// 1023.
///
/// # Errors
/// The kernel's error; the limit is then unchanged.
pub fn raise_file_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
        FILES_BEFORE.store(limit.current.unwrap_or(0), Ordering::Relaxed);
    }
    Ok(())
}

/// Makes the command's child an ordinary process: a new session (and so a new process group) without a terminal, every
/// signal at its default, file creation mask 022, no files but the three standard ones, normal scheduling, no raised
/// priority, and none of the limits that the daemon set for itself.
///
/// `cgroup_procs` is the open `cgroup.procs` file of a control group. The child moves itself there before it runs its
/// program, so that all its own children are in the group, too. If the group has gone meanwhile, the program runs
/// without it. Code that looks for the child later needs a second way to find it.
pub fn detach(command: &mut Command, cgroup_procs: Option<OwnedFd>) {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes plain
    // system calls on integers, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || become_ordinary(cgroup_procs.as_ref().map(AsRawFd::as_raw_fd)));
    }
}

/// Runs in the forked child. An error here becomes the result of `spawn`.
fn become_ordinary(cgroup_procs: Option<RawFd>) -> io::Result<()> {
    const LAST_SIGNAL: libc::c_int = 64;
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls. `b"0"` is readable for the one byte named, `normal` lives until the end of the
    // block, and no handler is installed: dispositions only return to their default.
    unsafe {
        if let Some(file) = cgroup_procs
            && libc::write(file, b"0".as_ptr().cast(), 1) != 1
        {
            let error = io::Error::last_os_error();
            // The group may have been removed meanwhile; a start must not fail because of that.
            if error.raw_os_error() != Some(libc::ENODEV) {
                return Err(error);
            }
        }
        if libc::setsid() == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::umask(0o022);
        for signal in 1..=LAST_SIGNAL {
            // KILL, STOP and the C library's own two signals refuse; that is intended.
            libc::signal(signal, libc::SIG_DFL);
        }
        // A process may always return to ordinary scheduling. If it is refused, it has that already.
        if libc::sched_getscheduler(0) != libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal);
        }
        if libc::getpriority(libc::PRIO_PROCESS, 0) < 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
        give_back_limits();
        // Marked, not closed: the parent learns of a failed exec through a descriptor that is still needed. Kernels
        // before 5.11 do not know the call, but all our descriptors are marked anyway.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}

/// Plain system calls, as in [`become_ordinary`]. Lowering a limit, or raising it to the hard one, needs no rights.
fn give_back_limits() {
    let files = FILES_BEFORE.load(Ordering::Relaxed);
    if files > 0 {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum });
    }
    // The heart's runaway limit would end a foreign real-time service.
    let maximum = getrlimit(Resource::Rttime).maximum;
    let _ = setrlimit(Resource::Rttime, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output_of(script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        detach(&mut command, None);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_child_leads_a_session_of_its_own() {
        // Field 6 of the stat line is the session.
        let text = output_of("echo $$; cut -d' ' -f1,5,6 /proc/$$/stat");
        let mut lines = text.lines();
        let pid = lines.next().unwrap();
        assert_eq!(lines.next().unwrap(), format!("{pid} {pid} {pid}"));
    }

    #[test]
    fn no_open_file_goes_along() {
        let file = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let inherited = file.as_raw_fd();
        let text = output_of(&format!("test -e /proc/$$/fd/{inherited} && echo leaked; umask"));
        assert_eq!(text.trim(), "0022");
    }

    #[test]
    fn signals_and_priority_are_the_default() {
        let text = output_of("grep -E '^Sig(Blk|Ign)' /proc/self/status");
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let mask = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
            // 32 and 33 belong to the C library, which sets them when it needs them.
            assert_eq!(mask & !(0b11 << 31), 0, "{line}");
        }
    }

    #[test]
    fn the_limits_are_those_from_before() {
        let line = |text: &str, name: &str| {
            text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
        };
        let (files, brake) = ("Max open files", "Max realtime timeout");
        let before = std::fs::read_to_string("/proc/self/limits").unwrap();
        raise_file_limit().unwrap();
        crate::realtime::set_runaway_limit(2_000_000).unwrap();
        let ours = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert!(line(&ours, brake).contains("2000000"), "{ours}");
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
        let child = output_of("cat /proc/self/limits");
        for name in [files, brake] {
            assert_eq!(line(&child, name), line(&before, name));
        }
    }

    #[test]
    fn a_wrong_control_group_is_an_error_and_not_a_silent_escape() {
        let mut command = Command::new("/bin/true");
        detach(&mut command, Some(std::fs::File::open("/dev/null").unwrap().into()));
        assert!(command.spawn().is_err());
    }
}
