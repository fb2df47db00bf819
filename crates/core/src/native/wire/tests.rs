//! Frames of every kind, written and read; refusals; and the bytes that `docs/wire.md` states.

extern crate std; // the table of bytes is printed

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use proptest::{collection::vec as many, option, prelude::*};

use super::*;
use crate::{
    claims::{BeatEcho, ClaimMessage, ClaimsDigest, VoterCopy, VoterMemory as Memory},
    framing::{
        auth::StampFault,
        frame::{Field, FieldKind, FrameRefusal, Framing, seal},
    },
    model::{
        claim::{Ballot, Claim, EarlierOwner, GroupId, VoterReport},
        keys::{AuthMethod, Key},
        order::OrderId,
    },
    native::{
        gossip::GossipEntry,
        message::{BEAT_LIST_MAX, GroupLists, NativeBeat},
    },
};

const NOW: Instant = Instant::from_millis(1_000_000);
const PATIENCE: Duration = Duration::from_secs(1);
const GENERATION: u64 = 0x6b02_be83;

fn key(number: u8, secret: &str) -> Key {
    Key { number, method: AuthMethod::Sha256, secret: secret.as_bytes().to_vec() }
}

fn keys() -> Keys {
    Keys::new(0, vec![key(0, "secret")]).unwrap()
}

fn members() -> MemberTable {
    MemberTable::new(["node1", "node2", "node3", "witness"].map(String::from))
}

fn wire(me: u8) -> Wire {
    Wire::new("test", members(), MemberIndex(me), GENERATION + u64::from(me), PATIENCE)
}

const CONFIG: u64 = 0x1234_5678_9abc_def0;

fn write(wire: &mut Wire, to: Receivers, message: &NativeMessage) -> Vec<Frame> {
    wire.write(1, to, message, &Reach::default())
}

fn ballot(round: u64, node: u8) -> Ballot {
    Ballot { round, node: MemberIndex(node) }
}

fn claim(round: u64, node: u8, unproved: &[u8]) -> Claim {
    let earlier = |&node| EarlierOwner {
        node: MemberIndex(node),
        generation: GENERATION,
        ballot: ballot(round - 1, node),
    };
    let unproved = unproved.iter().map(earlier).collect();
    Claim {
        ballot: ballot(round, node),
        generation: GENERATION + u64::from(node),
        version: 1,
        durable: false,
        unproved,
    }
}

fn groups(count: u64) -> impl Iterator<Item = GroupId> {
    (0..count).map(|group| GroupId::of(&format!("group{group}")))
}

fn claims(count: u64) -> Vec<(GroupId, Claim)> {
    groups(count).map(|group| (group, claim(0x11, 0, &[]))).collect()
}

/// The frames of a message of node1 to all.
fn frames_of(message: NativeMessage) -> Vec<Vec<u8>> {
    write(&mut wire(0), Receivers::All, &message).iter().map(|frame| frame.bytes(&keys())).collect()
}

/// A netstring frame of these fields, each `name=value`, signed.
fn signed(fields: &[&str], keys: &Keys) -> Vec<u8> {
    let mut out = vec![];
    let fields = fields.iter().map(|field| {
        let (name, value) = field.split_once('=').unwrap();
        Field { kind: FieldKind::Text, name, value: value.as_bytes().into() }
    });
    seal(Framing::Netstring, fields, keys, &mut out);
    out
}

fn message(read: Result<WireReceived, WireRefusal>) -> NativeMessage {
    match read.unwrap().content {
        WireContent::Message(word, _) => word,
        other => panic!("{other:?}"),
    }
}

// ---- the head --------------------------------------------------------------

#[test]
fn a_frame_is_readable_text() {
    let [frame] =
        &frames_of(NativeMessage::Claims(ClaimMessage::Prepare(vec![(GroupId::of("web"), ballot(0x12, 0))])))
            [..]
    else {
        panic!("one frame")
    };
    let text = String::from_utf8(frame.clone()).unwrap();
    let expected = "###\n15:(0)cluster=test,12:(0)t=prepare,12:(0)src=node1,15:(0)gen=6b02be83,8:(0)num=1,8:(0)set=1,\
                    27:(0)list=4b5e57f6eb2f42b9 12,%%%\n66:0 ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(text.len(), expected.len() + 64 + 1);
}

#[test]
fn what_is_read_says_who_sent_it() {
    let mut reader = wire(1);
    let [frame] = &frames_of(NativeMessage::AskSettings)[..] else { panic!("one frame") };
    let received = reader.read(NOW, frame, &keys()).unwrap();
    let expected = WireReceived {
        from: MemberIndex(0),
        generation: GENERATION,
        begins: true,
        number: 1,
        set: 1,
        key: 0,
        at: None,
        content: WireContent::Message(NativeMessage::AskSettings, None),
    };
    assert_eq!(received, expected);
    // The same frame over the other link.
    let again = reader.read(NOW, frame, &keys()).unwrap();
    assert_eq!(again, WireReceived { begins: false, content: WireContent::Again, ..expected });
}

#[test]
fn gossip_is_one_line_for_each_entry_and_lines_of_later_versions_are_skipped() {
    let second = Duration::from_secs(1);
    let web = GroupId::of("web");
    let entries = vec![
        GossipEntry::Pin { group: None, number: ballot(1, 0), on: true, user: 1000, age: second },
        GossipEntry::Pin {
            group: Some(web),
            number: ballot(0x12, 1),
            on: false,
            user: 0,
            age: Duration::ZERO,
        },
        GossipEntry::Moved { group: web, epoch: ballot(0x12, 0), age: second },
    ];
    let [frame] = &frames_of(NativeMessage::Gossip(entries.clone()))[..] else { panic!("one frame") };
    let text = String::from_utf8(frame.clone()).unwrap();
    let list = "list=pinned - 1 3e8 3b9aca00\nfree 4b5e57f6eb2f42b9 12.15b18a72 0 0\nmoved 4b5e57f6eb2f42b9 12 3b9aca00,";
    assert!(text.contains(list), "{text}");
    let head = ["cluster=test", "t=board", "src=node1", "gen=6b02be83", "num=1", "set=1"];
    let read = |list: &str| {
        let list = format!("list={list}");
        wire(1).read(NOW, &signed(&[&head[..], &[&list]].concat(), &keys()), &keys())
    };
    let later = "later 7\nmoved 4b5e57f6eb2f42b9 12 3b9aca00";
    assert_eq!(message(read(later)), NativeMessage::Gossip(entries[2..].to_vec()));
    for wrong in ["moved 4b5e57f6eb2f42b9 12", "pinned - 1 3e8 0 0", "pinned - 1 100000000 0", "", "Moved x"]
    {
        assert_eq!(read(wrong).map(|read| read.content).err().is_some(), !wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn what_is_for_one_member_is_for_no_other() {
    let frames = write(&mut wire(0), Receivers::One(MemberIndex(2)), &NativeMessage::AskSettings);
    let bytes = frames[0].bytes(&keys());
    assert_eq!(wire(1).read(NOW, &bytes, &keys()).unwrap().content, WireContent::ForAnother);
    let received = wire(2).read(NOW, &bytes, &keys()).unwrap();
    assert_eq!(received.content, WireContent::Message(NativeMessage::AskSettings, None));
}

#[test]
fn foreign_clusters_are_told_from_wrong_keys() {
    let ours = keys();
    let read = |fields: &[&str], keys: &Keys| wire(1).read(NOW, &signed(fields, keys), &ours).unwrap_err();
    let others = Keys::new(0, vec![key(0, "other")]).unwrap();
    let head = ["t=ask-meaning", "src=node1", "gen=1", "num=1", "set=1"];
    let frame = |cluster: &'static str| [&[cluster], &head[..]].concat();
    let foreign = WireRefusal::ForeignCluster("prod".into());
    assert_eq!(read(&frame("cluster=prod"), &others), foreign);
    assert_eq!(read(&frame("cluster=prod"), &ours), foreign, "two clusters with one key");
    let wrong = read(&frame("cluster=test"), &others);
    assert!(
        matches!(wrong, WireRefusal::Frame(FrameRefusal::Stamp(StampFault::OtherKey { .. }))),
        "{wrong:?}"
    );
    // A cluster name that could do harm in a log is not a name.
    for strange in ["cluster=\x1b[2J", "cluster=", "cluster=a b", "cluster=123456789012345678901234567890123"]
    {
        assert!(matches!(read(&frame(strange), &others), WireRefusal::Frame(_)), "{strange:?}");
        assert_eq!(read(&frame(strange), &ours), WireRefusal::Head("cluster"), "{strange:?}");
    }
    assert_eq!(read(&head, &ours), WireRefusal::Head("cluster"));
    assert_eq!(cluster_of(&signed(&frame("cluster=prod"), &others)).as_deref(), Some("prod"));
    assert_eq!(cluster_of(b"###\n"), None);
}

#[test]
fn keys_roll_over_without_a_lost_frame() {
    let (old, new) = (key(0, "old"), key(1, "new"));
    let before = Keys::new(0, vec![old.clone(), new.clone()]).unwrap();
    let after = Keys::new(1, vec![old, new]).unwrap();
    for (sender, receiver, by) in [(&before, &after, 0), (&after, &before, 1)] {
        let frame = write(&mut wire(0), Receivers::All, &NativeMessage::AskSettings)[0].bytes(sender);
        assert_eq!(wire(1).read(NOW, &frame, receiver).unwrap().key, by);
    }
}

#[test]
fn weak_keys_sign_nothing_here() {
    let weak =
        Keys::new(1, vec![Key { number: 1, method: AuthMethod::Sha1, secret: b"secret".to_vec() }]).unwrap();
    let frame = write(&mut wire(0), Receivers::All, &NativeMessage::AskSettings)[0].bytes(&weak);
    assert_eq!(wire(1).read(NOW, &frame, &weak), Err(WireRefusal::WeakKey));
}

#[test]
fn heads_out_of_form_are_refused_by_the_name_of_the_field() {
    let read = |fields: &[&str]| wire(1).read(NOW, &signed(fields, &keys()), &keys());
    let good = [
        "cluster=test",
        "t=ask-meaning",
        "src=node1",
        "gen=1",
        "num=1",
        "set=1",
        "cfg=0000000000000001",
        "x=y",
    ];
    assert_eq!(
        message(read(&good)),
        NativeMessage::AskSettings,
        "and fields that are not known change nothing"
    );
    for (place, bad) in [
        (1, "t="),
        (1, "t=a b"),
        (2, "src=\n"),
        (3, "gen=01"),
        (3, "gen=-1"),
        (3, "gen=10000000000000000"),
        (4, "num=G"),
        (5, "set=100000000"),
        (6, "dest=a b"),
        (6, "part=1"),
        (6, "part=0/2"),
        (6, "part=3/2"),
        (6, "part=1/1"),
        (6, "part=1/401"),
    ] {
        let mut fields = good;
        fields[place] = bad;
        let field = bad.split_once('=').unwrap().0;
        let Err(WireRefusal::Head(said)) = read(&fields) else { panic!("{bad:?} was taken") };
        assert_eq!(said, field, "{bad:?}");
        if place < 6 {
            assert!(matches!(
                read(&[&good[..place], &good[place + 1..]].concat()),
                Err(WireRefusal::Head(_))
            ));
        }
    }
}

#[test]
fn only_members_are_heard_and_not_we_ourselves() {
    let frames = |members: &[&str], me: u8, generation: u64, count: usize| {
        let members = MemberTable::new(members.iter().map(ToString::to_string));
        let mut wire = Wire::new("test", members, MemberIndex(me), generation, PATIENCE);
        let frame =
            (0..count).map(|_| write(&mut wire, Receivers::All, &NativeMessage::AskSettings)).last().unwrap();
        frame[0].bytes(&keys())
    };
    let mut reader = wire(1);
    write(&mut reader, Receivers::All, &NativeMessage::AskSettings);
    let mut read = |frame: Vec<u8>| reader.read(NOW, &frame, &keys()).unwrap_err();
    assert_eq!(read(frames(&["nobody"], 0, 1, 1)), WireRefusal::UnknownSender("nobody".into()));
    assert_eq!(read(frames(&["node2"], 0, GENERATION + 1, 1)), WireRefusal::Own);
    assert_eq!(read(frames(&["node2"], 0, GENERATION, 99)), WireRefusal::OwnEarlier, "of our last run");
    assert_eq!(read(frames(&["node2"], 0, GENERATION + 1, 2)), WireRefusal::SameName);
    assert_eq!(read(frames(&["node2"], 0, GENERATION + 2, 1)), WireRefusal::SameName);
}

#[test]
fn replays_survive_no_restart() {
    let mut sender = wire(0);
    let recorded: Vec<Vec<u8>> = (0..5)
        .map(|_| write(&mut sender, Receivers::All, &NativeMessage::AskSettings)[0].bytes(&keys()))
        .collect();
    let mut reader = wire(1);
    for frame in &recorded {
        message(reader.read(NOW, frame, &keys()));
    }
    let heard = reader.heard(MemberIndex(0)).unwrap();
    assert_eq!(heard, LastHeard { generation: GENERATION, number: 5 });
    let mut reborn = wire(1);
    reborn.remember(MemberIndex(0), heard);
    for frame in &recorded {
        assert_eq!(reborn.read(NOW, frame, &keys()), Err(WireRefusal::Replayed));
    }
    let next = write(&mut sender, Receivers::All, &NativeMessage::AskSettings)[0].bytes(&keys());
    assert!(!reborn.read(NOW, &next, &keys()).unwrap().begins);
    // After the first frame of the sender's next start, frames of the old one are refused.
    let mut second = Wire::new("test", members(), MemberIndex(0), GENERATION + 9, PATIENCE);
    let beat = write(&mut second, Receivers::All, &NativeMessage::AskSettings)[0].bytes(&keys());
    assert!(reborn.read(NOW, &beat, &keys()).unwrap().begins);
    let late = write(&mut sender, Receivers::All, &NativeMessage::AskSettings)[0].bytes(&keys());
    assert_eq!(reborn.read(NOW, &late, &keys()), Err(WireRefusal::Replayed));
}

#[test]
fn a_changed_configuration_keeps_what_was_heard_of_each_name() {
    let mut reader = wire(1);
    let frame = frames_of(NativeMessage::AskSettings).remove(0);
    message(reader.read(NOW, &frame, &keys()));
    reader.set_members(MemberTable::new(["added", "node1", "node2"].map(String::from)));
    assert_eq!(reader.heard(MemberIndex(0)), None);
    let again = reader.read(NOW, &frame, &keys()).unwrap();
    assert_eq!((again.from, again.content), (MemberIndex(1), WireContent::Again));
    let written = write(&mut reader, Receivers::All, &NativeMessage::AskSettings)[0].bytes(&keys());
    assert_eq!(wire(0).read(NOW, &written, &keys()).unwrap().from, MemberIndex(1));
    // Nothing changes if the new configuration does not have this member.
    reader.set_members(MemberTable::new(["node1".to_string()]));
    assert_eq!(reader.members().named("added"), Some(MemberIndex(0)));
}

// ---- messages --------------------------------------------------------------

const BEAT: [&str; 7] =
    ["t=beat", "v=1-2", "cfg=0000000000000001", "beat=7", "claims=0000000000000000", "lease=1", "word=good"];

#[test]
fn kinds_and_words_of_later_versions_are_no_fault() {
    let read = |fields: &[&str]| {
        let head = ["cluster=test", "src=node1", "gen=1", "num=1", "set=1"];
        wire(1).read(NOW, &signed(&[&head, fields].concat(), &keys()), &keys()).unwrap().content
    };
    assert_eq!(read(&["t=later", "list=any thing"]), WireContent::Unknown("later".into()));
    let more =
        ["is=later standby", "x=y", "list=ffffffff 1 2+\nlater 3\nunable 0000000000000001 0000000000000002"];
    let WireContent::Message(NativeMessage::Beat(beat), Some(reach)) = read(&[&BEAT[..], &more].concat())
    else {
        panic!("a beat")
    };
    assert!(beat.standby);
    let unable = vec![GroupId(1), GroupId(2)];
    assert_eq!(beat.lists, Some(GroupLists { unable, ..GroupLists::default() }));
    assert_eq!(beat.claims.echoes, [], "an echo of a member that is not known here is not for us");
    assert_eq!(reach.versions.common(Versions { lowest: 2, highest: 9 }), Some(2));
    assert_eq!(reach.versions.common(Versions { lowest: 3, highest: 9 }), None);
}

#[test]
fn nodes_are_heard_by_their_places_and_witnesses_by_name() {
    let toml = "cluster = \"test\"\nvoters = [\"node1\"]\n[nodes.node1]\nlinks = { lan = \"10.0.0.1\" }\n[nodes.node2]\n\
                links = { lan = \"10.0.0.2\" }\n[witnesses.witness]\naddress = \"10.9.0.1\"\n[groups.web]\n\
                resources = [\"daemon\"]\nguard = \"none\"\ni-know = \"a test\"\n";
    let checked = crate::config::locum_toml::check(toml.as_bytes(), "node2");
    let plan = checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diags));
    let wire = |me| Wire::new("test", MemberTable::of(&plan), MemberIndex(me), 1, PATIENCE);
    let hears = [(MemberIndex(0), 1), (MemberIndex(2), 2)].into();
    let (word, _) = beat(1, 0, 1, 1);
    let frames = wire(1).write(1, Receivers::All, &word, &Reach { hears, ..Reach::default() });
    let text = String::from_utf8(frames[0].bytes(&keys())).unwrap();
    let list = format!("list={} 2\nhears 1 1,", crate::model::identity::MemberId::of("witness"));
    assert!(text.contains(&list), "{text}");
    // Places from another configuration: one that we do not have, and one that is a witness's here.
    let head = ["cluster=test", "src=node2", "gen=1", "num=1", "set=1"];
    let read = |list| {
        let fields = [&head[..], &BEAT, &[list]].concat();
        wire(0).read(NOW, &signed(&fields, &keys()), &keys())
    };
    let WireContent::Message(_, Some(reach)) = read("list=hears 5 fffffffffffffffe").unwrap().content else {
        panic!("a beat")
    };
    assert_eq!(reach.hears, [(MemberIndex(1), 5)].into());
    for list in ["list=hears 1", "list=hears 100000000 1", "list=hears 1 1 1", "list=hears 1 x"] {
        assert_eq!(read(list).unwrap_err(), WireRefusal::Message, "{list}");
    }
}

#[test]
fn messages_out_of_form_are_refused() {
    let read = |fields: &[&str]| {
        let head = ["cluster=test", "src=node1", "gen=1", "num=1", "set=1"];
        wire(1).read(NOW, &signed(&[&head, fields].concat(), &keys()), &keys()).unwrap_err()
    };
    for (kind, item) in [
        ("prepare", ""),
        ("prepare", "1 1"),
        ("prepare", "0000000000000001"),
        ("prepare", "0000000000000001 01"),
        ("prepare", "0000000000000001 1 1"),
        ("prepare", "0000000000000001 1."),
        ("prepare", "0000000000000001 1\n"),
        ("promise", "0000000000000001 1 kept"),
        ("promise", "0000000000000001 1 held 1"),
        ("list", "0000000000000001 1 = x"),
        ("list", "0000000000000001 1 = 100000000"),
        ("list", "0000000000000001 1 = 1 ca12f31b"),
        ("list", "0000000000000001 1 = 1 ca12f31b.1"),
        ("accept", "0000000000000001 1 100000000"),
        ("refuse", "0000000000000001 1 2"),
        ("meaning", "a\x07"),
        ("meaning", "a\n\nb"),
        ("beat", "ca12f31b 1 2+"),
        ("propose", "0000000000000001 1 = 1"),
        ("copy", ""),
    ] {
        let (kind, list) = (format!("t={kind}"), format!("list={item}"));
        if item.is_empty() && kind != "t=copy" {
            continue;
        }
        assert_eq!(read(&[&kind, &list]), WireRefusal::Message, "{kind} {item:?}");
    }
    for missing in 1..BEAT.len() {
        // A beat without `word` must not pass for `good`.
        let fields = [&BEAT[..missing], &BEAT[missing + 1..]].concat();
        assert_eq!(read(&fields), WireRefusal::Message, "without {}", BEAT[missing]);
    }
    for item in [
        "! ca12f31b 0000000000000001 1",
        "ca12f31b 1 2?",
        "ca12f31b 1 2",
        "ca12f31b 1 +",
        "- 1 2+",
        "ca12f31b 1 2 +",
        "ca12f31b 1 2+3 4",
        "ca12f31b",
        "later",
        "unable 1",
    ] {
        let list = format!("list={item}");
        assert_eq!(read(&[&BEAT[..], &[&list]].concat()), WireRefusal::Message, "{item}");
    }
    let group = "group=0000000000000001";
    assert_eq!(read(&["t=ask-move", "id=1"]), WireRefusal::Message);
    assert_eq!(read(&["t=ask-move", "id=1", "group=1"]), WireRefusal::Message);
    assert_eq!(read(&["t=ask-move", "id=1", group, "to=nobody"]), WireRefusal::UnknownMember);
    assert_eq!(read(&["t=move-answer", "id=1", "done=maybe"]), WireRefusal::Message);
    assert_eq!(read(&["t=move-answer", "id=1", "done=no", "text=\x1b[2J"]), WireRefusal::Message);
    let long = format!("text={}", "x".repeat(ANSWER_MAX + 1));
    assert_eq!(read(&["t=move-answer", "id=1", "done=no", &long]), WireRefusal::Message);
    assert_eq!(read(&["t=prepare", "list=0000000000000001 1.ffffffff"]), WireRefusal::UnknownMember);
    assert_eq!(read(&["t=prepare", "part=1/2", "list=0000000000000001 1"]), WireRefusal::Message);
}

#[test]
fn a_ballot_of_nobody_is_carried() {
    let refusal = crate::claims::ClaimRefusal {
        group: GroupId(1),
        ballot: ballot(1, 1),
        promised: Ballot { round: 9, node: MemberIndex::NOBODY },
        wait: Duration::ZERO,
    };
    let word = NativeMessage::Claims(ClaimMessage::Refuse(vec![refusal]));
    assert_eq!(message(wire(1).read(NOW, &frames_of(word.clone())[0], &keys())), word);
}

#[test]
fn texts_fit_a_line() {
    let text = |text: &str| {
        let word = NativeMessage::MoveAnswer { order: OrderId(1), done: false, text: text.into() };
        match message(wire(1).read(NOW, &frames_of(word)[0], &keys())) {
            NativeMessage::MoveAnswer { text, .. } => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(text("no\nway"), "no\u{fffd}way");
    assert_eq!(text(""), "");
    assert_eq!(text(&"é".repeat(300)), "é".repeat(ANSWER_MAX));
    let meaning = NativeMessage::Settings(vec!["a\nb".into(), String::new(), "c".into()]);
    let heard = message(wire(1).read(NOW, &frames_of(meaning)[0], &keys()));
    assert_eq!(heard, NativeMessage::Settings(vec!["a\u{fffd}b".into(), "c".into()]));
}

#[test]
fn a_beat_of_claims_alone_is_no_message() {
    let NativeMessage::Beat(beat) = beat(2, 1, 1, 0).0 else { panic!("a beat") };
    assert_eq!(frames_of(NativeMessage::Claims(ClaimMessage::Beat(beat.claims))), Vec::<Vec<u8>>::new());
}

// ---- lists -----------------------------------------------------------------

#[test]
fn a_long_list_is_taken_whole_or_not_at_all() {
    let word = NativeMessage::Claims(ClaimMessage::List(claims(1000)));
    let frames = frames_of(word.clone());
    assert!(frames.len() > 10 && frames.iter().all(|frame| frame.len() <= FRAME_BYTES), "{}", frames.len());
    for order in [false, true] {
        let mut reader = wire(1);
        let mut frames = frames.clone();
        if order {
            frames.reverse();
        }
        let last = frames.pop().unwrap();
        for frame in frames {
            assert_eq!(reader.read(NOW, &frame, &keys()).unwrap().content, WireContent::Part);
        }
        assert_eq!(message(reader.read(NOW, &last, &keys())), word);
    }
}

#[test]
fn an_incomplete_list_is_forgotten_in_time_or_when_a_newer_one_comes() {
    let word = NativeMessage::Claims(ClaimMessage::List(claims(100)));
    let mut sender = wire(0);
    let mut list = || -> Vec<Vec<u8>> {
        write(&mut sender, Receivers::All, &word).iter().map(|frame| frame.bytes(&keys())).collect()
    };
    let (first, second, third) = (list(), list(), list());
    assert!(first.len() > 2);
    let part = |reader: &mut Wire, now, frame: &[u8]| {
        assert_eq!(reader.read(now, frame, &keys()).unwrap().content, WireContent::Part);
    };
    let mut reader = wire(1);
    first[1..].iter().for_each(|frame| part(&mut reader, NOW, frame));
    // The missing part comes too late.
    part(&mut reader, NOW + PATIENCE, &first[0]);
    part(&mut reader, NOW + PATIENCE, &second[0]);
    third[1..].iter().for_each(|frame| part(&mut reader, NOW + PATIENCE, frame));
    // The rest of the second list is overtaken by the third.
    second[1..].iter().for_each(|frame| part(&mut reader, NOW + PATIENCE, frame));
    assert_eq!(message(reader.read(NOW + PATIENCE, &third[0], &keys())), word);
}

#[test]
fn what_one_member_can_make_us_keep_is_bounded() {
    let long = "x".repeat(60_000);
    let frames = frames_of(NativeMessage::Settings((0..40).map(|_| long.clone()).collect()));
    assert_eq!(frames.len(), 40);
    let mut reader = wire(1);
    let mut kept = 0;
    let refused = frames.iter().filter(|frame| match reader.read(NOW, frame, &keys()) {
        Ok(_) => false,
        Err(refusal) => refusal == WireRefusal::TooMuch,
    });
    let refused = refused.count();
    for peer in reader.peers.values() {
        kept += peer.parts.bytes();
    }
    assert!(refused > 0 && kept <= PARTS_BYTES_MAX, "{refused} {kept}");
}

#[test]
fn pieces_of_a_takeover_are_messages_of_their_own() {
    let word = NativeMessage::Claims(ClaimMessage::Propose(PATIENCE, claims(1000)));
    let frames = frames_of(word);
    let mut reader = wire(1);
    let mut heard = vec![];
    for frame in &frames {
        let NativeMessage::Claims(ClaimMessage::Propose(PATIENCE, list)) =
            message(reader.read(NOW, frame, &keys()))
        else {
            panic!("a proposal")
        };
        heard.extend(list);
    }
    assert_eq!(heard, claims(1000));
}

// ---- any message -----------------------------------------------------------

fn any_member() -> impl Strategy<Value = MemberIndex> {
    (0_u8..4).prop_map(MemberIndex)
}

fn any_group() -> impl Strategy<Value = GroupId> {
    any::<u64>().prop_map(GroupId)
}

fn any_ballot() -> impl Strategy<Value = Ballot> {
    let node = prop_oneof![8 => any_member(), 1 => Just(MemberIndex::NOBODY)];
    (any::<u64>(), node).prop_map(|(round, node)| Ballot { round, node })
}

fn any_time() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let earlier = (any_member(), any::<u64>(), any_ballot());
    let earlier = earlier.prop_map(|(node, generation, ballot)| EarlierOwner { node, generation, ballot });
    let generation = prop_oneof![Just(GENERATION), any::<u64>()];
    (any_ballot(), generation, any::<u32>(), any::<bool>(), many(earlier, 0..4)).prop_map(
        |(ballot, generation, version, durable, unproved)| Claim {
            ballot,
            generation,
            version,
            durable,
            unproved,
        },
    )
}

fn any_report() -> impl Strategy<Value = VoterReport> {
    (option::of(any_claim()), any::<bool>())
        .prop_map(|(accepted, released)| VoterReport { accepted, released })
}

fn any_reach() -> impl Strategy<Value = Reach> {
    let hears = proptest::collection::btree_map(any_member(), any::<u32>(), 0..4);
    (any::<(u32, u32)>(), hears)
        .prop_map(|((lowest, highest), hears)| Reach { versions: Versions { lowest, highest }, hears })
}

fn any_beat() -> impl Strategy<Value = NativeBeat> {
    let disputed = many((any_group(), any_ballot()), 0..3);
    let echo = (any::<u64>(), any::<u64>(), any::<bool>(), disputed).prop_map(
        |(generation, sequence, granted, disputed)| BeatEcho { generation, sequence, granted, disputed },
    );
    let echoes = proptest::collection::btree_map(any_member(), echo, 0..4);
    let word = prop_oneof![Just(Memory::Blank), Just(Memory::AllBlank), Just(Memory::Good)];
    let claims = (any::<u64>(), any::<u64>(), any_time(), word, echoes).prop_map(
        |(sequence, digest, lease, word, echoes)| crate::claims::ClaimBeat {
            sequence,
            digest: ClaimsDigest(digest),
            lease,
            memory: word,
            echoes: echoes.into_iter().collect(),
        },
    );
    let board = any::<u64>().prop_map(ClaimsDigest);
    let lists = option::of(any_lists(BEAT_LIST_MAX));
    (claims, any::<u64>(), board, any::<(bool, bool)>(), lists).prop_map(
        |(claims, config, board, (standby, waits), lists)| NativeBeat {
            claims,
            config,
            gossip: board,
            standby,
            waits,
            lists,
        },
    )
}

fn any_lists(most: usize) -> impl Strategy<Value = GroupLists> {
    let groups = || many(any_group(), 0..=most);
    (groups(), groups(), groups()).prop_map(|(starting, unable, cut)| GroupLists {
        starting,
        unable,
        unreachable: cut,
    })
}

fn any_entry() -> impl Strategy<Value = GossipEntry> {
    let pin = (option::of(any_group()), any_ballot(), any::<bool>(), any::<u32>(), any_time())
        .prop_map(|(group, number, on, user, age)| GossipEntry::Pin { group, number, on, user, age });
    let moved = (any_group(), any_ballot(), any_time()).prop_map(|(group, epoch, age)| GossipEntry::Moved {
        group,
        epoch,
        age,
    });
    prop_oneof![pin, moved]
}

fn any_claims_message() -> impl Strategy<Value = ClaimMessage> {
    let ballots = || many((any_group(), any_ballot()), 0..60);
    let reports = || many((any_group(), any_ballot(), any_report()), 0..30);
    let claims = || many((any_group(), any_claim()), 0..30);
    let refusal =
        (any_group(), any_ballot(), any_ballot(), any_time()).prop_map(|(group, ballot, promised, wait)| {
            crate::claims::ClaimRefusal { group, ballot, promised, wait }
        });
    let copied = (any::<u64>(), any_time(), reports())
        .prop_map(|(ceiling, longest_lease, groups)| VoterCopy { ceiling, longest_lease, groups });
    prop_oneof![
        ballots().prop_map(ClaimMessage::Prepare),
        reports().prop_map(ClaimMessage::Promise),
        many(refusal, 0..30).prop_map(ClaimMessage::Refuse),
        (any_time(), claims()).prop_map(|(lease, list)| ClaimMessage::Propose(lease, list)),
        many((any_group(), any_ballot(), any::<u32>()), 0..60).prop_map(ClaimMessage::Accept),
        many((any_group(), any_claim(), option::of(any_member())), 0..30).prop_map(ClaimMessage::Release),
        Just(ClaimMessage::Swept),
        Just(ClaimMessage::AskList),
        claims().prop_map(ClaimMessage::List),
        ballots().prop_map(ClaimMessage::Ask),
        ballots().prop_map(ClaimMessage::Clear),
        Just(ClaimMessage::AskCopy),
        copied.prop_map(ClaimMessage::Copy),
    ]
}

fn any_message() -> impl Strategy<Value = NativeMessage> {
    let ask = (any::<u64>(), any_group(), option::of(any_member()));
    let answer = (any::<u64>(), any::<bool>(), "\\PC{0,200}");
    prop_oneof![
        4 => any_beat().prop_map(NativeMessage::Beat),
        13 => any_claims_message().prop_map(NativeMessage::Claims),
        1 => ask.prop_map(|(order, group, to)| NativeMessage::AskMove { order: OrderId(order), group, to }),
        1 => answer.prop_map(|(order, done, text)| NativeMessage::MoveAnswer { order: OrderId(order), done, text }),
        1 => Just(NativeMessage::AskSettings),
        1 => many("\\PC{1,80}", 0..80).prop_map(NativeMessage::Settings),
        1 => many(any_entry(), 0..60).prop_map(NativeMessage::Gossip),
        1 => any_lists(300).prop_map(NativeMessage::Lists),
    ]
}

/// Puts messages that were split together again.
fn join(words: Vec<NativeMessage>) -> NativeMessage {
    let mut words = words.into_iter();
    let mut first = words.next().unwrap();
    for word in words {
        match (&mut first, word) {
            (
                NativeMessage::Claims(ClaimMessage::Prepare(all)),
                NativeMessage::Claims(ClaimMessage::Prepare(more)),
            )
            | (
                NativeMessage::Claims(ClaimMessage::Ask(all)),
                NativeMessage::Claims(ClaimMessage::Ask(more)),
            )
            | (
                NativeMessage::Claims(ClaimMessage::Clear(all)),
                NativeMessage::Claims(ClaimMessage::Clear(more)),
            ) => all.extend(more),
            (
                NativeMessage::Claims(ClaimMessage::Promise(all)),
                NativeMessage::Claims(ClaimMessage::Promise(more)),
            ) => all.extend(more),
            (
                NativeMessage::Claims(ClaimMessage::Refuse(all)),
                NativeMessage::Claims(ClaimMessage::Refuse(more)),
            ) => all.extend(more),
            (
                NativeMessage::Claims(ClaimMessage::Propose(_, all)),
                NativeMessage::Claims(ClaimMessage::Propose(_, more)),
            ) => all.extend(more),
            (
                NativeMessage::Claims(ClaimMessage::Accept(all)),
                NativeMessage::Claims(ClaimMessage::Accept(more)),
            ) => all.extend(more),
            (
                NativeMessage::Claims(ClaimMessage::Release(all)),
                NativeMessage::Claims(ClaimMessage::Release(more)),
            ) => all.extend(more),
            (NativeMessage::Gossip(all), NativeMessage::Gossip(more)) => all.extend(more),
            (first, word) => panic!("{first:?} and {word:?} are two messages"),
        }
    }
    first
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(word in any_message(), reach in any_reach(), serial in any::<bool>()) {
        let framing = if serial { Framing::Classic } else { Framing::Netstring };
        let mut reader = wire(1);
        let mut words = vec![];
        let frames = wire(0).write(1, Receivers::All, &word, &reach);
        let count = frames.len();
        for (index, frame) in frames.iter().enumerate() {
            let mut bytes = vec![];
            frame.emit(framing, &keys(), &mut bytes);
            prop_assert!(bytes.len() <= FRAME_BYTES);
            match reader.read(NOW, &bytes, &keys()).unwrap().content {
                WireContent::Message(read, tells) => {
                    prop_assert_eq!(tells.is_some(), matches!(read, NativeMessage::Beat(_)));
                    prop_assert!(tells.is_none_or(|tells| tells == reach));
                    words.push(read);
                }
                WireContent::Part => prop_assert!(index + 1 < count),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(join(words), word);
    }

    #[test]
    fn a_flipped_bit_is_refused(word in any_message(), place in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let frame = &frames_of(word)[0];
        let place = place.index(frame.len());
        let mut damaged = frame.clone();
        damaged[place] ^= 1 << bit;
        let read = wire(1).read(NOW, &damaged, &keys());
        // The key's number is not signed: a number that finds the same key passes.
        let digit = frame.len() - "0 ,".len() - 64;
        let refused = matches!(read, Err(WireRefusal::Frame(_) | WireRefusal::ForeignCluster(_)));
        prop_assert!(refused || (place == digit && read.is_ok()), "{:?}", read);
    }

    #[test]
    fn any_bytes_are_survived(bytes in many(any::<u8>(), 0..400)) {
        prop_assert!(wire(1).read(NOW, &bytes, &keys()).is_err());
    }

    #[test]
    fn any_fields_are_survived(
        kind in prop::sample::select(vec![
            "beat", "prepare", "promise", "refuse", "propose", "accept", "release", "list", "ask", "copy", "meaning",
            "ask-move", "move-answer",
        ]),
        fields in many("(v|cfg|beat|claims|lease|word|is|id|group|to|done|text|ceiling|part)=[0-9a-f./ +-]{0,20}", 0..8),
        list in "list=((hears|[0-9a-f.=+-]{1,17})[ \n]){0,20}",
    ) {
        let kind = format!("t={kind}");
        let head = ["cluster=test", &kind, "src=node1", "gen=1", "num=5", "set=1"];
        let all: Vec<&str> = head.into_iter().chain(fields.iter().map(String::as_str)).chain([list.as_str()]).collect();
        let read = wire(1).read(NOW, &signed(&all, &keys()), &keys());
        if let Ok(WireReceived { content: WireContent::Message(word, reach), .. }) = read {
            let again = wire(0).write(1, Receivers::All, &word, &reach.unwrap_or_default());
            let mut reader = wire(1);
            let words = again.iter().filter_map(|frame| {
                match reader.read(NOW, &frame.bytes(&keys()), &keys()).unwrap().content {
                    WireContent::Message(word, _) => Some(word),
                    _ => None,
                }
            });
            prop_assert_eq!(join(words.collect()), word);
        }
    }
}

// ---- bytes -----------------------------------------------------------------

/// The page that states the measured bytes.
const PAGE: &str = include_str!("../../../../../docs/wire.md");

/// Asserts that the page has each of these texts.
fn assert_stated(texts: &[String]) {
    texts.iter().for_each(|text| std::println!("{text}"));
    for text in texts {
        assert!(PAGE.contains(text), "docs/wire.md does not have: {text}");
    }
}

fn cluster(names: impl Iterator<Item = String>, cluster: &str) -> Wire {
    Wire::new(cluster, MemberTable::new(names), MemberIndex(0), GENERATION, PATIENCE)
}

/// A beat of the first of `members` members after `sequence` beats. It has `own` groups of its own and echoes `echoed`
/// others.
fn beat(members: u8, echoed: u8, sequence: u64, own: u64) -> (NativeMessage, Reach) {
    let echo = BeatEcho { generation: GENERATION, sequence, granted: true, disputed: vec![] };
    let others = || (1..members).map(MemberIndex);
    let claims = crate::claims::ClaimBeat {
        sequence,
        digest: ClaimsDigest::of(claims(own).iter().map(|(group, claim)| (*group, claim.ballot))),
        lease: PATIENCE,
        memory: Memory::Good,
        echoes: others().take(echoed.into()).map(|member| (member, echo.clone())).collect(),
    };
    let board = ClaimsDigest::default();
    let beat = NativeBeat {
        claims,
        config: CONFIG,
        gossip: board,
        standby: false,
        waits: false,
        lists: Some(GroupLists::default()),
    };
    (
        NativeMessage::Beat(beat),
        Reach { hears: others().map(|member| (member, 3)).collect(), ..Reach::default() },
    )
}

fn bytes(wire: &mut Wire, (word, reach): &(NativeMessage, Reach)) -> Vec<usize> {
    wire.write(1, Receivers::All, word, reach).iter().map(|frame| frame.bytes(&keys()).len()).collect()
}

#[test]
fn a_beat_does_not_grow_with_the_groups() {
    let mut rows = vec![];
    for (nodes, votes) in [(2_u8, true), (8, true), (32, true), (32, false)] {
        let mut row = format!("| {nodes} | {} |", if votes { "voter" } else { "other" });
        for own in [1, 100, 1000] {
            let mut wire = cluster((1..=nodes).map(|node| format!("node{node:02}")), "prod");
            wire.next = 0x10_0000;
            let sizes = bytes(&mut wire, &beat(nodes, if votes { 31 } else { 7 }, 0x10_0000, own));
            assert!(sizes.len() == 1 && sizes[0] <= FRAME_BYTES, "{sizes:?}");
            row += &format!(" {} |", sizes[0]);
        }
        rows.push(row);
    }
    // The longest names, after ten years at the shortest pace.
    let mut wire = cluster((1..=32).map(|node| format!("{node:064}")), &"c".repeat(32));
    (wire.next, wire.generation) = (0x9_ffff_ffff, 0xffff_ffff);
    let sizes = bytes(&mut wire, &beat(32, 31, 0x2_71d9_4a00, 1000));
    assert!(sizes.len() == 1 && sizes[0] <= FRAME_BYTES, "{sizes:?}");
    rows.push(format!("{} bytes with the longest names", sizes[0]));
    assert_stated(&rows);
}

#[test]
fn a_takeover_of_a_thousand_groups_costs_tens_of_frames() {
    let mut rows = vec![];
    for own in [1_u64, 100, 1000] {
        let earlier = |group| {
            let unproved =
                vec![EarlierOwner { node: MemberIndex(1), generation: GENERATION, ballot: ballot(0x10, 1) }];
            (group, Claim { generation: GENERATION, version: 0, unproved, ..claim(0x11, 0, &[]) })
        };
        let report = |group| {
            let accepted = Some(Claim { generation: GENERATION, ..claim(0x10, 1, &[]) });
            (group, ballot(0x11, 0), VoterReport { accepted, released: false })
        };
        let bodies = [
            ClaimMessage::Prepare(groups(own).map(|group| (group, ballot(0x11, 0))).collect()),
            ClaimMessage::Promise(groups(own).map(report).collect()),
            ClaimMessage::Propose(PATIENCE, groups(own).map(earlier).collect()),
            ClaimMessage::Accept(groups(own).map(|group| (group, ballot(0x11, 0), 0)).collect()),
            ClaimMessage::List(claims(own)),
        ];
        let mut row = format!("| {own} |");
        for body in bodies {
            let mut wire = cluster(["node01", "node02", "node03"].into_iter().map(String::from), "prod");
            let sizes = bytes(&mut wire, &(NativeMessage::Claims(body), Reach::default()));
            row += &format!(" {} ({}) |", sizes.len(), sizes.iter().sum::<usize>());
            assert!(sizes.len() as u64 <= 1 + own / 10, "{sizes:?}");
        }
        rows.push(row);
    }
    assert_stated(&rows);
}

#[test]
fn the_page_shows_a_real_frame() {
    let mut wire = cluster(["node1", "node2", "witness"].into_iter().map(String::from), "prod");
    wire.next = 0x2a7;
    let (word, reach) = beat(3, 2, 0x1f4, 1);
    let frame = wire.write(1, Receivers::All, &word, &reach);
    let text = String::from_utf8(frame[0].bytes(&keys())).unwrap();
    assert_stated(&[text]);
}

#[test]
fn names_of_refusals_are_all_different() {
    let all = [
        WireRefusal::Frame(FrameRefusal::NoFrame),
        WireRefusal::ForeignCluster("x".into()),
        WireRefusal::WeakKey,
        WireRefusal::Head("t"),
        WireRefusal::UnknownSender("x".into()),
        WireRefusal::WrongLink("x".into()),
        WireRefusal::Own,
        WireRefusal::OwnEarlier,
        WireRefusal::SameName,
        WireRefusal::Replayed,
        WireRefusal::Message,
        WireRefusal::UnknownMember,
        WireRefusal::TooMuch,
    ];
    let names: alloc::collections::BTreeSet<_> = all.iter().map(WireRefusal::name).collect();
    assert_eq!(names.len(), all.len());
}
