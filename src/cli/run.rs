//! `locum run`: the daemon, in the foreground. TERM and INT are a graceful leave; HUP rereads the files, and goes on with
//! new ones while everything runs.
//!
//! Exit code: 0 after a clean leave, 1 when it cannot start or runs already, 2 when the configuration is wrong, 3 when
//! it left but something here could not be stopped.

use std::{
    io::{self, IsTerminal, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use locum_core::{
    auth::{Keys, Method},
    breakage::{self, Breakage},
    config::{Checked, Diag, Severity},
    director::Identity,
    note::Level,
    plan::{Limits, Plan},
};
use tokio::sync::{mpsc, watch};

use crate::{
    cli::{Common, LogLevel, check},
    control::{
        agents::{self, Agents, client::Reboot, event::EventScripts},
        daemon::{Config, Daemon, End, Equipment, Parts, Reread},
        fifo,
        state::{self, State},
    },
    files::{self, Files},
    heart::{self, Losses},
    voice::{
        diagnostics,
        journal::{Journal, Targets},
        notify::Notify,
        socket,
    },
};

/// People's questions that may wait for the daemon.
const QUESTIONS_MAX: usize = 64;

/// The stack of a thread for a call that blocks.
const ERRAND_STACK_BYTES: usize = 512 * 1024;

/// What `ha.cf` has no word for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Kill a resource's agent and its children when its start takes longer
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub start_limit: Duration,
    /// The same for its stop
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub stop_limit: Duration,
    /// The same for the question whether it runs
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub status_limit: Duration,
    /// Run scripts of the names IPaddr, IPaddr2, IPv6addr, SendArp, MailTo, Delay and Filesystem where there are such,
    /// instead of the native stand-ins
    #[arg(long)]
    pub prefer_scripts: bool,
    /// Do not ask for real-time rights, whatever `realtime` of ha.cf says
    #[arg(long)]
    pub no_realtime: bool,
    /// Say a zero byte on standard error when people are answered, then let go of it: for `heartbeat` without `-f`
    #[arg(long, hide = true)]
    pub background: bool,
    /// Run this when a client of failfast dies, instead of a reboot of this machine at once
    #[arg(long, value_name = "PROGRAM")]
    pub reboot_program: Option<PathBuf>,
}

impl Options {
    /// The plan, with what `ha.cf` has no word for.
    fn complete(&self, mut plan: Plan) -> Plan {
        plan.limits = Limits { start: self.start_limit, stop: self.stop_limit, status: self.status_limit };
        if self.no_realtime {
            plan.realtime = None;
        }
        let log = &mut plan.logging;
        if self.background && log.logfile.is_none() && log.debugfile.is_none() {
            log.facility.get_or_insert_with(|| FACILITY.to_owned());
        }
        plan
    }
}

/// The end of what a daemon in the background says before it lets go of its standard error.
pub(crate) const READY: &[u8] = b"\0";

/// What takes the log of a daemon without standard error if `ha.cf` names nothing: heartbeat's own habit.
const FACILITY: &str = "daemon";

/// Above every clock of these decades, and in the columns of the file.
const GENERATION_FALLS_FROM: u64 = 4_000_000_000;

/// `500ms`, `30s`, `5min`, `1h`; a bare number is seconds. Never zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and ms, s, min or h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number and ms, s, min or h".to_owned())?;
    let total = number.checked_mul(millis).filter(|&total| total > 0);
    total
        .map(Duration::from_millis)
        .ok_or_else(|| "must be more than nothing, and less than for ever".to_owned())
}

/// Runs the daemon until it has left the cluster.
///
/// # Errors
/// When it cannot start.
pub fn run(common: &Common, options: Options) -> anyhow::Result<ExitCode> {
    locum_sys::signal::ignore_broken_pipe();
    locum_sys::signal::ignore_hangup();
    #[cfg(feature = "breakage")]
    plant(&common.config_dir())?;
    let files = Files::read(&common.config_dir(), None);
    let mut checked = files.check();
    let misfits = check::misfits(&files.dir, options.prefer_scripts, checked.clone());
    let (Some(plan), Some(keys), false) = (checked.plan.take(), checked.keys.take(), checked.failed()) else {
        return Ok(refuse(&files, &checked));
    };
    let plan = options.complete(plan);

    let mut state = State::open(&common.state_dir(), &common.run_dir())?;
    state.take_the_place_of_heartbeat(&common.heartbeat_pid())?;
    let journal = open_log(common, &plan)?;
    introduce(&journal, common, &plan, &keys, &misfits);
    if let Err(error) = locum_sys::child::raise_file_limit() {
        journal.say(Level::Warning, format!("the limit of open files stays low: {error}"));
    }
    for warning in state.take_warnings() {
        journal.say(Level::Warning, warning);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("errand")
        .thread_stack_size(ERRAND_STACK_BYTES)
        .build()?;
    let start = Start { common, options, plan: Arc::new(plan), keys, checked, state: Arc::new(state) };
    let end = runtime.block_on(live(start, &journal));
    // The connections of those who wait for our end close with the process and not before; and children and files that
    // still hang must not hold it up.
    std::mem::forget(runtime);
    if let Err(error) = &end {
        journal.say(Level::Critical, format!("{error:#}"));
    }
    let _ = journal.flush(Duration::from_secs(2));
    Ok(match end? {
        End::Clean => ExitCode::SUCCESS,
        End::Unclean => ExitCode::from(3),
    })
}

/// Says everything that is wrong. What is wrong with this host alone may be well at the next try.
fn refuse(files: &Files, checked: &Checked) -> ExitCode {
    let here_alone = complain(files, checked);
    eprintln!("locum: the configuration in {} is not good: nothing is started", files.dir.display());
    if here_alone { ExitCode::FAILURE } else { ExitCode::from(2) }
}

/// Prints what is wrong; whether all of it is wrong on this host alone.
pub(crate) fn complain(files: &Files, checked: &Checked) -> bool {
    let color = io::stderr().is_terminal();
    for diag in &checked.diags {
        eprint!("{}", diagnostics::draw(diag, &files.dir, files.text(diag.file), color));
    }
    let mut errors = checked.diags.iter().filter(|diag| diag.severity == Severity::Error);
    errors.all(|diag| diag.host)
}

/// Gives standard error back to whoever started the daemon, with the word that it answers now.
fn let_go() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let starter = io::stderr().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stderr(&null)?;
    std::fs::File::from(starter).write_all(READY)
}

fn open_log(common: &Common, plan: &Plan) -> anyhow::Result<Journal> {
    let journal = Journal::start(log_targets(common.log, plan)).context("the log cannot be started")?;
    journal.install();
    journal.catch_panics();
    Ok(journal)
}

fn log_targets(asked: Option<LogLevel>, plan: &Plan) -> Targets {
    let asked = asked.map(|level| match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    });
    let level = asked.unwrap_or(if plan.logging.debug > 0 { Level::Debug } else { Level::Info });
    Targets::new(&plan.nodes[plan.me.0], level, &plan.logging)
}

/// The first lines of the log: who, with what, and what is weak about it.
fn introduce(journal: &Journal, common: &Common, plan: &Plan, keys: &Keys, misfits: &[Diag]) {
    let version = env!("CARGO_PKG_VERSION");
    let weak = match keys.signing().method {
        Method::Crc => "; SIGNED WITH CRC ONLY: anyone who can send on a link can take the service",
        _ => "",
    };
    let node = &plan.nodes[plan.me.0];
    journal.say(
        if weak.is_empty() { Level::Info } else { Level::Warning },
        format!(
            "Configuration validated. Starting heartbeat (locum {version}) on {node}, configuration {}{weak}",
            common.config_dir().display()
        ),
    );
    journal.say(Level::Info, summary(plan));
    for diag in misfits {
        journal.say(Level::Warning, diag.to_string());
    }
}

/// The configuration in one line.
fn summary(plan: &Plan) -> String {
    let times = &plan.timing;
    let links: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    let groups: Vec<String> = plan
        .groups
        .iter()
        .map(|group| format!("{} (prefers {})", group.key, plan.nodes[group.node.0]))
        .collect();
    format!(
        "nodes {}; links {}; keepalive {:?}, warntime {:?}, deadtime {:?}, initdead {:?}; auto_failback {}; groups: {}",
        plan.nodes.join(" "),
        links.join(" "),
        times.keepalive,
        times.warntime,
        times.deadtime,
        times.initdead,
        format!("{:?}", plan.auto_failback).to_lowercase(),
        if groups.is_empty() { "none".to_owned() } else { groups.join(", ") }
    )
}

struct Start<'a> {
    common: &'a Common,
    options: Options,
    plan: Arc<Plan>,
    keys: Keys,
    checked: Checked,
    state: Arc<State>,
}

async fn live(start: Start<'_>, journal: &Journal) -> anyhow::Result<End> {
    let Start { common, options, plan, keys, checked, state } = start;
    let config_dir = common.config_dir();
    let run_dir = common.run_dir();
    let notify = Notify::from_env();
    let listener =
        socket::open(&run_dir).with_context(|| format!("no control socket in {}", run_dir.display()))?;
    let (asking, questions) = mpsc::channel(QUESTIONS_MAX);
    match fifo::open(&common.fifo()) {
        Ok(pipe) => drop(tokio::spawn(fifo::read(pipe, asking.clone(), journal.clone()))),
        Err(fault) => journal.say(
            Level::Warning,
            format!("{}: scripts cannot say anything to the cluster: {fault}", common.fifo().display()),
        ),
    }
    let (parameters, shown) = watch::channel(checked.parameters.clone());
    tokio::spawn(socket::serve(listener, asking, shown));

    let equip = {
        let (common, journal, prefer_scripts) = (common.clone(), journal.clone(), options.prefer_scripts);
        move |config: &Config| equip(&common, &journal, prefer_scripts, config)
    };
    let config = Config { plan, parameters: checked.parameters, diags: checked.diags };
    let Equipment { agents, events, mut heart, .. } = equip(&config);
    heart.losses = losses(&config_dir, journal);
    let reread = {
        let (config_dir, journal, options) = (config_dir.clone(), journal.clone(), options.clone());
        Box::new(move |known: &[Diag]| reread(&config_dir, &options, known, &journal))
    };
    let parts = Parts {
        plan: config.plan,
        config_dir,
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
        reboot: reboot(options.reboot_program, journal.clone()),
        begin_life,
    };
    let mut daemon = Daemon::new(parts, keys)?;
    if options.background {
        let_go().context("standard error cannot be given back")?;
    }
    let end = daemon.run().await;
    // Who connects from now on finds nobody.
    let _ = std::fs::remove_file(run_dir.join(socket::NAME));
    end
}

/// What a configuration needs. A heart that it is made for drops nothing on purpose.
fn equip(common: &Common, journal: &Journal, prefer_scripts: bool, config: &Config) -> Equipment {
    let teller = journal.clone();
    let mut options = agents::Options::new(&common.config_dir(), Arc::new(move |note| teller.tell(&note)));
    options.prefer_scripts = prefer_scripts;
    options.parameters.clone_from(&config.parameters);
    options.fifo = Some(common.fifo());
    options.notes = Some(common.run_dir().join(agents::orphans::DIRECTORY));
    let agents = Agents::new(Arc::clone(&config.plan), options);
    Equipment {
        events: EventScripts::start(agents.clone()),
        agents,
        heart: heart::Options {
            prefer_scripts,
            losses: None,
            watchdog: config.plan.watchdog.as_ref().map(PathBuf::from),
        },
        log: log_targets(common.log, &config.plan),
    }
}

/// The machine's reboot, or what was asked for instead.
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
    let Ok(name) = std::fs::read_to_string(config_dir.join("breakage")) else { return Ok(()) };
    let known = Breakage::BESIDE_A_REAL_PEER.into_iter().find(|known| format!("{known:?}") == name.trim());
    anyhow::ensure!(known.is_some(), "there is no breakage `{}`", name.trim().escape_debug());
    breakage::plant(known);
    Ok(())
}

/// Who this node is in the life that begins.
fn begin_life(state: &State, plan: &Plan) -> Result<Identity, state::Fault> {
    let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
    let me = &plan.nodes[plan.me.0];
    Ok(Identity {
        uuid: state.uuid()?,
        generation: match state.next_generation(me, plan.generation, now)? {
            _ if breakage::is(Breakage::GenerationFalls) => GENERATION_FALLS_FROM.saturating_sub(now),
            next => next,
        },
        peer_heard: plan.peer().and_then(|peer| state.heard_of(&plan.nodes[peer.0])),
        stuck: Vec::new(),
        keeps: None,
        // Without randomness the clock is spread enough: it only keeps two nodes from answering in step.
        seed: getrandom::u64().unwrap_or_else(|_| locum_sys::clock::unix_nanos()),
    })
}

/// HUP. Says what is wrong and was not known at the start; a fault in one file does not keep the others from being
/// used.
fn reread(config_dir: &Path, options: &Options, known: &[Diag], journal: &Journal) -> Reread {
    let (keys, mut diags) = files::read_keys(config_dir);
    let checked = Files::read(config_dir, None).check();
    let good = !checked.failed();
    diags.retain(|diag| !checked.diags.contains(diag));
    let is_news = |diag: &&Diag| diag.severity != Severity::Info && !known.contains(diag);
    for diag in diags.iter().chain(&checked.diags).filter(is_news) {
        let level = if diag.severity == Severity::Error { Level::Error } else { Level::Warning };
        journal.say(level, diag.to_string());
    }
    let config = checked.plan.filter(|_| good).map(|plan| Config {
        plan: Arc::new(options.complete(plan)),
        parameters: checked.parameters,
        diags: checked.diags,
    });
    Reread { keys, config, losses: losses(config_dir, journal) }
}

/// Frames that are to be dropped on purpose: loud, because nobody wants that on a machine that serves.
fn losses(config_dir: &Path, journal: &Journal) -> Option<Losses> {
    let name = files::FOR_TESTING;
    let text = files::read_for_testing(config_dir)?;
    let chance = getrandom::u32().map_or(1, u64::from);
    match text.map_err(|error| error.to_string()).and_then(|text| Losses::parse(&text, chance)) {
        Ok(losses) => {
            journal.say(Level::Warning, format!("{name} is there: FRAMES ARE DROPPED ON PURPOSE: {losses}"));
            Some(losses)
        }
        Err(why) => {
            journal.say(Level::Error, format!("{name} is there, and {why}: nothing is dropped"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [("500ms", 500), ("30s", 30_000), ("2", 2000), ("5min", 300_000), ("1h", 3_600_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "0", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "18446744073709551615h", "5d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
