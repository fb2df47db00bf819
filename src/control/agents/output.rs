//! The output of children: read as it comes and logged line by line under the group's name. It is limited, and never
//! blocks the child.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use locum_core::model::{
    claim::Epoch,
    note::{Escaped, Level, Note},
};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::Instant};

/// Takes notes from the agents. Called on the control plane; must not block.
pub type NoteSink = Arc<dyn Fn(Note) + Send + Sync>;

/// Longest piece of a line that is logged, in bytes.
const LINE_BYTES_MAX: usize = 4 * Escaped::LIMIT;
/// How many lines of one operation are logged.
const LINES_MAX: u32 = 100;
/// How many lines a minute are logged of what a service prints after its start script has ended.
const LATE_LINES_MAX: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// How much of the text is kept for the decision about a status, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How much a pipe holds while nobody reads it, in bytes.
const PIPE_BYTES: usize = 256 * 1024;

/// A pipe for one of a child's outputs. A service that a start script leaves in the background keeps it as its output
/// for years. So the pipe is made to do no harm when the daemon is gone:
///
/// * the child's end is open for reading too, so the service never meets a broken pipe;
/// * once the script has ended, that end does not block any more, so a full pipe never stops the service.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    /// The child's end, kept until the script has ended.
    pub(super) write: File,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        // A smaller pipe also works.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
        let both =
            OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", write.as_raw_fd()));
        let write = both.unwrap_or_else(|_| File::from(OwnedFd::from(write)));
        Ok(Self { read: read.into(), write })
    }
}

/// Lets go of the child's end: a process that still holds it gets an error instead of waiting when the pipe is full.
pub(super) fn release(write: File) {
    if let Ok(flags) = fcntl_getfl(&write) {
        let _ = fcntl_setfl(&write, flags | OFlags::NONBLOCK);
    }
}

/// Logs the lines of one child under the right name.
#[derive(Clone)]
pub(super) struct Speaker {
    pub(super) tell: NoteSink,
    pub(super) group: Option<String>,
    /// The ownership of the group under which the child runs.
    pub(super) epoch: Option<Epoch>,
    /// Stands before every line: the resource and its operation.
    pub(super) label: String,
}

impl Speaker {
    pub(super) fn say(&self, level: Level, text: impl AsRef<str>) {
        let text = format!("{}: {}", self.label, text.as_ref());
        (self.tell)(Note { level, group: self.group.clone(), epoch: self.epoch.clone(), text });
    }
}

/// One output of a child, while its operation runs.
pub(super) struct Stream {
    pipe: pipe::Receiver,
    lines: LineSplitter,
    /// For a service: when its next minute of lines begins.
    window: Option<Instant>,
}

impl Stream {
    /// Makes a stream. Must be called on the runtime.
    pub(super) fn new(read: OwnedFd, speaker: Speaker, level: Level) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(read)?;
        Ok(Self { pipe, lines: LineSplitter::new(speaker, level, LINES_MAX), window: None })
    }

    /// For something that runs long: limits the lines of each minute, not those of the whole run.
    pub(super) fn of_service(mut self) -> Self {
        self.lines.logged_max = LATE_LINES_MAX;
        self.window = Some(Instant::now() + MINUTE);
        self
    }

    /// Reads once what is there. False when the output is closed. Cancel safe.
    pub(super) async fn turn(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                if let Some(window) = &mut self.window {
                    self.lines.next_window(window);
                }
                self.lines.take(&buffer[..length]);
                true
            }
        }
    }

    /// Takes what the ended script has printed. If something in the background can still print, a task reads the rest
    /// for as long as something can come.
    pub(super) fn end(mut self) -> Text {
        let mut buffer = [0; 4096];
        // A background process that floods the pipe must not keep us here.
        let mut rounds = PIPE_BYTES / buffer.len();
        let closed = loop {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => break true,
                Ok(length) => self.lines.take(&buffer[..length]),
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => break fault.kind() != io::ErrorKind::WouldBlock,
            }
            rounds -= 1;
            if rounds == 0 {
                break false;
            }
        };
        let text = self.lines.end();
        if !closed {
            let speaker =
                Speaker { label: format!("{} (background)", text.speaker.label), ..text.speaker.clone() };
            tokio::spawn(read_on(self.pipe, speaker, text.level));
        }
        text.text
    }
}

/// Reads what a service prints after its start script has ended.
async fn read_on(mut pipe: pipe::Receiver, speaker: Speaker, level: Level) {
    let mut buffer = [0; 1024];
    let mut lines = LineSplitter::new(speaker, level, LATE_LINES_MAX);
    let mut window = Instant::now() + MINUTE;
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        lines.next_window(&mut window);
        lines.take(&buffer[..length]);
        lines.head.clear();
    }
    lines.end();
}

/// The output of a child, after its end.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The beginning of the output, as printed.
    pub(super) head: Vec<u8>,
    /// The first line that was not empty, escaped.
    pub(super) first: String,
    /// The last line that was not empty, escaped. A line that begins with a blank is passed over: it continues the one
    /// before and says less, as the hint of mount(8) below its error does.
    pub(super) last: String,
}

struct OutputLines {
    text: Text,
    speaker: Speaker,
    level: Level,
}

/// Cuts bytes into lines and logs them.
struct LineSplitter {
    speaker: Speaker,
    level: Level,
    head: Vec<u8>,
    line: Vec<u8>,
    /// Bytes of this line beyond the limit.
    cut: usize,
    first: String,
    last: String,
    logged_max: u32,
    logged: u32,
    dropped: u64,
}

impl LineSplitter {
    fn new(speaker: Speaker, level: Level, told_max: u32) -> Self {
        let (head, line, first, last) = (Vec::new(), Vec::new(), String::new(), String::new());
        Self { speaker, level, head, line, cut: 0, first, last, logged_max: told_max, logged: 0, dropped: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES_MAX.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        if let Some(first) = pieces.next() {
            self.append(first);
        }
        for piece in pieces {
            self.end_line();
            self.append(piece);
        }
    }

    fn append(&mut self, piece: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(&piece[..room]);
        self.cut += piece.len() - room;
    }

    fn end_line(&mut self) {
        let line = self.line.trim_ascii();
        if !line.is_empty() {
            let mut text = String::new();
            // Writing to a string cannot fail.
            for piece in line.chunks(Escaped::LIMIT) {
                let _ = write!(text, "{}", Escaped(piece));
            }
            if self.cut > 0 {
                let _ = write!(text, "… ({} bytes more)", self.cut);
            }
            if self.first.is_empty() {
                self.first.clone_from(&text);
            }
            if self.logged < self.logged_max {
                self.logged += 1;
                self.speaker.say(self.level, &text);
            } else {
                self.dropped += 1;
            }
            let goes_on = self.line.first().is_some_and(u8::is_ascii_whitespace);
            if !goes_on || self.last.is_empty() {
                self.last = text;
            }
        }
        self.line.clear();
        self.cut = 0;
    }

    /// Begins a new minute if the last one is over.
    fn next_window(&mut self, window: &mut Instant) {
        if Instant::now() >= *window {
            self.new_window();
            *window = Instant::now() + MINUTE;
        }
    }

    fn new_window(&mut self) {
        if self.dropped > 0 {
            self.speaker.say(self.level, format!("{} more lines, not shown", self.dropped));
        }
        (self.logged, self.dropped) = (0, 0);
    }

    fn end(&mut self) -> OutputLines {
        self.end_line();
        self.new_window();
        let text = Text {
            head: std::mem::take(&mut self.head),
            first: std::mem::take(&mut self.first),
            last: std::mem::take(&mut self.last),
        };
        OutputLines { text, speaker: self.speaker.clone(), level: self.level }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn lines(told_max: u32) -> (LineSplitter, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&heard);
        let tell: NoteSink = Arc::new(move |note| listener.lock().unwrap().push(note.text));
        let speaker = Speaker { tell, group: None, epoch: None, label: "x start".into() };
        (LineSplitter::new(speaker, Level::Info, told_max), heard)
    }

    #[test]
    fn lines_are_logged_whole_however_they_arrive() {
        let (mut lines, heard) = lines(10);
        for piece in ["one\ntw", "o\n\n  \nthr", "ee"] {
            lines.take(piece.as_bytes());
        }
        let ended = lines.end();
        assert_eq!(*heard.lock().unwrap(), ["x start: one", "x start: two", "x start: three"]);
        assert_eq!([ended.text.first, ended.text.last], ["one", "three"]);
        assert_eq!(ended.text.head, b"one\ntwo\n\n  \nthree");
    }

    #[test]
    fn the_last_line_is_one_that_stands_for_itself() {
        let last = |text: &[u8]| {
            let (mut lines, heard) = lines(10);
            lines.take(text);
            let last = lines.end().text.last;
            assert_eq!(heard.lock().unwrap().len(), 2, "all is told");
            last
        };
        assert_eq!(
            last(b"mount: /srv: no such device.\n       dmesg(1) may have more.\n"),
            "mount: /srv: no such device."
        );
        assert_eq!(last(b"\tat main\nfault\n"), "fault");
        assert_eq!(last(b"  one\n  two\n"), "one");
    }

    #[test]
    fn nothing_harmful_gets_through() {
        let (mut lines, heard) = lines(10);
        lines.take(b"a\x1b[31m\xff\xc3\xa4\r\n");
        lines.end();
        assert_eq!(*heard.lock().unwrap(), ["x start: a\\x1b[31m\\xff\\xc3\\xa4"]);
    }

    #[test]
    fn floods_are_cut_and_counted() {
        let (mut lines, heard) = lines(2);
        lines.take(&[b'a'; 100_000]);
        for _ in 0..5 {
            lines.take(b"\nb");
        }
        let ended = lines.end();
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 3);
        assert!(
            heard[0].len() < LINE_BYTES_MAX + 50 && heard[0].ends_with("(99520 bytes more)"),
            "{}",
            heard[0]
        );
        assert_eq!(heard[2], "x start: 4 more lines, not shown");
        assert_eq!(ended.text.head.len(), HEAD_BYTES_MAX);
    }

    #[test]
    fn a_pipe_never_breaks_and_never_blocks_once_released() {
        use std::io::Write as _;
        let pipe = Pipe::new().unwrap();
        let mut service = pipe.write.try_clone().unwrap();
        release(pipe.write);
        drop(pipe.read);
        let fault = (0..10_000).find_map(|_| service.write_all(&[b'x'; 1024]).err()).unwrap();
        assert_eq!(fault.kind(), io::ErrorKind::WouldBlock);
    }
}
