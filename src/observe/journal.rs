//! The log. Lines go to the service manager's journal when standard error is connected to it, else to standard error.
//! In addition they go where `ha.cf` says: `logfile` (all but debug lines), `debugfile` (all lines), `logfacility`
//! (syslog).
//!
//! A line is handed over without waiting. A thread of its own does the writing, so a disk or a reader that hangs delays
//! nothing else. Lines that cannot be written are counted, and the count is reported at that target as soon as it takes
//! lines again. A file that was moved away (log rotation) is opened anew under its name.
//!
//! A line of standard error: `2026-11-22 10:06:10.123+00:00 clustnode1 locum[4711]: warning: text`, with the offset of
//! this machine's time zone. The targets that `ha.cf` names have heartbeat's form, for scripts that search them: `Nov
//! 22 10:06:10 clustnode1 heartbeat: [4711]: WARN: text` (`docs/heartbeat.md`, section 11). The time is that of the
//! event, not of the writing.

use std::{
    fmt::Write as _,
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};
use locum_core::model::{
    logging::Logging,
    note::{Escaped, Level, Note},
};
use rustix::{fs::OFlags, io::Errno};
use tracing::field::{Field, Visit};

/// Lines that may wait for the writer. Further ones are counted as lost.
const WAITING_MAX: usize = 4096;
/// Bytes of one line's text that are written; the rest is cut off.
const TEXT_MAX: usize = 4096;
/// After a panic the process ends within this time, even if its last lines cannot be written.
const PANIC_SECONDS: u32 = 3;
/// The socket that takes structured entries for journald.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// The socket that takes syslog lines for journald. `/dev/log` points to it where journald is the system log.
const JOURNAL_SYSLOG: &str = "/run/systemd/journal/dev-log";
const SYSLOG_SOCKET: &str = "/dev/log";

/// A handle on the log. Cheap to clone and usable from every thread but the heart: handing a line over takes a lock of the
/// queue, and the heart waits for no lock. Its notes come over the ring.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: SyncSender<JournalJob>,
    lost: Arc<AtomicU64>,
    /// The lowest level that is written.
    level: Arc<AtomicU8>,
    /// Whether a signal asked for everything.
    debugging: Arc<AtomicBool>,
}

/// The targets of the log, and the form of their lines.
#[derive(Debug)]
pub struct LogTargets {
    style: LineStyle,
    /// The lowest level that is written to any target.
    pub level: Level,
    main: MainTarget,
    logfile: Option<LogFile>,
    debugfile: Option<LogFile>,
    syslog: Option<SyslogSocket>,
}

impl LogTargets {
    /// Standard error or the journal, and the targets that the configuration names. Nothing is opened yet.
    #[must_use]
    pub fn new(node: &str, level: Level, logging: &Logging) -> Self {
        let mut main = MainTarget::of_this_process();
        let facility = logging.facility.as_deref().and_then(facility_number);
        let syslog = match (&mut main, facility) {
            (MainTarget::Journald(journald), Some(facility)) if journald_is_syslog() => {
                journald.facility = Some(facility);
                None
            }
            (_, facility) => facility.map(SyslogSocket::new),
        };
        Self {
            style: LineStyle {
                node: node.to_owned(),
                zone: TimeZone::system(),
                files: if logging.dated { LineFormat::Dated } else { LineFormat::Syslog },
            },
            level,
            main,
            logfile: logging.logfile.as_ref().map(LogFile::new),
            debugfile: logging.debugfile.as_ref().map(LogFile::new),
            syslog,
        }
    }
}

impl Journal {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(targets: LogTargets) -> io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let level = Arc::new(AtomicU8::new(targets.level as u8));
        let journal = Self { queue, lost: Arc::clone(&lost), level, debugging: Arc::default() };
        thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || write_all(targets, &jobs, &lost))?;
        Ok(journal)
    }

    /// Writes a note of the heart, with the time at which it was taken.
    pub fn note(&self, note: &Note, taken: SystemTime) {
        let epoch = note.epoch.as_ref().map(|epoch| epoch.as_str().to_owned());
        self.write(LogLine {
            level: note.level,
            group: note.group.clone(),
            epoch,
            time: taken,
            text: note.text.clone(),
        });
    }

    /// Writes a note with the present time.
    pub fn tell(&self, note: &Note) {
        self.note(note, now());
    }

    /// Writes a line with the present time.
    pub fn say(&self, level: Level, text: impl Into<String>) {
        self.write(LogLine { level, group: None, epoch: None, time: now(), text: text.into() });
    }

    fn write(&self, mut line: LogLine) {
        if !self.takes(line.level) {
            return;
        }
        line.text = printable(line.text);
        if let Err(TrySendError::Full(_)) = self.queue.try_send(JournalJob::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether lines of this level are written.
    fn takes(&self, level: Level) -> bool {
        level as u8 >= self.level.load(Ordering::Relaxed) || self.debugging.load(Ordering::Relaxed)
    }

    /// With `true` writes all levels from now on, with `false` again those chosen at the start.
    pub fn debug(&self, everything: bool) {
        self.debugging.store(everything, Ordering::Relaxed);
    }

    /// Writes to these targets from now on. Returns false when the queue is full and nothing was changed.
    #[must_use]
    pub fn redirect(&self, targets: LogTargets) -> bool {
        let level = targets.level as u8;
        let heard = self.queue.try_send(JournalJob::Redirect(Box::new(targets))).is_ok();
        if heard {
            self.level.store(level, Ordering::Relaxed);
        }
        heard
    }

    /// Waits until all lines so far are written, at most for `limit`. Returns whether they were.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.queue.try_send(JournalJob::Flush(done)).is_ok() && wait.recv_timeout(limit).is_ok()
    }

    /// Sends the `tracing` events of this process here. The field `group` is the group's key, every other field is
    /// appended as `name=value`. Takes effect once in a process; later calls change nothing.
    pub fn install(&self) {
        // The only error: there is a subscriber already.
        let _ = tracing::subscriber::set_global_default(TracingSubscriber(self.clone()));
    }

    /// Logs a panic of any thread and ends the process. A node that is taken over is better than one that runs in part.
    pub fn catch_panics(&self) {
        let journal = self.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Standard error may be a pipe that is not read: the daemon must not wait for its reader now.
            locum_sys::signal::end_after(PANIC_SECONDS);
            journal.say(Level::Critical, format!("panic: a bug in Locum ends the daemon: {panic}"));
            let _ = journal.flush(Duration::from_secs(1));
            usual(panic);
            std::process::abort();
        }));
    }
}

#[expect(clippy::disallowed_methods, reason = "log lines carry the wall clock's time")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Makes a text one line, whatever an agent printed. A clean text is not copied.
fn printable(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            let mut bytes = [0; 4];
            let _ = write!(clean, "{}", Escaped(character.encode_utf8(&mut bytes).as_bytes()));
        } else {
            clean.push(character);
        }
    }
    clean
}

#[derive(Debug)]
enum JournalJob {
    Line(LogLine),
    Flush(SyncSender<()>),
    Redirect(Box<LogTargets>),
}

#[derive(Debug)]
struct LogLine {
    level: Level,
    group: Option<String>,
    /// The epoch of the group's ownership.
    epoch: Option<String>,
    time: SystemTime,
    text: String,
}

impl LogLine {
    /// The text, with the group's key in front and the epoch at the end, unless it contains them.
    fn message(&self) -> String {
        let mut message = match &self.group {
            Some(group) if !names(&self.text, group) => format!("{group}: {}", self.text),
            _ => self.text.clone(),
        };
        if let Some(epoch) = self.epoch.as_ref().filter(|epoch| !names(&self.text, epoch)) {
            let _ = write!(message, " (epoch {epoch})");
        }
        message
    }
}

/// Whether a text contains a name as a word: the group `c` is not meant by "epoch", nor `web` by "web1".
fn names(text: &str, name: &str) -> bool {
    let goes_on = |next: Option<char>| next.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
    text.match_indices(name).any(|(at, _)| {
        !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + name.len()..].chars().next())
    })
}

/// The writing thread; it ends when the last handle is dropped.
fn write_all(mut targets: LogTargets, jobs: &Receiver<JournalJob>, lost: &AtomicU64) {
    while let Ok(job) = jobs.recv() {
        match job {
            JournalJob::Line(line) => targets.write(&line),
            JournalJob::Redirect(to) => targets = *to,
            // An error means that the caller has stopped waiting.
            JournalJob::Flush(done) => drop(done.send(())),
        }
        let dropped = lost.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text = format!("log: {dropped} lines lost: they came faster than they could be written");
            targets.write(&LogLine { level: Level::Warning, group: None, epoch: None, time: now(), text });
        }
    }
}

impl LogTargets {
    fn write(&mut self, line: &LogLine) {
        let message = line.message();
        let style = &self.style;
        self.main.write(line, &message, style);
        let logfile = self.logfile.as_mut().filter(|_| line.level > Level::Debug);
        let files = logfile.into_iter().chain(&mut self.debugfile);
        let faults: Vec<String> = files.filter_map(|file| file.write(line, &message, style)).collect();
        for text in faults {
            // The administrator who misses lines in that file finds the reason here.
            let fault = LogLine { level: Level::Warning, group: None, epoch: None, time: line.time, text };
            self.main.write(&fault, &fault.text, style);
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.write(line, &message, style);
        }
    }
}

/// The form of a line of text.
#[derive(Clone, Copy, Debug)]
enum LineFormat {
    /// `2026-11-22 10:06:10.123+00:00 clustnode1 locum[4711]: warning: text`
    Own,
    /// heartbeat's: `Nov 22 10:06:10 clustnode1 heartbeat: [4711]: WARN: text`
    Syslog,
    /// heartbeat's with `syslogmsgfmt off`: `heartbeat[4711]: 2026/11/22_10:06:10 WARN: text`
    Dated,
}

/// The common settings of all lines of text.
#[derive(Debug)]
struct LineStyle {
    node: String,
    zone: TimeZone,
    /// The form of the lines in files.
    files: LineFormat,
}

impl LineStyle {
    fn text(&self, form: LineFormat, level: Level, time: SystemTime, message: &str) -> String {
        let (node, pid) = (&self.node, std::process::id());
        match form {
            LineFormat::Own => {
                let time = self.time("%Y-%m-%d %H:%M:%S%.3f%:z", time);
                format!("{time} {node} locum[{pid}]: {}: {message}\n", word(level))
            }
            LineFormat::Syslog => {
                let time = self.time("%b %d %H:%M:%S", time);
                format!("{time} {node} heartbeat: [{pid}]: {}: {message}\n", heartbeats_word(level))
            }
            LineFormat::Dated => {
                let time = self.time("%Y/%m/%d_%H:%M:%S", time);
                format!("heartbeat[{pid}]: {time} {}: {message}\n", heartbeats_word(level))
            }
        }
    }

    fn time(&self, form: &str, time: SystemTime) -> String {
        let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(self.zone.clone()).strftime(form).to_string()
    }
}

/// The name that heartbeat gives to a level.
fn heartbeats_word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "WARN",
        Level::Error => "ERROR",
        Level::Critical => "CRIT",
    }
}

/// The name of a level in Locum's own lines.
fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
        Level::Critical => "CRITICAL",
    }
}

/// The number of a level in syslog (RFC 5424, section 6.2.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warning => 4,
        Level::Error => 3,
        Level::Critical => 2,
    }
}

/// The number of a facility (RFC 5424, section 6.2.1) by its name in `logfacility`. `None` for `none` and for unknown
/// names.
#[must_use]
pub fn facility_number(name: &str) -> Option<u8> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    let name = name.to_ascii_lowercase();
    let name = if name == "security" { "auth" } else { &name };
    let numbered = name.strip_prefix("local").and_then(|digit| digit.parse().ok()).filter(|&n: &u8| n < 8);
    numbered.map(|n| 16 + n).or_else(|| u8::try_from(NAMES.iter().position(|&n| n == name)?).ok())
}

fn journald_is_syslog() -> bool {
    std::fs::canonicalize(SYSLOG_SOCKET).is_ok_and(|path| path == Path::new(JOURNAL_SYSLOG))
}

/// The target that needs no configuration.
#[derive(Debug)]
enum MainTarget {
    /// Standard error is a terminal, a file or a pipe.
    Stderr(LossCounter),
    /// Standard error is connected to the journal, but the journal's own socket is out of reach. Lines carry their
    /// level as `<N>`, as sd-daemon(3) describes.
    Prefixed,
    /// The journal's own socket, which takes fields.
    Journald(JournaldSocket),
}

impl MainTarget {
    fn of_this_process() -> Self {
        if !stderr_is_journal() {
            return Self::Stderr(LossCounter::default());
        }
        JournaldSocket::new().map_or(Self::Prefixed, Self::Journald)
    }

    fn write(&mut self, line: &LogLine, message: &str, style: &LineStyle) {
        match self {
            Self::Stderr(stderr) => stderr.write(line, message, style),
            Self::Prefixed => prefixed(line.level, message),
            Self::Journald(journald) => journald.write(line, message),
        }
    }
}

/// Whether standard error is connected to the journal. `JOURNAL_STREAM` holds device and inode of the stream that the
/// service manager connected. A child whose standard error was redirected still inherits the variable, so both are
/// compared (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let connected = std::fs::metadata("/proc/self/fd/2").map(|m| format!("{}:{}", m.dev(), m.ino()));
    connected.is_ok_and(|connected| connected == stream)
}

/// Counts the lines that a target did not take, with the last reason.
#[derive(Debug, Default)]
struct LossCounter {
    lost: u64,
    reason: String,
}

impl LossCounter {
    /// Writes to standard error.
    fn write(&mut self, line: &LogLine, message: &str, style: &LineStyle) {
        let text = self.text(line, message, style, LineFormat::Own);
        let result = io::stderr().lock().write_all(text.as_bytes());
        self.keep(result);
    }

    /// The line, after a report of the lines lost before it, if there are any.
    fn text(&self, line: &LogLine, message: &str, style: &LineStyle, form: LineFormat) -> String {
        let text = style.text(form, line.level, line.time, message);
        if self.lost == 0 {
            return text;
        }
        let report = format!("log: {} lines before this one were lost: {}", self.lost, self.reason);
        style.text(form, Level::Warning, line.time, &report) + &text
    }

    fn keep(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.lost = 0,
            Err(error) => {
                self.lost += 1;
                self.reason = error.to_string();
            }
        }
    }
}

fn prefixed(level: Level, message: &str) {
    // If the journal's stream is gone, there is no other target to report that to.
    let _ = io::stderr().lock().write_all(format!("<{}>{message}\n", severity(level)).as_bytes());
}

/// The file that `logfile` or `debugfile` names.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether the last write ended within a line.
    torn: bool,
    counted: LossCounter,
}

impl LogFile {
    fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, torn: false, counted: LossCounter::default() }
    }

    /// Writes a line. Returns a warning when this is the first line that is lost.
    fn write(&mut self, line: &LogLine, message: &str, style: &LineStyle) -> Option<String> {
        let text = self.counted.text(line, message, style, style.files);
        let result = self.try_write(&text);
        if result.is_err() {
            self.file = None;
        }
        self.counted.keep(result);
        (self.counted.lost == 1).then(|| {
            let (path, reason) = (self.path.display(), &self.counted.reason);
            format!("log file {path}: cannot be written: {reason}; retrying with every line")
        })
    }

    fn try_write(&mut self, text: &str) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|file| moved_away(file, &self.path)) {
            self.file = None;
            self.torn = false;
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(open_to_append(&self.path)?),
        };
        let whole = format!("{}{text}", if self.torn { "\n" } else { "" });
        // A single write, so that the lines of two writers do not mix. On a full disk it may end within a line.
        let written = file.write(whole.as_bytes())?;
        self.torn = written < whole.len();
        if self.torn { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Opens a log file to append. A pipe without a reader or a blocked terminal is an error and not waited for, because
/// one thread writes all targets. In a directory where others can write, symbolic links and second names are refused:
/// through them root would write into a file of another user's choice.
fn open_to_append(path: &Path) -> io::Result<File> {
    let open = |more: OFlags| {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
    };
    let refused = |what: &str| {
        let text = format!(
            "it {what} in a directory that other users can write to, so it is not opened; log to a directory that \
             only root can write to"
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    };
    let file = match open(OFlags::NOFOLLOW) {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            let is_trusted = is_ours(&std::fs::symlink_metadata(path)?) && is_closed(path)?;
            return if is_trusted { open(OFlags::empty()) } else { refused("is a symbolic link") };
        }
        opened => opened?,
    };
    let data = file.metadata()?;
    if data.is_file() && data.nlink() > 1 && !is_closed(path)? {
        return refused("has a second name");
    }
    Ok(file)
}

/// Whether the file belongs to root, or to the user of this process.
fn is_ours(data: &Metadata) -> bool {
    data.uid() == 0 || data.uid() == rustix::process::geteuid().as_raw()
}

/// Whether no other user can replace the file under this name.
fn is_closed(path: &Path) -> io::Result<bool> {
    const OTHERS_WRITE: u32 = 0o022;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let data = std::fs::metadata(directory)?;
    Ok(is_ours(&data) && data.mode() & OTHERS_WRITE == 0)
}

/// Whether the file's name now leads to another file or to none.
fn moved_away(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return true };
    (open.dev(), open.ino()) != (named.dev(), named.ino())
}

/// How long the writing thread waits for a log daemon that takes nothing. A container's journal has room for about ten
/// lines (`net.unix.max_dgram_qlen`), and groups that start together write more than that at once.
const LOG_DAEMON_WAIT: Duration = Duration::from_millis(500);

fn datagram() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(LOG_DAEMON_WAIT))?;
    Ok(socket)
}

/// Sends one entry and waits at most [`LOG_DAEMON_WAIT`]. After a time-out (`lost`) it does not wait until an entry is
/// taken again. So a log daemon that hangs costs one wait.
fn send_entry(socket: &UnixDatagram, entry: &[u8], path: &Path, lost: u64) -> io::Result<()> {
    socket.set_nonblocking(lost > 0)?;
    socket.send_to(entry, path).map(drop)
}

/// journald's native protocol: one datagram per entry, one `FIELD=value` per line (systemd's "Native Journal
/// Protocol").
#[derive(Debug)]
struct JournaldSocket {
    socket: UnixDatagram,
    facility: Option<u8>,
    lost: u64,
}

impl JournaldSocket {
    fn new() -> Option<Self> {
        Path::new(JOURNAL_SOCKET).exists().then_some(())?;
        Some(Self { socket: datagram().ok()?, facility: None, lost: 0 })
    }

    fn write(&mut self, line: &LogLine, message: &str) {
        if self.lost > 0 {
            let text =
                format!("log: {} lines before this one were lost: the journal did not take them", self.lost);
            let report = LogLine { level: Level::Warning, group: None, epoch: None, time: now(), text };
            if self.send(&entry(&report, &report.text, self.facility)).is_ok() {
                self.lost = 0;
            }
        }
        if self.send(&entry(line, message, self.facility)).is_err() {
            self.lost += 1;
        }
    }

    fn send(&self, entry: &str) -> io::Result<()> {
        send_entry(&self.socket, entry.as_bytes(), Path::new(JOURNAL_SOCKET), self.lost)
    }
}

/// One journal entry. Values are single lines: [`printable`] ensures that, and group keys come from a file of words.
fn entry(line: &LogLine, message: &str, facility: Option<u8>) -> String {
    let micros = line.time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let mut entry = format!(
        "MESSAGE={message}\nPRIORITY={}\nSYSLOG_IDENTIFIER=locum\nSYSLOG_PID={}\nLOCUM_TIME_USEC={micros}\n",
        severity(line.level),
        std::process::id(),
    );
    if let Some(group) = &line.group {
        let _ = writeln!(entry, "LOCUM_GROUP={}", printable(group.clone()));
    }
    if let Some(epoch) = &line.epoch {
        let _ = writeln!(entry, "LOCUM_EPOCH={epoch}");
    }
    if let Some(facility) = facility {
        let _ = writeln!(entry, "SYSLOG_FACILITY={facility}");
    }
    entry
}

/// The local syslog socket, in the old form (RFC 3164) that every syslog daemon takes there.
#[derive(Debug)]
struct SyslogSocket {
    facility: u8,
    socket: Option<UnixDatagram>,
    path: PathBuf,
    lost: u64,
}

impl SyslogSocket {
    fn new(facility: u8) -> Self {
        Self { facility, socket: datagram().ok(), path: SYSLOG_SOCKET.into(), lost: 0 }
    }

    fn write(&mut self, line: &LogLine, message: &str, style: &LineStyle) {
        if self.lost > 0 {
            let text =
                format!("log: {} lines before this one were lost: syslog did not take them", self.lost);
            if self.send(Level::Warning, now(), &text, style).is_ok() {
                self.lost = 0;
            }
        }
        if self.send(line.level, line.time, message, style).is_err() {
            self.lost += 1;
        }
    }

    /// Sends a line in heartbeat's form, without the node's name, which the syslog daemon adds.
    fn send(&self, level: Level, time: SystemTime, message: &str, style: &LineStyle) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let priority = u16::from(self.facility) * 8 + u16::from(severity(level));
        let text = format!(
            "<{priority}>{} heartbeat: [{}]: {}: {message}",
            style.time("%b %e %H:%M:%S", time),
            std::process::id(),
            heartbeats_word(level)
        );
        send_entry(socket, text.as_bytes(), &self.path, self.lost)
    }
}

/// Receives the events of the `tracing` macros.
struct TracingSubscriber(Journal);

impl tracing::Subscriber for TracingSubscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("locum") && self.0.takes(level_of(metadata))
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let text = mem::take(&mut fields.text) + &fields.others;
        let level = level_of(event.metadata());
        self.0.write(LogLine { level, group: fields.group, epoch: None, time: now(), text });
    }

    // Spans are not used: each line is complete by itself.
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn level_of(metadata: &tracing::Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

#[derive(Default)]
struct EventFields {
    text: String,
    group: Option<String>,
    others: String,
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "group" => self.group = Some(value.to_owned()),
            "message" => self.text = value.to_owned(),
            name => drop(write!(self.others, " {name}={value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "group" => self.group = Some(format!("{value:?}")),
            "message" => self.text = format!("{value:?}"),
            name => drop(write!(self.others, " {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(seconds: u64, millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    fn targets(logfile: Option<&Path>, debugfile: Option<&Path>, level: Level) -> LogTargets {
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let logging =
            Logging { logfile: logfile.map(name), debugfile: debugfile.map(name), ..Logging::default() };
        let mut targets = LogTargets::new("clustnode1", level, &logging);
        targets.style.zone = TimeZone::fixed(jiff::tz::offset(2));
        targets
    }

    #[test]
    fn a_line_names_its_group_and_epoch_unless_it_does_so_itself() {
        let line = |text: &str, group: &str| {
            let (level, text, group) = (Level::Info, text.to_owned(), Some(group.to_owned()));
            LogLine { level, group, epoch: None, time: at(0, 0), text }.message()
        };
        assert_eq!(line("is ours under epoch 2.1", "c"), "c: is ours under epoch 2.1");
        assert_eq!(line("is lost: web1 owns it", "web"), "web: is lost: web1 owns it");
        assert_eq!(line("is lost: my-web owns it", "web"), "web: is lost: my-web owns it");
        assert_eq!(line("group web is stopped", "web"), "group web is stopped");
        assert_eq!(line("10.0.0.1/24: is there", "10.0.0.1/24"), "10.0.0.1/24: is there");
        let under = |text: &str| {
            let (level, text, group) = (Level::Info, text.to_owned(), Some("web".to_owned()));
            LogLine { level, group, epoch: Some("4.1".to_owned()), time: at(0, 0), text }.message()
        };
        assert_eq!(under("runs here"), "web: runs here (epoch 4.1)");
        assert_eq!(under("is ours under epoch 4.1"), "web: is ours under epoch 4.1");
        assert_eq!(under("is lost: b owns it under 14.1"), "web: is lost: b owns it under 14.1 (epoch 4.1)");
    }

    /// Set for a second process of this test, which is to panic.
    const DIES: &str = "LOCUM_TEST_DIES";

    #[test]
    fn a_panic_ends_the_process_although_nobody_reads_its_standard_error() {
        if std::env::var_os(DIES).is_some() {
            let journal = Journal::start(targets(None, None, Level::Info)).unwrap();
            journal.catch_panics();
            panic!("as planned");
        }
        let (_reader, mut writer) = io::pipe().unwrap();
        let full = writer.try_clone().unwrap();
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        while writer.write(&[b'x'; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
        let name =
            "observe::journal::tests::a_panic_ends_the_process_although_nobody_reads_its_standard_error";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(DIES, "1")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(full)
            .spawn()
            .unwrap();
        for _ in 0..600 {
            if let Some(end) = child.try_wait().unwrap() {
                assert!(!end.success());
                return;
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it waits for its reader");
    }

    #[test]
    fn a_log_does_not_follow_what_others_have_laid_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("log");
        fs::create_dir(&place).unwrap();
        let (target, link, second) =
            (dir.path().join("shadow"), place.join("ha-log"), place.join("ha-debug"));
        fs::write(&target, "secret\n").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        fs::hard_link(&target, &second).unwrap();
        let mode = |mode| fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o777, 0o1777, 0o775] {
            mode(open);
            for path in [&link, &second] {
                let told = put(&mut LogFile::new(path), "x").unwrap();
                assert!(told.contains("that other users can write to, so it is not opened"), "{told}");
            }
            assert!(put(&mut LogFile::new(place.join("plain")), "x").is_none(), "a file of its own is good");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "secret\n");
        // A link that the administrator made is followed.
        mode(0o755);
        for path in [&link, &second] {
            assert!(put(&mut LogFile::new(path), "x").is_none());
        }
        assert_eq!(fs::read_to_string(&target).unwrap().lines().count(), 3);
    }

    fn style(files: LineFormat) -> LineStyle {
        LineStyle { node: "clustnode1".to_owned(), zone: TimeZone::UTC, files }
    }

    /// Writes one line, dated at the epoch of Unix time.
    fn put(file: &mut LogFile, text: &str) -> Option<String> {
        let line =
            LogLine { level: Level::Info, group: None, epoch: None, time: at(0, 0), text: text.to_owned() };
        file.write(&line, text, &style(LineFormat::Dated))
    }

    /// The lines that [`put`] wrote.
    fn lines(path: &Path) -> Vec<String> {
        let before = format!("heartbeat[{}]: 1970/01/01_00:00:00 ", std::process::id());
        fs::read_to_string(path).unwrap().lines().map(|line| line.replace(&before, "")).collect()
    }

    #[test]
    fn a_line_of_our_own_has_date_milliseconds_offset_node_and_level() {
        let style = LineStyle { zone: TimeZone::fixed(jiff::tz::offset(2)), ..style(LineFormat::Syslog) };
        let text = style.text(LineFormat::Own, Level::Warning, at(1_795_337_170, 7), "taken over");
        let pid = std::process::id();
        assert_eq!(
            text,
            format!("2026-11-22 10:46:10.007+02:00 clustnode1 locum[{pid}]: warning: taken over\n")
        );
    }

    #[test]
    fn a_line_of_a_file_has_heartbeats_form() {
        let (style, pid, time) = (style(LineFormat::Syslog), std::process::id(), at(1_793_700_370, 7));
        for (level, word) in [
            (Level::Debug, "debug"),
            (Level::Info, "info"),
            (Level::Warning, "WARN"),
            (Level::Error, "ERROR"),
            (Level::Critical, "CRIT"),
        ] {
            assert_eq!(
                style.text(LineFormat::Syslog, level, time, "node clustnode2: is dead"),
                format!("Nov 03 10:06:10 clustnode1 heartbeat: [{pid}]: {word}: node clustnode2: is dead\n")
            );
            assert_eq!(
                style.text(LineFormat::Dated, level, time, "node clustnode2: is dead"),
                format!("heartbeat[{pid}]: 2026/11/03_10:06:10 {word}: node clustnode2: is dead\n")
            );
        }
    }

    #[test]
    fn normal_lines_go_to_the_logfile_and_all_to_the_debugfile() {
        let directory = tempfile::tempdir().unwrap();
        let (log, debug) = (directory.path().join("log"), directory.path().join("debug"));
        let journal = Journal::start(targets(Some(&log), Some(&debug), Level::Debug)).unwrap();
        let note = Note {
            level: Level::Warning,
            group: Some("172.23.2.14".to_owned()),
            epoch: None,
            text: "taken over".to_owned(),
        };
        journal.note(&note, at(1_795_337_170, 7));
        journal.note(
            &Note { level: Level::Debug, group: None, epoch: None, text: "detail".to_owned() },
            at(0, 0),
        );
        assert!(journal.flush(Duration::from_secs(10)));
        let pid = std::process::id();
        let line = format!("Nov 22 10:46:10 clustnode1 heartbeat: [{pid}]: WARN: 172.23.2.14: taken over\n");
        assert_eq!(fs::read_to_string(log).unwrap(), line);
        let detail = format!("Jan 01 02:00:00 clustnode1 heartbeat: [{pid}]: debug: detail\n");
        assert_eq!(fs::read_to_string(debug).unwrap(), line + &detail);
    }

    #[test]
    fn quieter_lines_than_asked_for_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let journal = Journal::start(targets(Some(&log), None, Level::Warning)).unwrap();
        journal.say(Level::Info, "no");
        journal.say(Level::Error, "yes");
        assert!(journal.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(log).unwrap();
        assert!(text.ends_with("ERROR: yes\n") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (log, old) = (directory.path().join("log"), directory.path().join("log.1"));
        fs::write(&log, "what was there before\n").unwrap();
        let mut file = LogFile::new(&log);
        put(&mut file, "one");
        fs::rename(&log, &old).unwrap();
        put(&mut file, "two");
        assert_eq!(lines(&old), ["what was there before", "info: one"]);
        assert_eq!(lines(&log), ["info: two"]);
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_said_later() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("not/yet");
        let mut file = LogFile::new(place.join("log"));
        put(&mut file, "one");
        put(&mut file, "two");
        fs::create_dir_all(&place).unwrap();
        put(&mut file, "three");
        put(&mut file, "four");
        let lines = lines(&place.join("log"));
        assert!(lines[0].starts_with("WARN: log: 2 lines before this one were lost: "), "{}", lines[0]);
        assert_eq!(lines[1..], ["info: three", "info: four"]);
    }

    #[test]
    fn a_full_disk_loses_lines_and_stops_nothing() {
        // A device that is always full.
        let mut file = LogFile::new("/dev/full");
        let said = put(&mut file, "one").expect("the first is said");
        assert!(said.starts_with("log file /dev/full: cannot be written: No space left"), "{said}");
        assert_eq!(put(&mut file, "two"), None);
        assert_eq!(file.counted.lost, 2);
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut file = LogFile::new(&path);
        put(&mut file, "one");
        assert_eq!(file.counted.lost, 1);
        let _reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, mode).unwrap();
        for _ in 0..100 {
            put(&mut file, &"x".repeat(4000));
        }
        assert!(file.counted.lost > 1, "the pipe is full");
    }

    #[test]
    fn nothing_of_an_agent_breaks_out_of_its_line() {
        let hostile = "ok\nPRIORITY=0\x1b[2Jü".to_owned();
        let line = LogLine {
            level: Level::Info,
            group: None,
            epoch: None,
            time: at(1, 0),
            text: printable(hostile),
        };
        assert_eq!(line.text, "ok\\x0aPRIORITY=0\\x1b[2Jü");
        let entry = entry(&line, &line.message(), Some(3));
        assert_eq!(entry.lines().filter(|field| field.starts_with("PRIORITY=")).count(), 1);
        assert!(entry.contains("SYSLOG_FACILITY=3\n") && entry.contains("LOCUM_TIME_USEC=1000000\n"));
        let long = printable("ü".repeat(TEXT_MAX));
        assert!(long.ends_with('…') && long.len() <= TEXT_MAX + 3);
    }

    #[test]
    fn syslog_gets_facility_and_level() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog =
            SyslogSocket { path: path.clone(), ..SyslogSocket::new(facility_number("local0").unwrap()) };
        let style = style(LineFormat::Syslog);
        let line =
            LogLine { level: Level::Error, group: None, epoch: None, time: at(0, 0), text: "oh".to_owned() };
        syslog.write(&line, "oh", &style);
        let server = UnixDatagram::bind(&path).unwrap();
        syslog.write(&line, "oh", &style);
        let mut buffer = [0; 200];
        let length = server.recv(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..length]).contains("1 lines before this one were lost"));
        let length = server.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(text, format!("<131>Jan  1 00:00:00 heartbeat: [{}]: ERROR: oh", std::process::id()));
    }

    #[test]
    fn a_burst_waits_for_a_log_daemon_with_little_room_and_not_long_for_one_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut syslog = SyslogSocket { path: path.clone(), ..SyslogSocket::new(3) };
        let style = style(LineFormat::Syslog);
        let line =
            LogLine { level: Level::Info, group: None, epoch: None, time: at(0, 0), text: "x".to_owned() };
        // More than a kernel's queue takes at once, but the daemon reads all the time.
        const LINES: usize = 2000;
        let reader = thread::spawn(move || {
            let mut buffer = [0; 200];
            (0..LINES).for_each(|_| assert!(server.recv(&mut buffer).unwrap() > 0));
            server
        });
        (0..LINES).for_each(|_| syslog.write(&line, "x", &style));
        assert_eq!(syslog.lost, 0);
        let server = reader.join().unwrap();
        // Now the daemon hangs. If each line waited, this would take a quarter of an hour.
        (0..LINES).for_each(|_| syslog.write(&line, "x", &style));
        assert!(syslog.lost > 0);
        drop(server);
    }

    #[test]
    fn facilities_have_their_numbers() {
        let cases =
            [("kern", 0), ("daemon", 3), ("security", 4), ("ftp", 11), ("local0", 16), ("LOCAL7", 23)];
        for (name, number) in cases {
            assert_eq!(facility_number(name), Some(number), "{name}");
        }
        assert_eq!([facility_number("none"), facility_number("local8"), facility_number("")], [None; 3]);
    }

    #[test]
    fn the_macros_write_here() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let journal = Journal::start(targets(Some(&log), None, Level::Info)).unwrap();
        tracing::subscriber::with_default(TracingSubscriber(journal.clone()), || {
            tracing::warn!(group = "httpd", code = 3, "script {} failed", "httpd");
            tracing::info!(group = "mysql", "started");
        });
        assert!(journal.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once("]: ").unwrap().1).collect();
        assert_eq!(lines, ["WARN: script httpd failed code=3", "info: mysql: started"]);
    }
}
