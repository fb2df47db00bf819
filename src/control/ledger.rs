//! The files of the ledger: what a member of a native cluster must remember over a restart.
//! [`locum_core::native::ledger`] defines its format and checks what was read. Calls block.
//!
//! | file in the state directory | content |
//! |---|---|
//! | `ledger-CLUSTER-a`, `ledger-CLUSTER-b` | the two files, written in turn, mode 0600 |
//!
//! A file is written in place, so a full disk still has room for it. If that write goes wrong, the other file is
//! unchanged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use locum_core::{
    model::{claim::DurableState, note::Level},
    native::{
        ledger::{LedgerContent, RecoveredLedger, recover},
        wire::members::MemberTable,
    },
};

use super::state::cure;

/// Upper bound of a file's size: a list of as many groups as there can be is shorter.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The two files of the ledger, and the member that writes them.
#[derive(Debug)]
pub struct Ledger {
    files: [PathBuf; 2],
    members: MemberTable,
    cluster: String,
    member: String,
    generation: u64,
    sequence: u64,
    next: usize,
    /// A write has failed, and that was reported.
    failed: bool,
}

/// The content of the ledger at the start.
#[derive(Debug)]
pub struct LoadedLedger {
    /// The member's memory; `None` if nothing reliable was found.
    pub durable: Option<DurableState>,
    /// The highest generation that the member is known to have used; 0 if none.
    pub generation: u64,
    /// A remark for the administrator, with the path.
    pub note: Option<(Level, String)>,
}

impl Ledger {
    /// Reads the two files. `lived` is the highest generation of this member that is known from elsewhere.
    #[must_use]
    pub fn open(
        directory: &Path,
        cluster: &str,
        member: &str,
        members: MemberTable,
        lived: Option<u64>,
    ) -> (Self, LoadedLedger) {
        let files = ["a", "b"].map(|which| directory.join(format!("ledger-{cluster}-{which}")));
        let texts = files.each_ref().map(|path| match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A file that cannot be read counts as damaged.
            text => Some(text.unwrap_or_default()),
        });
        let texts = texts.each_ref().map(|text| text.as_deref());
        let memory = recover(texts, cluster, member, &members, lived);
        let RecoveredLedger { durable, generation, sequence, next, note } = memory;
        let place = directory.display();
        let note = note.map(|(level, text)| (level, format!("{place}: {text}")));
        let (cluster, member) = (cluster.to_owned(), member.to_owned());
        let ledger = Self { files, members, cluster, member, generation, sequence, next, failed: false };
        (ledger, LoadedLedger { durable, generation, note })
    }

    /// Begins a run with this generation. The memory is marked with it, so that a copy of an older memory is
    /// recognized. A member without a memory has nothing to mark.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn begin(&mut self, generation: u64, durable: Option<&DurableState>) -> io::Result<()> {
        self.generation = generation;
        durable.map_or(Ok(()), |durable| self.write(durable))
    }

    /// Writes this into the file whose turn it is, and returns when it is on the disk.
    ///
    /// # Errors
    /// Those of the system; the earlier content is still there then.
    pub fn write(&mut self, durable: &DurableState) -> io::Result<()> {
        let content = LedgerContent {
            cluster: self.cluster.clone(),
            member: self.member.clone(),
            generation: self.generation,
            sequence: self.sequence,
            durable: durable.clone(),
        };
        put(&self.files[self.next], content.write(&self.members).as_bytes())?;
        self.sequence += 1;
        self.next = 1 - self.next;
        Ok(())
    }

    /// As [`Self::write`]. Returns whether it is on the disk and, for the first of several failures, a message for the
    /// log.
    pub fn try_to_write(&mut self, durable: &DurableState) -> (bool, Option<String>) {
        let Err(error) = self.write(durable) else { return (true, None) };
        let is_news = !std::mem::replace(&mut self.failed, true);
        let path = self.files[self.next].display();
        let text = format!("{path} cannot be written: {error}{}", cure(&error));
        (false, is_news.then_some(text))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    match path.parent() {
        Some(directory) if is_new => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use locum_core::model::time::Duration;

    use super::*;

    fn open(directory: &Path, lived: Option<u64>) -> (Ledger, LoadedLedger) {
        let members = MemberTable::new(["web1", "web2"].map(String::from));
        Ledger::open(directory, "shop", "web1", members, lived)
    }

    fn durable(ceiling: u64) -> DurableState {
        DurableState { ceiling, longest_lease: Duration::from_secs(1), set: 1, ..DurableState::default() }
    }

    #[test]
    fn each_run_finds_what_the_last_one_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, found) = open(directory.path(), None);
        assert_eq!((found.durable, found.generation), (None, 0));
        ledger.begin(5, None).unwrap();
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            0,
            "who remembers nothing writes nothing"
        );
        for ceiling in [10, 20, 30] {
            assert_eq!(ledger.try_to_write(&durable(ceiling)), (true, None));
        }
        let (mut ledger, found) = open(directory.path(), Some(5));
        assert_eq!((found.durable.as_ref(), found.generation), (Some(&durable(30)), 5));
        assert!(found.note.is_none());
        ledger.begin(6, found.durable.as_ref()).unwrap();
        // Killed here: the next run knows of this one, though it wrote nothing else.
        let (_, found) = open(directory.path(), Some(6));
        assert_eq!((found.durable, found.generation), (Some(durable(30)), 6));
    }

    #[test]
    fn a_file_that_is_cut_off_at_any_byte_leaves_what_was_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(directory.path(), None);
        ledger.write(&durable(10)).unwrap();
        ledger.write(&durable(20)).unwrap();
        let newest = directory.path().join("ledger-shop-b");
        let whole = fs::read(&newest).unwrap();
        for length in 0..whole.len() {
            fs::write(&newest, &whole[..length]).unwrap();
            let (mut ledger, found) = open(directory.path(), None);
            assert_eq!(found.durable, Some(durable(10)), "{length}");
            assert!(found.note.unwrap().1.contains("of the write before, is used"));
            if length % 50 == 0 {
                ledger.write(&durable(40)).unwrap();
                assert_eq!(
                    open(directory.path(), None).1.durable,
                    Some(durable(40)),
                    "the next write heals it"
                );
            }
        }
    }

    #[test]
    fn an_old_copy_that_was_put_back_is_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(directory.path(), None);
        ledger.begin(5, Some(&durable(10))).unwrap();
        let (_, found) = open(directory.path(), Some(6));
        assert_eq!(found.durable, None);
        let (level, text) = found.note.unwrap();
        assert!(level == Level::Error && text.contains("an old copy"), "{text}");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(directory.path(), None);
        ledger.write(&durable(10)).unwrap();
        // Where a directory lies, not even root can open a file for writing.
        fs::create_dir(directory.path().join("ledger-shop-b")).unwrap();
        let (ok, text) = ledger.try_to_write(&durable(20));
        assert!(!ok && text.unwrap().contains("cannot be written"));
        assert_eq!(ledger.try_to_write(&durable(20)), (false, None));
        assert_eq!(open(directory.path(), None).1.durable, Some(durable(10)));
    }

    #[test]
    fn a_full_disk_loses_nothing() {
        // `/dev/full` is the kernel's own full disk.
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(directory.path(), None);
        ledger.write(&durable(10)).unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("ledger-shop-b")).unwrap();
        let (ok, text) = ledger.try_to_write(&durable(20));
        assert!(!ok && text.unwrap().contains("No space left"));
        fs::remove_file(directory.path().join("ledger-shop-b")).unwrap();
        assert_eq!(open(directory.path(), None).1.durable, Some(durable(10)));
    }
}
