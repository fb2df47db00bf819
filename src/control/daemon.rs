//! The daemon around the heart. It carries the heart's requests to the agents, its notes to the log and people's orders
//! to the heart, and tells the service manager that heart and control plane both make progress.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io, mem,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use locum_core::{
    config::{Changes, Diag},
    model::{
        action::Operation,
        claim::{DurableState, Epoch},
        event::{Outcome, Ticket},
        holding::Holding,
        identity::{LastHeard, MemberIndex, NodeIndex, ResourceId},
        keys::Keys,
        note::Level,
        order::{Answer, Order, OrderId},
    },
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    control::{
        agents::{
            Agents,
            client::{Clients, Reboot},
            event::EventScripts,
        },
        dialect::{Identity, Plan, RunStart},
        errands::{self, Errand},
        ledger::Ledger,
        leftovers::{self, Progress, SurveyFindings},
        ports,
        state::{StateDirs, cure},
    },
    heart::{self, Down, HeartStats, Up},
    host_config::HostConfig,
    observe::{
        feed::StateText,
        journal::{Journal, LogTargets},
        notify::ServiceManager,
        report::{self, AnyStatusReport, StatusReport},
        socket::{ControlQuestion, OrderRequest, StateResult, UserOrder},
    },
    rights,
};

/// How often the heart is told the machine's load. That also makes the heart turn once, so that its counter moves.
const LOAD_EVERY: Duration = Duration::from_secs(5);
/// How often the heart's counter is checked if no service manager asks for it.
const WATCH_EVERY: Duration = Duration::from_secs(15);
/// If several clients ask for the status at once, an answer of the heart may be this old.
const STATUS_AGE_MAX: Duration = Duration::from_millis(200);
/// How often the fencing device is checked.
const DEVICE_CHECK_EVERY: Duration = Duration::from_secs(3600);
/// If the ring to the heart is full, sending is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// How long the last answers have to be written at the end.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_millis(50);
/// How many writes of what was heard of other members may wait for the disk.
const REMEMBERING_MAX: usize = 64;
/// How long the end waits until what was heard of the peer is on the disk.
const REMEMBER_LIMIT: Duration = Duration::from_secs(2);

/// The answer to an order to leave if this daemon ends and leaves something running.
const NOT_STOPPED: &str = "this node has left the cluster, but some of its resources could not be stopped and \
                           may still run: the log \
     names them";

/// Reads the files again. Faults that were known before are not reported again.
pub type ReadAgain = Box<dyn Fn(&[Diag]) -> Reread>;

/// Everything that a daemon is made of.
pub struct Parts {
    pub plan: Plan,
    /// The directory of the configuration, for reading it again.
    pub config_dir: PathBuf,
    pub journal: Journal,
    /// Tells the service manager how the daemon is.
    pub notify: ServiceManager,
    /// The agents that run the resources.
    pub agents: Agents,
    /// The queue of the event scripts in `rc.d`.
    pub events: EventScripts,
    /// The state directory, which survives the daemon.
    pub state: Arc<StateDirs>,
    /// Questions and orders of the control socket's clients.
    pub questions: mpsc::Receiver<ControlQuestion>,
    pub heart: heart::HeartOptions,
    /// The parameters of `ha.cf` as people and scripts see them.
    pub parameters: watch::Sender<BTreeMap<String, String>>,
    /// The warnings about the files that were already reported.
    pub known: Vec<Diag>,
    /// Reads the configuration again. Each of new keys and new plan is returned unless something is wrong with it,
    /// which is reported unless it was known.
    pub reread: ReadAgain,
    /// Makes the equipment that a configuration needs.
    pub equip: Box<dyn Fn(&Config) -> Equipment>,
    /// Called when a client of `failfast` dies.
    pub reboot: Reboot,
}

/// The result of reading the configuration again.
#[derive(Debug, Default)]
pub struct Reread {
    /// The keys, if they are valid.
    pub keys: Option<Keys>,
    /// The configuration, if it is valid.
    pub config: Option<Config>,
    /// Frames to drop on purpose, for tests.
    pub losses: Option<heart::Losses>,
}

/// A checked configuration with the warnings about it.
#[derive(Clone, Debug)]
pub struct Config {
    pub plan: Plan,
    pub parameters: BTreeMap<String, String>,
    /// The warnings about the files.
    pub diags: Vec<Diag>,
}

/// The parts that belong to one configuration and are made anew for the next one.
pub struct Equipment {
    pub agents: Agents,
    pub events: EventScripts,
    pub heart: heart::HeartOptions,
    /// Where the log lines go.
    pub log: LogTargets,
}

/// The next run of the heart, prepared so that it can begin without a pause.
struct NextRun {
    config: Config,
    equipment: Equipment,
    identity: Identity,
}

/// How the daemon's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonEnd {
    /// Everything was stopped, and all answers were given.
    Clean,
    /// This node left the cluster, but something here could not be stopped.
    Unclean,
}

/// How one run of the heart ended.
enum HeartRunEnd {
    Final(DaemonEnd),
    /// A new run begins after this pause. What the earlier one could not stop makes the end of this daemon unclean.
    Again(Duration, DaemonEnd),
    /// A new run begins at once and keeps these groups.
    Renewed(Holding),
}

/// The control plane of one daemon: drives one run of the heart after another.
pub struct ControlPlane {
    parts: Parts,
    keys: Keys,
    signals: Signals,
    load: Interval,
    watchdog: Interval,
    done: (mpsc::UnboundedSender<FinishedRequest>, mpsc::UnboundedReceiver<FinishedRequest>),
    /// The programs of `respawn` and `failfast`, while this node takes part.
    clients: Option<Clients>,
    /// True when the clients of an earlier configuration have ended.
    room: watch::Receiver<bool>,
    /// The operations under way, by ticket. Sending on the channel ends one.
    agents_at_work: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// The task that checks the fencing device meanwhile.
    device_checks: Option<JoinHandle<()>>,
    run_number: u64,
    next_order: u64,
    /// A person or the service manager has ordered this daemon to leave. The order holds for every later run of the
    /// heart.
    leaving: bool,
    /// The clients that ordered it and wait for the end.
    leave_askers: Vec<oneshot::Sender<Answer>>,
    ready: bool,
    /// The last message for an event script was dropped because the queue was full.
    events_dropped: bool,
    /// The writes of what was heard of others that are on their way to the disk.
    remembering: Vec<Errand<()>>,
    /// The last of these writes failed, and that was reported.
    forgetful: Arc<AtomicBool>,
    /// The newest of what was heard.
    heard: Option<LastHeard>,
    /// The ledger of a member of a native cluster.
    ledger: Option<Arc<Mutex<Ledger>>>,
    /// The next run of the heart, and the order that ends the present one for it.
    next: Option<(OrderId, Box<NextRun>)>,
    /// HUP came while no heart ran.
    reread_due: bool,
    /// Clients that wait for the status of a run that has ended.
    askers: Vec<oneshot::Sender<StateResult>>,
}

/// What happens to an order to leave while no heart runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtLeave {
    /// The work under way stops what runs, so it is finished.
    GoOn,
    /// Nothing that must be finished is under way.
    Return,
}

/// The answer to a finished request, with the run of the heart in which it was made: tickets begin anew with each run.
type FinishedRequest = (u64, Down);

impl ControlPlane {
    /// Makes the daemon; nothing runs yet. Needs a runtime around it.
    #[must_use]
    pub fn new(parts: Parts, keys: Keys, signals: Signals) -> Self {
        let watch_every = parts.notify.watchdog_interval().unwrap_or(WATCH_EVERY);
        Self {
            parts,
            keys,
            signals,
            load: every(LOAD_EVERY),
            watchdog: every(watch_every),
            done: mpsc::unbounded_channel(),
            clients: None,
            room: watch::channel(true).1,
            agents_at_work: BTreeMap::new(),
            device_checks: None,
            run_number: 0,
            next_order: 0,
            leaving: false,
            leave_askers: Vec::new(),
            ready: false,
            events_dropped: false,
            remembering: Vec::new(),
            forgetful: Arc::default(),
            ledger: None,
            heard: None,
            next: None,
            reread_due: false,
            askers: Vec::new(),
        }
    }

    /// Stops what an earlier daemon left, then runs until a person or the service manager ends it.
    ///
    /// # Errors
    /// When no heart can be made, or the state directory takes no new generation.
    pub async fn run(&mut self) -> anyhow::Result<DaemonEnd> {
        let end = self.live_all().await;
        let answer = match &end {
            Ok(DaemonEnd::Clean) => {
                Answer::Done("this node has left the cluster, and all its resources are stopped".to_owned())
            }
            Ok(DaemonEnd::Unclean) => Answer::TimedOut(NOT_STOPPED.to_owned()),
            Err(error) => Answer::Refused(format!("this node's daemon has failed: {error:#}")),
        };
        let askers = mem::take(&mut self.leave_askers);
        if !askers.is_empty() {
            for asker in askers {
                let _ = asker.send(answer.clone());
            }
            // Other tasks of this thread write the answers, and the thread ends with us.
            sleep(LAST_ANSWERS_LIMIT).await;
        }
        end
    }

    async fn live_all(&mut self) -> anyhow::Result<DaemonEnd> {
        let progress = Progress::default();
        let sweep = sweep(self.parts.agents.clone(), self.parts.journal.clone(), progress.clone());
        let swept = self.attend(sweep, || progress.tell(), AtLeave::GoOn).await;
        let Swept { left, kept, stop_failed: stuck } = swept.unwrap_or_default();
        if self.leaving {
            return self.stop_kept(&progress, kept, left).await;
        }
        // A later run of the heart begins after the earlier one has stopped everything, kept it, or said that it cannot
        // stop it.
        let mut identity = self.begin_run()?.with_stop_failed(stuck);
        loop {
            match self.live(identity).await? {
                HeartRunEnd::Final(end) => return Ok(end),
                HeartRunEnd::Renewed(kept) => identity = self.change(kept)?,
                HeartRunEnd::Again(pause, end) => {
                    self.say(
                        Level::Warning,
                        format!("the heart starts again in {:.1} s", pause.as_secs_f64()),
                    );
                    let why = || {
                        "the heart of this node is about to start again; ask again in some seconds".to_owned()
                    };
                    if self.leaving || self.attend(sleep(pause), why, AtLeave::Return).await.is_none() {
                        return Ok(end);
                    }
                    identity = self.begin_run()?;
                }
            }
        }
    }

    /// Ends before the first beat: the resources that were to go on running are stopped too.
    async fn stop_kept(
        &mut self,
        progress: &Progress,
        kept: SurveyFindings,
        left: bool,
    ) -> anyhow::Result<DaemonEnd> {
        let mut clean = !left;
        if !kept.is_empty() {
            let (agents, journal) = (self.parts.agents.clone(), self.parts.journal.clone());
            let stop = async move {
                let left = leftovers::sweep(&agents, &leftovers::kernel(), kept).await;
                say_what_is_left(&agents, &journal, &left);
                left.is_empty()
            };
            progress.begin_to_stop();
            clean &= self.attend(stop, || progress.tell(), AtLeave::GoOn).await.unwrap_or_default();
        }
        Ok(if clean { DaemonEnd::Clean } else { DaemonEnd::Unclean })
    }

    fn begin_run(&mut self) -> anyhow::Result<Identity> {
        let RunStart { identity, ledger } =
            self.parts.plan.begin_run(&self.parts.state, &self.parts.journal)?;
        self.ledger = ledger.map(|ledger| Arc::new(Mutex::new(ledger)));
        Ok(identity)
    }

    /// Changes to the next configuration between two runs of the heart.
    fn change(&mut self, kept: Holding) -> anyhow::Result<Identity> {
        let Some((_, next)) = self.next.take() else {
            return Ok(self.begin_run()?.with_past(kept, None));
        };
        let NextRun { config, equipment, identity } = *next;
        let Equipment { agents, events, heart, log } = equipment;
        if !self.parts.journal.redirect(log) {
            self.say(Level::Warning, "the log keeps its old targets: too many lines wait".to_owned());
        }
        if let Some(checks) = self.device_checks.take() {
            checks.abort();
        }
        if agents.host_config().clients != self.parts.agents.host_config().clients
            && let Some(clients) = self.clients.take()
        {
            let (free, room) = watch::channel(false);
            self.room = room;
            let journal = self.parts.journal.clone();
            tokio::spawn(async move {
                clients.stop(|note| journal.tell(&note)).await;
                free.send_replace(true);
            });
        }
        // The next run makes gates by the new name before it announces the addresses.
        let (before, now) = (self.parts.agents.host_config(), agents.host_config());
        if before.cluster != now.cluster {
            for (level, text) in leftovers::sweep_gates(before, &[]) {
                self.say(level, text);
            }
        }
        self.parts.parameters.send_replace(config.parameters);
        self.parts.known = config.diags;
        self.parts.plan = config.plan;
        (self.parts.agents, self.parts.events, self.parts.heart) = (agents, events, heart);
        self.ready = false;
        // Includes what was heard since the identity was made.
        Ok(identity.with_past(kept, self.heard))
    }

    /// One run of the heart: from the first beat to the exit.
    async fn live(&mut self, identity: Identity) -> io::Result<HeartRunEnd> {
        let director = self.parts.plan.director(self.keys.clone(), identity);
        let director = director.ok_or_else(|| {
            io::Error::other("the configuration and this node's identity are of different dialects")
        })?;
        let host_config = Arc::clone(self.parts.agents.host_config());
        let heart = heart::spawn(director, host_config, self.parts.heart.clone())
            .map_err(|error| io::Error::new(error.kind(), format!("the heart cannot be started: {error}")))?;
        let mut life = HeartRun::new(heart);
        self.run_number += 1;
        life.askers.append(&mut self.askers);
        life.ask();
        if self.leaving {
            // This was ordered in the earlier run, which ended for this one.
            self.reread_due = false;
            self.order_leave(&mut life, None);
        } else if mem::take(&mut self.reread_due) {
            self.hang_up(&mut life);
        }
        self.tell_load(&mut life);
        let end = loop {
            let blocked = !life.backlog.is_empty();
            tokio::select! {
                up = life.heart.next() => if let Some(end) = self.up(&mut life, up) {
                    break end;
                },
                Some((born, answer)) = self.done.1.recv() => if born == self.run_number {
                    life.send(answer);
                },
                // Not while the heart takes nothing: requests of people and scripts must not pile up here.
                Some(question) = self.parts.questions.recv(), if !blocked => self.question(&mut life, question),
                signal = self.signals.next() => self.signal(&mut life, signal),
                _ = self.load.tick() => self.tell_load(&mut life),
                _ = self.watchdog.tick() => self.watch(&mut life),
                () = sleep(RETRY_AFTER), if blocked => life.send_again(),
            }
        };
        if let HeartRunEnd::Renewed(_) = end {
            // The peer hears nothing until the next run beats, so nothing is waited for that can wait.
            self.askers.append(&mut life.askers);
            for (_, asker) in mem::take(&mut life.orders) {
                let why = "this node has just reloaded its configuration; ask again";
                let _ = asker.send(Answer::Refused(why.to_owned()));
            }
            life.end().await;
            return Ok(end);
        }
        self.take_leave().await;
        life.end().await;
        let remembering = mem::take(&mut self.remembering);
        let all = async {
            for one in remembering {
                let _ = one.await;
            }
        };
        // A disk that hangs must not hold up the end.
        let _ = timeout(REMEMBER_LIMIT, all).await;
        Ok(end)
    }

    /// Waits for `what` while no heart runs, and tells every client that asks why. An order to leave is remembered. The
    /// caller says whether it also ends the wait; the result is `None` then.
    async fn attend<T>(
        &mut self,
        what: impl Future<Output = T>,
        why: impl Fn() -> String,
        at_leave: AtLeave,
    ) -> Option<T> {
        let mut what = pin!(what);
        loop {
            if self.leaving && at_leave == AtLeave::Return {
                return None;
            }
            tokio::select! {
                done = &mut what => return Some(done),
                Some(question) = self.parts.questions.recv() => match question {
                    ControlQuestion::Order(OrderRequest { user_order: UserOrder::Leave, .. }, answer) => {
                        self.say(Level::Info, format!("ordered through the control socket: stop; {}", why()));
                        self.leave_askers.push(answer);
                        self.leave_when_done();
                    }
                    ControlQuestion::Order(_, answer) => drop(answer.send(Answer::Refused(why()))),
                    ControlQuestion::Status(answer) => drop(answer.send(Err(why()))),
                    // No heart runs. The next question for the status says so.
                    ControlQuestion::Measure(_) => {}
                    ControlQuestion::Say(_) => {
                        let text = format!("a message of a local script was dropped: {}", why());
                        self.say(Level::Warning, text);
                    }
                },
                signal = self.signals.next() => match signal {
                    SignalMeaning::Terminate(name) => {
                        self.say(Level::Info, format!("{name} received; {}", why()));
                        self.leave_when_done();
                    }
                    // The next run of the heart is told.
                    SignalMeaning::Reload => self.reread_due = true,
                    SignalMeaning::Debug(everything) => self.debug(everything),
                },
                _ = self.watchdog.tick() => self.parts.notify.alive(),
                _ = self.load.tick() => if self.leaving {
                    self.have_patience();
                },
            }
        }
    }

    fn leave_when_done(&mut self) {
        self.leaving = true;
        self.have_patience();
    }

    fn up(&mut self, life: &mut HeartRun, up: Up) -> Option<HeartRunEnd> {
        if !matches!(up, Up::Status { .. }) {
            // Something happened, so the status told before is out of date.
            life.newest = None;
        }
        match up {
            Up::Run { ticket, resource, operation, limit, epoch } => {
                self.run_agent(ticket, resource, operation, limit, epoch);
            }
            Up::Abandon(ticket) => {
                if let Some(end) = self.agents_at_work.remove(&ticket) {
                    let _ = end.send(());
                }
            }
            Up::Active => self.take_part(),
            Up::Fence { ticket, node } => self.fence(ticket, node),
            Up::EventScript { kind, fields, epoch } => self.run_event_script(kind, fields, epoch),
            Up::Reply { order, answer } => self.reply(life, order, answer),
            Up::Write(durable) => self.write(durable),
            Up::Remember { member, heard } => self.remember(member, heard),
            Up::Note { note, unix } => self.parts.journal.note(&note, unix),
            Up::Status { status, heart, .. } => self.status(life, status, *heart),
            Up::PortTaken(port) => self.find_holder(port),
            Up::Exit { keeps: Some(kept), .. } => return Some(HeartRunEnd::Renewed(kept)),
            Up::Exit { clean, restart: None, .. } => {
                return Some(HeartRunEnd::Final(if clean { DaemonEnd::Clean } else { DaemonEnd::Unclean }));
            }
            Up::Exit { restart: Some(pause), clean, .. } => {
                return Some(HeartRunEnd::Again(
                    pause,
                    if clean { DaemonEnd::Clean } else { DaemonEnd::Unclean },
                ));
            }
        }
        None
    }

    fn run_agent(
        &mut self,
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
        limit: Duration,
        epoch: Option<Epoch>,
    ) {
        let (agents, done, born) = (self.parts.agents.clone(), self.done.0.clone(), self.run_number);
        let (end, ended) = oneshot::channel::<()>();
        self.agents_at_work.retain(|_, end| !end.is_closed());
        self.agents_at_work.insert(ticket, end);
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = agents.run(resource, operation, limit, epoch.as_ref()) => outcome,
                // An operation that is dropped before its end is killed.
                Ok(()) = ended => Outcome::TimedOut,
            };
            // The receiver is gone only when the daemon ends.
            let _ = done.send((born, Down::Done { ticket, outcome }));
        });
    }

    fn find_holder(&self, port: u16) {
        let (done, born) = (self.done.0.clone(), self.run_number);
        errands::spawn_blocking(move || {
            let name = ports::holder(port);
            let _ = done.send((born, Down::PortHolder { port, name }));
        });
    }

    fn fence(&self, ticket: Ticket, node: NodeIndex) {
        let (agents, done, born) = (self.parts.agents.clone(), self.done.0.clone(), self.run_number);
        let name = self.parts.agents.host_config().members[node.0].clone();
        tokio::spawn(async move {
            let outcome = agents.fence(&name).await;
            let _ = done.send((born, Down::Fenced { ticket, outcome }));
        });
    }

    /// Communication is up: starts the clients that run beside the cluster, and checks the fencing device.
    fn take_part(&mut self) {
        if self.parts.agents.host_config().ipfail {
            self.say(
                Level::Info,
                "ipfail is built into Locum: the program of that name is not started".to_owned(),
            );
        }
        if self.clients.is_none() {
            self.clients = Some(Clients::start(&self.parts.agents, &self.parts.reboot, &self.room));
        }
        let agents = self.parts.agents.clone();
        self.device_checks = Some(tokio::spawn(async move {
            let mut checks = every(DEVICE_CHECK_EVERY);
            loop {
                checks.tick().await;
                agents.check_fencing().await;
            }
        }));
    }

    /// The heart has said that it ends: ends the clients that ran beside the cluster.
    async fn take_leave(&mut self) {
        if let Some(checks) = self.device_checks.take() {
            checks.abort();
        }
        let Some(clients) = self.clients.take() else { return };
        let mut stopping = pin!(clients.stop(|note| self.parts.journal.tell(&note)));
        let mut patience = every(LOAD_EVERY);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                _ = patience.tick() => {
                    self.parts.notify.alive();
                    if self.leaving {
                        self.have_patience();
                    }
                }
            }
        }
    }

    fn run_event_script(&mut self, kind: String, fields: Vec<(String, String)>, epoch: Option<Epoch>) {
        let waits = self.parts.events.offer(kind, fields, epoch);
        // Reported once for a row of messages, because a stranger may choose how many come.
        if !waits && !self.events_dropped {
            self.say(Level::Warning, "event scripts: too many messages wait; some are dropped".to_owned());
        }
        self.events_dropped = !waits;
    }

    fn remember(&mut self, member: MemberIndex, heard: LastHeard) {
        let host_config = self.parts.agents.host_config();
        let Some(name) = host_config.members.get(member.index()).cloned() else { return };
        // Our own generation was raised above the one that the other node has heard.
        if name != host_config.me {
            self.heard = Some(heard);
        }
        let (state, journal) = (Arc::clone(&self.parts.state), self.parts.journal.clone());
        let forgetful = Arc::clone(&self.forgetful);
        self.remembering.retain(|one| !one.is_finished());
        if self.remembering.len() >= REMEMBERING_MAX {
            // The disk hangs. The write is tried again every minute.
            return;
        }
        self.remembering.push(errands::on_disk(move || {
            // Reported once while it lasts: the write is tried again every minute for each member.
            let kept = state.remember(&name, heard);
            match (&kept, forgetful.swap(kept.is_err(), Ordering::Relaxed)) {
                (Err(error), false) => {
                    let text = format!("the generation of {name} cannot be stored: {error}{}", cure(error));
                    journal.say(Level::Error, text);
                }
                (Ok(()), true) => journal.say(Level::Info, "generations are stored again".to_owned()),
                _ => {}
            }
        }));
    }

    /// Writes to the ledger. The core asks for one write at a time.
    fn write(&self, durable: DurableState) {
        let (done, born, journal) = (self.done.0.clone(), self.run_number, self.parts.journal.clone());
        let ledger = self.ledger.clone();
        errands::on_disk(move || {
            let ok = ledger.is_some_and(|ledger| {
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let (ok, news) = ledger.try_to_write(&durable);
                if let Some(text) = news {
                    journal.say(Level::Error, text);
                }
                ok
            });
            let _ = done.send((born, Down::Written { ok }));
        });
    }

    // ---- people -------------------------------------------------------------------------------------------------

    fn question(&mut self, life: &mut HeartRun, question: ControlQuestion) {
        match question {
            ControlQuestion::Status(answer) => life.wants_status(answer),
            ControlQuestion::Order(request, answer) => {
                self.say(Level::Info, format!("ordered through the control socket: {}", request.user_order));
                match self.parts.plan.order(&request) {
                    Ok(Order::Leave) => self.order_leave(life, Some(answer)),
                    Ok(order) => {
                        let id = self.order(life, order);
                        life.orders.insert(id, answer);
                    }
                    Err(why) => drop(answer.send(Answer::Refused(why))),
                }
            }
            ControlQuestion::Measure(time) => life.send(Down::Measure(time)),
            ControlQuestion::Say(fields) => life.send(Down::Script(fields)),
        }
    }

    fn order(&mut self, life: &mut HeartRun, order: Order) -> OrderId {
        self.next_order += 1;
        let id = OrderId(self.next_order);
        life.send(Down::Order { id, order });
        id
    }

    /// Orders the heart to leave the cluster. The asker is answered when this daemon ends, so the order survives if the
    /// heart's run ends for another one at this moment.
    fn order_leave(&mut self, life: &mut HeartRun, asker: Option<oneshot::Sender<Answer>>) {
        self.leave_askers.extend(asker);
        self.leave_when_done();
        if !mem::replace(&mut life.leaves, true) {
            self.order(life, Order::Leave);
        }
    }

    fn reply(&mut self, life: &mut HeartRun, order: OrderId, answer: Answer) {
        let refused = matches!(answer, Answer::Refused(_) | Answer::TimedOut(_));
        if refused && self.next.take_if(|(renewal, _)| *renewal == order).is_some() {
            let text = "the old configuration stays in use: send HUP again for the new one";
            self.say(Level::Warning, text.to_owned());
            if !self.leaving {
                self.parts.notify.ready("the old configuration stays in use");
            }
        }
        // The asker may have gone meanwhile. The log holds the result.
        life.orders.remove(&order).map(|asker| asker.send(answer));
    }

    fn signal(&mut self, life: &mut HeartRun, signal: SignalMeaning) {
        match signal {
            SignalMeaning::Terminate(name) if self.leaving => {
                self.say(Level::Info, format!("{name} received again: still leaving"));
            }
            SignalMeaning::Terminate(name) => {
                self.say(Level::Info, format!("{name} received: leaving the cluster"));
                self.order_leave(life, None);
            }
            SignalMeaning::Debug(everything) => self.debug(everything),
            SignalMeaning::Reload if self.leaving => {
                self.say(
                    Level::Info,
                    "HUP received while leaving: the configuration is not read again".to_owned(),
                );
            }
            SignalMeaning::Reload => self.hang_up(life),
        }
    }

    /// USR1 and USR2: change how much is logged, as in heartbeat.
    fn debug(&self, everything: bool) {
        self.parts.journal.debug(everything);
        let now =
            if everything { "everything, with debug lines" } else { "the levels that were set at the start" };
        self.say(Level::Info, format!("log: writes from now on {now}"));
    }

    /// HUP: uses new keys at once. For other changes a new run of the heart begins as soon as no group moves;
    /// everything goes on running meanwhile. Changes of what runs where are named in the log, and nothing is done.
    fn hang_up(&mut self, life: &mut HeartRun) {
        self.parts.notify.reloading();
        let Reread { keys, config, losses } = (self.parts.reread)(&self.parts.known);
        self.parts.heart.losses.clone_from(&losses);
        life.send(Down::Losses(losses));
        let same_keys = keys.as_ref() == Some(&self.keys);
        match keys {
            Some(keys) => {
                self.keys = keys.clone();
                life.send(Down::Keys(keys));
            }
            None => {
                let file = self.parts.plan.key_file();
                self.say(Level::Error, format!("{file} has errors: the old keys stay in use"));
            }
        }
        let changes = match config {
            Some(config) => self.compare(life, config, same_keys),
            None => {
                let text = "the configuration has errors: the old one stays in use, but a restart would fail";
                self.say(Level::Error, text.to_owned());
                false
            }
        };
        if self.ready && !changes {
            self.parts.notify.ready("configuration reread");
        }
    }

    /// Whether a new run of the heart is to begin.
    fn compare(&mut self, life: &mut HeartRun, config: Config, same_keys: bool) -> bool {
        let mut changes = self.parts.plan.changes(&config.plan);
        if changes == Changes::default() && *self.parts.parameters.borrow() != config.parameters {
            changes.reload.push("the variables of ha.cf that scripts get".to_owned());
        }
        for change in &changes.restart {
            self.say(
                Level::Warning,
                format!("configuration: this change needs a restart of the daemon: {change}"),
            );
        }
        if !changes.restart.is_empty() {
            return false;
        }
        // A change that was taken back before it was applied leaves nothing to do, but another order may be on its way.
        if changes.reload.is_empty() && self.next.is_none() {
            let text = match same_keys {
                true => "Configuration unchanged.",
                false => "no changes",
            };
            let files = self.parts.plan.files();
            let text = if same_keys { text.to_owned() } else { format!("{files}: {text}") };
            self.say(Level::Info, text);
            return false;
        }
        for change in &changes.reload {
            self.say(Level::Info, format!("configuration: changed: {change}"));
        }
        let born = config.plan.begin_run(&self.parts.state, &self.parts.journal);
        let identity = match born {
            Ok(RunStart { identity, .. }) => identity,
            Err(error) => {
                self.say(
                    Level::Error,
                    format!(
                        "the configuration cannot be reloaded: {error}; the old configuration stays in use"
                    ),
                );
                return false;
            }
        };
        let mut equipment = (self.parts.equip)(&config);
        equipment.heart.losses.clone_from(&self.parts.heart.losses);
        self.say(Level::Info, "Heartbeat restart triggered.".to_owned());
        let order = self.order(life, Order::Reload);
        self.next = Some((order, Box::new(NextRun { config, equipment, identity })));
        true
    }

    // ---- status -------------------------------------------------------------------------------------------------

    fn status(&mut self, life: &mut HeartRun, status: heart::Status, heart: HeartStats) {
        if !self.ready {
            self.ready = true;
            if let Some(reason) = &heart.realtime_refused {
                self.say(
                    Level::Warning,
                    format!("real-time scheduling is missing: {reason}; beats may be late on a busy machine"),
                );
            }
            if let Some(reason) = &heart.lock_refused {
                self.say(
                    Level::Warning,
                    format!("memory is not locked: {reason}; beats may be late when memory is short"),
                );
            }
            let HostConfig { me, cluster, .. } = self.parts.agents.host_config().as_ref();
            if !self.leaving {
                self.parts.notify.ready(&format!("{me} in cluster {cluster}"));
            }
        }
        let host_config = self.parts.agents.host_config();
        let service_interfaces = report::service_interfaces(host_config);
        let daemon = report::DaemonInfo {
            ipfail: host_config.ipfail,
            control_groups_missing: self.parts.agents.control_groups_missing(),
            rights_missing: rights::lacks(host_config)
                .into_iter()
                .filter(|lack| lack.is_trouble)
                .map(|lack| lack.to_string())
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.parts.config_dir.display().to_string(),
        };
        let report = match status {
            heart::Status::R1(cluster) => AnyStatusReport::R1(Box::new(StatusReport {
                cluster: *cluster,
                daemon,
                heart,
                service_interfaces,
            })),
            heart::Status::Native(cluster) => AnyStatusReport::Native(Box::new(StatusReport {
                cluster: *cluster,
                daemon,
                heart,
                service_interfaces,
            })),
        };
        let text = report.write().map_err(|error| error.to_string());
        life.answer_askers(text.map(|text| StateText { text: text.into(), digest: report.stable_digest() }));
    }

    // ---- the service manager ------------------------------------------------------------------------------------

    fn tell_load(&self, life: &mut HeartRun) {
        if let Ok(text) = fs::read_to_string("/proc/loadavg") {
            life.send(Down::Load(text.lines().next().unwrap_or_default().to_owned()));
        }
        if self.leaving {
            self.have_patience();
        }
    }

    fn have_patience(&self) {
        self.parts.notify.stopping(3 * LOAD_EVERY);
    }

    /// Tells the service manager's watchdog that the daemon lives. That this runs shows that the control plane makes
    /// progress; the heart's counter shows it for the heart.
    fn watch(&mut self, life: &mut HeartRun) {
        let progress = life.heart.progress();
        if life.watch.moved(progress) {
            self.parts.notify.alive();
        } else {
            self.say(Level::Critical, "the heart makes no progress".to_owned());
        }
    }

    fn say(&self, level: Level, text: String) {
        self.parts.journal.say(level, text);
    }
}

/// The result of the sweep.
#[derive(Debug, Default)]
struct Swept {
    /// Something that could not be stopped may still run.
    left: bool,
    /// The resources that ran and go on running.
    kept: SurveyFindings,
    /// The resources that surely ran and could not be stopped.
    stop_failed: Vec<ResourceId>,
}

/// Stops whatever runs of our groups before this node sends its first beat, and removes the gates that are no longer
/// needed.
async fn sweep(agents: Agents, journal: Journal, progress: Progress) -> Swept {
    let swept = sweep_groups(&agents, &journal, &progress).await;
    let (host_config, held) = (Arc::clone(agents.host_config()), swept.stop_failed.clone());
    let gates = errands::spawn_blocking(move || leftovers::sweep_gates(&host_config, &held)).await;
    for (level, text) in gates.unwrap_or_default() {
        journal.say(level, text);
    }
    swept
}

async fn sweep_groups(agents: &Agents, journal: &Journal, progress: &Progress) -> Swept {
    let addresses = leftovers::kernel();
    let found = leftovers::survey(agents, &addresses, progress).await;
    if agents.host_config().is_only_node {
        return adopt(agents, found);
    }
    let surely: Vec<ResourceId> =
        found.iter().filter(|(_, status)| *status == Outcome::Running).map(|(id, _)| *id).collect();
    progress.begin_to_stop();
    let left = leftovers::sweep(agents, &addresses, found).await;
    say_what_is_left(agents, journal, &left);
    let is_left = !left.is_empty();
    let stuck = left.into_iter().map(|(id, _)| id).filter(|id| surely.contains(id)).collect();
    Swept { left: is_left, kept: Vec::new(), stop_failed: stuck }
}

fn say_what_is_left(agents: &Agents, journal: &Journal, left: &SurveyFindings) {
    if left.is_empty() {
        return;
    }
    let names: Vec<&str> = left.iter().map(|(id, _)| agents.host_config().name(*id)).collect();
    let names = names.join(" ");
    let text = format!(
        "left running by an earlier daemon, and cannot be stopped: {names}: they may run on both nodes; \
                 stop them by hand or reboot this node"
    );
    journal.say(Level::Critical, text);
}

/// If no other node can own it, a running resource may go on: the first start finds it running.
fn adopt(agents: &Agents, found: SurveyFindings) -> Swept {
    for (id, _) in found.iter().filter(|(_, status)| *status == Outcome::Running) {
        let name = agents.host_config().name(*id);
        agents.note(
            *id,
            Level::Info,
            format!("{name} was left running by an earlier daemon: kept, because no other node can run it"),
        );
    }
    Swept { left: false, kept: found, stop_failed: Vec::new() }
}

/// The state that belongs to one run of the heart.
struct HeartRun {
    heart: heart::Handle,
    /// What the ring had no room for, oldest first.
    backlog: VecDeque<Down>,
    orders: BTreeMap<OrderId, oneshot::Sender<Answer>>,
    /// The heart was told to leave.
    leaves: bool,
    /// Clients that wait for the status.
    askers: Vec<oneshot::Sender<StateResult>>,
    asked: bool,
    newest: Option<(Instant, StateText)>,
    watch: Watch,
}

impl HeartRun {
    fn new(heart: heart::Handle) -> Self {
        Self {
            heart,
            backlog: VecDeque::new(),
            orders: BTreeMap::new(),
            leaves: false,
            askers: Vec::new(),
            asked: false,
            newest: None,
            watch: Watch::default(),
        }
    }

    /// Hands a message to the heart, in order: now, or when there is room.
    fn send(&mut self, down: Down) {
        self.backlog.push_back(down);
        self.send_again();
    }

    fn send_again(&mut self) {
        while let Some(down) = self.backlog.pop_front() {
            if let Err(down) = self.heart.send(down) {
                self.backlog.push_front(down);
                return;
            }
        }
    }

    fn wants_status(&mut self, answer: oneshot::Sender<StateResult>) {
        match &self.newest {
            Some((taken, status)) if taken.elapsed() < STATUS_AGE_MAX => {
                drop(answer.send(Ok(status.clone())))
            }
            _ => {
                self.askers.retain(|asker| !asker.is_closed());
                self.askers.push(answer);
                self.ask();
            }
        }
    }

    /// Asks the heart for its status. One question serves all who wait.
    fn ask(&mut self) {
        if !mem::replace(&mut self.asked, true) {
            self.send(Down::Status { request: 0 });
        }
    }

    fn answer_askers(&mut self, told: StateResult) {
        self.asked = false;
        if let Ok(status) = &told {
            self.newest = Some((Instant::now(), status.clone()));
        }
        for asker in self.askers.drain(..) {
            // The asker may have gone meanwhile.
            let _ = asker.send(told.clone());
        }
    }

    async fn end(self) {
        // The heart has said that it ends. Messages still on their way to it no longer matter.
        let _ = self.heart.send(Down::Stop);
        let _ = errands::spawn_blocking(move || self.heart.join()).await;
    }
}

/// Checks whether the heart makes progress, by its counter at each check.
#[derive(Debug, Default)]
struct Watch {
    last: Option<u64>,
}

impl Watch {
    fn moved(&mut self, progress: u64) -> bool {
        self.last.replace(progress) != Some(progress)
    }
}

/// The meaning of a signal.
enum SignalMeaning {
    Terminate(&'static str),
    Reload,
    /// Whether everything is logged, or only as much as was asked for at the start.
    Debug(bool),
}

/// The signals that this daemon receives.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    /// Receives the signals from now on. Needs a runtime around it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> SignalMeaning {
        tokio::select! {
            _ = self.term.recv() => SignalMeaning::Terminate("TERM"),
            _ = self.int.recv() => SignalMeaning::Terminate("INT"),
            _ = self.hup.recv() => SignalMeaning::Reload,
            _ = self.usr1.recv() => SignalMeaning::Debug(true),
            _ = self.usr2.recv() => SignalMeaning::Debug(false),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heart_that_stands_still_is_seen() {
        let mut watch = Watch::default();
        let looks = [0, 0, 7, 7, 8].map(|progress| watch.moved(progress));
        assert_eq!(looks, [true, false, true, false, true]);
    }
}
