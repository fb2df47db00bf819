//! Programs that run in nodes.

use std::{
    fs,
    io::{self, PipeReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal},
};

use crate::clock::{Moment, await_some};

/// A program to be started in a node. It finds `locum` and the host's programs, and no environment variable except
/// `PATH`.
#[derive(Clone, Debug)]
pub struct Program {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    output: Option<PathBuf>,
}

impl Program {
    /// A program and its arguments.
    #[must_use]
    pub fn new(words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { words, variables: Vec::new(), output: None }
    }

    /// Adds an environment variable for the program.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Appends the program's output to this file of the node; without it, the output is lost.
    #[must_use]
    pub fn output(mut self, file: &str) -> Self {
        self.output = Some(file.into());
        self
    }

    /// The program and its arguments.
    #[cfg(test)]
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    fn command(&self) -> Command {
        let (name, arguments) =
            self.words.split_first().map_or(("", [].as_slice()), |(name, rest)| (name, rest));
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut command = Command::new(name);
        command.args(arguments).env_clear().env("PATH", format!("/run/bin:{path}"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Starts the program; called in the node's room.
    pub(crate) fn spawn(&self) -> io::Result<Child> {
        let mut command = self.command();
        match &self.output {
            Some(path) => {
                let file = fs::File::options().create(true).append(true).open(path)?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        command.spawn()
    }

    /// Starts the program in the node's room; returns the child, and a reader of its output on both channels.
    pub(crate) fn spawn_heard(&self) -> io::Result<(Child, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let mut command = self.command();
        command.stdout(writer.try_clone()?).stderr(writer);
        command.spawn().map(|child| (child, reader))
    }
}

/// The result of a program that ran to its end.
#[derive(Clone, Debug)]
pub struct ProgramOutcome {
    /// Its exit code; `None` if a signal ended it, which also happens at the limit.
    pub code: Option<i32>,
    /// Its output on both channels.
    pub text: String,
}

/// Reads all output of a child until it ends; at the limit it is killed.
pub(crate) fn hear(child: Child, mut reader: PipeReader, limit: Duration) -> io::Result<ProgramOutcome> {
    let end = Moment::now() + limit;
    let mut process = Process::new(child);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(wait) = Timespec::try_from(end.remaining()) {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        match poll(&mut ready, Some(&wait)) {
            Ok(0) => break,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        match reader.read(&mut buffer)? {
            0 => break,
            length => heard.extend_from_slice(&buffer[..length]),
        }
    }
    let status = process.wait(end.remaining());
    let code = status.and_then(|status| status.code());
    Ok(ProgramOutcome { code, text: String::from_utf8_lossy(&heard).into_owned() })
}

/// A signal for a process in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessSignal {
    /// SIGKILL: ends it without a warning.
    Kill,
    /// SIGSTOP: freezes the process.
    Stop,
    /// SIGCONT: thaws the process.
    Continue,
    /// SIGTERM: asks it to end.
    Terminate,
    /// SIGHUP: asks it to read its files again.
    HangUp,
}

impl ProcessSignal {
    /// The signal for the kernel.
    pub(crate) const fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Stop => Signal::STOP,
            Self::Continue => Signal::CONT,
            Self::Terminate => Signal::TERM,
            Self::HangUp => Signal::HUP,
        }
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self { child, ended: None }
    }

    /// Its process id on the host.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits until it has ended, at most for `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        await_some(limit, || self.ended())
    }

    /// Sends it a signal; does nothing if it has ended.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn signal(&mut self, signal: ProcessSignal) -> io::Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        // Not yet waited for, so the number is still this process's.
        let pid = Pid::from_raw(self.id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        rustix::process::kill_process(pid, signal.signal()).map_err(Into::into)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
