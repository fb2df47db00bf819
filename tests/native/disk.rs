//! A member's disk loses, damages or confuses the ledger, or takes no more writes. One log line reports it, two nodes
//! never have the service at once, and the service comes back as soon as a majority can vote.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use locum_core::native::{ledger::LedgerContent, status::OwnVote, wire::members::MemberTable};
use locum_lab::{ProcessSignal, Program, clock::Moment, clock::await_some, timeline::Span};

use super::{NODES, PATIENCE, SERVICE, Shop, WITNESS};

/// A member's state directory within its node: memory of a limited size, which can be made full or read-only.
const STATE: &str = "/run/disk/state";
const SIZE: &str = "size=96k";
/// A copy of earlier contents of a member's disk, kept beside it.
const ASIDE: &str = "/run/disk/aside";
const BALLAST: &str = "ballast";
/// With this variable set, every fault is tried at every member.
const EVERYWHERE: &str = "LOCUM_LEDGERS_EVERYWHERE";
const MEMBERS: [&str; 3] = [NODES[0], NODES[1], WITNESS];

/// The damage to the ledger of a member that does not run.
#[derive(Clone, Copy, Debug)]
enum LedgerDamage {
    /// One file is cut off, as by an unfinished write.
    Torn(usize),
    TornBoth,
    /// The ledger is lost; the rest of the state is there.
    Lost,
    /// All state is gone.
    AllLost,
    /// The ledger is that of a cluster with another name.
    OtherCluster,
    /// All state is another member's.
    OtherMember,
    /// The ledger is the one of an earlier run.
    OldCopy,
    /// One of its bits is flipped.
    Flipped,
}

impl LedgerDamage {
    const ALL: [Self; 9] = [
        Self::Torn(0),
        Self::Torn(1),
        Self::TornBoth,
        Self::Lost,
        Self::AllLost,
        Self::OtherCluster,
        Self::OtherMember,
        Self::OldCopy,
        Self::Flipped,
    ];

    /// The words of the member's log line about it.
    fn line(self) -> &'static str {
        match self {
            Self::Torn(_) => "one file of the ledger is not used: it is incomplete or damaged",
            Self::TornBoth | Self::Flipped => "the ledger cannot be used: it is incomplete or damaged",
            Self::Lost => "the ledger of this member's earlier runs is gone",
            Self::AllLost => "there is no ledger yet",
            Self::OtherCluster => "in cluster another",
            Self::OtherMember => "the ledger is that of",
            Self::OldCopy => "it is an old copy",
        }
    }

    /// The words of that line about its consequence.
    fn cure(self) -> &'static str {
        match self {
            Self::Torn(_) => "the other one, of the write before, is used",
            Self::AllLost => {
                "a new cluster makes one when all its voters have started; otherwise it is copied from them"
            }
            _ => "this member grants nothing before it has copied the ledger from the others",
        }
    }

    fn happen(self, others: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
        let files = ledger_files()?;
        // A run that had to copy the ledger has written one file so far.
        assert!(!files.is_empty());
        match self {
            Self::Torn(which) => cut(&files[which % files.len()]),
            Self::TornBoth => files.iter().try_for_each(cut),
            Self::Lost => files.iter().try_for_each(fs::remove_file),
            Self::AllLost => clear(),
            Self::OtherCluster => files.iter().try_for_each(|path| {
                let members = MemberTable::new(MEMBERS.map(String::from));
                let mut content =
                    LedgerContent::read(&fs::read(path)?, &members).map_err(io::Error::other)?;
                content.cluster = "another".into();
                fs::write(path, content.write(&members))
            }),
            Self::OtherMember => {
                clear()?;
                others.iter().try_for_each(|(path, bytes)| fs::write(path, bytes))
            }
            Self::OldCopy => {
                files.iter().try_for_each(fs::remove_file)?;
                for entry in fs::read_dir(ASIDE)? {
                    let old = entry?;
                    fs::copy(old.path(), Path::new(STATE).join(old.file_name()))?;
                }
                Ok(())
            }
            Self::Flipped => files.iter().try_for_each(|path| {
                let mut bytes = fs::read(path)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes)
            }),
        }
    }
}

/// Cuts off the second half of a file.
fn cut(path: &PathBuf) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

/// All files of the state, in order.
fn files() -> io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(STATE)?
        .map(|entry| entry.map(|entry| entry.path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path.is_file()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn ledger_files() -> io::Result<Vec<PathBuf>> {
    let is_ledger =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ledger-"));
    Ok(files()?.into_iter().filter(is_ledger).collect())
}

fn clear() -> io::Result<()> {
    files()?.iter().try_for_each(fs::remove_file)
}

/// Writes until the disk takes nothing more.
fn fill() -> io::Result<()> {
    use io::Write as _;
    let mut file = fs::File::create(Path::new(STATE).join(BALLAST))?;
    loop {
        match file.write_all(&[b'x'; 512]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn empty() -> io::Result<()> {
    fs::remove_file(Path::new(STATE).join(BALLAST))
}

fn other(node: &str) -> &'static str {
    if node == NODES[0] { NODES[1] } else { NODES[0] }
}

impl Shop {
    /// A serving cluster in which each member has its own disk and is in its second run. So both ledger files are
    /// written, and those of the first run lie aside.
    fn with_disks() -> Option<Self> {
        let mut shop = Self::build(false)?;
        shop.lay_disks();
        MEMBERS.into_iter().for_each(|member| shop.start(member));
        let begun = Moment::now();
        shop.wait("the group runs", |shop| shop.runs_on().is_some() && shop.answers_since(begun));
        // A member that ends before its first write to the ledger is still a founder.
        MEMBERS.into_iter().for_each(|member| shop.wait_for_vote(member));
        for member in [WITNESS, NODES[1], NODES[0]] {
            shop.end(member);
            shop.at(member, || {
                ledger_files()?.iter().try_for_each(|path| {
                    fs::copy(path, Path::new(ASIDE).join(path.file_name().unwrap())).map(drop)
                })
            });
            shop.start(member);
            shop.wait_for_vote(member);
        }
        if shop.wait_for_service() != NODES[0] {
            shop.order(NODES[1], &["move", "web", NODES[0]]);
            shop.wait("the group is on the first node", |shop| shop.runs(NODES[0]));
        }
        Some(shop)
    }

    fn lay_disks(&self) {
        for member in MEMBERS {
            self.at(member, || fs::create_dir_all(STATE).and_then(|()| fs::create_dir_all(ASIDE)));
            self.program(member, &["mount", "-t", "tmpfs", "-o", SIZE, "state", STATE]);
        }
    }

    /// Runs `job` in a member's node.
    #[track_caller]
    fn at<T: Send + 'static>(&self, member: &str, job: impl FnOnce() -> io::Result<T> + Send + 'static) -> T {
        self.rack.inside(member, job).unwrap().unwrap()
    }

    #[track_caller]
    fn program(&self, member: &str, words: &[&str]) {
        let outcome = self.rack.run(member, &Program::new(words), PATIENCE).unwrap();
        assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.text);
    }

    #[track_caller]
    fn remount(&self, member: &str, how: &str) {
        self.program(member, &["mount", "-o", &format!("remount,{how}"), STATE]);
    }

    /// Kills a member's daemon.
    fn end(&mut self, member: &str) {
        self.daemon(member).signal(ProcessSignal::Kill).unwrap();
        self.daemon(member).wait(PATIENCE).expect("killed");
    }

    /// Kills a member's daemon, applies `fault` to its disk, and starts a new daemon.
    fn between_runs(
        &mut self,
        member: &'static str,
        fault: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        self.end(member);
        self.at(member, fault);
        self.start(member);
    }

    fn runs_on(&self) -> Option<&'static str> {
        NODES.into_iter().find(|node| self.runs(node))
    }

    #[track_caller]
    fn wait_for_service(&self) -> &'static str {
        self.wait("the group is served", |shop| {
            shop.runs_on().is_some() && shop.answers_since(Moment::now())
        });
        self.runs_on().unwrap()
    }

    fn vote(&self, member: &str) -> Option<OwnVote> {
        self.status(member).map(|report| report.cluster.votes.own)
    }

    #[track_caller]
    fn wait_for_vote(&self, member: &str) {
        self.wait("it votes", |shop| shop.vote(member) == Some(OwnVote::Votes));
    }

    /// The length of the log of a member's daemons so far.
    fn log_length(&self, member: &str) -> usize {
        self.text(member, "output").len()
    }

    /// Waits for the one line since then that contains these words, and returns it.
    #[track_caller]
    fn one_line(&self, member: &str, since: usize, words: &str) -> String {
        let lines = || {
            let text = self.text(member, "output");
            let lines = text[since..].lines().filter(|line| line.contains(words)).map(str::to_owned);
            Some(lines.collect::<Vec<_>>()).filter(|lines| !lines.is_empty())
        };
        let found = await_some(PATIENCE, lines).unwrap_or_default();
        assert_eq!(
            found.len(),
            1,
            "{member}, `{words}`: {found:#?} of\n{}",
            &self.text(member, "output")[since..]
        );
        found[0].clone()
    }

    /// Starts a member's daemon, which must refuse; returns its log.
    #[track_caller]
    fn refuses_to_start(&mut self, member: &'static str) -> String {
        let since = self.log_length(member);
        self.start(member);
        let end = self.daemon(member).wait(PATIENCE).expect("it ends");
        let said = self.text(member, "output")[since..].to_owned();
        assert!(end.code().is_some_and(|code| code != 0), "{end:?}: {said}");
        said
    }

    /// Checks that since then two nodes never answered or had an open gate at once, and that no daemon panicked.
    #[track_caller]
    fn assert_one_owner(&self, since: Moment, after: &str) {
        assert_eq!(self.two_answered(since), Duration::ZERO, "{after}");
        let window = Span::new(since, Moment::now());
        let open = self.rack.look(|record| record.two_open(SERVICE, window)).unwrap();
        assert_eq!(open, Duration::ZERO, "{after}");
        for member in MEMBERS {
            let said = self.text(member, "output");
            assert!(!said.contains("panicked"), "{after}: {member}: {said}");
        }
    }

    /// Damages the ledger of a running member, between two of its runs.
    fn suffer(&mut self, member: &'static str, spoilt: LedgerDamage) {
        let began = Moment::now();
        let other = MEMBERS.into_iter().find(|other| *other != member).unwrap();
        let others = self.at(other, || {
            files()?
                .into_iter()
                .map(|path| fs::read(&path).map(|bytes| (path, bytes)))
                .collect::<io::Result<Vec<_>>>()
        });
        let since = self.log_length(member);
        self.between_runs(member, move || spoilt.happen(&others));
        let line = self.one_line(member, since, spoilt.line());
        assert!(line.contains(spoilt.cure()), "{line}");
        self.wait_for_vote(member);
        self.wait_for_service();
        self.assert_one_owner(began, &format!("{member}: {spoilt:?}"));
        eprintln!("{member} {spoilt:?} {:.1} s: {line}", Moment::now().since(began).as_secs_f64());
    }
}

/// Each fault at one of the members in turn; at every member if [`EVERYWHERE`] is set, which takes minutes.
#[test]
fn a_ledger_that_is_torn_lost_foreign_or_old_is_told_and_copied_anew() {
    let everywhere = std::env::var_os(EVERYWHERE).is_some();
    let Some(mut shop) = Shop::with_disks() else { return };
    for (turn, spoilt) in LedgerDamage::ALL.into_iter().enumerate() {
        let owner = shop.wait_for_service();
        let members = [other(owner), WITNESS, owner];
        let chosen = |(index, _): &(usize, &str)| everywhere || *index == turn % members.len();
        for (_, member) in members.into_iter().enumerate().filter(chosen) {
            shop.suffer(member, spoilt);
        }
    }
}

#[test]
fn disks_that_take_nothing_more_end_no_service_that_a_majority_can_give() {
    let Some(mut shop) = Shop::with_disks() else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;

    // All disks are full, and the owner dies: files are written in place, which needs no room.
    MEMBERS.into_iter().for_each(|member| shop.at(member, fill));
    assert_eq!(shop.wait_for_service(), alpha);
    shop.end(alpha);
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    // A new start needs room.
    let said = shop.refuses_to_start(alpha);
    assert!(said.contains("No space left on device") && said.contains("make room"), "{said}");
    shop.at(alpha, empty);
    let since = [beta, WITNESS].map(|member| (member, shop.log_length(member)));
    shop.start(alpha);
    shop.wait_for_vote(alpha);
    for (member, since) in since {
        let line = shop.one_line(member, since, "cannot be stored");
        assert!(line.contains("make room"), "{line}");
        shop.at(member, empty);
    }
    shop.between_runs(alpha, || Ok(()));
    for (member, since) in since {
        shop.one_line(member, since, "generations are stored again");
    }
    shop.wait_for_vote(alpha);
    shop.assert_one_owner(begun, "full disks");

    // The owner's disk is read-only from now on. This is noticed at the next write: for a much higher ballot, as of a
    // node that was started more often.
    shop.remount(beta, "ro");
    let since = shop.log_length(beta);
    for _ in 0..3 {
        shop.between_runs(alpha, || Ok(()));
        shop.wait_for_vote(alpha);
    }
    let line = shop.one_line(beta, since, "cannot be stored");
    assert!(line.contains("Read-only file system"), "{line}");
    // It may have lost the group already: its vote has ended while the other node, just started, abstained.
    shop.locum(beta, &["move", "web", alpha]);
    shop.wait("the group has moved", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
    let line = shop.one_line(beta, since, "cannot be written");
    assert!(line.contains("Read-only file system") && line.contains("mount it writable"), "{line}");
    shop.one_line(
        beta,
        since,
        "grants nothing and claims nothing new; check the disk of the state directory",
    );
    assert_eq!(shop.vote(beta), Some(OwnVote::Broken));
    assert!(shop.locum(beta, &["status"]).1.contains("the ledger cannot be written"));
    shop.end(beta);
    let said = shop.refuses_to_start(beta);
    assert!(said.contains("Read-only file system") && said.contains("mount it writable"), "{said}");
    shop.remount(beta, "rw");
    shop.start(beta);
    shop.wait_for_vote(beta);
    shop.assert_one_owner(begun, "the owner's disk read-only");
}

/// A cluster is founded while a disk takes no writes.
#[test]
fn a_cluster_is_founded_although_a_disk_takes_nothing() {
    let Some(mut shop) = Shop::build(false) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    shop.lay_disks();
    shop.start(alpha);
    shop.wait("it waits for the others", |shop| shop.vote(alpha) == Some(OwnVote::Blank));
    shop.remount(alpha, "ro");
    let since = shop.log_length(alpha);
    shop.start(beta);
    shop.start(WITNESS);
    shop.wait("the others serve", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    shop.one_line(alpha, since, "cannot be written");
    assert_eq!(shop.vote(alpha), Some(OwnVote::Broken));
    shop.remount(alpha, "rw");
    let since = shop.log_length(alpha);
    shop.between_runs(alpha, || Ok(()));
    shop.one_line(alpha, since, LedgerDamage::Lost.line());
    shop.wait_for_vote(alpha);
    shop.assert_one_owner(begun, "founded");
}
