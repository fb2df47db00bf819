//! The run of a daemon from its files to its end: what is read, in which order the machine's parts are taken, and what
//! a configuration needs. `control::r1` and `control::native` hold the differences between the dialects.

use std::{
    fs, io,
    io::Write as _,
    mem,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
#[cfg(feature = "breakage")]
use locum_core::model::breakage::{self, Breakage};
use locum_core::{
    config::{Diag, Severity},
    model::{
        keys::{AuthMethod, Keys},
        logging::Logging,
        note::Level,
    },
};
use tokio::sync::{mpsc, watch};

use super::{
    agents::{self, Agents, client::Reboot, event::EventScripts},
    daemon::{Config, ControlPlane, DaemonEnd, Equipment, Parts, Signals},
    dialect::Plan,
    errands, fifo, native, r1,
    reservation::Reservation,
    state::StateDirs,
};
use crate::{
    files::{self, ConfigDialect},
    heart::{self, GateChoice, Losses},
    host_config::HostConfig,
    observe::{
        journal::{Journal, LogTargets},
        notify::ServiceManager,
        socket,
    },
};

/// How many questions of clients may wait for the daemon.
const QUESTIONS_MAX: usize = 64;
/// The syslog facility of a daemon without standard error whose files name none: heartbeat's own default.
const FACILITY: &str = "daemon";
/// The end of a background daemon's output, before it closes its standard error.
pub const READY: &[u8] = b"\0";

/// The settings of a daemon beside its files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the configuration files.
    pub config_dir: PathBuf,
    /// The directory of its identity.
    pub state_dir: PathBuf,
    /// The directory with its pid file and control socket.
    pub run_dir: PathBuf,
    /// The FIFO by which heartbeat's scripts write messages for the cluster.
    pub fifo: PathBuf,
    /// The pid file that heartbeat's scripts read.
    pub heartbeat_pid: PathBuf,
    /// How much is logged, if the command line says so.
    pub log: Option<Level>,
    /// The dialect to use if the directory has the files of both.
    pub dialect: Option<ConfigDialect>,
    /// The limit of a start, with `ha.cf`.
    pub start_limit: Duration,
    /// The limit of a stop, with `ha.cf`.
    pub stop_limit: Duration,
    /// The limit of a status, with `ha.cf`.
    pub status_limit: Duration,
    /// Scripts take the place of the native stand-ins.
    pub prefer_scripts: bool,
    /// How the gates are made.
    pub gates: GateChoice,
    /// No real-time scheduling, whatever the files say.
    pub no_realtime: bool,
    /// Runs only as a witness, which runs no resources.
    pub only_as_witness: bool,
    /// [`READY`] is written to standard error, which is then closed.
    pub background: bool,
    /// Called instead of a reboot.
    pub reboot_program: Option<PathBuf>,
}

impl Settings {
    pub(super) fn complete_log(&self, log: &mut Logging) {
        if self.background && log.logfile.is_none() && log.debugfile.is_none() {
            log.facility.get_or_insert_with(|| FACILITY.to_owned());
        }
    }
}

/// How the daemon's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonOutcome {
    /// The node has left, and everything is stopped.
    Clean,
    /// The node has left, and something could not be stopped.
    Unclean,
    /// It was not started; the reasons are on standard error.
    NotStarted(Refused),
}

/// Why the daemon was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The files are wrong: every new start fails in the same way.
    Wrong,
    /// Only something on this host is wrong, which may be over at the next try.
    OnlyHere,
}

impl Refused {
    pub(super) fn by_files(dir: &Path, here_alone: bool) -> Self {
        errln!("locum: the configuration in {} has errors: the daemon is not started", dir.display());
        if here_alone { Self::OnlyHere } else { Self::Wrong }
    }
}

/// The checked inputs of a daemon that starts.
pub(super) struct Start {
    pub(super) config: Config,
    pub(super) keys: Keys,
    /// The parts of the configuration that do not fit this host.
    pub(super) misfits: Vec<Diag>,
}

/// Runs the daemon until it has left the cluster.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: Settings) -> anyhow::Result<DaemonOutcome> {
    locum_sys::signal::ignore_broken_pipe();
    locum_sys::signal::ignore_hangup();
    #[cfg(feature = "breakage")]
    plant(&settings.config_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the files are read: a HUP from now on is not lost, and TERM ends the daemon gracefully.
    let signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let dir = settings.config_dir.as_path();
    let Some(dialect) = settings.dialect.or_else(|| ConfigDialect::of(dir)) else {
        let dir = dir.display();
        errln!(
            "locum: {dir} holds both ha.cf and locum.toml: remove one of them, or give --dialect r1 or --dialect \
             native"
        );
        return Ok(DaemonOutcome::NotStarted(Refused::Wrong));
    };
    let read = match dialect {
        ConfigDialect::R1 => r1::load(dir, &settings),
        ConfigDialect::Native => native::load(dir, &settings)?,
    };
    let start = match read {
        Ok(start) => start,
        Err(refused) => return Ok(DaemonOutcome::NotStarted(refused)),
    };
    let Start { config, keys, misfits } = &start;
    anyhow::ensure!(
        !settings.only_as_witness || config.plan.is_witness(),
        "{} does not name this host as a witness: the daemon is not started",
        dir.join(files::NATIVE).display()
    );
    let host_config = Arc::new(config.plan.host_config());

    // Before anything is touched: resources of another living daemon would look like leftovers.
    let place = Reservation::default();
    let doubts = place.take(&host_config)?;
    let mut state = StateDirs::open(&settings.state_dir, &settings.run_dir)?;
    state.keep(place);
    // The native dialect has a port of its own: a heartbeat may run beside it.
    if dialect == ConfigDialect::R1 {
        state.take_the_place_of_heartbeat(&settings.heartbeat_pid)?;
    }
    let journal = open_log(settings.log, &host_config)?;
    introduce(&journal, dir, &config.plan, keys, misfits);
    if let Err(error) = locum_sys::child::raise_file_limit() {
        journal.say(Level::Warning, format!("the limit of open files cannot be raised: {error}"));
    }
    for warning in doubts.into_iter().chain(state.take_warnings()) {
        journal.say(Level::Warning, warning);
    }
    errands::prepare().context("the kernel refuses threads for this daemon")?;
    let end = runtime.block_on(live(settings, start, signals, Arc::new(state), &journal));
    // Connections of clients that wait for our end must close with the process, not before. Children and files that
    // still hang must not hold the end up.
    mem::forget(runtime);
    if let Err(error) = &end {
        journal.say(Level::Critical, format!("{error:#}"));
    }
    let _ = journal.flush(Duration::from_secs(2));
    Ok(match end? {
        DaemonEnd::Clean => DaemonOutcome::Clean,
        DaemonEnd::Unclean => DaemonOutcome::Unclean,
    })
}

/// Closes the standard error that the daemon was started with, after telling the starter that the daemon answers now.
fn let_go() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let starter = io::stderr().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stderr(&null)?;
    fs::File::from(starter).write_all(READY)
}

fn open_log(asked: Option<Level>, host_config: &HostConfig) -> anyhow::Result<Journal> {
    let journal = Journal::start(log_targets(asked, host_config)).context("the log cannot be started")?;
    journal.install();
    journal.catch_panics();
    Ok(journal)
}

fn log_targets(asked: Option<Level>, host_config: &HostConfig) -> LogTargets {
    let level = asked.unwrap_or(if host_config.logging.debug > 0 { Level::Debug } else { Level::Info });
    LogTargets::new(&host_config.me, level, &host_config.logging)
}

/// Writes the first lines of the log: the node, its configuration, and warnings about it.
fn introduce(journal: &Journal, dir: &Path, plan: &Plan, keys: &Keys, misfits: &[Diag]) {
    let weak = match keys.signing().method {
        AuthMethod::Crc => "; SIGNED WITH CRC ONLY: anyone who can send on a link can take the service",
        _ => "",
    };
    let (greeting, summary, warning) = plan.introduction();
    let level = if weak.is_empty() { Level::Info } else { Level::Warning };
    journal.say(level, format!("{greeting}, configuration {}{weak}", dir.display()));
    journal.say(Level::Info, summary);
    if let Some(warning) = warning {
        journal.say(Level::Warning, warning.to_owned());
    }
    for diag in misfits {
        journal.say(Level::Warning, diag.to_string());
    }
}

async fn live(
    settings: Settings,
    Start { config, keys, .. }: Start,
    signals: Signals,
    state: Arc<StateDirs>,
    journal: &Journal,
) -> anyhow::Result<DaemonEnd> {
    let settings = Arc::new(settings);
    let run_dir = &settings.run_dir;
    let notify = ServiceManager::from_env();
    let listener = socket::open(run_dir)
        .with_context(|| format!("the control socket in {} cannot be made", run_dir.display()))?;
    let (asking, questions) = mpsc::channel(QUESTIONS_MAX);
    // Scripts of heartbeat's kind can only speak to a cluster of its dialect.
    if matches!(config.plan, Plan::R1(_)) {
        match fifo::open(&settings.fifo) {
            Ok(pipe) => drop(tokio::spawn(fifo::read(pipe, asking.clone(), journal.clone()))),
            Err(fault) => journal.say(
                Level::Warning,
                format!("{}: scripts cannot send messages to the cluster: {fault}", settings.fifo.display()),
            ),
        }
    }
    let (parameters, shown) = watch::channel(config.parameters.clone());
    tokio::spawn(socket::serve(listener, asking, shown));

    let equip = {
        let (settings, journal) = (Arc::clone(&settings), journal.clone());
        move |config: &Config| equip(&settings, &journal, config)
    };
    let Equipment { agents, events, mut heart, .. } = equip(&config);
    heart.losses = losses(&settings.config_dir, journal);
    let reread = {
        let (settings, journal) = (Arc::clone(&settings), journal.clone());
        let reread = if matches!(config.plan, Plan::Native(_)) { native::reread } else { r1::reread };
        Box::new(move |known: &[Diag]| reread(&settings.config_dir, &settings, known, &journal))
    };
    let parts = Parts {
        plan: config.plan,
        config_dir: settings.config_dir.clone(),
        journal: journal.clone(),
        notify,
        events,
        agents,
        state,
        questions,
        heart,
        parameters,
        known: config.diags,
        reread,
        equip: Box::new(equip),
        reboot: reboot(settings.reboot_program.clone(), journal.clone()),
    };
    let mut daemon = ControlPlane::new(parts, keys, signals);
    if settings.background {
        let_go().context("standard error cannot be closed")?;
    }
    let end = daemon.run().await;
    // Later clients find no socket.
    let _ = fs::remove_file(run_dir.join(socket::NAME));
    end
}

/// Makes the equipment that a configuration needs. Its heart drops no frames on purpose.
fn equip(settings: &Settings, journal: &Journal, config: &Config) -> Equipment {
    let teller = journal.clone();
    let Settings { prefer_scripts, gates, .. } = *settings;
    let mut hands = agents::AgentOptions::new(&settings.config_dir, Arc::new(move |note| teller.tell(&note)));
    hands.prefer_scripts = prefer_scripts;
    hands.parameters.clone_from(&config.parameters);
    match config.plan {
        Plan::R1(_) => hands.fifo = Some(settings.fifo.clone()),
        Plan::Native(_) => hands.keep_kin = Some(settings.run_dir.display().to_string()),
    }
    hands.notes = Some(settings.run_dir.join(agents::orphans::DIRECTORY));
    let host_config = Arc::new(config.plan.host_config());
    let (watchdog, log) =
        (host_config.watchdog.as_ref().map(PathBuf::from), log_targets(settings.log, &host_config));
    let agents = Agents::new(host_config, hands);
    Equipment {
        events: EventScripts::start(agents.clone()),
        agents,
        heart: heart::HeartOptions { prefer_scripts, gates, losses: None, watchdog },
        log,
    }
}

/// Reboots the machine, or runs the program that was given instead.
fn reboot(program: Option<PathBuf>, journal: Journal) -> Reboot {
    Arc::new(move |reason| {
        let _ = journal.flush(Duration::from_secs(1));
        let done = match &program {
            None => locum_sys::machine::reboot_now(),
            Some(program) => Command::new(program).arg(reason).stdin(Stdio::null()).spawn().map(drop),
        };
        if let Err(error) = done {
            journal.say(Level::Critical, format!("this machine could not be rebooted: {error}"));
        }
    })
}

/// Breaks the rule that the file `breakage` of the configuration directory names. Only in builds that show that the
/// mixed suite can fail.
#[cfg(feature = "breakage")]
fn plant(config_dir: &Path) -> anyhow::Result<()> {
    let Ok(name) = fs::read_to_string(config_dir.join("breakage")) else { return Ok(()) };
    let known = Breakage::BESIDE_A_REAL_PEER.into_iter().find(|known| format!("{known:?}") == name.trim());
    anyhow::ensure!(known.is_some(), "there is no breakage `{}`", name.trim().escape_debug());
    breakage::plant(known);
    Ok(())
}

/// A seed for the random numbers. They only keep members from answering in step, so the clock is good enough without
/// randomness.
pub(super) fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| locum_sys::clock::unix_nanos())
}

/// Reports faults in files that were read again, unless they were known.
pub(super) fn report_new_faults<'a>(
    diags: impl IntoIterator<Item = &'a Diag>,
    known: &[Diag],
    journal: &Journal,
) {
    let is_news = |diag: &&Diag| diag.severity != Severity::Info && !known.contains(diag);
    for diag in diags.into_iter().filter(is_news) {
        let level = if diag.severity == Severity::Error { Level::Error } else { Level::Warning };
        journal.say(level, diag.to_string());
    }
}

/// Frames to drop on purpose. It is logged as a warning, because a machine that serves must not do that.
pub(super) fn losses(config_dir: &Path, journal: &Journal) -> Option<Losses> {
    let name = files::FOR_TESTING;
    let text = files::read_for_testing(config_dir)?;
    let chance = getrandom::u32().map_or(1, u64::from);
    match text.map_err(|error| error.to_string()).and_then(|text| Losses::parse(&text, chance)) {
        Ok(losses) => {
            journal.say(Level::Warning, format!("{name} exists: FRAMES ARE DROPPED ON PURPOSE: {losses}"));
            Some(losses)
        }
        Err(why) => {
            journal.say(Level::Error, format!("{name} exists, but {why}: no frames are dropped"));
            None
        }
    }
}
