//! Compares the wire format with captures of real heartbeat 3.0.6 nodes. Every frame is counted, verified, parsed into
//! a typed message, and written again byte for byte.

mod common;

use common::CAPTURES;
use locum_core::{
    framing::{
        auth::{ClaimedStamp, StampFault},
        classic::Cutter,
        frame::{FrameRefusal, Framing, authenticate},
    },
    model::keys::{AuthMethod, Key, Keys},
    r1::message::{Body, R1Message},
};

/// Parses a frame; the message does not borrow its bytes.
fn parse(bytes: &[u8], keys: &Keys) -> Result<R1Message, FrameRefusal> {
    R1Message::parse(&authenticate(bytes, keys)?)
}

fn emit(message: &R1Message, framing: Framing, keys: &Keys, inner_auth: bool) -> Vec<u8> {
    let mut out = vec![];
    message.emit(framing, keys, inner_auth, &mut out);
    out
}

/// Checks that a message is written exactly as it came in, with the key of the node that signed it.
fn check_again(
    name: &str,
    message: &R1Message,
    framing: Framing,
    signers: &[Keys],
    inner_auth: bool,
    bytes: &[u8],
) {
    let again = |keys: &Keys| emit(message, framing, keys, inner_auth) == bytes;
    assert!(signers.iter().any(again), "{name}: {message:#?} is not {}", bytes.escape_ascii());
}

#[test]
fn every_frame_is_counted_verified_and_written_again() {
    for capture in CAPTURES {
        let name = capture.name;
        let keys = capture.configs.map(common::keys);
        let packets = common::pcap(name);
        assert_eq!(packets.len(), capture.frames, "{name}");
        let mut refused = 0;
        for packet in &packets {
            let mut result = parse(&packet.payload, &keys[0]);
            if let Err(refusal) = result {
                refused += 1;
                assert!(
                    matches!(refusal, FrameRefusal::Stamp(StampFault::OtherKey { .. })),
                    "{name}: {refusal}"
                );
                result = parse(&packet.payload, &keys[1]);
            }
            let message = result.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            check_again(name, &message, Framing::Netstring, &keys, capture.inner_auth, &packet.payload);
            assert!(["clustnode1", "clustnode2"].contains(&message.src.as_str()), "{name}: {message:#?}");
        }
        assert_eq!(refused, capture.refused, "{name}");
    }
}

#[test]
fn a_wrong_key_refuses_the_frames_of_one_node_and_no_other() {
    let keys = [common::keys("bad1"), common::keys("bad2")];
    let count = |keys: &Keys| {
        let good = |packet: &common::Packet| parse(&packet.payload, keys).is_ok();
        common::pcap("15-bad-auth").iter().filter(|packet| good(packet)).count()
    };
    assert_eq!((count(&keys[0]), count(&keys[1])), (54, 52));
}

#[test]
fn frames_of_either_key_are_understood_when_both_nodes_list_both() {
    // heartbeat itself cannot do this: the nodes of this capture never hear each other.
    let keys = [common::keys("key1"), common::keys("key2")];
    let mut by_key = [0, 0];
    for packet in common::pcap("16-auth-index-differs") {
        let by = keys.each_ref().map(|keys| authenticate(&packet.payload, keys).unwrap().key());
        assert_eq!(by[0], by[1]);
        by_key[usize::from(by[0] - 2)] += 1;
    }
    assert!(by_key[0] > 50 && by_key[1] > 50, "{by_key:?}");
}

#[test]
fn types_that_are_known_are_read_as_such() {
    // These come from clients and from administrators' commands; the director ignores them.
    let mut statuses = 0;
    for capture in CAPTURES {
        for packet in common::pcap(capture.name) {
            let keys = capture.configs.map(common::keys);
            let message =
                parse(&packet.payload, &keys[0]).or_else(|_| parse(&packet.payload, &keys[1])).unwrap();
            match &message.body {
                Body::Other { .. } => panic!("{message:#?}"),
                Body::Status(status) => {
                    statuses += 1;
                    assert!(status.dead_ms.is_some() && status.protocol == Some(1), "{message:#?}");
                }
                _ => {}
            }
            let numbered = !message.body.kind().starts_with("NS_");
            assert_eq!(message.seq.is_some(), numbered, "{message:#?}");
            assert_eq!(message.load.is_some(), numbered, "{message:#?}");
            assert!(message.generation.is_some() && message.src_uuid.is_some(), "{message:#?}");
            assert_eq!(message.dest.is_some(), message.dest_uuid.is_some(), "{message:#?}");
        }
    }
    assert_eq!(statuses, 2643);
}

#[test]
fn serial_streams_are_cut_verified_and_written_again() {
    for (node, frames) in [(1, 73), (2, 96)] {
        let name = format!("13-serial.from-node{node}.bin");
        let stream = common::read(&name);
        let signers = [common::keys(&format!("ser{node}"))];
        // A serial line delivers pieces of any size.
        for size in [1, 7, 64, stream.len()] {
            let mut cutter = Cutter::default();
            let (mut count, mut bytes) = (0, 0);
            for mut piece in stream.chunks(size) {
                while let Some(frame) = cutter.cut(&mut piece) {
                    let message =
                        parse(frame, &signers[0]).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
                    check_again(&name, &message, Framing::Classic, &signers, true, frame);
                    count += 1;
                    bytes += frame.len();
                }
            }
            assert_eq!((count, bytes, cutter.skipped()), (frames, stream.len(), 0), "{name}");
        }
    }
}

#[test]
fn what_ping_nodes_send_back_is_authentic_too() {
    let signers = [common::keys("png")];
    let packets = common::pcap("19-icmp");
    assert_eq!(packets.len(), 60);
    for packet in packets {
        let message = parse(&packet.payload, &signers[0]).unwrap();
        check_again("19-icmp", &message, Framing::Netstring, &signers, true, &packet.payload);
        assert!(matches!(message.body, Body::PingStatus { .. }), "{message:#?}");
    }
}

#[test]
fn one_message_says_the_same_in_both_framings() {
    let keys = common::keys("sha");
    for packet in common::pcap("11-sha1-mcast") {
        let message = parse(&packet.payload, &keys).unwrap();
        let classic = emit(&message, Framing::Classic, &keys, true);
        assert_eq!(parse(&classic, &keys), Ok(message));
    }
}

#[test]
fn stamps_equal_those_of_real_frames() {
    let text = common::read_text("auth-vectors.txt");
    let vectors: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(vectors.len(), 58);
    for vector in vectors {
        let [method, secret, hex, number, token] = *vector.split(' ').collect::<Vec<_>>() else {
            panic!("{vector}");
        };
        let method = AuthMethod::named(method).unwrap();
        let secret = if method == AuthMethod::Crc { vec![] } else { secret.as_bytes().to_vec() };
        let number: u8 = number.parse().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let signed: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let keys = Keys::new(number, vec![Key { number, method, secret }]).unwrap();
        let expected = format!("{number} {token}");
        assert_eq!(keys.sign([signed.as_slice()]).to_string(), expected, "{vector}");
        assert_eq!(
            keys.verify(ClaimedStamp::read(expected.as_bytes()).unwrap(), [signed.as_slice()]),
            Ok(number)
        );
    }
}
