//! One run of one program, with a limit and in a session of its own. Its output is logged. At the limit it is killed
//! with everything that it has started.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use locum_core::model::note::Level;
use locum_sys::{process::Process as Handle, user::User};
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    cgroup::{self, Scope},
    find::interpreter,
    is_program,
    orphans::Record,
    output::{Pipe, Speaker, Stream, Text, release},
    processes,
};
use crate::control::errands::{self, NoAnswer, call};

/// A program to run, and how to run it.
#[derive(Clone)]
pub(super) struct ProgramJob {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// The whole environment but for the mark.
    pub(super) environment: BTreeMap<String, String>,
    /// The text of its standard input; at most a few KiB, so that it fits into a pipe.
    pub(super) input: Option<Vec<u8>>,
    pub(super) speaker: Speaker,
    /// The log level of its output.
    pub(super) level: Level,
    pub(super) deadline: Instant,
    /// The control group below which one for this job can be made.
    pub(super) cgroup: Option<PathBuf>,
    /// Keeps together the processes that it starts, under this name.
    pub(super) kin: Option<Kin>,
    /// The resource for which it works.
    pub(super) resource: String,
    /// While an earlier job of this name hangs, none is begun.
    pub(super) whose: String,
    /// The directory in which it is noted while it lasts.
    pub(super) notes: Option<PathBuf>,
    /// Set for a program that runs until it is asked to end.
    pub(super) service: Option<Service>,
}

/// Keeps together all processes that a resource's starts leave running, whatever their parents are. It is a control
/// group of that name, and a mark in the environment in case there is no control group or a process has left it.
#[derive(Clone)]
pub(super) struct Kin {
    pub(super) group: String,
    /// The resource as written in the configuration.
    pub(super) resource: String,
    /// The same on every start, by any run of the daemon.
    pub(super) mark: String,
}

/// What a service needs beyond an operation.
#[derive(Clone)]
pub(super) struct Service {
    /// The user as whom it runs.
    pub(super) user: User,
    /// Becomes `true` when it is to end.
    pub(super) end: watch::Receiver<bool>,
}

/// How long a service has after it was asked to end, before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// How a run of a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProgramEnd {
    Exited(i32),
    Signalled(i32),
    /// It reached the limit and was killed.
    TimedOut,
    /// It was not started, for this reason.
    NotStarted(String),
    /// This machine cannot run the program, and waiting does not help: the program or its interpreter is missing, not
    /// executable, or built for another kind of machine. Holds the reason.
    CannotRun(String),
}

/// How a run ended, and what it printed.
#[derive(Debug)]
pub(super) struct ProgramReport {
    pub(super) end: ProgramEnd,
    pub(super) out: Text,
    pub(super) err: Text,
}

impl ProgramReport {
    fn without_text(end: ProgramEnd) -> Self {
        Self { end, out: Text::default(), err: Text::default() }
    }

    /// Why it did not go well, for people, with the last line that it printed.
    pub(super) fn complaint(&self) -> String {
        let end = match &self.end {
            ProgramEnd::Exited(code) => format!("exit code {code}"),
            ProgramEnd::Signalled(signal) => format!("killed by signal {signal}"),
            ProgramEnd::TimedOut => "stopped by its time limit".to_owned(),
            ProgramEnd::NotStarted(reason) | ProgramEnd::CannotRun(reason) => return reason.clone(),
        };
        match [&self.err.last, &self.out.last].into_iter().find(|last| !last.is_empty()) {
            Some(last) => format!("{end}: {last}"),
            None => end,
        }
    }
}

impl ProgramJob {
    /// Runs it to its end or to the deadline, whichever comes first. If it ends by itself, the processes that it leaves
    /// in the background stay. If the future is dropped before the end, everything is killed.
    pub(super) async fn run(self) -> ProgramReport {
        let mut process = match self.start().await {
            Ok(process) => process,
            Err(end) => return ProgramReport::without_text(end),
        };
        let streams = process.streams(&self);
        let (mut out, mut err, exit) = match streams {
            Ok(streams) => streams,
            Err(fault) => return ProgramReport::without_text(ProgramEnd::NotStarted(fault.to_string())),
        };
        let limit = sleep_until(self.deadline);
        tokio::pin!(limit);
        let (mut out_open, mut err_open) = (true, true);
        let mut service = self.service.clone();
        let in_time = loop {
            // In this order, so that a flood of output cannot hide the end or the limit.
            tokio::select! {
                biased;
                _ = exit.readable() => break true,
                () = &mut limit => break false,
                () = asked_to_end(&mut service) => {
                    let _ = process.held.terminate();
                    limit.as_mut().reset(Instant::now() + GRACE);
                }
                open = out.turn(), if out_open => out_open = open,
                open = err.turn(), if err_open => err_open = open,
            }
        };
        let end = if in_time { process.reap() } else { process.kill(exit, &self.speaker).await };
        process.release();
        ProgramReport { end, out: out.end(), err: err.end() }
    }

    /// Starts the program. That reads it from a disk, which may hang, so it is done on another thread and within the
    /// limit.
    async fn start(&self) -> Result<Process, ProgramEnd> {
        let mut pauses = REFUSED_PAUSES.into_iter();
        loop {
            let job = self.clone();
            let started = call(self.whose.clone(), move || {
                Process::start(&job).map_err(|fault| {
                    let is_lasting = is_lasting(&job.program, &fault);
                    (fault, is_lasting)
                })
            });
            match timeout_at(self.deadline, started).await {
                Err(_) => return Err(ProgramEnd::TimedOut),
                Ok(Err(fault)) => return Err(ProgramEnd::NotStarted(fault.to_string())),
                Ok(Ok(Ok(process))) => return Ok(process),
                // Another process is writing the program at this moment, or a child of ours held the file for a moment.
                Ok(Ok(Err((fault, _)))) if is(&fault, Errno::TXTBSY) => {
                    if Instant::now() >= self.deadline {
                        return Err(ProgramEnd::NotStarted(format!("{}: {fault}", self.program.display())));
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                // The kernel can make no process now. That may pass, but another node may be better off, so it is not
                // tried for long.
                Ok(Ok(Err((fault, _)))) if is_refused(&fault) => {
                    let Some(pause) = pauses.next().filter(|pause| Instant::now() + *pause < self.deadline)
                    else {
                        let (program, hint) = (self.program.display(), NO_PROCESS);
                        return Err(ProgramEnd::NotStarted(format!("{program}: {fault}: {hint}")));
                    };
                    sleep(pause).await;
                }
                Ok(Ok(Err((fault, is_lasting)))) => {
                    let hint = if fault.kind() == io::ErrorKind::NotFound && self.program.exists() {
                        " (does the interpreter in its first line exist?)"
                    } else {
                        ""
                    };
                    let text = format!("{}: {fault}{hint}", self.program.display());
                    return Err(if is_lasting {
                        ProgramEnd::CannotRun(text)
                    } else {
                        ProgramEnd::NotStarted(text)
                    });
                }
            }
        }
    }
}

/// The pauses between tries to make a process that the kernel refuses.
const REFUSED_PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(900),
];
/// The meaning of such a refusal for a person.
const NO_PROCESS: &str = "the kernel can make no more processes here (see pids.max and pids.current of the \
                          service's control group, `ulimit -u`, and the memory)";

/// Whether the kernel refuses for now to make a process, or something that a process needs (fork(2)).
fn is_refused(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}

fn is(fault: &io::Error, errno: Errno) -> bool {
    fault.raw_os_error() == Some(errno.raw_os_error())
}

/// Whether the program itself is the reason that it was not started: it or the interpreter in its first line cannot be
/// executed. Any other fault may be over in a moment.
fn is_lasting(program: &Path, fault: &io::Error) -> bool {
    let is_missing =
        [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::LOOP].iter().any(|errno| is(fault, *errno));
    let no_interpreter = || interpreter(program).is_some_and(|interpreter| !is_program(&interpreter));
    is(fault, Errno::NOEXEC) || (is_missing && (!is_program(program) || no_interpreter()))
}

/// Waits until the service is to end. Called once. If it is not a service, the wait never ends.
async fn asked_to_end(service: &mut Option<Service>) {
    match service {
        // If the sender is gone, the daemon ends, and with it everything that it has started.
        Some(asked) => drop(asked.end.wait_for(|&end| end).await),
        None => std::future::pending().await,
    }
    *service = None;
}

type Streams = (Stream, Stream, AsyncFd<OwnedFd>);

/// A started program that was not yet waited for, so its number cannot be given to another process.
struct Process {
    /// `None` once it was waited for.
    child: Option<Child>,
    /// Readable once it has ended.
    held: Handle,
    /// The pipes of its two outputs, until the streams are made.
    outputs: Option<(OwnedFd, OwnedFd)>,
    /// The child's ends of the pipes, until it has ended.
    ends: Option<(File, File)>,
    mark: String,
    scope: Option<Scope>,
    whose: String,
    _record: Option<Record>,
}

impl Process {
    fn start(job: &ProgramJob) -> io::Result<Self> {
        let mark = new_mark();
        if let Some(parent) = &job.cgroup {
            cgroup::tidy(parent);
        }
        // Without its own control group an operation is found by its session and its mark.
        let scope = job.cgroup.as_deref().and_then(|parent| match &job.kin {
            Some(kin) => Scope::of_resource(parent, &kin.group, &kin.resource).make().ok(),
            None => Scope::new(parent, &mark).ok(),
        });
        let (out, err) = (Pipe::new()?, Pipe::new()?);
        let mut command = Command::new(&job.program);
        command
            .args(&job.args)
            .env_clear()
            .envs(&job.environment)
            .env(processes::MARK, &mark)
            .envs(job.kin.iter().map(|kin| (processes::KIN, &kin.mark)))
            .current_dir("/")
            .stdin(job.input.as_deref().map_or_else(|| Ok(Stdio::null()), filled)?)
            .stdout(out.write.try_clone()?)
            .stderr(err.write.try_clone()?);
        locum_sys::child::detach(&mut command, scope.as_ref().and_then(|scope| scope.procs().ok()));
        if let Some(service) = &job.service {
            service.user.take_over(&mut command);
        }
        let mut child = command.spawn()?;
        let held = Handle::open(child.id()).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        // An operation that cannot be noted is done all the same: the note matters only if this daemon is killed
        // meanwhile.
        let note = |notes: &PathBuf| Record::write(notes, &mark, child.id(), &job.resource).ok();
        let _record = job.notes.as_ref().and_then(note);
        let (outputs, ends) = (Some((out.read, err.read)), Some((out.write, err.write)));
        Ok(Self { child: Some(child), held, outputs, ends, mark, scope, whose: job.whose.clone(), _record })
    }

    fn streams(&mut self, job: &ProgramJob) -> io::Result<Streams> {
        let (out, err) = self.outputs.take().ok_or(io::ErrorKind::InvalidInput)?;
        let out = Stream::new(out, job.speaker.clone(), job.level)?;
        let err = Stream::new(err, job.speaker.clone(), job.level)?;
        let (out, err) = match job.service {
            Some(_) => (out.of_service(), err.of_service()),
            None => (out, err),
        };
        let handle = self.held.as_fd().try_clone_to_owned()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of odd types; OwnedFd keeps the promise"
        )]
        let exit = AsyncFd::with_interest(handle, Interest::READABLE)?;
        Ok((out, err, exit))
    }

    /// Waits for the ended program. From here on, what it left in the background is left alone.
    fn reap(&mut self) -> ProgramEnd {
        let Some(mut child) = self.child.take() else {
            return ProgramEnd::NotStarted("waited for twice".to_owned());
        };
        match child.wait() {
            Ok(status) => status
                .code()
                .map_or_else(|| ProgramEnd::Signalled(status.signal().unwrap_or(0)), ProgramEnd::Exited),
            Err(fault) => ProgramEnd::NotStarted(format!("how it ended is unknown: {fault}")),
        }
    }

    /// Kills everything that the operation has started, until no process of it is found any more.
    async fn kill(&mut self, exit: AsyncFd<OwnedFd>, speaker: &Speaker) -> ProgramEnd {
        const ROUNDS_MAX: usize = 100;
        const LOOK_LIMIT: Duration = Duration::from_secs(5);
        let mut killed = 0;
        for _ in 0..ROUNDS_MAX {
            let _ = self.held.kill();
            if let Some(scope) = &self.scope {
                let _ = scope.kill();
            }
            let (leader, mark) = (self.held.id(), self.mark.clone());
            let look = call(format!("{} kill", self.whose), move || processes::kill_operation(leader, &mark));
            // A process that hangs may hold up the look at it. Then it cannot be known that none is left.
            let count = timeout(LOOK_LIMIT, look).await.unwrap_or(Err(NoAnswer::Hangs)).unwrap_or(1);
            let ended = timeout(Duration::from_millis(50), exit.readable()).await.is_ok();
            killed += count;
            if count == 0 && ended {
                speaker.say(Level::Warning, "over its limit: killed, with everything it had started");
                self.reap();
                return ProgramEnd::TimedOut;
            }
            // Killed processes need a moment to be gone.
            sleep(Duration::from_millis(10)).await;
        }
        speaker.say(
            Level::Error,
            format!("over its limit, and process {} does not die ({killed} signals sent)", self.held.id()),
        );
        // It hangs in the kernel. A thread waits for it until it comes back.
        if let Some(mut child) = self.child.take() {
            let owed = errands::owe(&self.whose);
            tokio::spawn(async move {
                let _ = exit.readable().await.map(|_| child.wait());
                drop(owed);
            });
        }
        ProgramEnd::TimedOut
    }

    fn release(&mut self) {
        if let Some((out, err)) = self.ends.take() {
            release(out);
            release(err);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            if let Some(scope) = &self.scope {
                let _ = scope.kill();
            }
            processes::kill_operation(self.held.id(), &self.mark);
            errands::outlast(errands::owe(&self.whose), move || drop(child.wait()));
        }
    }
}

/// A pipe with the text in it, whose writing end is closed.
fn filled(text: &[u8]) -> io::Result<Stdio> {
    let (read, mut write) = io::pipe()?;
    rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK)?;
    write.write_all(text)?;
    Ok(read.into())
}

/// A mark that is never used twice, not even by another run of the daemon.
fn new_mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = getrandom::u64().unwrap_or_default();
    format!("{}-{}-{random:016x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
