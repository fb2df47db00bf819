//! Frames: the head of a message, its split into as many frames as it needs, and the reading of a frame's head. The
//! framing is that of [`crate::framing::frame`].

use alloc::{
    borrow::Cow,
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};
use core::net::SocketAddr;

use super::{
    WireRefusal,
    body::Parcel,
    item::{ItemFault, hex},
};
use crate::{
    framing::frame::{self, AuthenticFrame, Field, FieldKind, Framing},
    framing::values,
    model::keys::{AuthMethod, Keys},
    native::plan::{NAME_BYTES_MAX, NODE_NAME_BYTES_MAX},
};

/// Most bytes of a frame with more than one item: what an Ethernet frame carries, less room for tunnels.
pub const FRAME_BYTES: usize = 1400;
/// Most parts of one list.
pub const PARTS_MAX: usize = 1024;
/// The bytes around the fields: opening and closing line, a trailer with the longest key number and token, and on a
/// witness's link the longest `at`.
const AROUND: usize =
    "###\n%%%\n".len() + "67:15 ,".len() + crate::framing::auth::TOKEN_DIGITS_MAX + AT_BYTES_MAX;
/// The length of the field `at` with the longest address.
const AT_BYTES_MAX: usize = "53:(0)at=[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535,".len();

/// A frame: its fields in order, not yet in any framing. Every link carries the same fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    fields: Vec<(&'static str, String)>,
}

impl Frame {
    /// Appends the signed frame to `out`.
    pub fn emit(&self, framing: Framing, keys: &Keys, out: &mut Vec<u8>) {
        self.emit_from(framing, keys, None, out);
    }

    /// The same for a frame to a witness: it also carries the address that it is sent from, to which the witness
    /// answers.
    pub fn emit_from(&self, framing: Framing, keys: &Keys, at: Option<SocketAddr>, out: &mut Vec<u8>) {
        let at = at.map(|at| at.to_string());
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        let fields = fields.chain(at.iter().map(|at| ("at", at.as_str())));
        let fields = fields.map(|(name, value)| Field {
            kind: FieldKind::Text,
            name,
            value: Cow::Borrowed(value.as_bytes()),
        });
        frame::seal(framing, fields, keys, out);
    }

    /// The signed frame in netstring framing.
    #[must_use]
    pub fn bytes(&self, keys: &Keys) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_BYTES);
        self.emit(Framing::Netstring, keys, &mut out);
        out
    }
}

/// The fields that begin every frame of a message.
pub(super) struct Head<'a> {
    pub cluster: &'a str,
    pub src: &'a str,
    pub dest: Option<&'a str>,
    pub generation: u64,
    pub set: u32,
}

/// Splits a message into frames and numbers them from `next` on.
pub(super) fn cut(head: &Head<'_>, parcel: &Parcel, next: &mut u64) -> Vec<Frame> {
    let fields = |number: u64| {
        let mut fields = Vec::with_capacity(16);
        fields.extend([("cluster", head.cluster.into()), ("t", parcel.kind.into())]);
        fields.extend([("src", head.src.into())]);
        fields.extend(head.dest.map(|dest| ("dest", dest.into())));
        fields.extend([("gen", values::hex(head.generation)), ("num", values::hex(number))]);
        fields.push(("set", values::hex(head.set.into())));
        fields.extend(parcel.fields.iter().cloned());
        fields
    };
    // The frame's number may grow by a digit within a message, and then the length of its field may, too.
    let around: usize = fields(*next).iter().map(|(name, value)| size(name, value.len())).sum();
    let room = FRAME_BYTES.saturating_sub(AROUND + around + 2);
    let mut lists = fill(&parcel.items, room);
    if parcel.whole && lists.len() > 1 {
        lists = fill(&parcel.items, room.saturating_sub(size("part", "400/400".len())));
    }
    let parts = lists.len();
    let mut frames = Vec::with_capacity(parts);
    for (index, list) in lists.into_iter().enumerate() {
        let mut fields = fields(*next);
        *next += 1;
        if parcel.whole && parts > 1 {
            fields.push(("part", alloc::format!("{:x}/{parts:x}", index + 1)));
        }
        if !list.is_empty() {
            fields.push(("list", list));
        }
        frames.push(Frame { fields });
    }
    frames
}

/// Joins items, one a line, so that each list with its field's name takes at most `room` bytes. Returns at least one
/// list. An item that is longer gets a list of its own.
fn fill(items: &[String], room: usize) -> Vec<String> {
    let mut lists = alloc::vec![String::new()];
    for item in items {
        let last = lists
            .last_mut()
            .filter(|last| last.is_empty() || size("list", last.len() + 1 + item.len()) <= room);
        match last {
            Some(last) => {
                if !last.is_empty() {
                    last.push('\n');
                }
                last.push_str(item);
            }
            None => lists.push(item.clone()),
        }
    }
    lists
}

/// Bytes of a text field in netstring framing.
fn size(name: &str, value: usize) -> usize {
    let content = "(0)=".len() + name.len() + value;
    let digits =
        core::iter::successors(Some(content), |rest| Some(rest / 10).filter(|rest| *rest > 0)).count();
    digits + ":,".len() + content
}

/// An authentic frame of our cluster, with its head read.
#[derive(Debug)]
pub(super) struct Opened {
    /// The number, in our key file, of the key that signed it.
    pub key: u8,
    pub kind: String,
    pub src: String,
    pub dest: Option<String>,
    pub generation: u64,
    pub number: u64,
    pub set: u32,
    /// The address from which its sender says to have sent it to a witness.
    pub at: Option<SocketAddr>,
    /// The index of this part, from 1, and the number of parts.
    pub part: Option<(usize, usize)>,
    pub list: String,
    /// All other fields, by name.
    pub fields: BTreeMap<String, String>,
}

/// The cluster that a frame names, authentic or not. Use it only to choose the keys to try.
#[must_use]
pub fn cluster_of(bytes: &[u8]) -> Option<String> {
    let name = frame::first_field(bytes, "cluster")?;
    let name = core::str::from_utf8(&name).ok()?;
    is_name(name, NAME_BYTES_MAX).then(|| name.into())
}

/// Authenticates a frame and reads its head.
pub(super) fn open(bytes: &[u8], keys: &Keys, cluster: &str) -> Result<Opened, WireRefusal> {
    let authentic = match frame::authenticate(bytes, keys) {
        Ok(authentic) => authentic,
        Err(refusal) => {
            return Err(match cluster_of(bytes) {
                Some(name) if name != cluster => WireRefusal::ForeignCluster(name),
                _ => WireRefusal::Frame(refusal),
            });
        }
    };
    let key = keys.all().iter().find(|key| key.number == authentic.key());
    if key.is_none_or(|key| key.method != AuthMethod::Sha256) {
        return Err(WireRefusal::WeakKey);
    }
    let mut fields = texts(&authentic)?;
    match fields.remove("cluster") {
        Some(name) if name == cluster => {}
        Some(name) if is_name(&name, NAME_BYTES_MAX) => return Err(WireRefusal::ForeignCluster(name)),
        _ => return Err(WireRefusal::Head("cluster")),
    }
    read_head(authentic.key(), fields).map_err(WireRefusal::Head)
}

fn read_head(key: u8, mut fields: BTreeMap<String, String>) -> Result<Opened, &'static str> {
    let mut take = |name: &'static str| fields.remove(name);
    fn must<T>(name: &'static str, value: Option<Result<T, ItemFault>>) -> Result<T, &'static str> {
        value.and_then(Result::ok).ok_or(name)
    }
    let named =
        |word: String| Some(word).filter(|word| is_name(word, NODE_NAME_BYTES_MAX)).ok_or(ItemFault::Form);
    let set =
        take("set").map(|word| hex(&word).and_then(|set| u32::try_from(set).map_err(|_| ItemFault::Form)));
    let part = |word: String| {
        let (index, parts) = word.split_once('/').ok_or(ItemFault::Form)?;
        let count = |word| hex(word).and_then(|count| usize::try_from(count).map_err(|_| ItemFault::Form));
        let (index, parts) = (count(index)?, count(parts)?);
        ((1..=parts).contains(&index) && (2..=PARTS_MAX).contains(&parts))
            .then_some((index, parts))
            .ok_or(ItemFault::Form)
    };
    Ok(Opened {
        key,
        kind: must("t", take("t").map(named))?,
        src: must("src", take("src").map(named))?,
        dest: take("dest").map(|word| must("dest", Some(named(word)))).transpose()?,
        generation: must("gen", take("gen").map(|word| hex(&word)))?,
        number: must("num", take("num").map(|word| hex(&word)))?,
        set: must("set", set)?,
        at: take("at").map(|word| word.parse().map_err(|_| "at")).transpose()?,
        part: take("part").map(|word| must("part", Some(part(word)))).transpose()?,
        list: take("list").unwrap_or_default(),
        fields,
    })
}

/// All text fields; of two with one name the first counts. Fields of other types and texts that are not UTF-8 come from
/// a later version and are skipped.
fn texts(frame: &AuthenticFrame<'_>) -> Result<BTreeMap<String, String>, WireRefusal> {
    let mut texts = BTreeMap::new();
    for field in frame.fields()?.into_iter().filter(|field| field.kind == FieldKind::Text) {
        if let Ok(value) = String::from_utf8(field.value.into_owned()) {
            texts.entry(field.name.into()).or_insert(value);
        }
    }
    Ok(texts)
}

/// Whether a name is one that the configuration allows. Such a name is safe to show.
fn is_name(name: &str, bytes_max: usize) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=bytes_max).contains(&name.len()) && name.bytes().all(is_good)
}
