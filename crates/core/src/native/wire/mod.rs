//! The frames of the native dialect: typed messages to bytes and back. `docs/wire.md`, section 12, has every field.
//!
//! ```text
//!         message ── write ──► Frames ── emit ──► bytes        one frame, the same on every link
//! bytes ── authenticate ── our cluster? ── head ── heard before? ── parts ──► Received
//! ```
//!
//! The framing is heartbeat's ([`crate::framing::frame`]), the stamp HMAC-SHA-256. Frames name members and groups by digests
//! of their names ([`members`]), so that they mean the same to nodes whose configurations differ for a while. The reader
//! turns them into the core's indices. Each frame of a member has a number that is taken once ([`window`]).

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
    body::WireFields,
    frame::{Head, Opened},
    item::{ItemFault, ItemSender},
    members::MemberTable,
    parts::Parts,
    window::{Window, WindowVerdict},
};
use crate::{
    claims::Receivers,
    model::{
        identity::{LastHeard, MemberIndex},
        keys::Keys,
        time::{Duration, Instant},
    },
    native::message::NativeMessage,
};

/// Why bytes were not taken as a message of our cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum WireRefusal {
    /// The bytes are not a frame, or its stamp is not ours.
    #[error(transparent)]
    Frame(#[from] crate::framing::frame::FrameRefusal),
    /// A frame of the cluster with that name, which is letters, digits, `-`, `_` and `.`. Nothing is wrong.
    #[error("a frame of another cluster, `{0}`")]
    ForeignCluster(String),
    /// Signed with a key of ours that is not for this dialect.
    #[error("signed with a key that is not of method sha256")]
    WeakKey,
    /// This field of the head is missing or malformed.
    #[error("the field `{0}` is missing or malformed")]
    Head(&'static str),
    /// The sender, whose name is letters, digits, `-`, `_` and `.`, is not a member: the configurations differ, or
    /// somebody has our key.
    #[error("the sender `{0}` is not a member of this cluster")]
    UnknownSender(String),
    /// Our own frame: broadcasts come back.
    #[error("our own frame")]
    Own,
    /// Our own frame from an earlier start: it came back late, it is a recording, or another machine was made from a
    /// copy of our disk.
    #[error("a frame of an earlier run of this member")]
    OwnEarlier,
    /// It claims to be ours, but we have not sent it: another machine has our name, or our clock and our state went
    /// back in time.
    #[error(
        "another machine sends under this member's name, or this one's clock and state went back in time: give each machine \
         a name of its own"
    )]
    SameName,
    /// Of an older generation of its sender, or sent before our own restart.
    #[error("a frame of an earlier run of its sender")]
    Replayed,
    /// The message is malformed.
    #[error("a malformed message")]
    Message,
    /// It is about a member that our configuration does not have: the configurations differ.
    #[error("a message about a member that is not known here")]
    UnknownMember,
    /// Its sender may not speak on the link on which it came: a witness's key is good for that witness alone.
    #[error("the sender `{0}` may not speak on this link")]
    WrongLink(String),
    /// Its list would be longer than what is kept of one member.
    #[error("a list longer than {PARTS_BYTES_MAX} bytes")]
    TooMuch,
}

impl WireRefusal {
    /// A short name for counters, which never changes.
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
pub struct WireReceived {
    pub from: MemberIndex,
    /// The generation of the sender's daemon.
    pub generation: u64,
    /// No frame of this generation was heard before, not even before our own restart.
    pub begins: bool,
    /// The frame's number. A link counts as heard only by a number above all that it has brought in this generation, so
    /// a recording does not make a link look alive.
    pub number: u64,
    /// The number of the sender's voter set.
    pub set: u32,
    /// The number, in our key file, of the key that signed it.
    pub key: u8,
    /// The address from which its sender says to have sent it; only frames to a witness have it.
    pub at: Option<SocketAddr>,
    /// What the reader does with it.
    pub content: WireContent,
}

/// The result of reading an authentic frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireContent {
    /// A message, delivered once; of a beat also what it says about links.
    Message(NativeMessage, Option<Reach>),
    /// A message of a kind that this version does not know.
    Unknown(String),
    /// A part of a list that is not complete yet, or that a newer list has overtaken.
    Part,
    /// It is for another member.
    ForAnother,
    /// It was heard before.
    Again,
}

/// What is known of another member's frames.
#[derive(Clone, Debug, Default)]
struct WirePeer {
    window: Window,
    parts: Parts,
}

/// One member's writer and reader of frames: numbers its own frames and checks those of all others.
#[derive(Clone, Debug)]
pub struct Wire {
    cluster: String,
    members: MemberTable,
    me: MemberIndex,
    generation: u64,
    next: u64,
    /// After this time an incomplete list is forgotten.
    patience: Duration,
    peers: BTreeMap<MemberIndex, WirePeer>,
}

impl Wire {
    /// The wire of a member that has just started. `patience`: after this time an incomplete list is forgotten; a lease
    /// is a good value.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        members: MemberTable,
        me: MemberIndex,
        generation: u64,
        patience: Duration,
    ) -> Self {
        let cluster = cluster.into();
        Self { cluster, members, me, generation, next: 1, patience, peers: BTreeMap::new() }
    }

    /// Sets the newest frame that was heard of a member before our own restart.
    pub fn remember(&mut self, member: MemberIndex, heard: LastHeard) {
        self.peers.entry(member).or_default().window = Window::new(Some(heard));
    }

    /// The newest frame heard of a member, for the driver to save over a restart.
    #[must_use]
    pub fn heard(&self, member: MemberIndex) -> Option<LastHeard> {
        self.peers.get(&member)?.window.heard()
    }

    /// The members, as frames name them.
    #[must_use]
    pub const fn members(&self) -> &MemberTable {
        &self.members
    }

    /// Takes the members of a changed configuration. What is known of members stays with their names. Nothing changes
    /// if the new configuration does not have this member.
    pub fn set_members(&mut self, members: MemberTable) {
        let Some(me) = self.members.name(self.me).and_then(|name| members.named(name)) else { return };
        let peers = core::mem::take(&mut self.peers).into_iter();
        let moved = |(index, peer)| Some((members.named(self.members.name(index)?)?, peer));
        self.peers = peers.filter_map(moved).collect();
        self.me = me;
        self.members = members;
    }

    /// The frames of a message, with the number of the voter set that we vote in. `reach` is used for beats only. Empty
    /// for a bare beat of claims, which has no frame of its own.
    pub fn write(&mut self, set: u32, to: Receivers, message: &NativeMessage, reach: &Reach) -> Vec<Frame> {
        let sender = ItemSender { members: &self.members, member: self.me, generation: self.generation };
        let dest = match to {
            Receivers::All => None,
            Receivers::One(member) => self.members.name(member),
        };
        let src = self.members.name(self.me).unwrap_or_default();
        let head = Head { cluster: &self.cluster, src, dest, generation: self.generation, set };
        let parcel = body::write(message, reach, sender);
        parcel.map(|parcel| frame::cut(&head, &parcel, &mut self.next)).unwrap_or_default()
    }

    /// Reads a frame of any sender.
    ///
    /// # Errors
    /// Why the frame is refused.
    pub fn read(&mut self, now: Instant, bytes: &[u8], keys: &Keys) -> Result<WireReceived, WireRefusal> {
        self.read_of(now, bytes, keys, |_| true)
    }

    /// Reads a frame from a link on which only some members may speak.
    ///
    /// # Errors
    /// Why the frame is refused.
    pub fn read_of(
        &mut self,
        now: Instant,
        bytes: &[u8],
        keys: &Keys,
        may_speak: impl FnOnce(MemberIndex) -> bool,
    ) -> Result<WireReceived, WireRefusal> {
        let mut opened = frame::open(bytes, keys, &self.cluster)?;
        let Some(from) = self.members.named(&opened.src) else {
            return Err(WireRefusal::UnknownSender(opened.src));
        };
        if from == self.me {
            let ours = (self.generation, self.next);
            return Err(match (opened.generation, opened.number) {
                (generation, _) if generation < self.generation => WireRefusal::OwnEarlier,
                frame if frame < ours => WireRefusal::Own,
                _ => WireRefusal::SameName,
            });
        }
        if !may_speak(from) {
            return Err(WireRefusal::WrongLink(opened.src));
        }
        let peer = self.peers.entry(from).or_default();
        let verdict = peer.window.take(opened.generation, opened.number);
        let content = match verdict {
            WindowVerdict::Replayed => return Err(WireRefusal::Replayed),
            WindowVerdict::Again => WireContent::Again,
            WindowVerdict::Begins | WindowVerdict::New => {
                if verdict == WindowVerdict::Begins {
                    peer.parts = Parts::default();
                }
                peer.parts.expire(now, self.patience);
                let me = self.members.name(self.me);
                let is_ours = opened.dest.as_deref().is_none_or(|dest| Some(dest) == me);
                if is_ours { self.content(now, from, &mut opened)? } else { WireContent::ForAnother }
            }
        };
        let Opened { generation, number, set, key, at, .. } = opened;
        let begins = verdict == WindowVerdict::Begins;
        Ok(WireReceived { from, generation, begins, number, set, key, at, content })
    }

    fn content(
        &mut self,
        now: Instant,
        from: MemberIndex,
        opened: &mut Opened,
    ) -> Result<WireContent, WireRefusal> {
        let peer = self.peers.entry(from).or_default();
        let list = peer.parts.take(now, opened).map_err(|fault| match fault {
            parts::PartFault::Place => WireRefusal::Message,
            parts::PartFault::TooMuch => WireRefusal::TooMuch,
        })?;
        let Some(list) = list else { return Ok(WireContent::Part) };
        let sender = ItemSender { members: &self.members, member: from, generation: opened.generation };
        match body::read(&opened.kind, &WireFields(&opened.fields), &list, sender) {
            Ok(Some((word, reach))) => Ok(WireContent::Message(word, reach)),
            Ok(None) => Ok(WireContent::Unknown(core::mem::take(&mut opened.kind))),
            Err(ItemFault::Form) => Err(WireRefusal::Message),
            Err(ItemFault::Member) => Err(WireRefusal::UnknownMember),
        }
    }
}

#[cfg(test)]
mod tests;
