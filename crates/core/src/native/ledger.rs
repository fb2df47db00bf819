//! The ledger's files ([`crate::claims::Ledger`]): what a member must remember over a restart, as text in two files that are
//! written in turn. A torn write spoils only the file that it goes to; the other one still has the content before it.
//!
//! ```text
//! locum-ledger 1
//! cluster shop
//! member web1
//! generation 1795334147
//! sequence 12
//! ceiling 3072
//! longest-lease 1000000000
//! set 2871938267
//! claim 4b5e57f6eb2f42b9 held 17/web1 1795334147 1 durable web2/1795334100/9/web2
//! sha256 …
//! ```
//!
//! Times are nanoseconds; `set` is the digest of the voters ([`super::plan::NativePlan::voter_set`]). A claim is: the group,
//! `held` or `released`, the ballot, the owner's generation, the version, `durable` or `plain`, and its `unproved`: member,
//! generation and ballot each. Without an accepted claim the line ends after `held` or `released`. Members stand with their
//! names, so that a changed configuration cannot turn a claim into another member's. The checksum in the last line covers all
//! lines before it.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::wire::members::MemberTable;
use crate::model::{
    claim::{Ballot, Claim, DurableState, EarlierOwner, GroupId, VoterReport},
    identity::MemberIndex,
    note::{Escaped, Level},
    time::Duration,
};

/// The first line of a ledger's file, with the version of the format.
const TITLE: &str = "locum-ledger 1";
/// The log's text for the first start of a member.
const FIRST: &str = "there is no ledger yet: a new cluster makes one when all its voters have started; otherwise it \
                     is copied from them";
/// The beginning of the last line; the checksum follows.
const SUM: &str = "sha256 ";

/// The content of one ledger file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerContent {
    /// The name of the cluster that the ledger belongs to.
    pub cluster: String,
    /// The name of the member that wrote it.
    pub member: String,
    /// The generation of the daemon start that wrote it.
    pub generation: u64,
    /// Counts the writes of all daemon starts.
    pub sequence: u64,
    /// What the claims protocol remembers.
    pub durable: DurableState,
}

/// Why a ledger file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFault {
    /// The checksum is wrong or missing: a write was cut short, or the file is damaged.
    #[error("it is incomplete or damaged")]
    Torn,
    /// The checksum is right, but the content is not in this version's format.
    #[error("it is not in this version's format")]
    Form,
    /// It names a member that the configuration does not have; the name as it stands there, escaped.
    #[error("it names the member `{0}`, which the configuration does not have")]
    Member(String),
}

impl LedgerContent {
    /// The text of the file, with its checksum.
    #[must_use]
    pub fn write(&self, members: &MemberTable) -> String {
        let Self { cluster, member, generation, sequence, durable } = self;
        let DurableState { ceiling, longest_lease, set, claims } = durable;
        let lease = longest_lease.as_nanos();
        let mut text = format!(
            "{TITLE}\ncluster {cluster}\nmember {member}\ngeneration {generation}\nsequence {sequence}\n\
             ceiling {ceiling}\nlongest-lease {lease}\nset {set}\n"
        );
        for (group, report) in claims {
            let state = if report.released { "released" } else { "held" };
            let claim = report.accepted.as_ref().map(|claim| in_words(claim, members)).unwrap_or_default();
            // Writing into a string cannot fail.
            let _ = writeln!(text, "claim {:016x} {state}{claim}", group.0);
        }
        let sum = sum(&text);
        text + SUM + &sum + "\n"
    }

    /// Reads the text that [`Self::write`] made.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn read(bytes: &[u8], members: &MemberTable) -> Result<Self, LedgerFault> {
        let text = core::str::from_utf8(bytes).map_err(|_| LedgerFault::Torn)?;
        let content = text.strip_suffix('\n').ok_or(LedgerFault::Torn)?;
        let last = content.rfind('\n').map_or(0, |at| at + 1);
        let (body, last) = content.split_at(last);
        if last.strip_prefix(SUM) != Some(&sum(body)) {
            return Err(LedgerFault::Torn);
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(LedgerFault::Form);
        }
        let mut value = |name: &str| {
            lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' ')).ok_or(LedgerFault::Form)
        };
        let (cluster, member) = (value("cluster")?.into(), value("member")?.into());
        let (generation, sequence) = (number(value("generation")?)?, number(value("sequence")?)?);
        let ceiling = number(value("ceiling")?)?;
        let longest_lease = Duration::from_nanos(number(value("longest-lease")?)?);
        let set = number(value("set")?)?;
        let claims = lines.map(|line| read_claim(line, members)).collect::<Result<BTreeMap<_, _>, _>>()?;
        Ok(Self {
            cluster,
            member,
            generation,
            sequence,
            durable: DurableState { ceiling, longest_lease, set, claims },
        })
    }
}

fn sum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The claim in the file's format, with a leading blank.
fn in_words(claim: &Claim, members: &MemberTable) -> String {
    // A member without a name is not in the configuration, so it cannot have claimed anything.
    let name = |member: MemberIndex| members.name(member).unwrap_or("-");
    let ballot = |ballot: Ballot| format!("{}/{}", ballot.round, name(ballot.node));
    let kind = if claim.durable { "durable" } else { "plain" };
    let mut text = format!(" {} {} {} {kind}", ballot(claim.ballot), claim.generation, claim.version);
    for earlier in &claim.unproved {
        text += &format!(" {}/{}/{}", name(earlier.node), earlier.generation, ballot(earlier.ballot));
    }
    text
}

fn read_claim(line: &str, members: &MemberTable) -> Result<(GroupId, VoterReport), LedgerFault> {
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(LedgerFault::Form);
    if word()? != "claim" {
        return Err(LedgerFault::Form);
    }
    let group = u64::from_str_radix(word()?, 16).map(GroupId).map_err(|_| LedgerFault::Form)?;
    let released = match word()? {
        "released" => true,
        "held" => false,
        _ => return Err(LedgerFault::Form),
    };
    let member = |name: &str| {
        members.named(name).ok_or_else(|| LedgerFault::Member(Escaped(name.as_bytes()).to_string()))
    };
    let ballot = |round: &str, name: &str| Ok(Ballot { round: number(round)?, node: member(name)? });
    let Some(first) = words.next() else { return Ok((group, VoterReport { accepted: None, released })) };
    let (round, name) = first.split_once('/').ok_or(LedgerFault::Form)?;
    let claimed = ballot(round, name)?;
    let mut word = || words.next().ok_or(LedgerFault::Form);
    let (generation, version) = (number(word()?)?, number(word()?)?);
    let durable = match word()? {
        "durable" => true,
        "plain" => false,
        _ => return Err(LedgerFault::Form),
    };
    let earlier = |word: &str| {
        let parts: Vec<&str> = word.split('/').collect();
        let [node, generation, round, owner] = parts[..] else { return Err(LedgerFault::Form) };
        let ballot = ballot(round, owner)?;
        Ok(EarlierOwner { node: member(node)?, generation: number(generation)?, ballot })
    };
    let unproved = words.map(earlier).collect::<Result<Vec<_>, _>>()?;
    let accepted = Claim { ballot: claimed, generation, version, durable, unproved };
    Ok((group, VoterReport { accepted: Some(accepted), released }))
}

fn number<T: core::str::FromStr>(text: &str) -> Result<T, LedgerFault> {
    text.parse().map_err(|_| LedgerFault::Form)
}

/// What a starting member finds in its two ledger files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLedger {
    /// The remembered state; `None`: the member has to copy it from the others, and grants nothing before.
    pub durable: Option<DurableState>,
    /// The highest known generation of this member; 0 if none.
    pub generation: u64,
    /// The sequence number of the next write.
    pub sequence: u64,
    /// The index of the file for the next write; the other file must survive that write.
    pub next: usize,
    /// A line for the log, if there is something that a person should know.
    pub note: Option<(Level, String)>,
}

/// Judges the content of the two files (`None`: the file does not exist). `lived` is the highest generation of this
/// member known from elsewhere. A ledger of an earlier generation was restored from a copy and cannot be used.
#[must_use]
pub fn recover(
    files: [Option<&[u8]>; 2],
    cluster: &str,
    member: &str,
    members: &MemberTable,
    lived: Option<u64>,
) -> RecoveredLedger {
    let read = files.map(|content| content.map(|bytes| LedgerContent::read(bytes, members)));
    let is_missing = read.iter().all(Option::is_none);
    let mut faults: Vec<String> =
        read.iter().flatten().filter_map(|read| Some(read.as_ref().err()?.to_string())).collect();
    faults.dedup();
    let whole = read.into_iter().enumerate().filter_map(|(place, read)| Some((place, read?.ok()?)));
    let newest = whole.max_by_key(|(_, content)| content.sequence);
    let blank = |level, text: String, sequence| RecoveredLedger {
        durable: None,
        generation: lived.unwrap_or(0),
        sequence,
        next: 0,
        note: Some((
            level,
            text + ": this member grants nothing before it has copied the ledger from the others",
        )),
    };
    let Some((place, content)) = newest else {
        return match (is_missing, lived) {
            (true, None) => RecoveredLedger {
                note: Some((Level::Info, FIRST.into())),
                ..blank(Level::Info, String::new(), 1)
            },
            (true, Some(_)) => {
                blank(Level::Warning, "the ledger of this member's earlier runs is gone".into(), 1)
            }
            (false, _) => blank(Level::Error, format!("the ledger cannot be used: {}", faults.join("; ")), 1),
        };
    };
    let next = content.sequence.saturating_add(1);
    if (content.cluster.as_str(), content.member.as_str()) != (cluster, member) {
        let [of, whose] = [&content.cluster, &content.member].map(|name| Escaped(name.as_bytes()));
        return blank(Level::Error, format!("the ledger is that of {whose} in cluster {of}"), next);
    }
    if lived.is_some_and(|lived| content.generation < lived) {
        let text = format!(
            "the ledger is of generation {}, but this member has run as generation {} since: it is an old copy",
            content.generation,
            lived.unwrap_or_default()
        );
        return blank(Level::Error, text, next);
    }
    let torn = faults.first().map(|why| {
        let text =
            format!("one file of the ledger is not used: {why}; the other one, of the write before, is used");
        (Level::Warning, text)
    });
    RecoveredLedger {
        generation: content.generation,
        durable: Some(content.durable),
        sequence: next,
        next: 1 - place,
        note: torn,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn members() -> MemberTable {
        MemberTable::new(["web1", "web2", "third.example"].map(String::from))
    }

    fn content(sequence: u64) -> LedgerContent {
        let ballot = |round, node| Ballot { round, node: MemberIndex(node) };
        let unproved = vec![
            EarlierOwner { node: MemberIndex(1), generation: 7, ballot: ballot(9, 1) },
            EarlierOwner { node: MemberIndex(2), generation: u64::MAX, ballot: ballot(10, 0) },
        ];
        let claim = |durable| Claim {
            ballot: ballot(17, 0),
            generation: 8,
            version: 1,
            durable,
            unproved: unproved.clone(),
        };
        let report = |accepted, released| VoterReport { accepted, released };
        let claims = [
            (GroupId::of("web"), report(Some(claim(true)), false)),
            (GroupId::of("db"), report(Some(claim(false)), true)),
            (GroupId::of("x"), report(None, false)),
        ];
        let longest_lease = Duration::from_millis(1500);
        LedgerContent {
            cluster: "shop".into(),
            member: "web1".into(),
            generation: 8,
            sequence,
            durable: DurableState { ceiling: 3072, longest_lease, set: 1, claims: claims.into() },
        }
    }

    fn look(files: [Option<&[u8]>; 2], lived: Option<u64>) -> RecoveredLedger {
        recover(files, "shop", "web1", &members(), lived)
    }

    #[test]
    fn what_is_written_is_read() {
        let text = content(12).write(&members());
        assert_eq!(LedgerContent::read(text.as_bytes(), &members()), Ok(content(12)));
        let line = "claim 4b5e57f6eb2f42b9 held 17/web1 8 1 durable web2/7/9/web2 third.example/18446744073709551615/10/web1\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_write_that_is_torn_anywhere_loses_nothing() {
        let (old, new) = (content(12).write(&members()), content(13).write(&members()));
        // A torn write leaves the beginning of the new content; behind it stands the rest of an older one, or nothing.
        let before = content(11).write(&members());
        for length in 0..new.len() {
            for rest in ["", before.get(length..).unwrap_or_default()] {
                let torn = [&new.as_bytes()[..length], rest.as_bytes()].concat();
                if torn == new.as_bytes() || torn == before.as_bytes() {
                    continue;
                }
                let memory = look([Some(&torn), Some(old.as_bytes())], Some(8));
                assert_eq!(memory.durable.as_ref(), Some(&content(12).durable), "{length}");
                assert_eq!((memory.sequence, memory.next), (13, 0), "{length}");
            }
        }
        let memory = look([Some(new.as_bytes()), Some(old.as_bytes())], Some(8));
        assert_eq!((memory.sequence, memory.next, memory.note), (14, 1, None));
    }

    #[test]
    fn no_flipped_bit_is_taken_for_content() {
        let good = content(12).write(&members()).into_bytes();
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                assert!(LedgerContent::read(&bad, &members()).is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_member_without_a_memory_of_its_own_has_none() {
        let good = content(12).write(&members());
        let good = Some(good.as_bytes());
        let said = |memory: RecoveredLedger| {
            assert_eq!(memory.durable, None);
            memory.note.unwrap()
        };
        assert_eq!(said(look([None, None], None)).0, Level::Info);
        let (level, text) = said(look([None, None], Some(3)));
        assert!(level == Level::Warning && text.contains("earlier runs is gone"), "{text}");
        let (level, text) = said(look([Some(b"junk"), None], None));
        assert!(level == Level::Error && text.contains("incomplete or damaged"), "{text}");
        let (_, text) = said(recover([good, None], "other", "web1", &members(), None));
        assert!(text.contains("that of web1 in cluster shop: this member grants nothing"), "{text}");
        let (_, text) = said(recover([good, None], "shop", "web2", &members(), None));
        assert!(text.contains("that of web1"), "{text}");
        let (_, text) = said(look([good, None], Some(9)));
        assert!(text.contains("an old copy"), "{text}");
        let fewer = MemberTable::new(["web1", "web2"].map(String::from));
        let (_, text) = said(recover([good, None], "shop", "web1", &fewer, None));
        assert!(text.contains("the member `third.example`"), "{text}");
        assert!(look([None, good], Some(8)).durable.is_some(), "one file alone is a first write");
    }

    #[test]
    fn another_versions_form_is_refused() {
        let text = content(12).write(&members());
        let body = &text[..text.rfind(SUM).unwrap()];
        for (old, new) in [
            (TITLE, "locum-ledger 2"),
            ("ceiling 3072\n", ""),
            ("set 1", "set -1"),
            (" held ", " hold "),
            ("durable", "sure"),
            ("17/web1", "17"),
            ("web2/7/9/web2", "web2/7/9"),
        ] {
            let changed = body.replace(old, new);
            let whole = format!("{changed}{SUM}{}\n", sum(&changed));
            assert_eq!(LedgerContent::read(whole.as_bytes(), &members()), Err(LedgerFault::Form), "{new}");
        }
    }
}
