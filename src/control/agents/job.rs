//! One run of one program: with a limit, in a session of its own, its output told, and at the limit killed with
//! everything it has started.

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

/// What is to be run, and how.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// The whole environment but for the mark.
    pub(super) environment: BTreeMap<String, String>,
    /// What it reads from its standard input; at most a few KiB, so that they fit into a pipe.
    pub(super) input: Option<Vec<u8>>,
    pub(super) speaker: Speaker,
    /// How loud its output is.
    pub(super) level: Level,
    pub(super) deadline: Instant,
    /// Where a control group for it can be made.
    pub(super) cgroup: Option<PathBuf>,
    /// It starts what is kept together by this name.
    pub(super) kin: Option<Kin>,
    /// For whom it works.
    pub(super) resource: String,
    /// Of what all runs have this name, none is begun while an earlier one hangs.
    pub(super) whose: String,
    /// Where it is noted while it lasts.
    pub(super) notes: Option<PathBuf>,
    /// It is no operation but something that runs until it is asked to end.
    pub(super) service: Option<Service>,
}

/// What keeps together all that a resource's starts leave running, whoever its parents are: a control group of that name,
/// and a mark in the environment for where there is none, or somebody has left it.
#[derive(Clone)]
pub(super) struct Kin {
    /// The cluster's group.
    pub(super) group: String,
    /// The resource as written.
    pub(super) resource: String,
    /// The same on every start, by any life of the daemon.
    pub(super) mark: String,
}

/// What a service has beyond an operation.
#[derive(Clone)]
pub(super) struct Service {
    /// As whom it runs.
    pub(super) user: User,
    /// Says `true` when it is to end.
    pub(super) end: watch::Receiver<bool>,
}

/// After it was asked to end, a service is killed at this.
const GRACE: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Signalled(i32),
    /// And was killed.
    TimedOut,
    /// The reason in words.
    NotStarted(String),
    /// This machine cannot run that program, and will not be able to in a moment: it, or the interpreter that it names, is not
    /// there, not executable, or of another kind of machine. The reason in words.
    CannotRun(String),
}

/// How it ended, and what it printed.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) end: End,
    pub(super) out: Text,
    pub(super) err: Text,
}

impl Report {
    fn without_text(end: End) -> Self {
        Self { end, out: Text::default(), err: Text::default() }
    }

    /// Why it did not go well, for people, with the last thing it said.
    pub(super) fn complaint(&self) -> String {
        let end = match &self.end {
            End::Exited(code) => format!("exit code {code}"),
            End::Signalled(signal) => format!("killed by signal {signal}"),
            End::TimedOut => "not ended in time".to_owned(),
            End::NotStarted(reason) | End::CannotRun(reason) => return reason.clone(),
        };
        match [&self.err.last, &self.out.last].into_iter().find(|last| !last.is_empty()) {
            Some(last) => format!("{end}: {last}"),
            None => end,
        }
    }
}

impl Job {
    /// Runs it to its end or to the deadline, whichever comes first. What it leaves in the background stays when it
    /// ends by itself. Dropped before its end, everything is killed.
    pub(super) async fn run(self) -> Report {
        let mut process = match self.start().await {
            Ok(process) => process,
            Err(end) => return Report::without_text(end),
        };
        let streams = process.streams(&self);
        let (mut out, mut err, exit) = match streams {
            Ok(streams) => streams,
            Err(fault) => return Report::without_text(End::NotStarted(fault.to_string())),
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
        Report { end, out: out.end(), err: err.end() }
    }

    /// Starting reads the program from a disk, which may hang: it is done elsewhere, and within the limit.
    async fn start(&self) -> Result<Process, End> {
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
                Err(_) => return Err(End::TimedOut),
                Ok(Err(fault)) => return Err(End::NotStarted(fault.to_string())),
                Ok(Ok(Ok(process))) => return Ok(process),
                // Somebody is writing the program just now, or a child of ours held that file for a moment.
                Ok(Ok(Err((fault, _)))) if is(&fault, Errno::TXTBSY) => {
                    if Instant::now() >= self.deadline {
                        return Err(End::NotStarted(format!("{}: {fault}", self.program.display())));
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                // No process can be made now. That may pass, but another node may be better off: not for long.
                Ok(Ok(Err((fault, _)))) if is_refused(&fault) => {
                    let Some(pause) = pauses.next().filter(|pause| Instant::now() + *pause < self.deadline)
                    else {
                        let (program, hint) = (self.program.display(), NO_PROCESS);
                        return Err(End::NotStarted(format!("{program}: {fault}: {hint}")));
                    };
                    sleep(pause).await;
                }
                Ok(Ok(Err((fault, is_lasting)))) => {
                    let hint = if fault.kind() == io::ErrorKind::NotFound && self.program.exists() {
                        " (is the interpreter named in its first line there?)"
                    } else {
                        ""
                    };
                    let text = format!("{}: {fault}{hint}", self.program.display());
                    return Err(if is_lasting { End::CannotRun(text) } else { End::NotStarted(text) });
                }
            }
        }
    }
}

/// Between tries to make a process where the kernel refuses it.
const REFUSED_PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(900),
];
/// What that means for a person.
const NO_PROCESS: &str = "no more processes can be made here (see pids.max and pids.current of the service's control \
                          group, `ulimit -u`, and the memory)";

/// Whether the kernel gives no process, or nothing that one needs, for now (fork(2)).
fn is_refused(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}

fn is(fault: &io::Error, errno: Errno) -> bool {
    fault.raw_os_error() == Some(errno.raw_os_error())
}

/// Whether it is the program's own fault that it was not started: that there is nothing to be executed, neither it nor the
/// interpreter in its first line. Any other fault may be over in a moment.
fn is_lasting(program: &Path, fault: &io::Error) -> bool {
    let is_missing =
        [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::LOOP].iter().any(|errno| is(fault, *errno));
    let no_interpreter = || interpreter(program).is_some_and(|interpreter| !is_program(&interpreter));
    is(fault, Errno::NOEXEC) || (is_missing && (!is_program(program) || no_interpreter()))
}

/// Waits until the service is to end; nobody asks twice, and nobody asks what is no service.
async fn asked_to_end(service: &mut Option<Service>) {
    match service {
        // When nobody is left who could ask, the daemon ends, and with it what it has started.
        Some(asked) => drop(asked.end.wait_for(|&end| end).await),
        None => std::future::pending().await,
    }
    *service = None;
}

type Streams = (Stream, Stream, AsyncFd<OwnedFd>);

/// A started program, not yet waited for: so its number cannot be given to another process.
struct Process {
    /// Nobody there once it was waited for.
    child: Option<Child>,
    /// Readable once it has ended.
    held: Handle,
    /// What the two streams are made of, until they are made.
    outputs: Option<(OwnedFd, OwnedFd)>,
    /// The child's ends of them, until it has ended.
    ends: Option<(File, File)>,
    mark: String,
    scope: Option<Scope>,
    whose: String,
    _record: Option<Record>,
}

impl Process {
    fn start(job: &Job) -> io::Result<Self> {
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
        // What cannot be noted is done all the same: that matters only if this daemon is killed just now.
        let note = |notes: &PathBuf| Record::write(notes, &mark, child.id(), &job.resource).ok();
        let _record = job.notes.as_ref().and_then(note);
        let (outputs, ends) = (Some((out.read, err.read)), Some((out.write, err.write)));
        Ok(Self { child: Some(child), held, outputs, ends, mark, scope, whose: job.whose.clone(), _record })
    }

    fn streams(&mut self, job: &Job) -> io::Result<Streams> {
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

    /// Waits for the ended program. What it left in the background is none of our business from here on.
    fn reap(&mut self) -> End {
        let Some(mut child) = self.child.take() else {
            return End::NotStarted("waited for twice".to_owned());
        };
        match child.wait() {
            Ok(status) => {
                status.code().map_or_else(|| End::Signalled(status.signal().unwrap_or(0)), End::Exited)
            }
            Err(fault) => End::NotStarted(format!("its end is unknown: {fault}")),
        }
    }

    /// Kills everything that the operation has started, until nothing of it is found any more.
    async fn kill(&mut self, exit: AsyncFd<OwnedFd>, speaker: &Speaker) -> End {
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
            // A process that hangs may hold up whoever looks at it: then nobody can tell that none is left.
            let count = timeout(LOOK_LIMIT, look).await.unwrap_or(Err(NoAnswer::Hangs)).unwrap_or(1);
            let ended = timeout(Duration::from_millis(50), exit.readable()).await.is_ok();
            killed += count;
            if count == 0 && ended {
                speaker.say(Level::Warning, "over its limit: killed, with everything it had started");
                self.reap();
                return End::TimedOut;
            }
            // The killed need a moment to be gone.
            sleep(Duration::from_millis(10)).await;
        }
        speaker.say(
            Level::Error,
            format!("over its limit, and process {} does not die ({killed} signals sent)", self.held.id()),
        );
        // It hangs in the kernel; waited for whenever it comes back.
        if let Some(mut child) = self.child.take() {
            let owed = errands::owe(&self.whose);
            tokio::spawn(async move {
                let _ = exit.readable().await.map(|_| child.wait());
                drop(owed);
            });
        }
        End::TimedOut
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

/// A pipe with the text in it and its end closed.
fn filled(text: &[u8]) -> io::Result<Stdio> {
    let (read, mut write) = io::pipe()?;
    rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK)?;
    write.write_all(text)?;
    Ok(read.into())
}

/// Never used twice, also not by another life of the daemon.
fn new_mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = getrandom::u64().unwrap_or_default();
    format!("{}-{}-{random:016x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
