//! Frames: authenticate, parse, write again. The first byte chooses the form of the rest: a whole frame (mostly refused
//! by its authenticator), or the body of a frame that is signed here, so that the parser is reached.

use locum_core::{
    framing::frame::{Framing, authenticate},
    model::keys::{AuthMethod, Key, Keys},
    r1::message::R1Message,
};

pub fn check(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let keys =
        Keys::new(1, vec![Key { number: 1, method: AuthMethod::Crc, secret: vec![] }]).expect("crc alone");
    let frame = match mode % 3 {
        0 => rest.to_vec(),
        1 => netstring(rest, &keys),
        _ => classic(rest, &keys),
    };
    let Ok(authentic) = authenticate(&frame, &keys) else { return };
    let Ok(message) = R1Message::parse(&authentic) else { return };

    let framing = authentic.framing();
    let again = emit(&message, framing, &keys);
    let reread = authenticate(&again, &keys).expect("what we sign is ours");
    assert_eq!(R1Message::parse(&reread).as_ref(), Ok(&message));
    // An authenticator inside a netstring frame is replaced by a new one without being checked.
    let auths = frame.windows(5).filter(|window| window == b"auth=").count();
    let whole = frame.strip_suffix(b"\0").unwrap_or(&frame);
    if auths == usize::from(framing == Framing::Classic) {
        assert_eq!(again, whole, "{} is not {}", again.escape_ascii(), whole.escape_ascii());
    }
    // In the other framing it must at least be authentic; not every value fits there.
    let other = if framing == Framing::Classic { Framing::Netstring } else { Framing::Classic };
    let bytes = emit(&message, other, &keys);
    if bytes.len() < input.len() * 2 {
        let other = authenticate(&bytes, &keys).expect("what we sign is ours");
        if let Ok(other) = R1Message::parse(&other) {
            assert_eq!((other.src, other.seq, other.body), (message.src, message.seq, message.body));
        }
    }
}

fn emit(message: &R1Message, framing: Framing, keys: &Keys) -> Vec<u8> {
    let mut out = vec![];
    message.emit(framing, keys, false, &mut out);
    out
}

fn netstring(body: &[u8], keys: &Keys) -> Vec<u8> {
    let signed = [b"###\n", body, b"%%%\n"].concat();
    let stamp = keys.sign([signed.as_slice()]).to_string();
    [&signed, format!("{}:{stamp},", stamp.len()).as_bytes()].concat()
}

fn classic(body: &[u8], keys: &Keys) -> Vec<u8> {
    let stamp = keys.sign([body]);
    [b">>>\n", body, format!("auth={stamp}\n<<<\n").as_bytes()].concat()
}
