//! The typed message: the content of a frame. Parse and emit are exact inverses: unknown fields and the order of all
//! fields are kept. So a message parsed from a real node's frame is written again byte for byte.
//!
//! A value that does not have the one form of its field (a number with a leading zero, an unknown state) is never acted
//! on. It is not lost either: it is kept as an unknown field. Facts: `docs/wire.md`, sections 3 and 6.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
    vec::Vec,
};

use super::body::{KnownField, uuid};
use crate::{
    framing::{
        classic,
        frame::{AuthenticFrame, Field, FieldKind, FrameRefusal, Framing, TYPE_MAX},
        netstring,
        values::{dec, hex, name, number_dec, number_hex, text},
    },
    model::{holding::Holding, keys::Keys},
};

/// Sixteen bytes that identify a node permanently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R1Message {
    pub body: Body,
    /// Addressee; absent means all.
    pub dest: Option<String>,
    /// The addressee's UUID; wins over `dest`.
    pub dest_uuid: Option<Uuid>,
    pub src: String,
    pub src_uuid: Option<Uuid>,
    /// Per-sender counter from 1; absent in `NS_*` messages.
    pub seq: Option<u64>,
    pub generation: Option<u64>,
    /// The sender's wall clock, seconds since 1970; never zero in a message that came in.
    pub unix_seconds: u64,
    /// First line of the sender's load average file.
    pub load: Option<String>,
    /// Written but never used.
    pub ttl: Option<u32>,
    /// Marks a node of Locum: the version of the extension that it speaks. An extra field that the real daemon ignores.
    pub locum: Option<u32>,
    /// In a status of Locum: the keys of the groups that the sender could not start, blank separated. Another extra
    /// field.
    pub failed: Option<String>,
    /// In a status of Locum: the keys of the groups whose clients cannot reach the sender, because an interface of
    /// their addresses carries nothing there, blank separated. Another extra field.
    pub unreachable: Option<String>,
    /// In a status of Locum, and in its `starting`: the sets that the sender kept through a reload in place, until it
    /// has settled. Another extra field; in the sender's view.
    pub keeps: Option<Holding>,
    /// In a status of Locum: the fields that compare the files of both nodes.
    pub files: FileFields,
    /// Unknown fields (or known ones in an unknown form), and the place of each field.
    pub layout: Layout,
}

/// The extra fields by which nodes of Locum compare their files, in the status (`docs/wire.md`, section 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFields {
    /// The digest of the lines that both files must have.
    pub digest: Option<u64>,
    /// A piece of the lines themselves, while the digests differ.
    pub lines: Option<Piece>,
    /// How many bytes of the addressee's lines the sender knows, while it lacks some.
    pub wants: Option<u64>,
    /// The keys of groups that the sender holds and does not run, because the files dispute them; blank separated.
    pub withheld: Option<String>,
    /// The generation of the addressee that the sender hears now.
    pub hears: Option<u64>,
    /// The highest generation that the sender has heard of the addressee, while it refuses it as an older one.
    pub known: Option<u64>,
}

/// A piece of a longer text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of its first byte in the whole text.
    pub at: u64,
    /// Bytes of the whole text.
    pub of: u64,
    pub text: String,
}

impl Piece {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let mut number = || number_hex(parts.next()?.as_bytes());
        let (at, of) = (number()?, number()?);
        Some(Self { at, of, text: parts.next()?.into() })
    }

    fn write(&self) -> String {
        alloc::format!("{} {} {}", hex(self.at), hex(self.of), self.text)
    }
}

/// Parses a digest: exactly sixteen hexadecimal digits in lower case.
fn digest(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 16 && text.bytes().all(is_digit)).then(|| u64::from_str_radix(text, 16).ok())?
}

impl R1Message {
    /// A message to all, without a number, time or generation: the sender fills in the head fields it wants.
    #[must_use]
    pub fn new(body: Body, src: impl Into<String>) -> Self {
        Self {
            body,
            dest: None,
            dest_uuid: None,
            src: src.into(),
            src_uuid: None,
            seq: None,
            generation: None,
            unix_seconds: 0,
            load: None,
            ttl: None,
            locum: None,
            failed: None,
            unreachable: None,
            keeps: None,
            files: FileFields::default(),
            layout: Layout::default(),
        }
    }

    /// Reads an authentic frame.
    ///
    /// # Errors
    /// When a field is not well-formed, or `t`, `src` or `ts` is missing or unusable.
    pub fn parse(frame: &AuthenticFrame<'_>) -> Result<Self, FrameRefusal> {
        let fields = R1Fields(frame.fields()?);
        let kind = fields.text("t").filter(|kind| kind.len() < TYPE_MAX && !kind.contains(' '));
        let kind = kind.ok_or(FrameRefusal::NoType)?;
        let src = fields.get("src", FieldKind::Text).ok_or(FrameRefusal::NoSource)?;
        let time = fields.get("ts", FieldKind::Text).and_then(number_hex).filter(|&time| time > 0);
        let mut message = Self {
            body: Body::read(kind, &fields),
            dest: fields
                .get("dest", FieldKind::Text)
                .map(|dest| name(dest).ok_or(FrameRefusal::NodeName))
                .transpose()?,
            dest_uuid: fields.get("destuuid", FieldKind::Binary).and_then(uuid),
            src: name(src).ok_or(FrameRefusal::NodeName)?,
            src_uuid: fields.get("srcuuid", FieldKind::Binary).and_then(uuid),
            seq: fields.hex("seq"),
            generation: fields.hex("hg"),
            unix_seconds: time.ok_or(FrameRefusal::NoTime)?,
            load: fields.text("ld").map(String::from),
            ttl: fields.dec("ttl"),
            locum: fields.dec("locum"),
            failed: fields.text("locum_failed").map(String::from),
            unreachable: fields.text("locum_cut").map(String::from),
            keeps: fields.text("locum_keeps").and_then(Holding::from_word),
            files: FileFields {
                digest: fields.text("locum_config").and_then(digest),
                lines: fields.text("locum_lines").and_then(Piece::read),
                wants: fields.hex("locum_wants"),
                withheld: fields.text("locum_withheld").map(String::from),
                hears: fields.hex("locum_hears"),
                known: fields.hex("locum_known"),
            },
            layout: Layout::default(),
        };
        message.layout = Layout::of(frame.framing(), fields.0, &message.known());
        Ok(message)
    }

    /// Appends the message as a frame to `out`, signed.
    ///
    /// `inner_auth` says whether a netstring frame of our own carries an authenticator inside as well (`msgfmt
    /// classic`, the default). A message that came in with unknown fields or in another order keeps what it had.
    pub fn emit(&self, framing: Framing, keys: &Keys, inner_auth: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let pieces = self.pieces(framing, inner_auth);
        let fields = || pieces.iter().filter_map(|piece| piece.as_ref());
        let mut stamp = String::new();
        if pieces.contains(&None) {
            let mut signed = Vec::new();
            fields().for_each(|field| classic::put_field(&mut signed, field));
            stamp = keys.sign([signed.as_slice()]).to_string();
        }
        let auth = Field { kind: FieldKind::Text, name: "auth", value: Cow::Borrowed(stamp.as_bytes()) };
        let all = pieces.iter().map(|piece| piece.as_ref().unwrap_or(&auth));
        match framing {
            Framing::Netstring => {
                out.extend_from_slice(netstring::OPEN);
                all.for_each(|field| netstring::put_field(out, field));
                netstring::close(out, start, keys);
            }
            Framing::Classic => {
                out.extend_from_slice(classic::OPEN);
                all.for_each(|field| classic::put_field(out, field));
                out.extend_from_slice(classic::CLOSE);
            }
        }
    }

    /// A message of type `kind` that a local script wrote, with its fields; the sender fills in the head fields.
    /// `inner_auth` as for [`Self::emit`].
    #[must_use]
    pub fn of_script(kind: &str, fields: &[(String, String)], src: &str, inner_auth: bool) -> Self {
        let mut message = Self::new(Body::Other { kind: kind.into() }, src);
        let of_script = fields.iter().map(|(name, value)| LayoutItem::Unknown {
            kind: FieldKind::Text,
            name: name.clone(),
            value: value.clone().into_bytes(),
        });
        let head =
            ["dest", "destuuid", "src", "srcuuid", "seq", "hg", "ts", "ld", "ttl"].map(LayoutItem::Known);
        let items = [LayoutItem::Known("t")].into_iter().chain(of_script).chain(head);
        message.layout.items = items.chain(inner_auth.then_some(LayoutItem::Auth)).collect();
        message
    }

    /// All its text fields but the authenticator, in order.
    #[must_use]
    pub fn texts(&self) -> Vec<(String, Vec<u8>)> {
        let fields = self.pieces(Framing::Netstring, false).into_iter().flatten();
        let texts = fields.filter(|field| field.kind == FieldKind::Text);
        texts.map(|field| (field.name.into(), field.value.into_owned())).collect()
    }

    /// The value of a field that we do not know or did not believe; the first of that name.
    #[must_use]
    pub fn unknown(&self, name: &str) -> Option<&[u8]> {
        self.layout.items.iter().find_map(|item| match item {
            LayoutItem::Unknown { name: this, value, .. } if this == name => Some(value.as_slice()),
            _ => None,
        })
    }

    /// The fields to write, in order; `None` stands for the authenticator.
    fn pieces(&self, framing: Framing, inner_auth: bool) -> Vec<Option<Field<'_>>> {
        let mut known = self.known();
        if self.layout.items.is_empty() {
            let auth = framing == Framing::Classic || inner_auth;
            return known
                .into_iter()
                .map(|known| Some(known.into_field()))
                .chain(auth.then_some(None))
                .collect();
        }
        let mut pieces = Vec::with_capacity(self.layout.items.len() + 1);
        for item in &self.layout.items {
            match item {
                LayoutItem::Known(name) => {
                    if let Some(place) = known.iter().position(|known| known.name == *name) {
                        pieces.push(Some(known.remove(place).into_field()));
                    }
                }
                // A struct is kept as its framing wrote it. No message is forwarded from one framing to another.
                LayoutItem::Unknown { kind: FieldKind::Struct, .. } if framing != self.layout.framing => {}
                LayoutItem::Unknown { kind, name, value } => {
                    pieces.push(Some(Field { kind: *kind, name, value: Cow::Borrowed(value) }));
                }
                LayoutItem::Auth => pieces.push(None),
            }
        }
        if framing == Framing::Classic && !self.layout.items.contains(&LayoutItem::Auth) {
            pieces.push(None);
        }
        pieces
    }

    /// The fields of this message in the order of the real daemon: first those of the body, then destination and
    /// source.
    fn known(&self) -> Vec<KnownField<'_>> {
        let mut known = Vec::with_capacity(16);
        let dest = self.dest.as_deref().map(|dest| KnownField::text("dest", dest));
        self.body.write(dest, &mut known);
        known.extend(self.locum.map(|version| KnownField::text("locum", dec(version.into()))));
        known.extend(self.failed.as_deref().map(|failed| KnownField::text("locum_failed", failed)));
        known.extend(self.unreachable.as_deref().map(|cut| KnownField::text("locum_cut", cut)));
        known.extend(self.keeps.map(|keeps| KnownField::text("locum_keeps", keeps.word())));
        let FileFields { digest, lines, wants, withheld, hears, known: generation } = &self.files;
        known.extend(digest.map(|digest| KnownField::text("locum_config", alloc::format!("{digest:016x}"))));
        known.extend(lines.as_ref().map(|piece| KnownField::text("locum_lines", piece.write())));
        known.extend(wants.map(|bytes| KnownField::text("locum_wants", hex(bytes))));
        known.extend(withheld.as_deref().map(|keys| KnownField::text("locum_withheld", keys)));
        known.extend(hears.map(|generation| KnownField::text("locum_hears", hex(generation))));
        known.extend(generation.map(|generation| KnownField::text("locum_known", hex(generation))));
        known.extend(self.dest_uuid.as_ref().map(|uuid| KnownField::uuid("destuuid", uuid)));
        known.push(KnownField::text("src", self.src.as_str()));
        known.extend(self.src_uuid.as_ref().map(|uuid| KnownField::uuid("srcuuid", uuid)));
        known.extend(self.seq.map(|seq| KnownField::text("seq", hex(seq))));
        known.extend(self.generation.map(|generation| KnownField::text("hg", hex(generation))));
        known.push(KnownField::text("ts", hex(self.unix_seconds)));
        known.extend(self.load.as_deref().map(|load| KnownField::text("ld", load)));
        known.extend(self.ttl.map(|ttl| KnownField::text("ttl", dec(ttl.into()))));
        known
    }
}

/// The fields of a frame; of two with one name the first counts.
pub(super) struct R1Fields<'a>(Vec<Field<'a>>);

impl R1Fields<'_> {
    fn get(&self, name: &str, kind: FieldKind) -> Option<&[u8]> {
        let first = self.0.iter().find(|field| field.name == name)?;
        (first.kind == kind).then_some(&first.value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name, FieldKind::Text).and_then(text)
    }

    pub(super) fn hex(&self, name: &str) -> Option<u64> {
        self.get(name, FieldKind::Text).and_then(number_hex)
    }

    /// A decimal number of any width.
    pub(super) fn dec<N: TryFrom<u64>>(&self, name: &str) -> Option<N> {
        self.get(name, FieldKind::Text).and_then(number_dec).and_then(|number| N::try_from(number).ok())
    }
}

/// The content of a message, by its type `t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `status`: the content of a beat.
    Status(StatusMessage),
    /// `NS_st`: the status written on behalf of a ping node.
    PingStatus {
        state: NodeState,
        /// Field `info`: `ping` or `ping_group`.
        info: String,
    },
    /// `NS_rexmit`: send these again (decimal on the wire).
    Rexmit { first: u64, last: u64 },
    /// `NS_nak_rexmit`: this number cannot be sent again (hexadecimal on the wire).
    NakRexmit { seq: u64, reason: String },
    /// `NS_ackmsg`: acknowledges everything up to `seq`.
    Ack { seq: u64 },
    /// `reqnodes`: asks for the node list.
    ReqNodes,
    /// `repnodes`: the answer to `reqnodes`.
    RepNodes { nodes: Vec<String>, deleted: Vec<String> },
    /// `starting`: I am up; who holds what?
    Starting,
    /// `resource`: what the sender holds.
    Resource(ResourceMessage),
    /// `ask_resources`: the three-step standby handshake.
    AskResources {
        /// The moving set, seen from the node that gives it.
        hold: Holding,
        step: AskStep,
    },
    /// `hb_takeover`: the peer asks us to give.
    Takeover {
        /// The set, seen from the sender.
        hold: Holding,
    },
    /// `ip-request`: asks for this group, in legacy mode.
    IpRequest { key: String },
    /// `ip-request-resp`: answers an `ip-request`.
    IpRequestResponse {
        key: String,
        /// Field `weown`: `yes` or `no`.
        we_own: bool,
        /// Field `ok`: true if it is `OK`.
        ok: bool,
    },
    /// `shutdone`: all resources released, about to leave. Carries `st=dead`.
    ShutDone,
    /// `stonith`: how fencing a node ended.
    Stonith {
        node: String,
        /// `OK`, `badhost`, `bad`, `n_stnth`, `unneeded`
        result: String,
    },
    /// `num_ping_nodes`: how many ping nodes the sender's ipfail reaches.
    PingCount { count: u32 },
    /// `you_are_dead`: the sender's ipfail reaches more ping nodes than the addressee.
    YouAreDead,
    /// `abort_giveup`: the sender's ipfail reaches as many ping nodes as the addressee.
    AbortGiveUp,
    /// `hbapi-clstat`: a client of the sender came or went.
    ClientStatus {
        client: String,
        /// Whether it came (or went).
        joins: bool,
    },
    /// `query-cstatus`: is this client of the addressee there?
    QueryClient {
        /// Field `cn`: the client's name.
        client: String,
        /// Field `from_id`: the client that asks.
        from: String,
    },
    /// `respond-cstatus`: answers a `query-cstatus`.
    RespondClient {
        client: String,
        /// Field `cs`: `online` or `offline`.
        state: String,
        /// Field `to_id`: the client that asked.
        to: String,
    },
    /// `addnode`: an administrator of the sender wants to add these nodes.
    AddNode {
        /// `nodelist`: names, blank separated.
        nodes: String,
    },
    /// `delnode`: an administrator of the sender wants to remove these nodes.
    DelNode { nodes: String },
    /// `setweight`: an administrator sets a node's weight.
    SetWeight {
        node: String,
        /// Weight in a quorum; R1 has no quorum.
        weight: u32,
    },
    /// `setsite`: an administrator sets a node's site.
    SetSite {
        node: String,
        /// The site in words.
        site: String,
    },
    /// Any other type, or a known one with a missing or malformed field; the fields are in the layout.
    Other { kind: String },
}

/// The content of a beat: message type `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusMessage {
    pub state: NodeState,
    /// `dt`: milliseconds of silence after which the sender wants to be declared dead.
    pub dead_ms: Option<u64>,
    /// `protocol`: 1; its absence switches the receiver's flow control off.
    pub protocol: Option<u32>,
}

/// The state of a node: field `st`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Only the very first frame.
    Init,
    Up,
    /// The node takes part.
    Active,
    /// The state in a `shutdone`.
    Dead,
    Ping,
}

/// The content of a `resource` message: the sets that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceMessage {
    /// Field `rsc_hold`, seen from the sender.
    pub hold: Holding,
    /// `rtype=full`: `hold` is everything; otherwise it is an increment.
    pub full: bool,
    /// Field `isstable`: nothing is being handed over.
    pub stable: Option<bool>,
    pub info: Option<String>,
}

/// A step of the hand-over: field `info` of `ask_resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AskStep {
    /// The sender wants to give the set.
    Me,
    /// The sender can take the set.
    Other,
    /// The sender has given the set, or has taken it.
    Done,
}

/// The order of the fields and the unknown ones among them. Empty for our own messages and for those that look like
/// ours: they are written in the real daemon's order, with the authenticator last.
///
/// The layout belongs to the message as it came in. Do not change a known field of a message that has a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    framing: Framing,
    items: Vec<LayoutItem>,
}

/// One field of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LayoutItem {
    /// Made from the typed message.
    Known(&'static str),
    /// The authenticator inside; computed anew.
    Auth,
    /// Kept as it came.
    Unknown { kind: FieldKind, name: String, value: Vec<u8> },
}

impl Default for Layout {
    fn default() -> Self {
        Self { framing: Framing::Netstring, items: Vec::new() }
    }
}

impl Layout {
    /// Compares the fields of a frame with those that the typed message would be written with.
    fn of(framing: Framing, fields: Vec<Field<'_>>, known: &[KnownField<'_>]) -> Self {
        let mut left: Vec<&KnownField<'_>> = known.iter().collect();
        let item = |field: Field<'_>| match left.iter().position(|known| known.is(&field)) {
            _ if field.name == "auth" => LayoutItem::Auth,
            Some(place) => LayoutItem::Known(left.remove(place).name),
            None => LayoutItem::Unknown {
                kind: field.kind,
                name: field.name.into(),
                value: field.value.into_owned(),
            },
        };
        let items: Vec<LayoutItem> = fields.into_iter().map(item).collect();
        let usual = known.iter().map(|known| LayoutItem::Known(known.name));
        let auth = items.last().filter(|&last| *last == LayoutItem::Auth);
        if items.iter().eq(usual.collect::<Vec<_>>().iter().chain(auth)) {
            return Self::default();
        }
        Self { framing, items }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use proptest::{collection::vec as many, option, prelude::*};

    use super::*;
    use crate::{
        framing::frame::authenticate,
        model::keys::{AuthMethod, Key},
    };

    fn keys() -> Keys {
        Keys::new(2, vec![Key { number: 2, method: AuthMethod::Md5, secret: b"secret".to_vec() }]).unwrap()
    }

    fn parse(frame: &[u8]) -> Result<R1Message, FrameRefusal> {
        R1Message::parse(&authenticate(frame, &keys()).unwrap())
    }

    fn emit(message: &R1Message, framing: Framing, inner_auth: bool) -> Vec<u8> {
        let mut out = vec![];
        message.emit(framing, &keys(), inner_auth, &mut out);
        out
    }

    /// Writes a parsed netstring frame again.
    fn again(message: &R1Message, bytes: &[u8]) -> Vec<u8> {
        let had = bytes.windows(5).any(|window| window == b"auth=");
        emit(message, Framing::Netstring, had)
    }

    /// A signed netstring frame of text fields, written `name=value` and separated by `|`.
    fn frame(fields: &str) -> Vec<u8> {
        let mut out = netstring::OPEN.to_vec();
        for field in fields.split('|') {
            let (name, value) = field.split_once('=').unwrap();
            let value = Cow::Borrowed(value.as_bytes());
            netstring::put_field(&mut out, &Field { kind: FieldKind::Text, name, value });
        }
        netstring::close(&mut out, 0, &keys());
        out
    }

    fn beat() -> R1Message {
        let status = StatusMessage { state: NodeState::Active, dead_ms: Some(10_000), protocol: Some(1) };
        R1Message {
            src_uuid: Some(Uuid(*b"0123456789\x00\xff=,:\n")),
            seq: Some(51),
            generation: Some(0x6b02_be83),
            unix_seconds: 0x6b02_beab,
            load: Some("5.16 2.24 1.00 13/142 212".into()),
            ttl: Some(3),
            locum: Some(1),
            ..R1Message::new(Body::Status(status), "clustnode1")
        }
    }

    #[test]
    fn a_beat_of_ours_has_the_mark_after_the_protocol() {
        let classic = String::from_utf8(emit(&beat(), Framing::Classic, false)).unwrap();
        let lines: Vec<&str> = classic.lines().collect();
        let expected = [
            ">>>",
            "t=status",
            "st=active",
            "dt=2710",
            "protocol=1",
            "locum=1",
            "src=clustnode1",
            "(1)srcuuid=MDEyMzQ1Njc4OQD/PSw6Cg==",
            "seq=33",
            "hg=6b02be83",
            "ts=6b02beab",
            "ld=5.16 2.24 1.00 13/142 212",
            "ttl=3",
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert!(lines[expected.len()].starts_with("auth=2 "), "{classic}");
        assert_eq!(lines[expected.len() + 1..], ["<<<"]);
    }

    #[test]
    fn the_authenticator_inside_is_a_choice_in_netstring_frames_alone() {
        let has = |frame: Vec<u8>| frame.windows(5).any(|window| window == b"auth=");
        assert!(has(emit(&beat(), Framing::Netstring, true)));
        assert!(!has(emit(&beat(), Framing::Netstring, false)));
        assert!(has(emit(&beat(), Framing::Classic, false)));
        // A message of another sender keeps what it had.
        for (fields, had) in [("src=a|t=x|auth=1 a|ts=1", true), ("src=a|t=x|ts=1", false)] {
            let strange = parse(&frame(fields)).unwrap();
            assert_eq!(has(emit(&strange, Framing::Netstring, !had)), had);
            assert!(has(emit(&strange, Framing::Classic, false)));
        }
    }

    #[test]
    fn order_and_unknown_fields_are_kept() {
        for fields in [
            "ts=1|src=a|t=starting",
            "t=status|st=up|load=7|dt=2710|src=a|hg=5|ts=6|extra=1|extra=2",
            "t=resource|rsc_hold=all|st=up|isstable=1|rtype=full|src=a|ts=1",
            "t=respond-cstatus|dest=b|result=OK|cn=ipfail|src=a|seq=9|ts=1",
        ] {
            let bytes = frame(fields);
            let message = parse(&bytes).unwrap();
            assert_eq!(again(&message, &bytes), bytes, "{fields}");
        }
        let message = parse(&frame("t=query|cn=ipfail|src=a|ts=1|cn=second")).unwrap();
        assert_eq!(message.body, Body::Other { kind: "query".into() });
        assert_eq!(message.unknown("cn"), Some(b"ipfail".as_slice()));
        assert_eq!(message.unknown("src"), None);
    }

    #[test]
    fn a_value_out_of_form_is_kept_and_not_believed() {
        let believed = |fields: &str| {
            let bytes = frame(fields);
            let message = parse(&bytes).unwrap();
            assert_eq!(again(&message, &bytes), bytes, "{fields}");
            message
        };
        for seq in ["0x1", "01", "A", "-1", "+1", " 1", "", "10000000000000000"] {
            assert_eq!(believed(&format!("t=x|src=a|ts=1|seq={seq}")).seq, None, "{seq:?}");
        }
        assert_eq!(believed("t=x|src=a|ts=1|seq=ffffffffffffffff").seq, Some(u64::MAX));
        assert_eq!(believed("t=x|src=a|ts=1|seq=01|seq=2").seq, None); // the first of a name counts
        assert_eq!(believed("t=x|src=a|ts=1|ttl=4294967296").ttl, None);
        assert_eq!(believed("t=x|src=a|ts=1|ld=\x1b[2J").load, None);
        assert_eq!(believed("t=x|src=a|ts=1|srcuuid=0123456789abcdef").src_uuid, None); // text, not binary
        let other = |fields: &str| matches!(believed(fields).body, Body::Other { .. });
        assert!(other("t=status|src=a|ts=1"));
        assert!(other("t=status|st=strange|src=a|ts=1"));
        assert!(other("t=resource|rsc_hold=ALL|src=a|ts=1"));
        assert!(other("t=ask_resources|rsc_hold=all|info=maybe|src=a|ts=1"));
        assert!(other("t=NS_rexmit|firstseq=a|lastseq=b|src=a|ts=1")); // decimal here
        assert!(other("t=repnodes|nodelist=a b|delnodelist= |src=a|ts=1"));
        let resource = believed("t=resource|rsc_hold=all|rtype=part|isstable=2|src=a|ts=1");
        let hold = Holding::All;
        assert_eq!(
            resource.body,
            Body::Resource(ResourceMessage { hold, full: false, stable: None, info: None })
        );
    }

    #[test]
    fn numbers_have_the_base_of_their_field() {
        let body = |fields: &str| parse(&frame(&format!("{fields}|src=a|ts=1"))).unwrap().body;
        assert_eq!(body("t=NS_rexmit|firstseq=10|lastseq=12"), Body::Rexmit { first: 10, last: 12 });
        let reason = "seqno not found".into();
        assert_eq!(
            body("t=NS_nak_rexmit|firstseq=10|info=seqno not found"),
            Body::NakRexmit { seq: 16, reason }
        );
        assert_eq!(body("t=NS_ackmsg|ackseq=10"), Body::Ack { seq: 16 });
    }

    #[test]
    fn what_names_no_sender_type_or_time_is_refused() {
        let refusal = |fields: &str| parse(&frame(fields)).unwrap_err();
        assert_eq!(refusal("src=a|ts=1"), FrameRefusal::NoType);
        assert_eq!(refusal("t=two words|src=a|ts=1"), FrameRefusal::NoType);
        assert_eq!(refusal(&format!("t={}|src=a|ts=1", "x".repeat(TYPE_MAX))), FrameRefusal::NoType);
        assert_eq!(refusal("t=x|ts=1"), FrameRefusal::NoSource);
        assert_eq!(refusal("t=x|src=|ts=1"), FrameRefusal::NodeName);
        assert_eq!(refusal("t=x|src=a b|ts=1"), FrameRefusal::NodeName);
        assert_eq!(refusal("t=x|src=a\n|ts=1"), FrameRefusal::NodeName);
        assert_eq!(refusal("t=x|src=n\u{f6}de|ts=1"), FrameRefusal::NodeName);
        assert_eq!(refusal(&format!("t=x|src={}|ts=1", "x".repeat(100))), FrameRefusal::NodeName);
        assert_eq!(refusal("t=x|src=a|dest=\u{7f}|ts=1"), FrameRefusal::NodeName);
        assert_eq!(refusal("t=x|src=a"), FrameRefusal::NoTime);
        assert_eq!(refusal("t=x|src=a|ts=0"), FrameRefusal::NoTime);
    }

    fn words() -> impl Strategy<Value = String> {
        "[!-~]([ -~]{0,20}[!-~])?"
    }

    fn node() -> impl Strategy<Value = String> {
        "[a-z0-9.-]{1,20}"
    }

    fn holding() -> impl Strategy<Value = Holding> {
        prop_oneof![Just(Holding::None), Just(Holding::Local), Just(Holding::Foreign), Just(Holding::All)]
    }

    fn state() -> impl Strategy<Value = NodeState> {
        use NodeState::{Active, Dead, Init, Ping, Up};
        prop_oneof![Just(Init), Just(Up), Just(Active), Just(Dead), Just(Ping)]
    }

    fn body() -> impl Strategy<Value = Body> {
        let step = prop_oneof![Just(AskStep::Me), Just(AskStep::Other), Just(AskStep::Done)];
        prop_oneof![
            (state(), any::<Option<u64>>(), any::<Option<u32>>()).prop_map(|(state, dead_ms, protocol)| {
                Body::Status(StatusMessage { state, dead_ms, protocol })
            }),
            (state(), words()).prop_map(|(state, info)| Body::PingStatus { state, info }),
            any::<(u64, u64)>().prop_map(|(first, last)| Body::Rexmit { first, last }),
            (any::<u64>(), words()).prop_map(|(seq, reason)| Body::NakRexmit { seq, reason }),
            any::<u64>().prop_map(|seq| Body::Ack { seq }),
            Just(Body::ReqNodes),
            (many(node(), 0..4), many(node(), 0..4))
                .prop_map(|(nodes, deleted)| Body::RepNodes { nodes, deleted }),
            Just(Body::Starting),
            (holding(), any::<bool>(), any::<Option<bool>>(), option::of(words())).prop_map(
                |(hold, full, stable, info)| Body::Resource(ResourceMessage { hold, full, stable, info })
            ),
            (holding(), step).prop_map(|(hold, step)| Body::AskResources { hold, step }),
            holding().prop_map(|hold| Body::Takeover { hold }),
            words().prop_map(|key| Body::IpRequest { key }),
            (words(), any::<bool>(), any::<bool>()).prop_map(|(key, we_own, ok)| Body::IpRequestResponse {
                key,
                we_own,
                ok
            }),
            Just(Body::ShutDone),
            (words(), words()).prop_map(|(node, result)| Body::Stonith { node, result }),
            any::<u32>().prop_map(|count| Body::PingCount { count }),
            Just(Body::YouAreDead),
            Just(Body::AbortGiveUp),
            (words(), any::<bool>()).prop_map(|(client, joins)| Body::ClientStatus { client, joins }),
            (words(), words()).prop_map(|(client, from)| Body::QueryClient { client, from }),
            (words(), words(), words()).prop_map(|(client, state, to)| Body::RespondClient {
                client,
                state,
                to
            }),
            words().prop_map(|nodes| Body::AddNode { nodes }),
            words().prop_map(|nodes| Body::DelNode { nodes }),
            (words(), any::<u32>()).prop_map(|(node, weight)| Body::SetWeight { node, weight }),
            (words(), words()).prop_map(|(node, site)| Body::SetSite { node, site }),
            "x[a-z_-]{1,20}".prop_map(|kind| Body::Other { kind }),
        ]
    }

    fn uuids() -> impl Strategy<Value = Option<Uuid>> {
        option::of(any::<[u8; 16]>().prop_map(Uuid))
    }

    prop_compose! {
        fn message()(
            body in body(),
            (dest, src) in (option::of(node()), node()),
            (dest_uuid, src_uuid) in (uuids(), uuids()),
            (seq, generation, unix_seconds) in (any::<Option<u64>>(), any::<Option<u64>>(), 1..u64::MAX),
            (load, failed, cut) in (option::of(words()), option::of(words()), option::of(words())),
            (ttl, locum) in any::<(Option<u32>, Option<u32>)>(),
            keeps in option::of(holding()),
            (digest, wants, hears, known) in any::<(Option<u64>, Option<u64>, Option<u64>, Option<u64>)>(),
            (lines, withheld) in (option::of((any::<(u64, u64)>(), words())), option::of(words())),
        ) -> R1Message {
            let lines = lines.map(|((at, of), text)| Piece { at, of, text });
            let (layout, files) = (Layout::default(), FileFields { digest, lines, wants, withheld, hears, known });
            R1Message {
                body, dest, dest_uuid, src, src_uuid, seq, generation, unix_seconds, load, ttl, locum, failed,
                unreachable: cut, keeps, files, layout
            }
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(message in message(), inner_auth: bool) {
            for framing in [Framing::Netstring, Framing::Classic] {
                prop_assert_eq!(parse(&emit(&message, framing, inner_auth)).unwrap(), message.clone());
            }
        }

        /// Fields in any order, known and unknown, good and bad values: what is accepted is written again as it was.
        #[test]
        fn emit_undoes_parse(mut fields in many(
            (prop_oneof!["t|st|dt|seq|info|dest|rsc_hold|ackseq|x", "[a-z]{1,3}"], "[ -~]{0,8}"), 0..8
        ), at: usize) {
            fields.insert(at % (fields.len() + 1), ("src".into(), "a".into()));
            fields.push(("ts".into(), "1".into()));
            fields.insert(at % fields.len(), ("t".into(), "status".into()));
            let mut bytes = netstring::OPEN.to_vec();
            for (name, value) in &fields {
                let value = Cow::Borrowed(value.as_bytes());
                netstring::put_field(&mut bytes, &Field { kind: FieldKind::Text, name, value });
            }
            netstring::close(&mut bytes, 0, &keys());
            if let Ok(message) = parse(&bytes) {
                prop_assert_eq!(again(&message, &bytes), bytes);
            }
        }
    }
}
