//! Frames of the native dialect: read, write again, and read the same. The first byte chooses the form of the rest: a
//! whole frame (refused by its authenticator), or the kind, fields and list of a frame that is signed here, separated
//! by line ends.

use locum_core::{
    claims::Receivers,
    model::{
        identity::MemberIndex,
        keys::{AuthMethod, Key, Keys},
        time::{Duration, Instant},
    },
    native::wire::{FRAME_BYTES, Wire, WireContent, members::MemberTable},
};

pub fn check(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let key = Key { number: 0, method: AuthMethod::Sha256, secret: b"secret".to_vec() };
    let keys = Keys::new(0, vec![key]).expect("one key");
    let frame = if mode % 2 == 0 { rest.to_vec() } else { signed(rest, &keys) };
    let now = Instant::from_millis(1);
    let Ok(received) = wire(1).read(now, &frame, &keys) else { return };
    let WireContent::Message(word, reach) = received.content else { return };
    // One message may have become several, or parts of one.
    let mut reader = wire(1);
    let mut again = vec![];
    for frame in wire(0).write(1, Receivers::All, &word, &reach.unwrap_or_default()) {
        let bytes = frame.bytes(&keys);
        assert!(bytes.len() <= FRAME_BYTES.max(frame_of_one_item(&bytes)), "{}", bytes.escape_ascii());
        let received = reader.read(now, &bytes, &keys).expect("what we write we read");
        if let WireContent::Message(word, _) = received.content {
            again.push(word);
        }
    }
    assert!(!again.is_empty());
    if let [again] = &again[..] {
        assert_eq!(again, &word);
    }
}

/// The length of a frame whose list cannot be split further; 0 for others.
fn frame_of_one_item(bytes: &[u8]) -> usize {
    let list = bytes.windows(5).position(|window| window == b"list=");
    let end = bytes.windows(5).rposition(|window| window == b",%%%\n");
    let is_one = list.zip(end).is_none_or(|(list, end)| !bytes[list..end].contains(&b'\n'));
    if is_one { bytes.len() } else { 0 }
}

fn wire(me: u8) -> Wire {
    let members = MemberTable::new(["node1", "node2", "witness"].map(String::from));
    Wire::new("test", members, MemberIndex(me), 7, Duration::from_secs(1))
}

/// A signed frame of node1. The first line is its kind, lines with `=` before an empty one are its fields, the rest is
/// its list.
fn signed(input: &[u8], keys: &Keys) -> Vec<u8> {
    let at = input.windows(2).position(|window| window == b"\n\n").unwrap_or(input.len());
    let (head, list) = (&input[..at], input.get(at + 2..).unwrap_or_default());
    let mut head = head.split(|&byte| byte == b'\n');
    let kind = head.next().unwrap_or_default();
    let mut body = b"###\n".to_vec();
    let mut put = |field: &[u8]| {
        body.extend_from_slice(format!("{}:(0)", field.len() + 3).as_bytes());
        body.extend_from_slice(field);
        body.push(b',');
    };
    put(b"cluster=test");
    put(&[b"t=", kind].concat());
    [&b"src=node1"[..], b"gen=7", b"num=9", b"set=1"].into_iter().for_each(&mut put);
    head.filter(|field| field.contains(&b'=')).for_each(&mut put);
    if !list.is_empty() {
        put(&[b"list=", list].concat());
    }
    body.extend_from_slice(b"%%%\n");
    let stamp = keys.sign([body.as_slice()]).to_string();
    body.extend_from_slice(format!("{}:{stamp},", stamp.len()).as_bytes());
    body
}
