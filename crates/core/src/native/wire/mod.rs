//! The frames of the native dialect: typed messages to bytes and back. `docs/wire.md`, section 12, has every field.
//!
//! ```text
//!           Word ── write ──► Frames ── emit ──► bytes        one frame, the same on every link
//! bytes ── authenticate ── our cluster? ── head ── heard before? ── parts ──► Received
//! ```
//!
//! The framing is heartbeat's ([`crate::framing::frame`]), the stamp HMAC-SHA-256. Members and groups are named by digests
//! of their names ([`members`]), so that frames mean the same to nodes whose configurations differ for a while; the
//! indices of the core are made from them here. Each frame of a member has a number that is taken once ([`window`]).

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::net::SocketAddr;

pub mod announcement;
mod body;
mod frame;
mod item;
pub mod members;
mod parts;
pub mod window;

pub use body::{ANSWER_MAX, PROTOCOL, Reach, Versions};
pub use frame::{FRAME_BYTES, Frame, PARTS_MAX, cluster_of};
pub use parts::PARTS_BYTES_MAX;

use self::{
    body::Fields,
    frame::{Head, Opened},
    item::{Fault, Sender},
    members::Members,
    parts::Parts,
    window::{Verdict, Window},
};
use crate::{
    claims::To,
    model::{
        identity::{Heard, MemberIndex},
        keys::Keys,
        time::{Duration, Instant},
    },
    native::word::Word,
};

/// Why bytes were not taken as a message of our cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// It is no frame, or its stamp is not ours.
    #[error(transparent)]
    Frame(#[from] crate::framing::frame::Refusal),
    /// A frame of the cluster of that name, which is letters, digits, `-`, `_` and `.`: nothing is wrong.
    #[error("a frame of another cluster, `{0}`")]
    ForeignCluster(String),
    /// It was signed by a key of ours that is not for this dialect.
    #[error("signed with a key that is not of method sha256")]
    WeakKey,
    /// This field of the head is missing or not in its form.
    #[error("the field `{0}` is missing or not in its form")]
    Head(&'static str),
    /// Its sender, whose name is letters, digits, `-`, `_` and `.`, is no member: the configurations differ, or
    /// somebody has our key.
    #[error("the sender `{0}` is no member of this cluster")]
    UnknownSender(String),
    /// Our own: broadcasts come back.
    #[error("our own frame")]
    Own,
    /// Of an earlier life of ours: it came back late, it is a recording, or another machine was made from a copy of our disk.
    #[error("a frame of an earlier life of this member")]
    OwnEarlier,
    /// It says that it is ours, but we have not sent it: another machine has our name, or our clock and our state went
    /// back in time.
    #[error(
        "another machine sends under this member's name, or this one's clock and state went back in time: give each machine \
         a name of its own"
    )]
    SameName,
    /// Of an older life of its sender, or said before our own restart.
    #[error("a frame of an older life of its sender")]
    Replayed,
    /// What it says is not in its form.
    #[error("a message that is not in the form of its kind")]
    Message,
    /// It is about a member that is none of ours: the configurations differ.
    #[error("a message about a member that is not known here")]
    UnknownMember,
    /// Its sender may not speak on the link on which it came: a witness's key is good for that witness alone.
    #[error("the sender `{0}` may not speak on this link")]
    WrongLink(String),
    /// Its list would be longer than what is kept of one member.
    #[error("a list longer than {PARTS_BYTES_MAX} bytes")]
    TooMuch,
}

impl Refusal {
    /// A short name, which does not change: for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Frame(refusal) => refusal.name(),
            Self::ForeignCluster(_) => "foreign-cluster",
            Self::WeakKey => "weak-key",
            Self::Head(_) => "head",
            Self::UnknownSender(_) => "unknown-sender",
            Self::WrongLink(_) => "wrong-link",
            Self::Own => "own",
            Self::OwnEarlier => "own-earlier",
            Self::SameName => "same-name",
            Self::Replayed => "replayed",
            Self::Message => "message",
            Self::UnknownMember => "unknown-member",
            Self::TooMuch => "too-much",
        }
    }
}

/// An authentic frame of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whose.
    pub from: MemberIndex,
    /// In which of its lives.
    pub generation: u64,
    /// Nothing of this life was heard before, not even before our own restart.
    pub begins: bool,
    /// Its number. A link is heard by a frame whose number is above all that this link has brought in that life: a
    /// recording keeps no link alive.
    pub number: u64,
    /// The number of the sender's voter set.
    pub set: u32,
    /// The number of the key, in our key file, that signed it.
    pub key: u8,
    /// Where its sender says to have sent it from; only what is sent to a witness says so.
    pub at: Option<SocketAddr>,
    /// What follows from it.
    pub content: Content,
}

/// What follows from a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This message, once; of a beat also what it tells of links.
    Message(Word, Option<Reach>),
    /// A message of a kind that this version does not know.
    Unknown(String),
    /// A part of a list that is not complete yet, or that a newer one has overtaken.
    Part,
    /// It is for another member.
    ForAnother,
    /// It was heard before.
    Again,
}

/// What is known of another member's frames.
#[derive(Clone, Debug, Default)]
struct Peer {
    window: Window,
    parts: Parts,
}

/// One member's side of the wire to all others.
#[derive(Clone, Debug)]
pub struct Wire {
    cluster: String,
    members: Members,
    me: MemberIndex,
    generation: u64,
    /// The number of the next frame.
    next: u64,
    /// After which an incomplete list is forgotten.
    patience: Duration,
    peers: BTreeMap<MemberIndex, Peer>,
}

impl Wire {
    /// A new life of a member. `patience`: after that an incomplete list is forgotten; a lease is a good time.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        members: Members,
        me: MemberIndex,
        generation: u64,
        patience: Duration,
    ) -> Self {
        let cluster = cluster.into();
        Self { cluster, members, me, generation, next: 1, patience, peers: BTreeMap::new() }
    }

    /// What was heard of a member before our own restart.
    pub fn remember(&mut self, member: MemberIndex, heard: Heard) {
        self.peers.entry(member).or_default().window = Window::new(Some(heard));
    }

    /// The newest heard of a member: to be remembered over our restart.
    #[must_use]
    pub fn heard(&self, member: MemberIndex) -> Option<Heard> {
        self.peers.get(&member)?.window.heard()
    }

    /// The members, as frames name them.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The configuration has changed: what is known of members stays with their names. Nothing changes if we are not
    /// among the new ones.
    pub fn set_members(&mut self, members: Members) {
        let Some(me) = self.members.name(self.me).and_then(|name| members.named(name)) else { return };
        let peers = core::mem::take(&mut self.peers).into_iter();
        let moved = |(index, peer)| Some((members.named(self.members.name(index)?)?, peer));
        self.peers = peers.filter_map(moved).collect();
        self.me = me;
        self.members = members;
    }

    /// The frames of a message, which say that we vote in the set of this number. `reach` goes with beats. None for a
    /// beat of claims alone, which is no message.
    pub fn write(&mut self, set: u32, to: To, word: &Word, reach: &Reach) -> Vec<Frame> {
        let sender = Sender { members: &self.members, member: self.me, generation: self.generation };
        let dest = match to {
            To::All => None,
            To::One(member) => self.members.name(member),
        };
        let src = self.members.name(self.me).unwrap_or_default();
        let head = Head { cluster: &self.cluster, src, dest, generation: self.generation, set };
        let parcel = body::write(word, reach, sender);
        parcel.map(|parcel| frame::cut(&head, &parcel, &mut self.next)).unwrap_or_default()
    }

    /// Takes a frame of anybody.
    ///
    /// # Errors
    /// Why nothing follows from it.
    pub fn read(&mut self, now: Instant, bytes: &[u8], keys: &Keys) -> Result<Received, Refusal> {
        self.read_of(now, bytes, keys, |_| true)
    }

    /// Takes a frame that came where only some members may speak.
    ///
    /// # Errors
    /// Why nothing follows from it.
    pub fn read_of(
        &mut self,
        now: Instant,
        bytes: &[u8],
        keys: &Keys,
        may_speak: impl FnOnce(MemberIndex) -> bool,
    ) -> Result<Received, Refusal> {
        let mut opened = frame::open(bytes, keys, &self.cluster)?;
        let Some(from) = self.members.named(&opened.src) else {
            return Err(Refusal::UnknownSender(opened.src));
        };
        if from == self.me {
            let ours = (self.generation, self.next);
            return Err(match (opened.generation, opened.number) {
                (generation, _) if generation < self.generation => Refusal::OwnEarlier,
                frame if frame < ours => Refusal::Own,
                _ => Refusal::SameName,
            });
        }
        if !may_speak(from) {
            return Err(Refusal::WrongLink(opened.src));
        }
        let peer = self.peers.entry(from).or_default();
        let verdict = peer.window.take(opened.generation, opened.number);
        let content = match verdict {
            Verdict::Replayed => return Err(Refusal::Replayed),
            Verdict::Again => Content::Again,
            Verdict::Begins | Verdict::New => {
                if verdict == Verdict::Begins {
                    peer.parts = Parts::default();
                }
                peer.parts.expire(now, self.patience);
                let me = self.members.name(self.me);
                let is_ours = opened.dest.as_deref().is_none_or(|dest| Some(dest) == me);
                if is_ours { self.content(now, from, &mut opened)? } else { Content::ForAnother }
            }
        };
        let Opened { generation, number, set, key, at, .. } = opened;
        let begins = verdict == Verdict::Begins;
        Ok(Received { from, generation, begins, number, set, key, at, content })
    }

    fn content(&mut self, now: Instant, from: MemberIndex, opened: &mut Opened) -> Result<Content, Refusal> {
        let peer = self.peers.entry(from).or_default();
        let list = peer.parts.take(now, opened).map_err(|fault| match fault {
            parts::Fault::Place => Refusal::Message,
            parts::Fault::TooMuch => Refusal::TooMuch,
        })?;
        let Some(list) = list else { return Ok(Content::Part) };
        let sender = Sender { members: &self.members, member: from, generation: opened.generation };
        match body::read(&opened.kind, &Fields(&opened.fields), &list, sender) {
            Ok(Some((word, reach))) => Ok(Content::Message(word, reach)),
            Ok(None) => Ok(Content::Unknown(core::mem::take(&mut opened.kind))),
            Err(Fault::Form) => Err(Refusal::Message),
            Err(Fault::Member) => Err(Refusal::UnknownMember),
        }
    }
}

#[cfg(test)]
mod tests;
