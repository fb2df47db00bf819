//! The items of lists: words between blanks. Each value has exactly one form: hexadecimal numbers without leading
//! zeros, ids with all their digits.

use alloc::string::{String, ToString as _};
use core::fmt::Write as _;

use super::members::MemberTable;
use crate::{
    framing::values::number_hex,
    model::{
        claim::{Ballot, Claim, EarlierOwner, GroupId, VoterReport},
        identity::{MemberId, MemberIndex},
        time::Duration,
    },
};

/// Most earlier owners of one claim that are read.
const UNPROVED_MAX: usize = 1024;
/// Digits of a member's id.
pub(super) const MEMBER_DIGITS: usize = 8;
/// Stands for no member.
const NOBODY: &str = "-";
/// Stands for the generation of the frame's sender.
const SAME: &str = "=";

/// The sender of a frame and its generation, which items need not repeat.
#[derive(Clone, Copy)]
pub(super) struct ItemSender<'a> {
    pub members: &'a MemberTable,
    pub member: MemberIndex,
    pub generation: u64,
}

/// Why an item cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemFault {
    /// It is malformed or incomplete.
    Form,
    /// It names a member that our configuration does not have.
    Member,
}

/// Writes one item, word by word.
pub(super) struct WireWriter<'a> {
    sender: ItemSender<'a>,
    text: String,
}

impl<'a> WireWriter<'a> {
    pub(super) const fn new(sender: ItemSender<'a>) -> Self {
        Self { sender, text: String::new() }
    }

    pub(super) fn end(self) -> String {
        self.text
    }

    pub(super) fn word(mut self, word: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self
    }

    fn put(&mut self, word: core::fmt::Arguments<'_>) {
        self.text.write_fmt(word).expect("a string takes all that is written to it");
    }

    pub(super) fn hex(self, number: u64) -> Self {
        let mut this = self.word("");
        this.put(format_args!("{number:x}"));
        this
    }

    pub(super) fn time(self, time: Duration) -> Self {
        self.hex(nanos(time))
    }

    pub(super) fn group(self, group: GroupId) -> Self {
        let mut this = self.word("");
        this.put(format_args!("{:016x}", group.0));
        this
    }

    pub(super) fn member(self, member: Option<MemberIndex>) -> Self {
        let id = id(self.sender.members, member.unwrap_or(MemberIndex::NOBODY));
        self.word(&id)
    }

    /// `ROUND` if it is the sender's, else `ROUND.MEMBER`.
    pub(super) fn ballot(self, ballot: Ballot) -> Self {
        let default = self.sender.member;
        let mut this = self.word("");
        this.put_ballot(ballot, default);
        this
    }

    fn put_ballot(&mut self, ballot: Ballot, default: MemberIndex) {
        self.put(format_args!("{:x}", ballot.round));
        if ballot.node != default {
            let id = id(self.sender.members, ballot.node);
            self.put(format_args!(".{id}"));
        }
    }

    /// `BALLOT GENERATION VERSION EARLIER...`; ends the item.
    pub(super) fn claim(self, claim: &Claim) -> Self {
        let generation = match claim.generation == self.sender.generation {
            true => SAME.to_string(),
            false => crate::framing::values::hex(claim.generation),
        };
        let mut this = self.ballot(claim.ballot).word(&generation).hex(claim.version.into());
        if claim.durable {
            this.text.push('+');
        }
        for EarlierOwner { node, generation, ballot } in &claim.unproved {
            this = this.member(Some(*node));
            this.put(format_args!(".{generation:x}."));
            this.put_ballot(*ballot, *node);
        }
        this
    }

    /// `held` or `released`, and the claim if there is one; ends the item.
    pub(super) fn report(self, report: &VoterReport) -> Self {
        let this = self.word(if report.released { "released" } else { "held" });
        match &report.accepted {
            Some(claim) => this.claim(claim),
            None => this,
        }
    }
}

/// Nanoseconds, the unit of times in frames.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn id(members: &MemberTable, member: MemberIndex) -> String {
    members.id(member).map_or_else(|| NOBODY.into(), |id| id.to_string())
}

/// Reads one item, word by word.
pub(super) struct WireReader<'a> {
    sender: ItemSender<'a>,
    words: core::str::Split<'a, char>,
}

impl<'a> WireReader<'a> {
    pub(super) fn new(sender: ItemSender<'a>, item: &'a str) -> Self {
        Self { sender, words: item.split(' ') }
    }

    /// Returns `value`, or an error if words are left over.
    pub(super) fn end<T>(mut self, value: T) -> Result<T, ItemFault> {
        self.words.next().map_or(Ok(value), |_| Err(ItemFault::Form))
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    pub(super) fn word(&mut self) -> Result<&'a str, ItemFault> {
        self.next().ok_or(ItemFault::Form)
    }

    pub(super) fn hex(&mut self) -> Result<u64, ItemFault> {
        hex(self.word()?)
    }

    pub(super) fn time(&mut self) -> Result<Duration, ItemFault> {
        self.hex().map(Duration::from_nanos)
    }

    pub(super) fn group(&mut self) -> Result<GroupId, ItemFault> {
        digits(self.word()?, 16).map(GroupId)
    }

    /// Reads a member; `None` is written as `-`.
    pub(super) fn member(&mut self) -> Result<Option<MemberIndex>, ItemFault> {
        let member = read_member(self.sender.members, self.word()?)?;
        Ok((member != MemberIndex::NOBODY).then_some(member))
    }

    pub(super) fn ballot(&mut self) -> Result<Ballot, ItemFault> {
        read_ballot(self.sender.members, self.word()?, self.sender.member)
    }

    /// Reads a claim; takes the rest of the item.
    pub(super) fn claim(&mut self) -> Result<Claim, ItemFault> {
        let ballot = self.ballot()?;
        let generation = match self.word()? {
            SAME => self.sender.generation,
            word => hex(word)?,
        };
        let word = self.word()?;
        let version = word.strip_suffix('+');
        let durable = version.is_some();
        let version = u32::try_from(hex(version.unwrap_or(word))?).map_err(|_| ItemFault::Form)?;
        let mut claim = Claim { ballot, generation, version, durable, unproved: alloc::vec![] };
        for word in self.words.by_ref().take(UNPROVED_MAX) {
            let members = self.sender.members;
            let (id, rest) = word.split_once('.').ok_or(ItemFault::Form)?;
            let (generation, rest) = rest.split_once('.').ok_or(ItemFault::Form)?;
            let (node, generation) = (read_member(members, id)?, hex(generation)?);
            claim.unproved.push(EarlierOwner { node, generation, ballot: read_ballot(members, rest, node)? });
        }
        Ok(claim)
    }

    /// Reads a report; takes the rest of the item.
    pub(super) fn report(&mut self) -> Result<VoterReport, ItemFault> {
        let released = match self.word()? {
            "held" => false,
            "released" => true,
            _ => return Err(ItemFault::Form),
        };
        let accepted = match self.words.clone().next() {
            Some(_) => Some(self.claim()?),
            None => None,
        };
        Ok(VoterReport { accepted, released })
    }
}

/// Reads a hexadecimal number without leading zeros.
pub(super) fn hex(word: &str) -> Result<u64, ItemFault> {
    number_hex(word.as_bytes()).ok_or(ItemFault::Form)
}

/// Reads a hexadecimal number of exactly this many digits.
pub(super) fn digits(word: &str, digits: usize) -> Result<u64, ItemFault> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_good = word.len() == digits && word.bytes().all(is_digit);
    u64::from_str_radix(word, 16).ok().filter(|_| is_good).ok_or(ItemFault::Form)
}

fn read_ballot(members: &MemberTable, word: &str, default: MemberIndex) -> Result<Ballot, ItemFault> {
    let (round, node) = match word.split_once('.') {
        Some((round, id)) => (round, read_member(members, id)?),
        None => (word, default),
    };
    Ok(Ballot { round: hex(round)?, node })
}

fn read_member(members: &MemberTable, word: &str) -> Result<MemberIndex, ItemFault> {
    if word == NOBODY {
        return Ok(MemberIndex::NOBODY);
    }
    let id = u32::try_from(digits(word, MEMBER_DIGITS)?).map_err(|_| ItemFault::Form)?;
    members.by_id(MemberId(id)).ok_or(ItemFault::Member)
}
