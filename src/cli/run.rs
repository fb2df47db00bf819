//! `locum run`: the daemon, in the foreground. TERM and INT are a graceful leave; HUP rereads the files, and goes on with
//! new ones while everything runs.
//!
//! Exit code: 0 after a clean leave, 1 when it cannot start or runs already, 2 when the configuration is wrong, 3 when
//! it left but something here could not be stopped.

use std::{
    collections::BTreeMap,
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
    config::{self, Checked, Diag, FileName, Severity},
    model::{
        breakage::{self, Breakage},
        claim::MemberIndex,
        identity::NodeIndex,
        keys::{Keys, Method},
        note::Level,
    },
    native::{self, plan::Member, wire::members::Members},
    r1::{
        director,
        plan::{self, GenerationSource, Limits},
    },
};
use tokio::sync::{mpsc, watch};

use crate::{
    cli::{Common, LogLevel, check},
    control::{
        agents::{self, Agents, client::Reboot, event::EventScripts},
        daemon::{Config, Daemon, End, Equipment, Parts, Reread, Signals},
        dialect::{Birth, Identity, Plan},
        errands, fifo,
        ledger::Ledger,
        place::Place,
        state::{State, cure},
    },
    duties::Duties,
    files::{self, Dialect, Files, NativeFiles},
    heart::{self, GateChoice, Losses},
    voice::{
        diagnostics,
        journal::{Journal, Targets},
        notify::Notify,
        socket,
    },
};

/// People's questions that may wait for the daemon.
const QUESTIONS_MAX: usize = 64;

/// What the files have no word for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which files count where ha.cf and locum.toml lie in one directory
    #[arg(long, value_enum)]
    pub dialect: Option<Dialect>,
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
    /// What makes the gates of service addresses; `none`, with ha.cf alone: addresses go on answering when this daemon is
    /// killed or frozen
    #[arg(long, value_enum, default_value_t)]
    pub gates: GateChoice,
    /// Do not ask for real-time rights, whatever `realtime` of ha.cf says
    #[arg(long)]
    pub no_realtime: bool,
    /// Refuse to be anything but a witness: for `locum witness run`
    #[arg(long, hide = true)]
    pub only_as_witness: bool,
    /// Say a zero byte on standard error when people are answered, then let go of it: for `heartbeat` without `-f`
    #[arg(long, hide = true)]
    pub background: bool,
    /// Run this when a client of failfast dies, instead of a reboot of this machine at once
    #[arg(long, value_name = "PROGRAM")]
    pub reboot_program: Option<PathBuf>,
}

impl Options {
    /// The plan, with what `ha.cf` has no word for.
    fn complete(&self, mut plan: plan::Plan) -> Plan {
        plan.limits = Limits { start: self.start_limit, stop: self.stop_limit, status: self.status_limit };
        if self.no_realtime {
            plan.realtime = None;
        }
        let log = &mut plan.logging;
        if self.background && log.logfile.is_none() && log.debugfile.is_none() {
            log.facility.get_or_insert_with(|| FACILITY.to_owned());
        }
        Plan::R1(Arc::new(plan))
    }

    /// The same of `locum.toml`.
    fn complete_native(&self, mut plan: native::plan::Plan) -> Plan {
        if self.no_realtime {
            plan.local.realtime = None;
        }
        let log = &mut plan.local.logging;
        if self.background && log.logfile.is_none() && log.debugfile.is_none() {
            log.facility.get_or_insert_with(|| FACILITY.to_owned());
        }
        Plan::Native(Arc::new(plan))
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the files are read: a HUP from now on is not lost, and TERM is a graceful end.
    let signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let dir = common.config_dir();
    let dialect = options.dialect.or_else(|| Dialect::of(&dir));
    let Some(dialect) = dialect else {
        let dir = dir.display();
        errln!(
            "locum: {dir} holds both ha.cf and locum.toml: take one of them away, or say --dialect r1 or --dialect native"
        );
        // No new start would find anything else.
        return Ok(ExitCode::from(2));
    };
    let read = match dialect {
        Dialect::R1 => read_r1(&dir, &options),
        Dialect::Native => read_native(&dir, &options)?,
    };
    let Start { config, keys, misfits } = match read {
        Ok(start) => start,
        Err(code) => return Ok(code),
    };
    anyhow::ensure!(
        !options.only_as_witness || config.plan.is_witness(),
        "by {} this host is no witness: nothing is run here",
        dir.join(files::NATIVE).display()
    );
    let duties = Arc::new(config.plan.duties());

    // Before anything is touched: what another daemon runs would look as if an earlier life had left it.
    let place = Place::default();
    let doubts = place.take(&duties)?;
    let mut state = State::open(&common.state_dir(), &common.run_dir())?;
    state.keep(place);
    // The native dialect has a port of its own: a heartbeat may run beside it.
    if dialect == Dialect::R1 {
        state.take_the_place_of_heartbeat(&common.heartbeat_pid())?;
    }
    let journal = open_log(common, &duties)?;
    introduce(&journal, common, &config.plan, &keys, &misfits);
    if let Err(error) = locum_sys::child::raise_file_limit() {
        journal.say(Level::Warning, format!("the limit of open files stays low: {error}"));
    }
    for warning in doubts.into_iter().chain(state.take_warnings()) {
        journal.say(Level::Warning, warning);
    }
    errands::prepare().context("the kernel gives this daemon no threads")?;
    let end = runtime.block_on(live(
        common,
        options,
        Start { config, keys, misfits },
        signals,
        Arc::new(state),
        &journal,
    ));
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

/// What a daemon starts with.
struct Start {
    config: Config,
    keys: Keys,
    /// What does not fit this host.
    misfits: Vec<Diag>,
}

/// The files of heartbeat's dialect; else everything that is wrong is said.
fn read_r1(dir: &Path, options: &Options) -> Result<Start, ExitCode> {
    let files = Files::read(dir, None);
    let mut checked = files.check();
    let misfits = check::misfits(&files.dir, options.prefer_scripts, checked.clone());
    let (Some(plan), Some(keys), false) = (checked.plan.take(), checked.keys.take(), checked.failed()) else {
        return Err(refuse(dir, complain(&files, &checked)));
    };
    let plan = options.complete(plan);
    Ok(Start { config: Config { plan, parameters: checked.parameters, diags: checked.diags }, keys, misfits })
}

/// The files of the native dialect; else everything that is wrong is said.
fn read_native(dir: &Path, options: &Options) -> anyhow::Result<Result<Start, ExitCode>> {
    anyhow::ensure!(
        !options.prefer_scripts,
        "--prefer-scripts is for clusters with ha.cf: a native cluster's addresses stand behind gates, which no script opens"
    );
    anyhow::ensure!(
        options.gates != GateChoice::None,
        "--gates none is for clusters with ha.cf: in locum.toml a group with guard none does without a gate where none is possible"
    );
    let files = NativeFiles::read_them(dir, None);
    let mut checked = files.check();
    let misfits = check::native_misfits(dir, checked.file.clone());
    let failed = config::failed(&checked.file.diags);
    let (Some(plan), Some(keys), false) = (checked.file.plan.take(), checked.keys.take(), failed) else {
        let text = |name| if name == FileName::LocumToml { files.text() } else { None };
        return Ok(Err(refuse(dir, complain_of(&checked.file.diags, dir, text))));
    };
    let plan = options.complete_native(plan);
    Ok(Ok(Start {
        config: Config { plan, parameters: BTreeMap::new(), diags: checked.file.diags },
        keys,
        misfits,
    }))
}

/// What is wrong with this host alone may be well at the next try.
fn refuse(dir: &Path, here_alone: bool) -> ExitCode {
    errln!("locum: the configuration in {} is not good: nothing is started", dir.display());
    if here_alone { ExitCode::FAILURE } else { ExitCode::from(2) }
}

/// Prints what is wrong; whether all of it is wrong on this host alone.
pub(crate) fn complain(files: &Files, checked: &Checked) -> bool {
    complain_of(&checked.diags, &files.dir, |name| files.text(name))
}

fn complain_of<'a>(diags: &[Diag], dir: &Path, text: impl Fn(FileName) -> Option<&'a [u8]>) -> bool {
    let color = io::stderr().is_terminal();
    for diag in diags {
        err!("{}", diagnostics::draw(diag, dir, text(diag.file), color));
    }
    diags.iter().filter(|diag| diag.severity == Severity::Error).all(|diag| diag.host)
}

/// Gives standard error back to whoever started the daemon, with the word that it answers now.
fn let_go() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let starter = io::stderr().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stderr(&null)?;
    std::fs::File::from(starter).write_all(READY)
}

fn open_log(common: &Common, duties: &Duties) -> anyhow::Result<Journal> {
    let journal = Journal::start(log_targets(common.log, duties)).context("the log cannot be started")?;
    journal.install();
    journal.catch_panics();
    Ok(journal)
}

fn log_targets(asked: Option<LogLevel>, duties: &Duties) -> Targets {
    let asked = asked.map(|level| match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    });
    let level = asked.unwrap_or(if duties.logging.debug > 0 { Level::Debug } else { Level::Info });
    Targets::new(&duties.me, level, &duties.logging)
}

/// The first lines of the log: who, with what, and what is weak about it.
fn introduce(journal: &Journal, common: &Common, plan: &Plan, keys: &Keys, misfits: &[Diag]) {
    let version = env!("CARGO_PKG_VERSION");
    let weak = match keys.signing().method {
        Method::Crc => "; SIGNED WITH CRC ONLY: anyone who can send on a link can take the service",
        _ => "",
    };
    let place = common.config_dir();
    let place = place.display();
    let (first, summary) = match plan {
        Plan::R1(plan) => {
            let node = &plan.nodes[plan.me.0];
            let text = format!(
                "Configuration validated. Starting heartbeat (locum {version}) on {node}, configuration {place}{weak}"
            );
            (text, summary(plan))
        }
        Plan::Native(plan) => {
            let kind = if matches!(plan.me, Member::Node(_)) { "node" } else { "witness" };
            let (me, cluster) = (plan.name(plan.me), &plan.cluster);
            let text = format!(
                "starting locum {version} as {kind} {me} of cluster {cluster}, configuration {place}{weak}"
            );
            (text, native_summary(plan))
        }
    };
    journal.say(if weak.is_empty() { Level::Info } else { Level::Warning }, first);
    journal.say(Level::Info, summary);
    if let Plan::Native(plan) = plan
        && plan.may_count_alone()
    {
        let text = "there is no third voter: a node takes over when the other has been silent for a lease, and in a partition \
                    both run every group; a witness on a third machine changes that (`locum witness add`)";
        journal.say(Level::Warning, text.to_owned());
    }
    for diag in misfits {
        journal.say(Level::Warning, diag.to_string());
    }
}

/// The configuration in one line.
fn native_summary(plan: &native::plan::Plan) -> String {
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let nodes = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let voters = plan.voters.iter().map(|voter| plan.name(*voter)).collect();
    let links = plan.links.iter().map(|link| link.name.as_str()).collect();
    let groups: Vec<String> =
        plan.groups.iter().map(|group| format!("{} (guard {})", group.name, group.guard)).collect();
    let times = &plan.timing;
    format!(
        "nodes {}; voters {}; links {}; pace {:?}, beat {:?}; groups: {}",
        names(nodes),
        names(voters),
        names(links),
        times.lease,
        times.beat,
        if groups.is_empty() { "none".to_owned() } else { groups.join(", ") }
    )
}

/// The same of heartbeat's files.
fn summary(plan: &plan::Plan) -> String {
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

async fn live(
    common: &Common,
    options: Options,
    Start { config, keys, .. }: Start,
    signals: Signals,
    state: Arc<State>,
    journal: &Journal,
) -> anyhow::Result<End> {
    let config_dir = common.config_dir();
    let run_dir = common.run_dir();
    let notify = Notify::from_env();
    let listener =
        socket::open(&run_dir).with_context(|| format!("no control socket in {}", run_dir.display()))?;
    let (asking, questions) = mpsc::channel(QUESTIONS_MAX);
    // Scripts of heartbeat's kind say something to a cluster of its dialect alone.
    if matches!(config.plan, Plan::R1(_)) {
        match fifo::open(&common.fifo()) {
            Ok(pipe) => drop(tokio::spawn(fifo::read(pipe, asking.clone(), journal.clone()))),
            Err(fault) => journal.say(
                Level::Warning,
                format!("{}: scripts cannot say anything to the cluster: {fault}", common.fifo().display()),
            ),
        }
    }
    let (parameters, shown) = watch::channel(config.parameters.clone());
    tokio::spawn(socket::serve(listener, asking, shown));

    let equip = {
        let (common, journal, options) = (common.clone(), journal.clone(), options.clone());
        move |config: &Config| equip(&common, &journal, &options, config)
    };
    let Equipment { agents, events, mut heart, .. } = equip(&config);
    heart.losses = losses(&config_dir, journal);
    let reread = {
        let (config_dir, journal, options) = (config_dir.clone(), journal.clone(), options.clone());
        let is_native = matches!(config.plan, Plan::Native(_));
        let reread = if is_native { reread_native } else { reread };
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
    let mut daemon = Daemon::new(parts, keys, signals);
    if options.background {
        let_go().context("standard error cannot be given back")?;
    }
    let end = daemon.run().await;
    // Who connects from now on finds nobody.
    let _ = std::fs::remove_file(run_dir.join(socket::NAME));
    end
}

/// What a configuration needs. A heart that it is made for drops nothing on purpose.
fn equip(common: &Common, journal: &Journal, options: &Options, config: &Config) -> Equipment {
    let teller = journal.clone();
    let Options { prefer_scripts, gates, .. } = *options;
    let mut hands = agents::Options::new(&common.config_dir(), Arc::new(move |note| teller.tell(&note)));
    hands.prefer_scripts = prefer_scripts;
    hands.parameters.clone_from(&config.parameters);
    match config.plan {
        Plan::R1(_) => hands.fifo = Some(common.fifo()),
        Plan::Native(_) => hands.keep_kin = Some(common.run_dir().display().to_string()),
    }
    hands.notes = Some(common.run_dir().join(agents::orphans::DIRECTORY));
    let duties = Arc::new(config.plan.duties());
    let (watchdog, log) = (duties.watchdog.as_ref().map(PathBuf::from), log_targets(common.log, &duties));
    let agents = Agents::new(duties, hands);
    Equipment {
        events: EventScripts::start(agents.clone()),
        agents,
        heart: heart::Options { prefer_scripts, gates, losses: None, watchdog },
        log,
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

/// Who this member is in the life that begins.
fn begin_life(state: &State, plan: &Plan, journal: &Journal) -> anyhow::Result<Birth> {
    for doubt in state.place().take(&plan.duties())? {
        journal.say(Level::Warning, doubt);
    }
    match plan {
        Plan::R1(plan) => {
            let identity = Identity::R1(begin_r1_life(state, plan)?);
            Ok(Birth { identity, ledger: None })
        }
        Plan::Native(plan) => {
            let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
            begin_native_life(state, plan, now, |level, text| journal.say(level, text))
        }
    }
}

/// A generation is above every one that this member is known to have lived, by its state and by its ledger, and above
/// the clock: whichever of the three is lost or goes back, the others carry it on.
fn begin_native_life(
    state: &State,
    plan: &native::plan::Plan,
    now: u64,
    say: impl Fn(Level, String),
) -> anyhow::Result<Birth> {
    let members = Members::of(plan);
    let me = plan.name(plan.me);
    let lived = state.generation_of(me);
    let place = state.directory();
    let (mut ledger, found) = Ledger::open(place, &plan.cluster, me, members.clone(), lived);
    if let Some((level, text)) = found.note {
        say(level, text);
    }
    let above = lived.unwrap_or(0).max(found.generation) + 1;
    let generation = above.max(now);
    // The ledger first: it must never look older than the life that wrote it.
    ledger.begin(generation, found.durable.as_ref()).map_err(|error| {
        anyhow::anyhow!("the ledger in {} cannot be written: {error}{}", place.display(), cure(&error))
    })?;
    let generation = state.next_generation(me, GenerationSource::Time, generation)?;
    let heard = (0..plan.nodes.len() + plan.witnesses.len()).filter_map(|index| {
        let name = members.name(MemberIndex(u8::try_from(index).ok()?))?;
        Some((NodeIndex(index), state.heard_of(name).filter(|_| name != me)?))
    });
    let identity = native::director::Identity {
        generation,
        ledger: found.durable,
        heard: heard.collect(),
        stuck: Vec::new(),
        seed: seed(),
    };
    Ok(Birth { identity: Identity::Native(identity), ledger: Some(ledger) })
}

/// Without randomness the clock is spread enough: it only keeps members from answering in step.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| locum_sys::clock::unix_nanos())
}

fn begin_r1_life(state: &State, plan: &plan::Plan) -> anyhow::Result<director::Identity> {
    let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
    let me = &plan.nodes[plan.me.0];
    Ok(director::Identity {
        uuid: state.uuid()?,
        generation: match state.next_generation(me, plan.generation, now)? {
            _ if breakage::is(Breakage::GenerationFalls) => GENERATION_FALLS_FROM.saturating_sub(now),
            next => next,
        },
        peer_heard: plan.peer().and_then(|peer| state.heard_of(&plan.nodes[peer.0])),
        stuck: Vec::new(),
        keeps: None,
        seed: seed(),
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
        plan: options.complete(plan),
        parameters: checked.parameters,
        diags: checked.diags,
    });
    Reread { keys, config, losses: losses(config_dir, journal) }
}

/// The same of a native configuration.
fn reread_native(config_dir: &Path, options: &Options, known: &[Diag], journal: &Journal) -> Reread {
    let checked = NativeFiles::read_them(config_dir, None).check();
    let diags = checked.file.diags;
    for diag in diags.iter().filter(|diag| diag.severity != Severity::Info && !known.contains(diag)) {
        let level = if diag.severity == Severity::Error { Level::Error } else { Level::Warning };
        journal.say(level, diag.to_string());
    }
    let good = !config::failed(&diags);
    let config = checked.file.plan.filter(|_| good).map(|plan| Config {
        plan: options.complete_native(plan),
        parameters: BTreeMap::new(),
        diags,
    });
    Reread { keys: checked.keys, config, losses: None }
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
    use std::cell::RefCell;

    use locum_core::{config::locum_toml, model::claim::Durable};

    use super::*;

    const YEAR: u64 = 365 * 86_400;
    const NOW: u64 = 1_795_334_146;

    /// One life after another on one state directory.
    struct Lives {
        directory: tempfile::TempDir,
        plan: native::plan::Plan,
        said: RefCell<Vec<String>>,
    }

    impl Lives {
        fn new() -> Self {
            let file = b"cluster = 'shop'\nnodes.a.links.x = '10.0.0.1'\nnodes.b.links.x = '10.0.0.2'\n\
                witnesses.c.address = '10.0.0.3'\n";
            let plan = locum_toml::check(file, "a").plan.unwrap();
            Self { directory: tempfile::tempdir().unwrap(), plan, said: RefCell::default() }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("state")
        }

        /// One life, which writes this ledger, if any.
        fn live(&self, now: u64, ledger: Option<u64>) -> (u64, Option<Durable>) {
            let state = State::open(&self.path(), &self.directory.path().join("run")).unwrap();
            let say = |_, text| self.said.borrow_mut().push(text);
            let birth = begin_native_life(&state, &self.plan, now, say).unwrap();
            if let Some(ceiling) = ledger {
                let durable = Durable { ceiling, ..Durable::default() };
                birth.ledger.unwrap().write(&durable).unwrap();
            }
            match birth.identity {
                Identity::Native(identity) => (identity.generation, identity.ledger),
                Identity::R1(_) => panic!("the other dialect"),
            }
        }
    }

    #[test]
    fn no_clock_and_no_lost_file_makes_a_generation_fall() {
        let lives = Lives::new();
        let mut last = 0;
        let mut above = |now, ledger| {
            let (generation, found) = lives.live(now, ledger);
            assert!(generation > last, "{generation} after {last}");
            last = generation;
            found
        };
        above(NOW, None);
        above(NOW, Some(7));
        assert!(above(NOW + YEAR, None).is_some());
        assert!(above(NOW - YEAR, None).is_some());
        for name in ["hb_generation", "locum_generations"] {
            std::fs::remove_file(lives.path().join(name)).unwrap();
        }
        assert!(above(0, None).is_some(), "the ledger knows it");
        for name in ["ledger-shop-a", "ledger-shop-b"] {
            let _ = std::fs::remove_file(lives.path().join(name));
        }
        assert!(above(0, None).is_none(), "and so does the state without a ledger");
        assert!(lives.said.borrow().last().unwrap().contains("earlier lives is gone"));
    }

    #[test]
    fn a_ledger_that_was_put_back_is_not_believed() {
        let lives = Lives::new();
        lives.live(NOW, Some(7));
        lives.live(NOW + 1, None);
        let copy = |from: &Path, to: &Path| {
            std::fs::create_dir_all(to).unwrap();
            for name in ["ledger-shop-a", "ledger-shop-b"] {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
        };
        let kept = lives.directory.path().join("kept");
        copy(&lives.path(), &kept);
        assert!(lives.live(NOW + 2, Some(9)).1.is_some());
        copy(&kept, &lives.path());
        assert_eq!(lives.live(NOW + 3, None).1, None);
        assert!(lives.said.borrow().last().unwrap().contains("an old copy"));
    }

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
