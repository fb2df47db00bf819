//! The FIFO in the state directory, by which local scripts send messages to the cluster (`ha_clustermsg` of heartbeat's
//! shell functions). Facts: `docs/wire.md`, sections 1.2 and 9; `docs/heartbeat.md`, section 6.
//!
//! Only root can write it. The input is cut into frames without an authenticator and handed on as names and values; the
//! core decides what they mean. Anything else is dropped and logged, at most once a minute.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use locum_core::model::note::Level;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::observe::{journal::Journal, socket::ControlQuestion};

/// The FIFO's name in the state directory.
pub const NAME: &str = "fifo";
/// A line is shorter than this, its end included, as in the original.
const LINE_BYTES_MAX: usize = 512;
/// Largest frame that is kept while it arrives, in bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// How many fields a frame may have.
const FIELDS_MAX: usize = 64;
/// How often dropped input is logged at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Names and values, in their order.
pub type MessageFields = Vec<(String, String)>;

/// Makes the FIFO if it does not exist, and opens it for reading. Another file of its name is put aside: a script that
/// wrote before there was a FIFO made one.
///
/// # Errors
/// Those of the system.
pub fn open(path: &Path) -> io::Result<pipe::Receiver> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {}
        Ok(_) => {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".no-fifo");
            fs::rename(path, aside)?;
            make(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        Err(error) => return Err(error),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    // It is open for writing, too, so it never ends, whichever writers come and go.
    pipe::OpenOptions::new().read_write(true).open_receiver(path)
}

fn make(path: &Path) -> io::Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(Into::into)
}

/// Reads until the future is dropped. Each message waits until the daemon takes it; meanwhile writers wait when the
/// FIFO is full.
pub async fn read(mut pipe: pipe::Receiver, questions: mpsc::Sender<ControlQuestion>, journal: Journal) {
    let mut cutter = Cutter::default();
    let mut buffer = [0; 4096];
    let (mut dropped, mut reason, mut told) = (0_u64, "", None::<Instant>);
    loop {
        let length = match pipe.read(&mut buffer).await {
            Ok(length) => length,
            Err(fault) => {
                journal.say(Level::Warning, format!("the FIFO for scripts cannot be read: {fault}"));
                sleep(TELL_EVERY).await;
                continue;
            }
        };
        for byte in &buffer[..length] {
            match cutter.take(*byte) {
                None => {}
                Some(Ok(fields)) => match questions.send(ControlQuestion::Say(fields)).await {
                    Ok(()) => {}
                    // The receiver is gone: the daemon ends.
                    Err(_) => return,
                },
                Some(Err(why)) => (dropped, reason) = (dropped + 1, why),
            }
        }
        if dropped > 0 && told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            journal.say(
                Level::Warning,
                format!(
                    "FIFO: dropped {dropped} invalid pieces of input from local scripts; the last: {reason}"
                ),
            );
            dropped = 0;
        }
    }
}

/// Cuts messages out of a stream of bytes: classic frames (`>>>`, a line for each field, `<<<`) and netstring frames
/// (`###`, fields, `%%%`), both without an authenticator. Keeps a bounded number of bytes.
#[derive(Debug, Default)]
struct Cutter {
    line: Vec<u8>,
    /// The line is longer than allowed.
    overlong: bool,
    frame: FrameState,
}

#[derive(Debug, Default)]
enum FrameState {
    #[default]
    Outside,
    /// In a classic frame: the fields so far, or why the frame is invalid.
    Classic(Result<MessageFields, &'static str>),
    /// In a netstring frame: the bytes so far.
    Netstring(Vec<u8>),
}

impl Cutter {
    /// Takes one byte. Returns a message if this byte was its last, or what was wrong with the piece that it ends.
    fn take(&mut self, byte: u8) -> Option<Result<MessageFields, &'static str>> {
        if byte != b'\n' {
            let most = if matches!(self.frame, FrameState::Netstring(_)) {
                FRAME_BYTES_MAX
            } else {
                LINE_BYTES_MAX - 1
            };
            match self.line.len() < most {
                true => self.line.push(byte),
                false => self.overlong = true,
            }
            return None;
        }
        let line = std::mem::take(&mut self.line);
        let overlong = std::mem::take(&mut self.overlong);
        self.end_line(&line, overlong)
    }

    fn end_line(&mut self, line: &[u8], overlong: bool) -> Option<Result<MessageFields, &'static str>> {
        // Some senders end a frame with a NUL.
        let line = line.strip_prefix(b"\0").unwrap_or(line);
        match std::mem::take(&mut self.frame) {
            FrameState::Outside => self.begin(line).then_some(Err("text outside of a frame")),
            FrameState::Classic(fields) if line == b"<<<" => Some(fields),
            FrameState::Classic(_) if line == b">>>" || line == b"###" => {
                self.begin(line);
                Some(Err("a frame without an end"))
            }
            FrameState::Classic(fields) => {
                self.frame = FrameState::Classic(fields.and_then(|mut fields| {
                    if overlong {
                        return Err("a line of 512 bytes or more");
                    }
                    if fields.len() == FIELDS_MAX {
                        return Err("more than 64 fields");
                    }
                    fields.push(field(line)?);
                    Ok(fields)
                }));
                None
            }
            FrameState::Netstring(mut body) => {
                if overlong || body.len() + line.len() >= FRAME_BYTES_MAX {
                    return Some(Err("a frame that is too long"));
                }
                body.extend_from_slice(line);
                match body.strip_suffix(b"%%%") {
                    Some(whole) => Some(netstrings(whole)),
                    None => {
                        body.push(b'\n');
                        self.frame = FrameState::Netstring(body);
                        None
                    }
                }
            }
        }
    }

    /// Takes a line between frames. Returns whether it is invalid: it begins no frame and is not empty.
    fn begin(&mut self, line: &[u8]) -> bool {
        match line {
            b">>>" => self.frame = FrameState::Classic(Ok(Vec::new())),
            b"###" => self.frame = FrameState::Netstring(Vec::new()),
            b"" => {}
            _ => return true,
        }
        false
    }
}

/// A line of a classic frame: text without a type. Byte 19 stands for a newline.
fn field(line: &[u8]) -> Result<(String, String), &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "a field that is not text")?;
    let text = text.trim_start_matches([' ', '\t']);
    let (name, value) = text.split_once('=').ok_or("a field without =")?;
    if name.starts_with('(') {
        return Err("a field of another type than text");
    }
    if name.is_empty() || value.is_empty() {
        return Err("a field without name or value");
    }
    Ok((name.to_owned(), value.replace('\u{13}', "\n")))
}

/// The fields of a netstring frame, each `LENGTH:(0)NAME=VALUE,`.
fn netstrings(mut rest: &[u8]) -> Result<MessageFields, &'static str> {
    const BAD: &str = "a netstring with a wrong length";
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let colon = rest.iter().position(|&byte| byte == b':').ok_or(BAD)?;
        let length = std::str::from_utf8(&rest[..colon]).ok().filter(|digits| digits.len() < 6);
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or(BAD)?;
        let (body, behind) = rest[colon + 1..].split_at_checked(length).ok_or(BAD)?;
        rest = behind.strip_prefix(b",").ok_or(BAD)?;
        let body = body.strip_prefix(b"(0)").ok_or("a field of another type than text")?;
        if fields.len() == FIELDS_MAX {
            return Err("more than 64 fields");
        }
        fields.push(field(body)?);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8]) -> Vec<Result<Vec<String>, &'static str>> {
        let mut cutter = Cutter::default();
        let joined = |fields: MessageFields| {
            fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        text.iter().filter_map(|&byte| cutter.take(byte)).map(|cut| cut.map(joined)).collect()
    }

    fn fields(list: &[&str]) -> Result<Vec<String>, &'static str> {
        Ok(list.iter().map(|&field| field.to_owned()).collect())
    }

    #[test]
    fn frames_of_both_kinds_are_cut() {
        // As the shell writes them, with the blanks of a here-document.
        let text = b">>>\nt=ask_resources\n\trsc_hold=all\ninfo=me\n<<<\n\n\0>>>\nt=a\nv=b=\x13c\n<<<\n\
                     ###\n6:(0)t=x,9:(0)v=1,2\n,%%%\n>>>\n<<<\n";
        assert_eq!(
            cut(text),
            [
                fields(&["t=ask_resources", "rsc_hold=all", "info=me"]),
                fields(&["t=a", "v=b=\nc"]),
                fields(&["t=x", "v=1,2\n"]),
                fields(&[]),
            ]
        );
    }

    #[test]
    fn what_is_no_frame_is_dropped_and_the_next_one_read() {
        let good = b">>>\nt=a\n<<<\n";
        let long = [b"v=", &[b'x'; 600][..]].concat();
        let many = b"a=b\n".repeat(FIELDS_MAX + 1);
        let endless = [b"###\n", &[b'y'; FRAME_BYTES_MAX + 9][..]].concat();
        for (bad, why) in [
            (&b"echo"[..], "text outside of a frame"),
            (b">>>\nt=x", "a frame without an end"),
            (b">>>\n(1)t=x\n<<<", "a field of another type than text"),
            (b">>>\nt\n<<<", "a field without ="),
            (b">>>\nt=\n<<<", "a field without name or value"),
            (b">>>\nt=\xff\n<<<", "a field that is not text"),
            (&[b">>>\n", &long[..], b"\n<<<"].concat(), "a line of 512 bytes or more"),
            (&[b">>>\n", &many[..], b"<<<"].concat(), "more than 64 fields"),
            (b"###\n6:(0)t=xy,%%%", "a netstring with a wrong length"),
            (b"###\n99999999999:(0)t=xy,%%%", "a netstring with a wrong length"),
            (b"###\n6:(1)t=x,%%%", "a field of another type than text"),
            (&endless, "a frame that is too long"),
        ] {
            let got = cut(&[bad, b"\n", good].concat());
            assert_eq!(got, [Err(why), fields(&["t=a"])], "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_keeps_it_from_the_next_frame(
            pieces in proptest::collection::vec("(>>>\n|<<<\n|###\n|%%%\n|t=a\n|5:|6:\\(0\\)t=x,|[ -~]{0,9}|\n|\\x00|é)", 0..60)
        ) {
            let mut cutter = Cutter::default();
            let mut take = |text: &str| text.bytes().filter_map(|byte| cutter.take(byte)).last();
            take(&pieces.concat());
            // These end any frame that was begun, and the next one is read.
            take("\n%%%\n<<<\n");
            proptest::prop_assert_eq!(take(">>>\nt=a\n<<<\n"), Some(Ok(vec![("t".to_owned(), "a".to_owned())])));
        }
    }

    #[test]
    fn a_file_in_its_place_is_put_aside() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        fs::write(&path, ">>>\nt=a\n<<<\n").unwrap();
        for _ in 0..2 {
            drop(open(&path).unwrap());
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert!(metadata.file_type().is_fifo());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        assert!(dir.path().join("fifo.no-fifo").exists());
    }
}
