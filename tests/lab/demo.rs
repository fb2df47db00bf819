//! The demo as a user without any installation runs it: only a shell in `PATH`, no terminal.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, Output},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{LOCUM, host};

/// Exit code 77: no rack can be built here.
fn output_text(output: &Output) -> Option<String> {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        crate::skipped(text);
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    Some(text)
}

/// The whole demo ran: its outages were measured, every step had its outcome, and the host is as before.
fn assert_shown(text: &str) {
    for line in [
        "- serial /dev/ttyS0",
        "gates by ",
        "the serial cable is pulled",
        "clustnode1 loses its power",
        "clustnode2 holds 172.23.2.14 and serves the client",
        "outage seen by the client",
        "moved by hand",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    let row = text.lines().find(|line| line.starts_with("power of clustnode1 cut")).unwrap_or_default();
    assert!(row.contains(" ms") || row.contains(" s "), "no outage in {row:?}");
}

#[test]
fn the_demo_needs_nothing_but_a_shell() {
    let before = host();
    let bin = tempfile::tempdir().unwrap();
    symlink("/bin/sh", bin.path().join("sh")).unwrap();
    let output = Command::new(LOCUM).arg("demo").env_clear().env("PATH", bin.path()).output().unwrap();
    if let Some(text) = output_text(&output) {
        assert_shown(&text);
        assert_eq!(host(), before);
    }
}

#[test]
fn nobody_sees_the_demo_too() {
    // Other users may not be able to reach the directory in which the program was built.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("locum");
    std::fs::copy(LOCUM, &program).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).arg("demo");
    match nobody.output() {
        Err(error) => crate::skipped(format!("setpriv: {error}")),
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("setpriv:") => {
            crate::skipped(String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            if let Some(text) = output_text(&output) {
                assert_shown(&text);
            }
        }
    }
}

/// The contents of a terminal of that size. Only changes are sent, so a word on the screen may never have come in one
/// piece.
struct Picture {
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    /// A sequence that has not ended yet.
    sequence: Option<String>,
}

impl Picture {
    fn new(columns: u16, rows: u16) -> Self {
        let row = vec![' '; usize::from(columns)];
        Self { rows: vec![row; usize::from(rows)], at: (0, 0), sequence: None }
    }

    /// Interprets the control sequence (ECMA-48) that moves the cursor. The others change no letter.
    fn feed(&mut self, text: &str) {
        for letter in text.chars() {
            match self.sequence.take() {
                None if letter == '\x1b' => self.sequence = Some(String::new()),
                None => self.put(letter),
                Some(so_far) if letter == '[' || !letter.is_ascii_alphabetic() => {
                    self.sequence = Some(so_far + letter.encode_utf8(&mut [0; 4]));
                }
                Some(so_far) if letter == 'H' => {
                    let mut numbers =
                        so_far.trim_start_matches('[').split(';').map(|n| n.parse().unwrap_or(1));
                    let mut next = || numbers.next().unwrap_or(1_usize).saturating_sub(1);
                    self.at = (next(), next());
                }
                Some(_) => {}
            }
        }
    }

    fn put(&mut self, letter: char) {
        let (row, column) = self.at;
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = letter;
        }
        self.at.1 += 1;
    }

    fn text(&self) -> String {
        self.rows.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }
}

/// Runs `demo --hands-on` in a terminal of that size. Each key is pressed when the text before it appears. Returns the
/// pictures until the demo ends, by itself or after the last key.
fn hands_on(columns: u16, rows: u16, script: &[(&str, &str)]) -> Option<(Output, String)> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    // Processes that another test starts meanwhile must not hold it open.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = || File::from(rustix::fs::open(&name, flags, Mode::empty()).unwrap());
    let mut command = Command::new("setsid");
    // If an awaited text never appears, no key is pressed either.
    command.args(["--ctty", "--wait", "timeout", "--foreground", "300", LOCUM, "demo", "--hands-on"]);
    command.env("TERM", "xterm");
    command.stdin(open()).stdout(open()).stderr(std::process::Stdio::piped());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            crate::skipped(format!("setsid: {error}"));
            return None;
        }
    };
    // The terminal reports its end when no process has the other side open.
    drop(command);
    let (mut terminal, mut text, mut bytes) = (File::from(terminal), String::new(), [0; 4096]);
    let mut picture = Picture::new(columns, rows);
    let mut script = script.iter();
    let mut next = script.next();
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        picture.feed(&String::from_utf8_lossy(&bytes[..count]));
        let shown = picture.text();
        text.push_str(&shown);
        if let Some((_, key)) = next.filter(|(after, _)| shown.contains(after)) {
            terminal.write_all(key.as_bytes()).unwrap();
            next = script.next();
        }
    }
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        crate::skipped(String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some((output, text))
}

#[test]
fn keys_do_it_hands_on() {
    let script = [("not work yet)", "1"), ("ready:", "l"), ("beats,", "l"), ("outage:", "q")];
    let Some((output, text)) = hands_on(80, 24, &script) else { return };
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("outage seen by the client"), "{text}");
    assert!(!text.contains("loses"), "a key before its time does nothing: {text}");
}

#[test]
fn hands_on_without_room_for_the_keys_says_so() {
    let Some((output, text)) = hands_on(79, 24, &[]) else { return };
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--hands-on needs a terminal of at least 80 x 24"), "{told}");
}

/// A user without a mapping in a user namespace may not make another one.
#[test]
fn without_namespaces_it_says_what_is_missing() {
    let output = Command::new("unshare").args(["--user", "--", LOCUM, "demo"]).output();
    let Ok(output) = output else { return crate::skipped("no unshare here") };
    let text = String::from_utf8_lossy(&output.stderr);
    if text.starts_with("unshare:") {
        return crate::skipped(text);
    }
    assert_eq!(output.status.code(), Some(77), "{text}");
    assert!(text.contains("no rack of nodes can be built here: a user namespace: "), "{text}");
    assert!(text.contains("\ntry: ") && output.stdout.is_empty(), "{text}");
}
