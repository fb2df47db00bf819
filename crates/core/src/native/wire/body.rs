//! The content of frames: how each kind of message is written and read. The fields of every kind are in `docs/wire.md`,
//! section 12.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use super::item::{ItemFault, ItemSender, MEMBER_DIGITS, WireReader, WireWriter, digits, hex, nanos};
use crate::{
    claims::{self, BeatEcho, ClaimMessage, ClaimRefusal, ClaimsDigest, VoterCopy, VoterMemory as Memory},
    framing::values,
    model::{claim::GroupId, identity::MemberIndex, order::OrderId, time::Duration},
    native::{
        gossip::GossipEntry,
        message::{BEAT_LIST_MAX, GroupLists, NativeBeat, NativeMessage},
    },
};

/// The protocol that this program speaks.
pub const PROTOCOL: u32 = 1;
/// Longest text of an answer, in characters; the rest is cut off.
pub const ANSWER_MAX: usize = 200;

const STANDBY: &str = "standby";
const WAITS: &str = "waits";
const STARTING: &str = "starting";
const UNABLE: &str = "unable";
const CUT: &str = "cut";
const HEARS: &str = "hears";
/// The lists come in a message of their own.
const APART: &str = "lists-apart";

/// What a beat says about links and protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The protocols that the sender speaks.
    pub versions: Versions,
    /// By member, the links on which the sender hears it now: bits in the order of the links in the sender's
    /// configuration. They only mean something to a member with the same configuration. Members that it does not hear
    /// are left out.
    pub hears: BTreeMap<MemberIndex, u32>,
}

impl Default for Reach {
    /// The reach of a member that speaks this program's protocol and hears nobody.
    fn default() -> Self {
        Self { versions: Versions { lowest: PROTOCOL, highest: PROTOCOL }, hears: BTreeMap::new() }
    }
}

/// The protocols that a member speaks, from `lowest` to `highest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub lowest: u32,
    pub highest: u32,
}

impl Versions {
    /// The newest protocol that both speak; `None` if there is none.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.highest.min(other.highest);
        (newest >= self.lowest.max(other.lowest)).then_some(newest)
    }
}

/// A message as fields and a list, before it is cut into frames.
pub(super) struct Parcel {
    pub kind: &'static str,
    pub fields: Vec<(&'static str, String)>,
    pub items: Vec<String>,
    /// The list means nothing in pieces.
    pub whole: bool,
}

/// Kinds whose list means nothing in pieces.
pub(super) const WHOLE: [&str; 5] = ["beat", "list", "copy", "meaning", "lists"];

/// The field `t`; `None` for a bare beat of claims, which has no frame of its own.
const fn kind(message: &NativeMessage) -> Option<&'static str> {
    Some(match message {
        NativeMessage::Beat(_) => "beat",
        NativeMessage::Claims(ClaimMessage::Beat(_)) => return None,
        NativeMessage::Claims(ClaimMessage::Prepare(_)) => "prepare",
        NativeMessage::Claims(ClaimMessage::Promise(_)) => "promise",
        NativeMessage::Claims(ClaimMessage::Refuse(_)) => "refuse",
        NativeMessage::Claims(ClaimMessage::Propose(..)) => "propose",
        NativeMessage::Claims(ClaimMessage::Accept(_)) => "accept",
        NativeMessage::Claims(ClaimMessage::Release(_)) => "release",
        NativeMessage::Claims(ClaimMessage::Swept) => "swept",
        NativeMessage::Claims(ClaimMessage::AskList) => "ask-list",
        NativeMessage::Claims(ClaimMessage::List(_)) => "list",
        NativeMessage::Claims(ClaimMessage::Ask(_)) => "ask",
        NativeMessage::Claims(ClaimMessage::Clear(_)) => "clear",
        NativeMessage::Claims(ClaimMessage::AskCopy) => "ask-copy",
        NativeMessage::Claims(ClaimMessage::Copy(_)) => "copy",
        NativeMessage::AskMove { .. } => "ask-move",
        NativeMessage::MoveAnswer { .. } => "move-answer",
        NativeMessage::AskSettings => "ask-meaning",
        NativeMessage::Settings(_) => "meaning",
        NativeMessage::Gossip(_) => "board",
        NativeMessage::Lists(_) => "lists",
    })
}

/// The message as fields and a list. `reach` is used for beats only.
pub(super) fn write(message: &NativeMessage, reach: &Reach, sender: ItemSender<'_>) -> Option<Parcel> {
    let kind = kind(message)?;
    let mut parcel = Parcel { kind, fields: Vec::new(), items: Vec::new(), whole: WHOLE.contains(&kind) };
    match message {
        NativeMessage::Beat(beat) => write_beat(beat, reach, sender, &mut parcel),
        NativeMessage::Claims(message) => write_claims(message, sender, &mut parcel),
        NativeMessage::AskMove { order, group, to } => {
            parcel.fields.extend([("id", values::hex(order.0)), ("group", digest(group.0))]);
            let to = to.and_then(|to| sender.members.name(to));
            parcel.fields.extend(to.map(|name| ("to", name.into())));
        }
        NativeMessage::MoveAnswer { order, done, text } => {
            let done = if *done { "yes" } else { "no" };
            parcel.fields.extend([("id", values::hex(order.0)), ("done", done.into())]);
            let text: String = shown(text).take(ANSWER_MAX).collect();
            parcel.fields.extend(Some(("text", text)).filter(|(_, text)| !text.is_empty()));
        }
        NativeMessage::Settings(lines) => {
            parcel.items = lines
                .iter()
                .map(|line| shown(line).collect())
                .filter(|line: &String| !line.is_empty())
                .collect();
        }
        NativeMessage::Gossip(entries) => {
            parcel.items = entries.iter().map(|entry| write_entry(entry, WireWriter::new(sender))).collect();
        }
        NativeMessage::Lists(lists) => write_lists(lists, sender, &mut parcel.items),
        NativeMessage::AskSettings => {}
    }
    Some(parcel)
}

/// The text with control characters replaced.
fn shown(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
}

/// Reads the message of a frame, or of a list that was put together. `None`: a kind that this version does not know. A
/// beat comes with its [`Reach`].
pub(super) fn read<'a>(
    kind: &str,
    fields: &WireFields<'_>,
    list: &'a str,
    sender: ItemSender<'a>,
) -> Result<Option<(NativeMessage, Option<Reach>)>, ItemFault> {
    let lines = || list.split('\n').filter(|_| !list.is_empty());
    let word = match kind {
        "beat" => {
            let (beat, reach) = read_beat(fields, lines(), sender)?;
            return Ok(Some((NativeMessage::Beat(beat), Some(reach))));
        }
        "ask-move" => {
            let named = |name| sender.members.named(name).ok_or(ItemFault::Member);
            NativeMessage::AskMove {
                order: OrderId(fields.hex("id")?),
                group: GroupId(digits(fields.must("group")?, 16)?),
                to: fields.get("to").map(named).transpose()?,
            }
        }
        "move-answer" => {
            let text = fields.get("text").unwrap_or_default();
            let done = match fields.must("done")? {
                "yes" => true,
                "no" => false,
                _ => return Err(ItemFault::Form),
            };
            if text.chars().any(char::is_control) || text.chars().count() > ANSWER_MAX {
                return Err(ItemFault::Form);
            }
            NativeMessage::MoveAnswer { order: OrderId(fields.hex("id")?), done, text: text.into() }
        }
        "ask-meaning" => NativeMessage::AskSettings,
        "meaning" => {
            if list.chars().any(|c| c.is_control() && c != '\n') || lines().any(str::is_empty) {
                return Err(ItemFault::Form);
            }
            NativeMessage::Settings(lines().map(String::from).collect())
        }
        "lists" => {
            let mut all = GroupLists::default();
            lines().try_for_each(|line| read_lists(line, sender, &mut all).map(drop))?;
            NativeMessage::Lists(all)
        }
        "board" => {
            let entries = lines().map(|line| read_entry(WireReader::new(sender, line)));
            NativeMessage::Gossip(entries.filter_map(Result::transpose).collect::<Result<_, _>>()?)
        }
        _ => {
            return Ok(read_claims(kind, fields, lines(), sender)?
                .map(|message| (NativeMessage::Claims(message), None)));
        }
    };
    Ok(Some((word, None)))
}

/// The fields of a frame or of a list that was put together, by name.
pub(super) struct WireFields<'a>(pub &'a BTreeMap<String, String>);

impl WireFields<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn must(&self, name: &str) -> Result<&str, ItemFault> {
        self.get(name).ok_or(ItemFault::Form)
    }

    pub(super) fn hex(&self, name: &str) -> Result<u64, ItemFault> {
        hex(self.must(name)?)
    }

    fn time(&self, name: &str) -> Result<Duration, ItemFault> {
        self.hex(name).map(Duration::from_nanos)
    }
}

/// A number as a digest is written: with all 16 digits.
pub(super) fn digest(number: u64) -> String {
    alloc::format!("{number:016x}")
}

// ---- beats -----------------------------------------------------------------

fn write_beat(beat: &NativeBeat, reach: &Reach, sender: ItemSender<'_>, parcel: &mut Parcel) {
    let NativeBeat { claims, config, gossip: board, standby, waits, lists } = beat;
    let Reach { versions, hears } = reach;
    let mut field = |name, value| parcel.fields.push((name, value));
    field("v", alloc::format!("{:x}-{:x}", versions.lowest, versions.highest));
    field("cfg", digest(*config));
    field("beat", values::hex(claims.sequence));
    field("claims", digest(claims.digest.0));
    field("lease", values::hex(nanos(claims.lease)));
    field("word", memory_text(claims.memory).into());
    if *board != ClaimsDigest::default() {
        field("board", digest(board.0));
    }
    let flags = [(*standby, STANDBY), (*waits, WAITS), (lists.is_none(), APART)];
    let flags: Vec<&str> = flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect();
    if !flags.is_empty() {
        field("is", flags.join(" "));
    }
    for (of, echo) in &claims.echoes {
        let BeatEcho { generation, sequence, granted, disputed } = echo;
        let granted = if *granted { '+' } else { '-' };
        let links = hears.get(of).map(|links| values::hex((*links).into())).unwrap_or_default();
        let heard = alloc::format!("{sequence:x}{granted}{links}");
        parcel.items.push(WireWriter::new(sender).member(Some(*of)).hex(*generation).word(&heard).end());
        for (group, ballot) in disputed {
            let item = WireWriter::new(sender).word("!").member(Some(*of)).group(*group).ballot(*ballot);
            parcel.items.push(item.end());
        }
    }
    let not_echoed = hears.iter().filter(|(of, _)| claims.echoes.iter().all(|(echoed, _)| echoed != *of));
    // In a large cluster most nodes do not vote, and hear each other on the same links.
    let mut by_links: BTreeMap<u32, u64> = BTreeMap::new();
    for (of, links) in not_echoed {
        match place(*of).filter(|_| sender.members.is_node(*of)) {
            Some(place) => *by_links.entry(*links).or_default() |= place,
            None => parcel.items.push(WireWriter::new(sender).member(Some(*of)).hex((*links).into()).end()),
        }
    }
    for (links, nodes) in by_links {
        parcel.items.push(WireWriter::new(sender).word(HEARS).hex(links.into()).hex(nodes).end());
    }
    if let Some(lists) = lists {
        write_lists(lists, sender, &mut parcel.items);
    }
}

/// The bit of a node, if its index has one.
fn place(node: MemberIndex) -> Option<u64> {
    1_u64.checked_shl(node.0.into())
}

/// Reads an item of nodes by their places. Places of nodes that we do not have come from another configuration and mean
/// nothing here.
fn read_places(
    words: &str,
    sender: ItemSender<'_>,
    hears: &mut BTreeMap<MemberIndex, u32>,
) -> Result<(), ItemFault> {
    let mut item = WireReader::new(sender, words);
    let links = u32::try_from(item.hex()?).map_err(|_| ItemFault::Form)?;
    let nodes = item.hex()?;
    let is_there = |node: &MemberIndex| {
        sender.members.is_node(*node) && place(*node).is_some_and(|place| nodes & place != 0)
    };
    hears.extend((0..u8::MAX).map(MemberIndex).filter(is_there).map(|node| (node, links)));
    item.end(())
}

fn write_lists(lists: &GroupLists, sender: ItemSender<'_>, items: &mut Vec<String>) {
    let GroupLists { starting, unable, unreachable: cut } = lists;
    for (word, groups) in [(STARTING, starting), (UNABLE, unable), (CUT, cut)] {
        for groups in groups.chunks(BEAT_LIST_MAX) {
            let item = WireWriter::new(sender).word(word);
            items.push(groups.iter().fold(item, |item, group| item.group(*group)).end());
        }
    }
}

/// Reads an item of the lists; returns `false` if it is another kind of item.
fn read_lists(line: &str, sender: ItemSender<'_>, lists: &mut GroupLists) -> Result<bool, ItemFault> {
    let (first, rest) = line.split_once(' ').ok_or(ItemFault::Form)?;
    let list = match first {
        STARTING => &mut lists.starting,
        UNABLE => &mut lists.unable,
        CUT => &mut lists.unreachable,
        _ => return Ok(false),
    };
    for word in rest.split(' ') {
        list.push(WireReader::new(sender, word).group()?);
    }
    Ok(true)
}

fn read_beat<'a>(
    fields: &WireFields<'_>,
    items: impl Iterator<Item = &'a str>,
    sender: ItemSender<'_>,
) -> Result<(NativeBeat, Reach), ItemFault> {
    let (lowest, highest) = fields.must("v")?.split_once('-').ok_or(ItemFault::Form)?;
    let version = |word| u32::try_from(hex(word)?).map_err(|_| ItemFault::Form);
    let versions = Versions { lowest: version(lowest)?, highest: version(highest)? };
    let mut reach = Reach { versions, hears: BTreeMap::new() };
    let is = |sought| fields.get("is").is_some_and(|flags| flags.split(' ').any(|flag| flag == sought));
    let mut beat = NativeBeat {
        claims: claims::ClaimBeat {
            sequence: fields.hex("beat")?,
            digest: ClaimsDigest(digits(fields.must("claims")?, 16)?),
            lease: fields.time("lease")?,
            memory: read_memory(fields.must("word")?)?,
            echoes: Vec::new(),
        },
        config: digits(fields.must("cfg")?, 16)?,
        gossip: ClaimsDigest(fields.get("board").map_or(Ok(0), |board| digits(board, 16))?),
        // Unknown flags come from a later version and are ignored.
        standby: is(STANDBY),
        waits: is(WAITS),
        lists: None,
    };
    let mut lists = GroupLists::default();
    for line in items {
        if read_lists(line, sender, &mut lists)? {
            continue;
        }
        match read_beat_item(line, sender, &mut beat, &mut reach) {
            // The sender's configuration has a member that ours lacks: what it heard of that one is not for us.
            Ok(()) | Err(ItemFault::Member) => {}
            Err(fault) => return Err(fault),
        }
    }
    beat.lists = Some(lists).filter(|_| !is(APART));
    Ok((beat, reach))
}

fn read_beat_item(
    line: &str,
    sender: ItemSender<'_>,
    beat: &mut NativeBeat,
    reach: &mut Reach,
) -> Result<(), ItemFault> {
    let (first, rest) = line.split_once(' ').ok_or(ItemFault::Form)?;
    match first {
        "!" => return read_dispute(rest, sender, &mut beat.claims.echoes),
        HEARS => return read_places(rest, sender, &mut reach.hears),
        // Not an id: an item of a later version.
        _ if first.len() != MEMBER_DIGITS && first.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            return Ok(());
        }
        _ => {}
    }
    let mut item = WireReader::new(sender, line);
    let of = item.member()?.ok_or(ItemFault::Form)?;
    let first = item.hex()?;
    let mut hears = |links: u64| u32::try_from(links).map(|links| reach.hears.insert(of, links));
    let Some(heard) = item.next() else {
        hears(first).map_err(|_| ItemFault::Form)?;
        return Ok(());
    };
    let at = heard.find(['+', '-']).ok_or(ItemFault::Form)?;
    let (sequence, granted, links) = (&heard[..at], heard[at..].starts_with('+'), &heard[at + 1..]);
    if !links.is_empty() {
        hears(hex(links)?).map_err(|_| ItemFault::Form)?;
    }
    let (generation, sequence) = (first, hex(sequence)?);
    beat.claims.echoes.push((of, BeatEcho { generation, sequence, granted, disputed: Vec::new() }));
    item.end(())
}

fn read_dispute(
    words: &str,
    sender: ItemSender<'_>,
    echoes: &mut [(MemberIndex, BeatEcho)],
) -> Result<(), ItemFault> {
    let mut item = WireReader::new(sender, words);
    let of = item.member()?.ok_or(ItemFault::Form)?;
    let disputed = (item.group()?, item.ballot()?);
    match echoes.last_mut() {
        Some((echoed, echo)) if *echoed == of => echo.disputed.push(disputed),
        _ => return Err(ItemFault::Form),
    }
    item.end(())
}

const fn memory_text(word: Memory) -> &'static str {
    match word {
        Memory::Blank => "blank",
        Memory::AllBlank => "all-blank",
        Memory::Good => "good",
    }
}

fn read_memory(text: &str) -> Result<Memory, ItemFault> {
    let words = [Memory::Blank, Memory::AllBlank, Memory::Good];
    words.into_iter().find(|word| memory_text(*word) == text).ok_or(ItemFault::Form)
}

// ---- the gossip state --------------------------------------------------------

const PINNED: &str = "pinned";
const FREE: &str = "free";
const MOVED: &str = "moved";
/// Stands for all groups.
const ALL: &str = "-";

fn write_entry(entry: &GossipEntry, item: WireWriter<'_>) -> String {
    match *entry {
        GossipEntry::Pin { group, number, on, user, age } => {
            let item = item.word(if on { PINNED } else { FREE });
            let item = match group {
                Some(group) => item.group(group),
                None => item.word(ALL),
            };
            item.ballot(number).hex(user.into()).time(age).end()
        }
        GossipEntry::Moved { group, epoch, age } => {
            item.word(MOVED).group(group).ballot(epoch).time(age).end()
        }
    }
}

/// Reads one entry; `None`: a kind that this version does not know.
fn read_entry(mut item: WireReader<'_>) -> Result<Option<GossipEntry>, ItemFault> {
    let kind = item.word()?;
    let entry = match kind {
        PINNED | FREE => {
            let group = match item.word()? {
                ALL => None,
                word => Some(GroupId(digits(word, 16)?)),
            };
            let (number, user) = (item.ballot()?, item.hex()?);
            let user = u32::try_from(user).map_err(|_| ItemFault::Form)?;
            GossipEntry::Pin { group, number, on: kind == PINNED, user, age: item.time()? }
        }
        MOVED => GossipEntry::Moved { group: item.group()?, epoch: item.ballot()?, age: item.time()? },
        _ if kind.bytes().all(|byte| byte.is_ascii_lowercase()) && !kind.is_empty() => return Ok(None),
        _ => return Err(ItemFault::Form),
    };
    item.end(Some(entry))
}

// ---- claims ----------------------------------------------------------------

fn write_claims(message: &ClaimMessage, sender: ItemSender<'_>, parcel: &mut Parcel) {
    let new = || WireWriter::new(sender);
    let mut time = |name, time| parcel.fields.push((name, values::hex(nanos(time))));
    parcel.items = match message {
        ClaimMessage::Prepare(list) | ClaimMessage::Ask(list) | ClaimMessage::Clear(list) => {
            list.iter().map(|(group, ballot)| new().group(*group).ballot(*ballot).end()).collect()
        }
        ClaimMessage::Promise(list) => list
            .iter()
            .map(|(group, ballot, report)| new().group(*group).ballot(*ballot).report(report).end())
            .collect(),
        ClaimMessage::Refuse(list) => list
            .iter()
            .map(|ClaimRefusal { group, ballot, promised, wait }| {
                new().group(*group).ballot(*ballot).ballot(*promised).time(*wait).end()
            })
            .collect(),
        ClaimMessage::Propose(lease, list) => {
            time("lease", *lease);
            list.iter().map(|(group, claim)| new().group(*group).claim(claim).end()).collect()
        }
        ClaimMessage::Accept(list) => list
            .iter()
            .map(|(group, ballot, version)| new().group(*group).ballot(*ballot).hex((*version).into()).end())
            .collect(),
        ClaimMessage::Release(list) => list
            .iter()
            .map(|(group, claim, successor)| new().group(*group).member(*successor).claim(claim).end())
            .collect(),
        ClaimMessage::List(list) => {
            list.iter().map(|(group, claim)| new().group(*group).claim(claim).end()).collect()
        }
        ClaimMessage::Copy(VoterCopy { ceiling, longest_lease, groups }) => {
            time("lease", *longest_lease);
            parcel.fields.push(("ceiling", values::hex(*ceiling)));
            groups
                .iter()
                .map(|(group, promised, report)| new().group(*group).ballot(*promised).report(report).end())
                .collect()
        }
        ClaimMessage::Beat(_) | ClaimMessage::Swept | ClaimMessage::AskList | ClaimMessage::AskCopy => {
            Vec::new()
        }
    };
}

fn read_claims<'a>(
    kind: &str,
    fields: &WireFields<'_>,
    lines: impl Iterator<Item = &'a str>,
    sender: ItemSender<'a>,
) -> Result<Option<ClaimMessage>, ItemFault> {
    /// Reads each item to its end.
    fn list<'a, T>(
        lines: impl Iterator<Item = &'a str>,
        sender: ItemSender<'a>,
        read: impl Fn(&mut WireReader<'a>) -> Result<T, ItemFault>,
    ) -> Result<Vec<T>, ItemFault> {
        let one = |line| {
            let mut item = WireReader::new(sender, line);
            let value = read(&mut item)?;
            item.end(value)
        };
        lines.map(one).collect()
    }
    let ballots = |item: &mut WireReader<'_>| Ok((item.group()?, item.ballot()?));
    let reports = |item: &mut WireReader<'_>| Ok((item.group()?, item.ballot()?, item.report()?));
    let claims = |item: &mut WireReader<'_>| Ok((item.group()?, item.claim()?));
    Ok(Some(match kind {
        "prepare" => ClaimMessage::Prepare(list(lines, sender, ballots)?),
        "promise" => ClaimMessage::Promise(list(lines, sender, reports)?),
        "refuse" => ClaimMessage::Refuse(list(lines, sender, |item| {
            let (group, ballot, promised) = (item.group()?, item.ballot()?, item.ballot()?);
            Ok(ClaimRefusal { group, ballot, promised, wait: item.time()? })
        })?),
        "propose" => ClaimMessage::Propose(fields.time("lease")?, list(lines, sender, claims)?),
        "accept" => ClaimMessage::Accept(list(lines, sender, |item| {
            let (group, ballot, version) = (item.group()?, item.ballot()?, item.hex()?);
            Ok((group, ballot, u32::try_from(version).map_err(|_| ItemFault::Form)?))
        })?),
        "release" => ClaimMessage::Release(list(lines, sender, |item| {
            let (group, successor) = (item.group()?, item.member()?);
            Ok((group, item.claim()?, successor))
        })?),
        "swept" => ClaimMessage::Swept,
        "ask-list" => ClaimMessage::AskList,
        "list" => ClaimMessage::List(list(lines, sender, claims)?),
        "ask" => ClaimMessage::Ask(list(lines, sender, ballots)?),
        "clear" => ClaimMessage::Clear(list(lines, sender, ballots)?),
        "ask-copy" => ClaimMessage::AskCopy,
        "copy" => ClaimMessage::Copy(VoterCopy {
            ceiling: fields.hex("ceiling")?,
            longest_lease: fields.time("lease")?,
            groups: list(lines, sender, reports)?,
        }),
        _ => return Ok(None),
    }))
}
