//! How signals affect this process.

/// Lets a broken pipe end the process silently, as expected of a command in a pipeline (`locum status | head`).
pub fn default_broken_pipe() {
    // SAFETY: SIG_DFL installs no handler of ours, so no code can run in signal context; the call has no other
    // precondition.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Makes a broken pipe an error of the write and nothing more. For the daemon.
pub fn ignore_broken_pipe() {
    // SAFETY: as above, with SIG_IGN.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Ignores HUP until a handler is installed. For a daemon that is asked to reread its configuration while it is still
/// starting, and will read it anyway.
pub fn ignore_hangup() {
    // SAFETY: as above, with SIG_IGN.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// Ends this process after this many seconds, whatever it is doing then: by SIGALRM with its default action.
pub fn end_after(seconds: u32) {
    // SAFETY: both calls take plain integers; no handler is installed, the disposition only returns to its default.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(seconds);
    }
}
