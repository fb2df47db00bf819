//! The control socket, `control` in the run directory: HTTP/1.1 over a Unix socket, so that every HTTP client can ask
//! (`curl --unix-socket /run/locum/control http://locum/status`).
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | the state of everything, JSON |
//! | `GET /status/watch` | the same whenever it changed and at least every five seconds, one JSON text a line, for ever |
//! | `GET /parameters` | the parameters of `ha.cf` as scripts see them, a JSON object of texts |
//! | `POST /standby` `{"set": "all"}` | an [`OrderOutcome`]; sets are all, foreign, local, failback |
//! | `POST /takeover` `{"set": "all"}` | an [`OrderOutcome`] |
//! | `POST /move` `{"group": "web", "to": "web2"}` | an [`OrderOutcome`]; without `to` to the best node. Native only |
//! | `POST /online` | an [`OrderOutcome`]: the end of a standby. Native only |
//! | `POST /maintenance` `{"on": true}` | an [`OrderOutcome`]. Native only |
//! | `POST /freeze` `{"group": "web", "on": true}` | an [`OrderOutcome`]. Native only |
//! | `POST /measure` `{"seconds": 60}` | an [`OrderOutcome`]: begun; the status then shows how late the heart was,
//! as `heart.measured` |
//! | `POST /say` `{"fields": [["t", "setweight"], …]}` | an [`OrderOutcome`]: begun; the message is what a script
//! wrote to the FIFO |
//! | `POST /stop` `{"wait": true}` | an [`OrderOutcome`] when the daemon ends; without `wait`: begun |
//!
//! The file decides about connecting: mode 0660, owner root, group `haclient` if there is one. Every caller may read.
//! Only root, and the user of the daemon's process, may change anything; the kernel names the caller.
//!
//! No caller can delay the daemon. Bodies and connections are limited, root's apart from those of others, so that root
//! always gets through. A request that does not arrive is not waited for (`connections`). A slow watcher only misses
//! the states in between.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, DefaultBodyLimit, Request as HttpRequest, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_core::Stream;
use locum_core::model::{note::Escaped, order::Answer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    connections::{BoundedListener, SILENCE_MAX, SocketCaller, WatcherGuard},
    feed::{StateFeed, StateText},
};

/// The socket's name in the run directory.
pub const NAME: &str = "control";
/// The group that may connect and read.
const GROUP: &str = "haclient";
/// Bytes of a request's body at most.
const BODY_MAX: usize = 4096;
/// How long the heart may take to report its state.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long an order with `wait: false` still waits for a refusal.
const REFUSAL_LIMIT: Duration = Duration::from_millis(500);

/// A request of the socket that the daemon must answer.
#[derive(Debug)]
pub enum ControlQuestion {
    /// Report the state of everything, as JSON.
    Status(oneshot::Sender<StateResult>),
    /// Perform an order, and send its outcome.
    Order(OrderRequest, oneshot::Sender<Answer>),
    /// Count for this time how late the heart is at a tick of 10 ms; the status shows the result.
    Measure(Duration),
    /// Send a message of a local script, with its fields in order.
    Say(Vec<(String, String)>),
}

/// An order and the user who gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    pub user_order: UserOrder,
    /// The number of the user.
    pub user: u32,
}

/// An order as it was written: the daemon checks which groups and nodes there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserOrder {
    /// Give groups to other nodes. In a native cluster: all groups, and take none.
    Standby(GroupSet),
    /// Take groups from the other node.
    Takeover(GroupSet),
    /// End the standby: own groups again.
    Online,
    /// Watch everything in the whole cluster, and start, stop and move nothing.
    Maintenance {
        /// Whether maintenance begins or ends.
        on: bool,
    },
    /// The same as maintenance, for one group.
    Freeze {
        group: String,
        /// Whether the freeze begins or ends.
        on: bool,
    },
    /// Move a group to another node.
    Move {
        group: String,
        /// The node that is to run it. Without one the core chooses the best.
        to: Option<String>,
    },
    /// Leave the cluster and end the daemon.
    Leave,
}

/// The state of everything, or the reason why it is not available.
pub type StateResult = Result<StateText, String>;

/// The outcome of an order, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderOutcome {
    /// The kind of outcome, in one word.
    pub outcome: OutcomeKind,
    /// The outcome as a sentence.
    pub text: String,
}

/// The kind of outcome of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// It is done. HTTP 200.
    Done,
    /// It was begun, and the caller does not wait for its end. HTTP 202.
    Begun,
    /// It will not be done. HTTP 409.
    Refused,
    /// It was begun and did not end in time. HTTP 504.
    TimedOut,
    /// The caller may not ask for it. HTTP 403.
    Forbidden,
    /// The daemon is too busy or about to end. HTTP 503.
    Unavailable,
}

impl IntoResponse for OrderOutcome {
    fn into_response(self) -> Response {
        let code = match self.outcome {
            OutcomeKind::Done => StatusCode::OK,
            OutcomeKind::Begun => StatusCode::ACCEPTED,
            OutcomeKind::Refused => StatusCode::CONFLICT,
            OutcomeKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            OutcomeKind::Forbidden => StatusCode::FORBIDDEN,
            OutcomeKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, Json(self)).into_response()
    }
}

impl From<Answer> for OrderOutcome {
    fn from(answer: Answer) -> Self {
        let (outcome, text) = match answer {
            Answer::Done(text) => (OutcomeKind::Done, text),
            Answer::Refused(text) => (OutcomeKind::Refused, text),
            Answer::TimedOut(text) => (OutcomeKind::TimedOut, text),
        };
        Self { outcome, text }
    }
}

fn forbidden() -> OrderOutcome {
    OrderOutcome {
        outcome: OutcomeKind::Forbidden,
        text: "only root may give orders to the cluster: run the command as root".to_owned(),
    }
}

fn begun() -> OrderOutcome {
    OrderOutcome { outcome: OutcomeKind::Begun, text: "begun".to_owned() }
}

fn unavailable(text: &str) -> OrderOutcome {
    OrderOutcome { outcome: OutcomeKind::Unavailable, text: text.to_owned() }
}

/// The set of groups that an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GroupSet {
    /// The groups of both sets
    All,
    /// Groups that prefer the other node
    Foreign,
    /// Groups that prefer this node
    Local,
    /// Groups that return to their preferred node: `foreign` for standby, `local` for takeover
    Failback,
}

impl GroupSet {
    /// The name of the set in commands.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Foreign => "foreign",
            Self::Local => "local",
            Self::Failback => "failback",
        }
    }
}

/// The order as the log shows it.
impl fmt::Display for UserOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |text: &str| Escaped(text.as_bytes()).to_string();
        let end = |on: &bool| if *on { "" } else { " ends" };
        match self {
            Self::Standby(set) => write!(f, "standby {}", set.word()),
            Self::Takeover(set) => write!(f, "takeover {}", set.word()),
            Self::Online => f.write_str("online"),
            Self::Maintenance { on } => write!(f, "maintenance{}", end(on)),
            Self::Freeze { group, on } => write!(f, "freeze {}{}", safe(group), end(on)),
            Self::Move { group, to: None } => write!(f, "move {}", safe(group)),
            Self::Move { group, to: Some(to) } => write!(f, "move {} {}", safe(group), safe(to)),
            Self::Leave => f.write_str("stop"),
        }
    }
}

/// The body of `POST /standby` and `POST /takeover`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveSetOrder {
    pub set: GroupSet,
    /// Whether the answer comes with the outcome, or as soon as the order was begun.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// The body of `POST /move`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveGroupOrder {
    pub group: String,
    /// The node that is to run it. Without one the core chooses the best.
    #[serde(default)]
    pub to: Option<String>,
    /// Whether the answer comes with the outcome, or as soon as the order was begun.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// The body of `POST /maintenance`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceOrder {
    /// Whether maintenance begins or ends.
    pub on: bool,
}

/// The body of `POST /freeze`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeOrder {
    pub group: String,
    /// Whether the freeze begins or ends.
    pub on: bool,
}

/// The body of `POST /measure`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureOrder {
    /// The time to measure, in seconds; at most an hour.
    pub seconds: u32,
}

/// The body of `POST /stop`, which may be empty.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopOrder {
    /// Whether the answer comes when the daemon ends, or as soon as the leave was begun.
    #[serde(default)]
    pub wait: bool,
}

/// The body of `POST /say`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SayOrder {
    /// Names and values in order, `t` (the type) among them.
    pub fields: Vec<(String, String)>,
}

fn yes() -> bool {
    true
}

/// Opens the socket in the run directory. Replaces the socket of a killed daemon: the caller holds the directory's
/// lock, so no other daemon answers there.
///
/// # Errors
/// If the directory cannot be written.
pub fn open(run_dir: &Path) -> io::Result<UnixListener> {
    let path = run_dir.join(NAME);
    // Made under another name and renamed when its mode is right, so that no caller can connect before.
    let fresh = run_dir.join(format!(".{NAME}.new"));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
    if let Some(gid) = group_id(GROUP) {
        // Without root the group stays our own, and members of `haclient` cannot ask. Nothing else depends on it.
        let _ = std::os::unix::fs::chown(&fresh, None, Some(gid));
    }
    fs::rename(&fresh, &path)?;
    Ok(listener)
}

/// The number of a group, from `/etc/group`. A name service is not used: its libraries may block.
fn group_id(name: &str) -> Option<u32> {
    group_in(&fs::read_to_string("/etc/group").ok()?, name)
}

fn group_in(file: &str, name: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.trim().parse().ok())?
    })
}

/// Answers requests until it is dropped. Questions for the daemon come out of the other end of `questions`;
/// `parameters` holds the present parameters of `ha.cf`.
pub async fn serve(
    listener: UnixListener,
    questions: mpsc::Sender<ControlQuestion>,
    parameters: watch::Receiver<BTreeMap<String, String>>,
) {
    let listener = BoundedListener::new(listener);
    let (feed, asking) = (StateFeed::new(), questions.clone());
    let asker = QuestionSender { questions, feed: feed.clone() };
    let make = router(asker, parameters).into_make_service_with_connect_info::<SocketCaller>();
    let serving = async {
        // Ends with an error only if accepting does, and our listener never reports one.
        let _ = axum::serve(listener, make).await;
    };
    tokio::select! { () = serving => {}, () = feed.run(|| state(asking.clone())) => {} }
}

fn router(asker: QuestionSender, parameters: watch::Receiver<BTreeMap<String, String>>) -> Router {
    Router::new()
        .route("/parameters", get(async move || Json(parameters.borrow().clone())))
        .route("/status", get(status))
        .route("/status/watch", get(watch))
        .route("/standby", post(standby))
        .route("/takeover", post(takeover))
        .route("/move", post(move_group))
        .route("/online", post(online))
        .route("/maintenance", post(maintenance))
        .route("/freeze", post(freeze))
        .route("/measure", post(measure))
        .route("/say", post(say))
        .route("/stop", post(stop))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(asker)
}

/// Reads the whole request before anything is done for it. It must arrive within [`SILENCE_MAX`]; the answer may take
/// as long as it needs.
async fn in_time(ConnectInfo(caller): ConnectedCaller, request: HttpRequest, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let too_long = HttpBody::size_hint(&body).lower() > BODY_MAX as u64;
    let body = match timeout(SILENCE_MAX, axum::body::to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) if too_long => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        // The connection was given up, or is about to be.
        Ok(Err(_)) | Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let _busy = caller.busy();
    next.run(HttpRequest::from_parts(head, Body::from(body))).await
}

#[derive(Clone)]
struct QuestionSender {
    questions: mpsc::Sender<ControlQuestion>,
    feed: StateFeed,
}

impl QuestionSender {
    async fn status(&self) -> Result<StateText, OrderOutcome> {
        state(self.questions.clone()).await
    }

    async fn order(&self, caller: SocketCaller, wish: UserOrder, wait: bool) -> OrderOutcome {
        if !caller.may_change {
            return forbidden();
        }
        let (answer, ready) = oneshot::channel();
        let request = OrderRequest { user_order: wish, user: caller.user };
        if self.questions.send(ControlQuestion::Order(request, answer)).await.is_err() {
            return unavailable("the daemon is ending");
        }
        let answer = if wait { Ok(ready.await) } else { timeout(REFUSAL_LIMIT, ready).await };
        match answer {
            Ok(Ok(answer)) => answer.into(),
            Ok(Err(_)) => unavailable("the daemon ended before the order was done"),
            Err(_) => begun(),
        }
    }
}

async fn state(questions: mpsc::Sender<ControlQuestion>) -> Result<StateText, OrderOutcome> {
    let (answer, wait) = oneshot::channel();
    let told = async {
        questions.send(ControlQuestion::Status(answer)).await.ok()?;
        wait.await.ok()
    };
    match timeout(STATUS_LIMIT, told).await {
        Ok(Some(told)) => told.map_err(|why| unavailable(&why)),
        Ok(None) => Err(unavailable("the daemon is ending")),
        Err(_) => Err(unavailable("the heart (the daemon's real-time thread) does not answer")),
    }
}

async fn status(State(asker): State<QuestionSender>) -> Response {
    match asker.status().await {
        Ok(status) => ([(header::CONTENT_TYPE, "application/json")], status.text).into_response(),
        Err(outcome) => outcome.into_response(),
    }
}

async fn watch(
    State(QuestionSender { feed, .. }): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
) -> Response {
    let Some(watching) = caller.watch() else {
        return unavailable("too many watchers: end one of them (`locum status --watch`)").into_response();
    };
    // One piece in flight: a slow reader then gets the newest state and not all that it missed.
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(WatchStream(feed.subscribe(), watching))).into_response()
}

/// The stream of a watcher's pieces, with its place.
struct WatchStream(
    mpsc::Receiver<Bytes>,
    #[expect(dead_code, reason = "a place that is given back when it is dropped")] WatcherGuard,
);

impl Stream for WatchStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

type ConnectedCaller = ConnectInfo<SocketCaller>;

async fn standby(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(order): Json<MoveSetOrder>,
) -> OrderOutcome {
    asker.order(caller, UserOrder::Standby(order.set), order.wait).await
}

async fn takeover(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(order): Json<MoveSetOrder>,
) -> OrderOutcome {
    asker.order(caller, UserOrder::Takeover(order.set), order.wait).await
}

async fn move_group(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(MoveGroupOrder { group, to, wait }): Json<MoveGroupOrder>,
) -> OrderOutcome {
    asker.order(caller, UserOrder::Move { group, to }, wait).await
}

async fn online(State(asker): State<QuestionSender>, ConnectInfo(caller): ConnectedCaller) -> OrderOutcome {
    asker.order(caller, UserOrder::Online, true).await
}

async fn maintenance(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(MaintenanceOrder { on }): Json<MaintenanceOrder>,
) -> OrderOutcome {
    asker.order(caller, UserOrder::Maintenance { on }, true).await
}

async fn freeze(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(FreezeOrder { group, on }): Json<FreezeOrder>,
) -> OrderOutcome {
    asker.order(caller, UserOrder::Freeze { group, on }, true).await
}

async fn measure(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(body): Json<MeasureOrder>,
) -> OrderOutcome {
    if !caller.may_change {
        return forbidden();
    }
    let time = Duration::from_secs(u64::from(body.seconds.min(3600)));
    match asker.questions.send(ControlQuestion::Measure(time)).await {
        Ok(()) => begun(),
        Err(_) => unavailable("the daemon is ending"),
    }
}

async fn say(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    Json(message): Json<SayOrder>,
) -> OrderOutcome {
    if !caller.may_change {
        return forbidden();
    }
    match asker.questions.send(ControlQuestion::Say(message.fields)).await {
        Ok(()) => begun(),
        Err(_) => unavailable("the daemon is ending"),
    }
}

async fn stop(
    State(asker): State<QuestionSender>,
    ConnectInfo(caller): ConnectedCaller,
    body: Bytes,
) -> Response {
    let stop = if body.is_empty() { Ok(StopOrder::default()) } else { serde_json::from_slice(&body) };
    match stop {
        Ok(StopOrder { wait }) => asker.order(caller, UserOrder::Leave, wait).await.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// The side that asks: blocking, for commands.
#[derive(Clone, Debug)]
pub struct ControlClient {
    path: PathBuf,
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// No process listens on the socket of this path.
    #[error("no daemon runs here: nothing answers at {}; start it with `systemctl start locum`", .0.display())]
    NotRunning(PathBuf),
    /// The file's mode or the daemon refuses.
    #[error("no permission: {0}")]
    NoPermission(String),
    /// The daemon accepts the connection but does not answer in time.
    #[error("the daemon does not answer in time")]
    TimedOut,
    /// The daemon does not answer properly, with the reason.
    #[error("the daemon does not answer: {0}")]
    Broken(String),
    /// The daemon answers that it cannot do this now, with its reason.
    #[error("{0}")]
    NotNow(String),
}

impl ClientFault {
    /// The exit code that commands use for this fault.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning(_) => 3,
            Self::NoPermission(_) => 4,
            Self::Broken(_) | Self::NotNow(_) | Self::TimedOut => 1,
        }
    }
}

impl ControlClient {
    /// Bytes of an answer that are read at most.
    const ANSWER_MAX: u64 = 16 << 20;

    /// A client of the daemon with this run directory. Opens nothing yet.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self { path: run_dir.join(NAME) }
    }

    /// Returns the state of everything, as JSON.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn status(&self) -> Result<String, ClientFault> {
        let mut answer = self.ask("GET", "/status", "", Some(STATUS_LIMIT + Duration::from_secs(2)))?;
        let body = answer.text()?;
        if answer.code == 200 { Ok(body) } else { Err(refusal(answer.code, &body)) }
    }

    /// Returns the states as they change, one JSON text per line, until the daemon ends.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn watch(&self) -> Result<impl BufRead + use<>, ClientFault> {
        let mut answer = self.ask("GET", "/status/watch", "", None)?;
        if answer.code == 200 { Ok(answer.body) } else { Err(refusal(answer.code, &answer.text()?)) }
    }

    /// Orders a move of groups; `path` is `/standby` or `/takeover`. Waits without limit: the daemon has its own.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn order(&self, path: &str, order: MoveSetOrder) -> Result<OrderOutcome, ClientFault> {
        self.post(path, &order)
    }

    /// Returns the parameters of `ha.cf` as scripts see them.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn parameters(&self) -> Result<BTreeMap<String, String>, ClientFault> {
        let mut answer = self.ask("GET", "/parameters", "", Some(STATUS_LIMIT))?;
        let body = answer.text()?;
        if answer.code != 200 {
            return Err(refusal(answer.code, &body));
        }
        serde_json::from_str(&body).map_err(|error| ClientFault::Broken(error.to_string()))
    }

    /// Sends a message to the cluster, as a script does through the FIFO.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn say(&self, fields: Vec<(String, String)>) -> Result<OrderOutcome, ClientFault> {
        self.post("/say", &SayOrder { fields })
    }

    /// Orders a native cluster to move a group. Waits without limit: the daemon has its own.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn move_group(&self, order: &MoveGroupOrder) -> Result<OrderOutcome, ClientFault> {
        self.post("/move", order)
    }

    /// Ends this node's standby.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn online(&self) -> Result<OrderOutcome, ClientFault> {
        self.outcome("/online", "")
    }

    /// Begins or ends maintenance of the whole cluster.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn maintenance(&self, order: MaintenanceOrder) -> Result<OrderOutcome, ClientFault> {
        self.post("/maintenance", &order)
    }

    /// Freezes a group, or ends that.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn freeze(&self, order: &FreezeOrder) -> Result<OrderOutcome, ClientFault> {
        self.post("/freeze", order)
    }

    /// Asks the daemon to leave the cluster. With `wait` the answer comes when the daemon ends, however long that
    /// takes.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn stop(&self, stop: StopOrder) -> Result<OrderOutcome, ClientFault> {
        self.post("/stop", &stop)
    }

    /// Makes the heart measure how late it is; the status shows the result.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn measure(&self, measure: MeasureOrder) -> Result<OrderOutcome, ClientFault> {
        self.post("/measure", &measure)
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<OrderOutcome, ClientFault> {
        let body = serde_json::to_string(body).map_err(|error| ClientFault::Broken(error.to_string()))?;
        self.outcome(path, &body)
    }

    fn outcome(&self, path: &str, body: &str) -> Result<OrderOutcome, ClientFault> {
        let mut answer = self.ask("POST", path, body, None)?;
        let text = answer.text()?;
        match serde_json::from_str(&text) {
            Ok(OrderOutcome { outcome: OutcomeKind::Forbidden, text }) => {
                Err(ClientFault::NoPermission(text))
            }
            Ok(OrderOutcome { outcome: OutcomeKind::Unavailable, text }) => Err(ClientFault::NotNow(text)),
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(refusal(answer.code, &text)),
        }
    }

    /// Sends a request as HTTP/1.0: the answer ends with the connection, so no chunks have to be parsed.
    fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        limit: Option<Duration>,
    ) -> Result<HttpReply, ClientFault> {
        let mut stream =
            std::os::unix::net::UnixStream::connect(&self.path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientFault::NotRunning(self.path.clone())
                }
                io::ErrorKind::PermissionDenied => ClientFault::NoPermission(format!(
                    "{} is only for root and members of the group {GROUP}",
                    self.path.display()
                )),
                _ => broken(error),
            })?;
        stream.set_read_timeout(limit).map_err(broken)?;
        stream.set_write_timeout(Some(STATUS_LIMIT)).map_err(broken)?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: locum\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => ClientFault::Broken("it has too many connections now".to_owned()),
            _ => broken(error),
        })?;
        HttpReply::read(stream)
    }
}

fn broken(error: io::Error) -> ClientFault {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientFault::TimedOut,
        _ => ClientFault::Broken(error.to_string()),
    }
}

/// The fault that an unexpected answer stands for.
fn refusal(code: u16, body: &str) -> ClientFault {
    let text = serde_json::from_str(body).map_or_else(|_| body.to_owned(), |OrderOutcome { text, .. }| text);
    match code {
        403 => ClientFault::NoPermission(text),
        503 => ClientFault::NotNow(text),
        _ => ClientFault::Broken(format!("{text} (HTTP {code})")),
    }
}

/// An answer whose body is not read yet.
struct HttpReply {
    code: u16,
    body: BufReader<std::os::unix::net::UnixStream>,
}

impl HttpReply {
    fn read(stream: std::os::unix::net::UnixStream) -> Result<Self, ClientFault> {
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        (&mut body).take(1024).read_line(&mut line).map_err(broken)?;
        let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let code = code.ok_or_else(|| ClientFault::Broken("it closed the connection".to_owned()))?;
        // No header field is needed.
        for _ in 0..64 {
            line.clear();
            (&mut body).take(8192).read_line(&mut line).map_err(broken)?;
            if line.trim_end().is_empty() {
                return Ok(Self { code, body });
            }
        }
        Err(ClientFault::Broken("the socket does not belong to Locum".to_owned()))
    }

    fn text(&mut self) -> Result<String, ClientFault> {
        let mut text = String::new();
        (&mut self.body).take(ControlClient::ANSWER_MAX).read_to_string(&mut text).map_err(broken)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{FileTypeExt, MetadataExt},
        thread,
    };

    use super::{super::connections::OWNERS_MAX, *};

    /// A daemon that reports `{"turn": N}`, and accepts every order but `takeover local`, which it refuses.
    fn with_daemon(test: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().to_owned();
        let (end, ended) = oneshot::channel::<()>();
        let (ready, wait) = std::sync::mpsc::channel();
        let daemon = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = open(&run_dir).unwrap();
                let (sender, mut questions) = mpsc::channel(8);
                let parameters = BTreeMap::from([("deadtime".to_owned(), "10".to_owned())]);
                tokio::spawn(serve(listener, sender, watch::channel(parameters).1));
                ready.send(()).unwrap();
                let answering = async {
                    let mut turn = 0;
                    while let Some(question) = questions.recv().await {
                        turn += 1;
                        answer(question, turn);
                    }
                };
                tokio::select! { () = answering => {}, _ = ended => {} }
            });
        });
        wait.recv().unwrap();
        test(directory.path());
        end.send(()).unwrap();
        daemon.join().unwrap();
    }

    fn answer(question: ControlQuestion, turn: u64) {
        match question {
            ControlQuestion::Status(answer) => {
                let text = format!("{{\"turn\":{turn}}}").into();
                answer.send(Ok(StateText { text, digest: turn })).unwrap();
            }
            ControlQuestion::Order(
                OrderRequest { user_order: UserOrder::Takeover(GroupSet::Failback), .. },
                answer,
            ) => {
                answer.send(Answer::Refused("we hold it".to_owned())).unwrap();
            }
            // Never answered: a caller that does not wait must get away all the same.
            ControlQuestion::Order(OrderRequest { user_order: UserOrder::Leave, .. }, answer) => {
                mem_forget(answer)
            }
            ControlQuestion::Order(request, answer) => {
                answer.send(Answer::Done(request.user_order.to_string())).unwrap()
            }
            ControlQuestion::Measure(time) => assert_eq!(time, Duration::from_secs(60)),
            ControlQuestion::Say(fields) => assert_eq!(fields[0], ("t".to_owned(), "setweight".to_owned())),
        }
    }

    fn mem_forget(answer: oneshot::Sender<Answer>) {
        thread::spawn(move || {
            thread::park_timeout(Duration::from_secs(2));
            drop(answer);
        });
    }

    #[test]
    fn status_and_orders_are_answered() {
        with_daemon(|run_dir| {
            let client = ControlClient::new(run_dir);
            assert_eq!(client.status().unwrap(), "{\"turn\":1}");
            let all = MoveSetOrder { set: GroupSet::All, wait: true };
            let done = client.order("/standby", all).unwrap();
            assert_eq!(done, OrderOutcome { outcome: OutcomeKind::Done, text: "standby all".to_owned() });
            let failback = MoveSetOrder { set: GroupSet::Failback, wait: true };
            assert_eq!(client.order("/standby", failback).unwrap().text, "standby failback");
            let to = Some("b\n".to_owned());
            let order = MoveGroupOrder { group: "web".to_owned(), to, wait: true };
            assert_eq!(client.move_group(&order).unwrap().text, "move web b\\x0a");
            assert_eq!(client.online().unwrap().text, "online");
            assert_eq!(client.maintenance(MaintenanceOrder { on: false }).unwrap().text, "maintenance ends");
            let order = FreezeOrder { group: "web".to_owned(), on: true };
            assert_eq!(client.freeze(&order).unwrap().text, "freeze web");
            let refused = client.order("/takeover", failback).unwrap();
            assert_eq!(
                refused,
                OrderOutcome { outcome: OutcomeKind::Refused, text: "we hold it".to_owned() }
            );
            assert_eq!(client.measure(MeasureOrder { seconds: 60 }).unwrap().outcome, OutcomeKind::Begun);
            let fields = vec![("t".to_owned(), "setweight".to_owned())];
            assert_eq!(client.say(fields).unwrap().outcome, OutcomeKind::Begun);
            assert_eq!(client.parameters().unwrap()["deadtime"], "10");
            assert_eq!(client.stop(StopOrder::default()).unwrap().outcome, OutcomeKind::Begun);
        });
    }

    #[test]
    fn a_watcher_sees_changes_until_the_end() {
        let mut lines = None;
        with_daemon(|run_dir| {
            let mut reader = ControlClient::new(run_dir).watch().unwrap();
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "{\"turn\":1}\n{\"turn\":2}\n");
            // Others are served while this one does not read.
            assert!(ControlClient::new(run_dir).status().is_ok());
            lines = Some(reader);
        });
        let mut rest = String::new();
        let _ = lines.unwrap().read_to_string(&mut rest);
        assert!(rest.lines().all(|line| line.starts_with("{\"turn\":")), "{rest}");
    }

    #[test]
    fn who_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let fault = ControlClient::new(directory.path()).status().unwrap_err();
        assert_eq!(fault.exit_code(), 3);
        assert!(fault.to_string().contains("no daemon"), "{fault}");
        // A socket that a killed daemon left behind.
        drop(std::os::unix::net::UnixListener::bind(directory.path().join(NAME)).unwrap());
        assert_eq!(
            ControlClient::new(directory.path()).stop(StopOrder::default()).unwrap_err().exit_code(),
            3
        );
    }

    #[test]
    fn a_left_socket_is_replaced_and_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        drop(open(directory.path()).unwrap());
        let _again = open(directory.path()).unwrap();
        let metadata = fs::metadata(directory.path().join(NAME)).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.mode() & 0o777, 0o660);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn bad_requests_are_refused_one_by_one() {
        with_daemon(|run_dir| {
            let client = ControlClient::new(run_dir);
            let code = |method: &str, path: &str, body: &str| {
                client.ask(method, path, body, Some(Duration::from_secs(5))).map(|reply| reply.code).unwrap()
            };
            assert_eq!(code("GET", "/etc/passwd", ""), 404);
            assert_eq!(code("GET", "/stop", ""), 405);
            assert_eq!(code("POST", "/standby", "{\"set\":\"everything\"}"), 422);
            assert_eq!(code("POST", "/standby", "no"), 400);
            assert_eq!(code("POST", "/standby", &format!("{{\"set\":\"{}\"}}", "a".repeat(BODY_MAX))), 413);
            assert_eq!(client.status().unwrap(), "{\"turn\":1}");
        });
    }

    /// Connections of root, more than allowed: silent ones, half a head, half a body.
    #[test]
    fn half_open_connections_lock_nobody_out() {
        with_daemon(|run_dir| {
            let client = ControlClient::new(run_dir);
            let words: [&[u8]; 3] = [
                b"",
                b"GET /status HTTP/1.1\r\nHost: x\r\n",
                b"POST /move HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{",
            ];
            let mut held: Vec<_> = (0..OWNERS_MAX + 20)
                .map(|number| {
                    let mut stream = std::os::unix::net::UnixStream::connect(run_dir.join(NAME)).unwrap();
                    // Refused if it was let go already.
                    let _ = stream.write_all(words[number % words.len()]);
                    stream
                })
                .collect();
            assert!(client.status().is_ok());
            assert_eq!(client.online().unwrap().text, "online");
            for stream in &mut held {
                stream.set_read_timeout(Some(SILENCE_MAX * 20)).unwrap();
                let mut rest = Vec::new();
                let ended = stream.read_to_end(&mut rest);
                let is_over = ended.is_ok_and(|_| rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"));
                assert!(is_over, "{rest:?}");
            }
        });
    }

    #[test]
    fn readers_may_not_change() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, _questions) = mpsc::channel(1);
        let asker = QuestionSender { questions: sender, feed: StateFeed::new() };
        let reader = SocketCaller::of(7, false);
        let outcome = runtime.block_on(asker.order(reader, UserOrder::Leave, true));
        assert_eq!(outcome.outcome, OutcomeKind::Forbidden);
        assert_eq!(outcome.into_response().status(), 403);
    }

    #[test]
    fn groups_are_found_by_name() {
        let file = "root:x:0:\nhaclient:x:117:alice,bob\nhaclients:x:5:\nbroken\n";
        assert_eq!(group_in(file, "haclient"), Some(117));
        assert_eq!(group_in(file, "broken"), None);
        assert_eq!(group_in(file, "nobody"), None);
    }
}
