//! The fields of each type of message: reading and writing side by side. Facts: `docs/wire.md`, sections 3 and 6.

use alloc::{borrow::Cow, string::String, vec::Vec};

use super::message::{AskStep, Body, NodeState, R1Fields, ResourceMessage, StatusMessage, Uuid};
use crate::{
    framing::{
        frame::{Field, FieldKind},
        values::{dec, hex, name},
    },
    model::{
        breakage::{self, Breakage},
        holding::Holding,
    },
};

impl Body {
    /// Reads the content of a message of this type. A known type with a missing or malformed field becomes `Other`: it
    /// is carried and numbered, and has no effect.
    pub(super) fn read(kind: &str, fields: &R1Fields<'_>) -> Self {
        Self::read_known(kind, fields).unwrap_or_else(|| Self::Other { kind: kind.into() })
    }

    fn read_known(kind: &str, fields: &R1Fields<'_>) -> Option<Self> {
        let text = |name| fields.text(name).map(String::from);
        let hold = || Holding::from_word(fields.text("rsc_hold")?);
        Some(match kind {
            "status" => Self::Status(StatusMessage {
                state: NodeState::from_word(fields.text("st")?)?,
                dead_ms: fields.hex("dt"),
                protocol: fields.dec("protocol"),
            }),
            "NS_st" => {
                Self::PingStatus { state: NodeState::from_word(fields.text("st")?)?, info: text("info")? }
            }
            "NS_rexmit" => Self::Rexmit { first: fields.dec("firstseq")?, last: fields.dec("lastseq")? },
            "NS_nak_rexmit" => Self::NakRexmit { seq: fields.hex("firstseq")?, reason: text("info")? },
            "NS_ackmsg" => Self::Ack { seq: fields.hex("ackseq")? },
            "reqnodes" => Self::ReqNodes,
            "repnodes" => Self::RepNodes {
                nodes: names(fields.text("nodelist")?)?,
                deleted: names(fields.text("delnodelist")?)?,
            },
            "starting" => Self::Starting,
            "resource" => Self::Resource(ResourceMessage {
                hold: hold()?,
                full: fields.text("rtype") == Some("full"),
                stable: fields.text("isstable").and_then(flag),
                info: text("info"),
            }),
            "ask_resources" => {
                Self::AskResources { hold: hold()?, step: AskStep::from_word(fields.text("info")?)? }
            }
            "hb_takeover" => Self::Takeover { hold: hold()? },
            "ip-request" => Self::IpRequest { key: text("ipaddr")? },
            "ip-request-resp" => Self::IpRequestResponse {
                key: text("ipaddr")?,
                we_own: fields.text("weown") == Some("yes"),
                ok: fields.text("ok") == Some("OK"),
            },
            "shutdone" => Self::ShutDone,
            "stonith" => Self::Stonith { node: text("node")?, result: text("result")? },
            "num_ping_nodes" => Self::PingCount { count: fields.dec("num_ping")? },
            "you_are_dead" => Self::YouAreDead,
            "abort_giveup" => Self::AbortGiveUp,
            "hbapi-clstat" => Self::ClientStatus {
                client: text("from_id")?,
                joins: match fields.text("st")? {
                    "join" => true,
                    "leave" => false,
                    _ => return None,
                },
            },
            "query-cstatus" => Self::QueryClient { client: text("cn")?, from: text("from_id")? },
            "respond-cstatus" => {
                Self::RespondClient { client: text("cn")?, state: text("cs")?, to: text("to_id")? }
            }
            "addnode" => Self::AddNode { nodes: text("nodelist")? },
            "delnode" => Self::DelNode { nodes: text("nodelist")? },
            "setweight" => Self::SetWeight { node: text("node")?, weight: fields.dec("weight")? },
            "setsite" => Self::SetSite { node: text("node")?, site: text("site")? },
            _ => return None,
        })
    }

    /// The message type: the value of field `t`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Status(_) => "status",
            Self::PingStatus { .. } => "NS_st",
            Self::Rexmit { .. } => "NS_rexmit",
            Self::NakRexmit { .. } => "NS_nak_rexmit",
            Self::Ack { .. } => "NS_ackmsg",
            Self::ReqNodes => "reqnodes",
            Self::RepNodes { .. } => "repnodes",
            Self::Starting => "starting",
            Self::Resource(_) => "resource",
            Self::AskResources { .. } => "ask_resources",
            Self::Takeover { .. } => "hb_takeover",
            Self::IpRequest { .. } => "ip-request",
            Self::IpRequestResponse { .. } => "ip-request-resp",
            Self::ShutDone => "shutdone",
            Self::Stonith { .. } => "stonith",
            Self::PingCount { .. } => "num_ping_nodes",
            Self::YouAreDead => "you_are_dead",
            Self::AbortGiveUp => "abort_giveup",
            Self::ClientStatus { .. } => "hbapi-clstat",
            Self::QueryClient { .. } => "query-cstatus",
            Self::RespondClient { .. } => "respond-cstatus",
            Self::AddNode { .. } => "addnode",
            Self::DelNode { .. } => "delnode",
            Self::SetWeight { .. } => "setweight",
            Self::SetSite { .. } => "setsite",
            Self::Other { kind } => kind,
        }
    }

    /// Appends the fields of this body in the real daemon's order, with `dest` where that order has it.
    pub(super) fn write<'a>(&'a self, dest: Option<KnownField<'a>>, known: &mut Vec<KnownField<'a>>) {
        let kind = KnownField::text("t", self.kind());
        if let Self::RepNodes { .. } = self {
            known.extend(dest.into_iter().chain([kind]));
        } else {
            known.extend([kind].into_iter().chain(dest));
        }
        match self {
            Self::Status(status) => {
                known.push(KnownField::text("st", status.state.word()));
                known.extend(status.dead_ms.map(|ms| KnownField::text("dt", hex(ms))));
                known.extend(
                    status.protocol.map(|protocol| KnownField::text("protocol", dec(protocol.into()))),
                );
            }
            Self::PingStatus { state, info } => {
                known.extend([KnownField::text("st", state.word()), KnownField::text("info", info.as_str())]);
            }
            Self::Rexmit { first, last } => {
                let number = if breakage::is(Breakage::NumbersConfused) { hex } else { dec };
                known.extend([
                    KnownField::text("firstseq", number(*first)),
                    KnownField::text("lastseq", number(*last)),
                ]);
            }
            Self::NakRexmit { seq, reason } => {
                known.extend([
                    KnownField::text("firstseq", hex(*seq)),
                    KnownField::text("info", reason.as_str()),
                ]);
            }
            Self::Ack { seq } => known.push(KnownField::text("ackseq", hex(*seq))),
            Self::RepNodes { nodes, deleted } => {
                known.push(KnownField::text("nodelist", list(nodes)));
                known.push(KnownField::text("delnodelist", list(deleted)));
            }
            Self::Resource(ResourceMessage { hold, full, stable, info }) => {
                known.push(KnownField::text("rsc_hold", hold.word()));
                known.extend(full.then(|| KnownField::text("rtype", "full")));
                known.extend(
                    stable.map(|stable| KnownField::text("isstable", if stable { "1" } else { "0" })),
                );
                known.extend(info.as_deref().map(|info| KnownField::text("info", info)));
            }
            Self::AskResources { hold, step } => {
                known.extend([
                    KnownField::text("rsc_hold", hold.word()),
                    KnownField::text("info", step.word()),
                ]);
            }
            Self::Takeover { hold } => known.push(KnownField::text("rsc_hold", hold.word())),
            Self::IpRequest { key } => known.push(KnownField::text("ipaddr", key.as_str())),
            Self::IpRequestResponse { key, we_own, ok } => {
                known.push(KnownField::text("ipaddr", key.as_str()));
                known.push(KnownField::text("weown", if *we_own { "yes" } else { "no" }));
                known.extend(ok.then(|| KnownField::text("ok", "OK")));
            }
            Self::ShutDone => known.push(KnownField::text("st", NodeState::Dead.word())),
            Self::Stonith { node, result } => {
                known.extend([
                    KnownField::text("node", node.as_str()),
                    KnownField::text("result", result.as_str()),
                ]);
            }
            Self::PingCount { count } => {
                known.push(KnownField::text("num_ping", dec((*count).into())));
                known.extend(client_ids("ipfail"));
            }
            Self::YouAreDead | Self::AbortGiveUp => known.extend(client_ids("ipfail")),
            Self::ClientStatus { client, joins } => {
                known.push(KnownField::text("st", if *joins { "join" } else { "leave" }));
                let [from, to, generation] = client_ids(client);
                known.extend([from, to]);
                known.extend(joins.then(|| KnownField::text("info", "signon")));
                known.push(generation);
            }
            Self::QueryClient { client, from } => {
                known.extend([
                    KnownField::text("cn", client.as_str()),
                    KnownField::text("from_id", from.as_str()),
                ]);
            }
            Self::RespondClient { client, state, to } => {
                known.extend([KnownField::text("result", "OK"), KnownField::text("cn", client.as_str())]);
                known
                    .extend([KnownField::text("to_id", to.as_str()), KnownField::text("cs", state.as_str())]);
            }
            Self::AddNode { nodes } | Self::DelNode { nodes } => {
                known.push(KnownField::text("nodelist", nodes.as_str()));
            }
            Self::SetWeight { node, weight } => {
                known.push(KnownField::text("node", node.as_str()));
                known.push(KnownField::text("weight", dec((*weight).into())));
            }
            Self::SetSite { node, site } => {
                known.extend([
                    KnownField::text("node", node.as_str()),
                    KnownField::text("site", site.as_str()),
                ]);
            }
            Self::ReqNodes | Self::Starting | Self::Other { .. } => {}
        }
    }
}

/// A field made from the typed message.
pub(super) struct KnownField<'a> {
    pub name: &'static str,
    kind: FieldKind,
    value: Cow<'a, [u8]>,
}

impl<'a> KnownField<'a> {
    pub(super) fn text(name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        let value = match value.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { name, kind: FieldKind::Text, value }
    }

    pub(super) fn uuid(name: &'static str, uuid: &'a Uuid) -> Self {
        Self { name, kind: FieldKind::Binary, value: Cow::Borrowed(&uuid.0) }
    }

    pub(super) fn is(&self, field: &Field<'_>) -> bool {
        self.name == field.name && self.kind == field.kind && self.value == field.value
    }

    pub(super) fn into_field(self) -> Field<'a> {
        Field { kind: self.kind, name: self.name, value: self.value }
    }
}

/// The fields that name the two clients of a message: the same name on both nodes, generation 0.
fn client_ids(client: &str) -> [KnownField<'_>; 3] {
    [
        KnownField::text("from_id", client),
        KnownField::text("to_id", client),
        KnownField::text("client_gen", "0"),
    ]
}

/// The words of the wire for an enum: one table for both directions.
macro_rules! words {
    ($type:ident: $($word:literal = $variant:ident),+) => {
        impl $type {
            /// The word of the wire for this value.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word of the wire; `None` for an unknown word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(NodeState: "init" = Init, "up" = Up, "active" = Active, "dead" = Dead, "ping" = Ping);
words!(Holding: "none" = None, "local" = Local, "foreign" = Foreign, "all" = All);
words!(AskStep: "me" = Me, "other" = Other, "done" = Done);

fn flag(word: &str) -> Option<bool> {
    match word {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Writes a list of names: each ends with a blank, and an empty list is one blank.
fn list(names: &[String]) -> String {
    if names.is_empty() { " ".into() } else { names.iter().flat_map(|name| [name.as_str(), " "]).collect() }
}

fn names(list: &str) -> Option<Vec<String>> {
    if list == " " {
        return Some(Vec::new());
    }
    list.strip_suffix(' ')?.split(' ').map(|one| name(one.as_bytes())).collect()
}

pub(super) fn uuid(value: &[u8]) -> Option<Uuid> {
    value.try_into().ok().map(Uuid)
}
