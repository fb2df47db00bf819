//! The state and run directories: this node's identity, its generation, and the generations that were heard of the
//! other nodes. The identity's files are heartbeat's own, so that one daemon can replace the other on a node
//! (`docs/heartbeat.md`).
//!
//! | file | content |
//! |---|---|
//! | `hb_uuid` | 16 raw bytes, made once, mode 0644 |
//! | `hb_generation` | decimal, right-aligned in 15 columns, and a newline; one higher at each start |
//! | `hostcache`, `delhostcache` | heartbeat's memory of names and UUIDs: neither read nor written |
//! | `locum_generations` | a line for each node: name, the highest generation known, the highest number heard of it |
//! | `locum.pid` in the run directory | decimal and a newline |
//!
//! Nodes are known by name, from `ha.cf` alone (invariant 3), so heartbeat's caches are not needed here. The next
//! heartbeat finds them as the last one left them.
//!
//! Every file is replaced as a whole and synced before it counts. Calls block.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use locum_core::{
    model::{identity::LastHeard, note::Escaped},
    r1::{message::Uuid, plan::GenerationSource},
};
use locum_sys::file::{lock_directory, write_atomically};
use thiserror::Error;

use super::reservation::Reservation;

const UUID_FILE: &str = "hb_uuid";
const GENERATION_FILE: &str = "hb_generation";
const KNOWN_FILE: &str = "locum_generations";
const PID_FILE: &str = "locum.pid";
/// The highest number that fits into the columns of the generation file.
const GENERATION_MAX: u64 = 999_999_999_999_999;
/// An upper bound for the size of our files, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The two directories, held for this process.
#[derive(Debug)]
pub struct StateDirs {
    state: PathBuf,
    run: PathBuf,
    /// The newest known of each node, ourselves included.
    known: Mutex<BTreeMap<String, LastHeard>>,
    warnings: Mutex<Vec<String>>,
    /// The pid file that heartbeat's scripts read.
    heartbeat_pid: Option<PathBuf>,
    /// The names that this process has taken in its network namespace. Later runs of the heart may have to check them.
    reservation: Reservation,
    _locks: Vec<File>,
}

/// Why the daemon cannot start on these directories. Prints the cure.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another daemon holds the directory.
    #[error("{} is in use by {}: only one daemon can run on it", .directory.display(), process(*.pid))]
    InUse {
        directory: PathBuf,
        /// The other daemon's process, if it is known.
        pid: Option<u32>,
    },
    /// The system refuses a file or directory.
    #[error("{}: {fault}{}", .path.display(), cure(.fault))]
    File {
        path: PathBuf,
        /// The error of the system.
        fault: io::Error,
    },
    /// A heartbeat runs here, whose place this program takes.
    #[error(
        "heartbeat itself runs here (process {pid}), and would start the same groups: stop it first (its own \
         `heartbeat -k`, or `systemctl stop heartbeat`)"
    )]
    Heartbeat { pid: u32 },
    /// The UUID file is damaged.
    #[error(
        "{} holds {found}, not the 16 bytes of a node's UUID: restore it from a copy, or remove it to get a new \
         identity, which the other node will accept", .path.display()
    )]
    Uuid {
        path: PathBuf,
        /// A description of the content.
        found: String,
    },
    /// The generation file is damaged.
    #[error(
        "{} holds `{found}`, not a generation: remove it, and the node goes on with a number made from the clock",
        .path.display()
    )]
    Generation {
        path: PathBuf,
        /// The content of the file, escaped.
        found: String,
    },
}

/// The cure for a disk that takes nothing, to be appended to the system's error.
#[must_use]
pub fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room there, and start the daemon again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": find out why (the kernel's log may say), mount it writable, and start the daemon again"
        }
        _ => "",
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StateDirs {
    /// Makes the directories if they are missing, holds both for this process while the value lives, and writes the pid
    /// file.
    ///
    /// # Errors
    /// When another daemon holds one of them, or the system refuses something.
    pub fn open(state_dir: &Path, run_dir: &Path) -> Result<Self, StateError> {
        let mut locks = Vec::new();
        // Existing directories are locked before anything is made, so a daemon that cannot start leaves nothing behind.
        let (there, missing): (Vec<_>, Vec<_>) = [run_dir, state_dir].into_iter().partition(|it| it.is_dir());
        let mut held = Vec::new();
        for directory in there.into_iter().chain(missing) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            let real = made.and_then(|()| fs::canonicalize(directory));
            let real = real.map_err(|fault| StateError::File { path: directory.to_path_buf(), fault })?;
            if held.contains(&real) {
                continue;
            }
            held.push(real);
            match lock_directory(directory) {
                Ok(Some(lock)) => locks.push(lock),
                Ok(None) => {
                    let pid = holder(directory).or_else(|| running(run_dir));
                    return Err(StateError::InUse { directory: directory.to_path_buf(), pid });
                }
                Err(fault) => return Err(StateError::File { path: directory.to_path_buf(), fault }),
            }
        }
        let state = Self {
            state: state_dir.to_path_buf(),
            run: run_dir.to_path_buf(),
            known: Mutex::default(),
            warnings: Mutex::default(),
            heartbeat_pid: None,
            reservation: Reservation::default(),
            _locks: locks,
        };
        let pid = state.run.join(PID_FILE);
        write(&pid, format!("{}\n", std::process::id()).as_bytes(), 0o644)?;
        let known = state.read_known()?;
        *state.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(state)
    }

    /// Writes the pid file that heartbeat's scripts read, in its format. It is removed at the end. If it cannot be
    /// written, that is a warning.
    ///
    /// # Errors
    /// When it names a living heartbeat: our own lock shows that it is not one of our daemons.
    pub fn take_the_place_of_heartbeat(&mut self, path: &Path) -> Result<(), StateError> {
        if let Some(pid) = heartbeat(path) {
            return Err(StateError::Heartbeat { pid });
        }
        match write_atomically(path, format!("{:>10}\n", std::process::id()).as_bytes(), 0o644) {
            Ok(()) => self.heartbeat_pid = Some(path.to_path_buf()),
            Err(fault) => {
                self.warn(format!(
                    "{} cannot be written, so scripts that read it see no daemon: {fault}",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Keeps the names that the daemon has taken for as long as the directories.
    pub fn keep(&mut self, place: Reservation) {
        self.reservation = place;
    }

    /// The names kept by [`Self::keep`].
    #[must_use]
    pub const fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// This node's UUID; made at the first start.
    ///
    /// # Errors
    /// When the file is damaged, or the system refuses it.
    pub fn uuid(&self) -> Result<Uuid, StateError> {
        let path = self.state.join(UUID_FILE);
        let bytes = match read(&path)? {
            // An empty file comes from a crash at the moment of its making, so nothing is lost.
            None => Vec::new(),
            Some(bytes) if bytes.is_empty() => {
                self.warn(format!("{} was empty: this node has a new UUID", path.display()));
                bytes
            }
            Some(bytes) => bytes,
        };
        if bytes.is_empty() {
            let mut uuid = [0; 16];
            getrandom::fill(&mut uuid).map_err(|fault| StateError::File {
                path: path.clone(),
                fault: io::Error::other(fault.to_string()),
            })?;
            // RFC 9562: version 4, random.
            uuid[6] = uuid[6] & 0x0f | 0x40;
            uuid[8] = uuid[8] & 0x3f | 0x80;
            write(&path, &uuid, 0o644)?;
            return Ok(Uuid(uuid));
        }
        match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => {
                Err(StateError::Uuid { path, found: "16 zero bytes".to_owned() })
            }
            Ok(uuid) => Ok(Uuid(uuid)),
            Err(_) => Err(StateError::Uuid { path, found: format!("{} bytes", bytes.len()) }),
        }
    }

    /// The generation of the run that begins now: above every earlier one, and on the disk when this returns. Call it
    /// once in a run. `unix_seconds` is the wall clock, `me` this node's name.
    ///
    /// # Errors
    /// When the file is damaged, or the system refuses it.
    pub fn next_generation(
        &self,
        me: &str,
        source: GenerationSource,
        unix_seconds: u64,
    ) -> Result<u64, StateError> {
        let path = self.state.join(GENERATION_FILE);
        let known = self.generation_of(me);
        let by_clock = known.map_or(0, |known| known + 1).max(unix_seconds);
        let next = match source {
            GenerationSource::Time => by_clock,
            GenerationSource::File => match self.last_generation(&path)? {
                Some(last) => match known.filter(|known| last < *known) {
                    // The file may be a copy of an earlier day. The other node would take its number for a replay.
                    Some(known) => {
                        self.warn(format!(
                            "{} says {last}, but this node has already used generation {known}: it goes on from there",
                            path.display()
                        ));
                        known + 1
                    }
                    None => last + 1,
                },
                None => by_clock.max(unix_seconds.saturating_add(1)),
            },
        };
        if next > GENERATION_MAX {
            return Err(StateError::Generation { path, found: next.to_string() });
        }
        write(&path, format!("{next:>15}\n").as_bytes(), 0o600)?;
        let heard = LastHeard { generation: next, number: 0 };
        self.remember(me, heard)
            .map_err(|fault| StateError::File { path: self.state.join(KNOWN_FILE), fault })?;
        Ok(next)
    }

    /// The state directory's path.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.state
    }

    /// The highest generation known of a node.
    #[must_use]
    pub fn generation_of(&self, node: &str) -> Option<u64> {
        self.heard_of(node).map(|heard| heard.generation)
    }

    /// The newest generation and number known of a node.
    #[must_use]
    pub fn heard_of(&self, node: &str) -> Option<LastHeard> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }

    /// Keeps the newest generation and number heard of a node, so that recordings replayed after our own restart cannot
    /// keep it alive. Older values change nothing.
    ///
    /// # Errors
    /// Those of the system. The earlier value then stands, on the disk and here, so a later call writes it again.
    pub fn remember(&self, node: &str, heard: LastHeard) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(node).is_some_and(|&known| known >= heard) {
            return Ok(());
        }
        let mut next = known.clone();
        next.insert(node.to_owned(), heard);
        let mut text = String::from(
            "# Of each node: the highest generation known, the highest number heard of it. Written by locum.\n",
        );
        for (node, LastHeard { generation, number }) in &next {
            text.push_str(&format!("{node} {generation} {number}\n"));
        }
        write_atomically(&self.state.join(KNOWN_FILE), text.as_bytes(), 0o600)?;
        *known = next;
        Ok(())
    }

    /// The warnings about damaged and recovered files since the last call.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn warn(&self, text: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// The number in the generation file; `None` when it is missing or empty.
    fn last_generation(&self, path: &Path) -> Result<Option<u64>, StateError> {
        let Some(bytes) = read(path)? else { return Ok(None) };
        let text = bytes.trim_ascii();
        if text.is_empty() {
            self.warn(format!("{} was empty: the generation is made from the clock", path.display()));
            return Ok(None);
        }
        let number = str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|text| text.parse().ok()).filter(|&number: &u64| number < GENERATION_MAX) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(StateError::Generation { path: path.to_path_buf(), found: Escaped(text).to_string() })
            }
        }
    }

    /// Reads the generations known of all nodes. Unreadable parts are put aside, never thrown away.
    fn read_known(&self) -> Result<BTreeMap<String, LastHeard>, StateError> {
        let path = self.state.join(KNOWN_FILE);
        let Some(bytes) = read(&path)? else { return Ok(BTreeMap::new()) };
        let mut known = BTreeMap::new();
        let mut bad = 0;
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            match str::from_utf8(line).ok().and_then(node_and_heard) {
                Some((node, heard)) => {
                    let newest = known.entry(node.to_owned()).or_insert(heard);
                    *newest = heard.max(*newest);
                }
                None => bad += 1,
            }
        }
        if bad > 0 {
            let copy = self.state.join(format!("{KNOWN_FILE}.damaged"));
            write(&copy, &bytes, 0o600)?;
            self.warn(format!(
                "{}: {bad} lines cannot be read and are ignored; a copy is kept as {}",
                path.display(),
                copy.display()
            ));
        }
        Ok(known)
    }
}

impl Drop for StateDirs {
    fn drop(&mut self) {
        // It is removed while we still hold the directory.
        let _ = fs::remove_file(self.run.join(PID_FILE));
        if let Some(path) = self.heartbeat_pid.take().filter(|path| pid_in(path) == Some(std::process::id()))
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// The process that the pid file of a run directory names. It may be long dead: only the lock tells.
#[must_use]
pub fn running(run_dir: &Path) -> Option<u32> {
    pid_in(&run_dir.join(PID_FILE))
}

fn pid_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The daemon that holds the lock of a run directory, which a dead one cannot. Where the kernel does not show that lock
/// (some file systems, some containers), the process of the pid file's number, if it looks like a daemon.
#[must_use]
pub fn living(run_dir: &Path) -> Option<u32> {
    holder(run_dir).or_else(|| {
        running(run_dir).filter(|pid| ["locum", "heartbeat"].iter().any(|name| is_called(*pid, name)))
    })
}

/// The living heartbeat that its pid file names, unless it is this process.
#[must_use]
pub fn heartbeat(path: &Path) -> Option<u32> {
    pid_in(path).filter(|pid| *pid != std::process::id() && is_called(*pid, "heartbeat"))
}

/// Whether the process exists and its program has this name.
fn is_called(pid: u32, name: &str) -> bool {
    let program = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    program.is_ok_and(|program| program.trim_end() == name)
}

/// The process that holds the lock of a directory, if the kernel shows it.
fn holder(directory: &Path) -> Option<u32> {
    let data = fs::metadata(directory).ok()?;
    let (major, minor) = (rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", data.ino());
    // 1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut held =
        line.filter(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str()));
    held.find_map(|words| words.get(4)?.parse().ok().filter(|&pid| pid != 0))
}

/// A line of the generations file. A line without a number is valid, too: a person may have written it.
fn node_and_heard(line: &str) -> Option<(&str, LastHeard)> {
    let mut words = line.split_whitespace();
    let (node, generation) = (words.next()?, words.next()?.parse().ok()?);
    let number = words.next().map_or(Some(0), |word| word.parse().ok())?;
    words.next().is_none().then_some((node, LastHeard { generation, number }))
}

/// The content of a file; `None` when it is missing.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let fault = |fault| StateError::File { path: path.to_path_buf(), fault };
    let file = match File::open(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fault)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(fault)?;
    Ok(Some(bytes))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    write_atomically(path, bytes, mode).map_err(|fault| StateError::File { path: path.to_path_buf(), fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: GenerationSource = GenerationSource::File;
    const NOW: u64 = 1_795_334_146;

    struct Dirs(tempfile::TempDir);

    impl Dirs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("state").join(name)
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::create_dir_all(self.path("")).unwrap();
            fs::write(self.path(name), bytes).unwrap();
        }

        fn open(&self) -> Result<StateDirs, StateError> {
            StateDirs::open(&self.path(""), &self.0.path().join("run"))
        }

        fn mode(&self, name: &str) -> u32 {
            self.path(name).metadata().unwrap().mode() & 0o7777
        }
    }

    #[test]
    fn one_daemon_at_a_time_and_the_second_learns_who_it_is() {
        let dirs = Dirs::new();
        let first = dirs.open().unwrap();
        assert_eq!(running(&dirs.0.path().join("run")), Some(std::process::id()));
        let text = dirs.open().unwrap_err().to_string();
        assert!(text.contains(&format!("process {}:", std::process::id())), "{text}");
        // The same state directory with another run directory is still in use, and its daemon still named.
        let other = StateDirs::open(&dirs.path(""), &dirs.0.path().join("run2")).unwrap_err();
        assert!(
            matches!(other, StateError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{other}"
        );
        assert!(!dirs.0.path().join("run2").exists(), "who cannot start leaves nothing behind");
        StateDirs::open(&dirs.0.path().join("state2/deep"), &dirs.0.path().join("run")).unwrap_err();
        assert!(!dirs.0.path().join("state2").exists());
        drop(first);
        assert_eq!(running(&dirs.0.path().join("run")), None);
        dirs.open().unwrap();
        // One directory for both is allowed.
        StateDirs::open(dirs.0.path(), dirs.0.path()).unwrap();
    }

    #[test]
    fn heartbeats_pid_file_is_ours_as_long_as_we_live() {
        let dirs = Dirs::new();
        let path = dirs.0.path().join("heartbeat.pid");
        // The number is that of a dead process.
        fs::write(&path, " 999999999\n").unwrap();
        let mut state = dirs.open().unwrap();
        state.take_the_place_of_heartbeat(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{:>10}\n", std::process::id()));
        assert_eq!(living(&dirs.0.path().join("run")), Some(std::process::id()));
        drop(state);
        assert!(!path.exists());
        assert_eq!(living(&dirs.0.path().join("run")), None);
        // The number is that of a living heartbeat.
        let program = dirs.0.path().join("heartbeat");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut original = std::process::Command::new(&program).arg("60").spawn().unwrap();
        fs::write(&path, format!("{}\n", original.id())).unwrap();
        let fault = dirs.open().unwrap().take_the_place_of_heartbeat(&path).unwrap_err();
        original.kill().unwrap();
        original.wait().unwrap();
        assert!(matches!(fault, StateError::Heartbeat { pid } if pid == original.id()), "{fault}");
        assert_eq!(pid_in(&path), Some(original.id()), "it is not overwritten");
    }

    #[test]
    fn the_uuid_is_made_once() {
        let dirs = Dirs::new();
        let uuid = dirs.open().unwrap().uuid().unwrap();
        assert_eq!(fs::read(dirs.path(UUID_FILE)).unwrap(), uuid.0);
        assert_eq!(dirs.mode(UUID_FILE), 0o644);
        assert_eq!(dirs.open().unwrap().uuid().unwrap(), uuid);
        assert_ne!(Dirs::new().open().unwrap().uuid().unwrap(), uuid);
    }

    #[test]
    fn a_damaged_uuid_is_refused_and_an_empty_one_replaced() {
        let dirs = Dirs::new();
        for bytes in [&[1; 15][..], &[1; 17], &[0; 16]] {
            dirs.put(UUID_FILE, bytes);
            let fault = dirs.open().unwrap().uuid().unwrap_err();
            assert!(fault.to_string().contains("remove it"), "{fault}");
            assert_eq!(fs::read(dirs.path(UUID_FILE)).unwrap(), bytes, "nothing is overwritten");
        }
        dirs.put(UUID_FILE, b"");
        let state = dirs.open().unwrap();
        state.uuid().unwrap();
        assert_eq!(state.take_warnings().len(), 1);
    }

    #[test]
    fn each_run_has_a_higher_generation_in_heartbeats_format() {
        let dirs = Dirs::new();
        let next = |source, now| dirs.open().unwrap().next_generation("a", source, now).unwrap();
        assert_eq!(next(FILE, NOW), NOW + 1, "without a file, the clock");
        assert_eq!(fs::read(dirs.path(GENERATION_FILE)).unwrap(), b"     1795334147\n");
        assert_eq!(dirs.mode(GENERATION_FILE), 0o600);
        assert_eq!(next(FILE, 0), NOW + 2);
        // The file was lost and the clock is wrong: the next number is still above all that were used.
        fs::remove_file(dirs.path(GENERATION_FILE)).unwrap();
        assert_eq!(next(FILE, 5), NOW + 3);
        assert_eq!(next(GenerationSource::Time, 5), NOW + 4);
        assert_eq!(next(GenerationSource::Time, NOW + 100), NOW + 100);
        assert_eq!(next(FILE, 0), NOW + 101);
    }

    #[test]
    fn an_installed_heartbeats_generation_goes_on() {
        let dirs = Dirs::new();
        dirs.put(GENERATION_FILE, b"     1795334147\n");
        assert_eq!(dirs.open().unwrap().next_generation("a", FILE, 7).unwrap(), 1_795_334_148);
    }

    #[test]
    fn a_heartbeat_between_two_runs_moves_the_generation_forward() {
        let dirs = Dirs::new();
        dirs.put("hostcache", b"a\t5a-1\t100\tdefault\n");
        let next = || dirs.open().unwrap().next_generation("a", FILE, NOW).unwrap();
        assert_eq!((next(), next()), (NOW + 1, NOW + 2));
        // A heartbeat was started three times.
        dirs.put(GENERATION_FILE, format!("{:>15}\n", NOW + 5).as_bytes());
        assert_eq!(next(), NOW + 6);
        assert_eq!(dirs.open().unwrap().generation_of("a"), Some(NOW + 6));
        // heartbeat took a number from the clock after the file was lost.
        dirs.put(GENERATION_FILE, format!("{:>15}\n", NOW + 9_000).as_bytes());
        assert_eq!(next(), NOW + 9_001);
        assert_eq!(fs::read(dirs.path("hostcache")).unwrap(), b"a\t5a-1\t100\tdefault\n");
    }

    #[test]
    fn a_damaged_generation_is_refused_and_an_empty_one_replaced() {
        let dirs = Dirs::new();
        for bytes in [
            &b"-5\n"[..],
            b"12 13\n",
            b"0x12\n",
            b"\xff\x1b[2J\n",
            b"99999999999999999999\n",
            b"999999999999999\n",
        ] {
            dirs.put(GENERATION_FILE, bytes);
            let fault = dirs.open().unwrap().next_generation("a", FILE, NOW).unwrap_err();
            assert!(matches!(fault, StateError::Generation { .. }), "{fault}");
            assert!(!fault.to_string().contains('\x1b'));
            assert_eq!(fs::read(dirs.path(GENERATION_FILE)).unwrap(), bytes, "nothing is overwritten");
        }
        dirs.put(GENERATION_FILE, b"");
        let state = dirs.open().unwrap();
        assert_eq!(state.next_generation("a", FILE, NOW).unwrap(), NOW + 1);
        assert_eq!(state.take_warnings().len(), 1);
    }

    #[test]
    fn a_generation_that_went_backwards_goes_on_above_the_highest() {
        let dirs = Dirs::new();
        dirs.open().unwrap().next_generation("a", FILE, NOW).unwrap();
        dirs.put(GENERATION_FILE, b"              7\n");
        let state = dirs.open().unwrap();
        assert_eq!(state.next_generation("a", FILE, NOW).unwrap(), NOW + 2);
        assert!(state.take_warnings()[0].contains("has already used generation"));
        drop(state);
        fs::remove_file(dirs.path(GENERATION_FILE)).unwrap();
        assert_eq!(dirs.open().unwrap().next_generation("a", FILE, 0).unwrap(), NOW + 3);
    }

    #[test]
    fn the_highest_generation_of_a_peer_is_kept() {
        let dirs = Dirs::new();
        let state = dirs.open().unwrap();
        assert_eq!(state.generation_of("b"), None);
        let heard = |generation, number| LastHeard { generation, number };
        for (node, heard) in
            [("b", heard(12, 7)), ("b", heard(12, 6)), ("b", heard(11, 99)), ("c", heard(3, 0))]
        {
            state.remember(node, heard).unwrap();
        }
        drop(state);
        let state = dirs.open().unwrap();
        assert_eq!((state.heard_of("b"), state.heard_of("c")), (Some(heard(12, 7)), Some(heard(3, 0))));
        assert_eq!(dirs.mode(KNOWN_FILE), 0o600);
    }

    #[test]
    fn of_a_damaged_memory_the_good_lines_are_used_and_all_is_kept() {
        let dirs = Dirs::new();
        let bytes = b"# x\nb 12 3\nb 11 9\n\xff\xfe\nc\nd x\ne 5\nf 1 x\n";
        dirs.put(KNOWN_FILE, bytes);
        let state = dirs.open().unwrap();
        assert_eq!((state.generation_of("b"), state.generation_of("e")), (Some(12), Some(5)));
        assert_eq!(fs::read(dirs.path("locum_generations.damaged")).unwrap(), bytes);
        assert!(state.take_warnings()[0].contains("4 lines"));
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let dirs = Dirs::new();
        fs::create_dir_all(dirs.path(UUID_FILE)).unwrap();
        assert!(matches!(dirs.open().unwrap().uuid(), Err(StateError::File { .. })));
        let file = dirs.path("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(StateDirs::open(&dirs.path(""), &file), Err(StateError::File { .. })));
    }
}
