//! Ends a child with everything that it started.
//!
//! A child that leads its own process group (`CommandExt::process_group(0)`) is killed with its group. Descendants that
//! left the group (`setsid`) are found through their parents, as long as those live. A process that has daemonised
//! itself is not found, and must not be: that is how a resource script leaves its service running.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// If descendants are still being found after this many rounds, those known by then are killed.
const ROUNDS_MAX: usize = 20;

/// A process by handle. Unlike a number, a handle never means another process later.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// Opens the handle of a process that lives or has not been waited for.
    ///
    /// # Errors
    /// `InvalidInput` for invalid process numbers; `Uncategorized` (ESRCH) if there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, handle: pidfd_open(pid, PidfdFlags::NONBLOCK)? })
    }

    /// The process number (pid).
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends TERM to this process alone. If it has ended, that is not an error.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends HUP to this process alone. If it has ended, that is not an error.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn hang_up(&self) -> io::Result<()> {
        self.signal(Signal::HUP)
    }

    /// Waits until the process has ended, whichever process is its parent.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) => {}
                ended => return ended.map(drop).map_err(Into::into),
            }
        }
    }

    /// Sends KILL to this process alone. If it has ended, that is not an error.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends STOP (`true`) or CONT to this process alone.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable when the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Kills `leader`, its group, and all living descendants of both, wherever they moved. To be called only before the
/// leader has been waited for. Blocks while it reads the process table.
///
/// # Errors
/// The kernel's error.
pub fn kill_tree(leader: u32) -> io::Result<()> {
    let mut known = BTreeSet::from([leader]);
    let mut handles = vec![Process::open(leader)?];
    // Frozen processes start no further children, so the search ends.
    handles[0].freeze(true)?;
    for _ in 0..ROUNDS_MAX {
        let children: Vec<_> = process_table()?
            .into_iter()
            .filter(|p| !known.contains(&p.pid) && (known.contains(&p.parent) || p.group == leader))
            .collect();
        if children.is_empty() {
            break;
        }
        for child in children {
            known.insert(child.pid);
            let Ok(handle) = Process::open(child.pid) else { continue };
            // The number may belong to another process since the table was read. Read it again: while we hold the
            // handle, the number is that process's.
            if status_of(child.pid).is_some_and(|now| now.parent == child.parent && now.group == child.group)
            {
                handle.freeze(true)?;
                handles.push(handle);
            }
        }
    }
    kill_group(leader)?;
    handles.iter().try_for_each(Process::kill)
}

/// A group without members is not an error.
fn kill_group(leader: u32) -> io::Result<()> {
    let group = i32::try_from(leader).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    match kill_process_group(group, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct ProcessStatus {
    pid: u32,
    parent: u32,
    group: u32,
}

fn process_table() -> io::Result<Vec<ProcessStatus>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| status_of(name.parse().ok()?)).collect())
}

fn status_of(pid: u32) -> Option<ProcessStatus> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ppid pgrp ...", and the name may contain anything.
    let mut words = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().skip(1);
    Some(ProcessStatus { pid, parent: words.next()?.parse().ok()?, group: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::testing::patience;

    #[test]
    fn the_whole_family_dies() {
        // A child in the group, and one that left it but has a living parent.
        let script = "sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & wait";
        let mut leader = Command::new("/bin/sh")
            .args(["-c", script])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(leader.stdout.take().unwrap()).lines().take(2);
        let children: Vec<Process> =
            lines.map(|line| Process::open(line.unwrap().parse().unwrap()).unwrap()).collect();
        assert_eq!(children.len(), 2);
        kill_tree(leader.id()).unwrap();
        leader.wait().unwrap();
        let deadline = patience();
        // The handle reports ESRCH after a process is gone for good; a zombie waits for its new parent.
        let gone = |p: &Process| {
            status_of(p.id()).is_none()
                || fs::read_to_string(format!("/proc/{}/stat", p.id())).is_ok_and(|s| s.contains(") Z "))
        };
        while !children.iter().all(gone) {
            assert!(deadline(), "a child survived");
        }
    }

    #[test]
    fn numbers_that_are_no_process() {
        assert!(Process::open(0).is_err());
        assert!(Process::open(u32::MAX).is_err());
        assert!(kill_tree(0).is_err());
    }
}
