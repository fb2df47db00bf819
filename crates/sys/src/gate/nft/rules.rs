//! The content of a cluster's table, which serves all its gates on this machine.
//!
//! ```text
//! set    gates         number: each gate; its comment is the group
//! map    service4, 6   service address -> number of its gate
//! set    uncontested   number: the gate has heard no rival; one more element: no gate has heard a rival
//! map    leased        number -> cohort: the gates with the same lease
//! set    leases        cohort, with a time-out
//! map    open          cohort -> goto open-C
//! set    ports         ports to which claims are announced
//! set    peers4, 6     address and port: who is believed about announcements to that port
//! map    ours          cluster, group and this node, as announced -> number
//! map    proofs        cluster, group, this node, proof -> number
//!
//! chain in-N          on an interface, ingress: jump arriving
//! chain out-N         on an interface, egress: jump gate
//! chain arriving      two tags of VLAN 0: drop; goto gate
//! chain gate          for each field of a packet that may hold an address of a gate: jump to that field's chain
//! chain from4, …      its gate is uncontested and leased: goto open-C; drop
//! chain open-C        the lease runs, and it is earlier than the deadline: return; drop
//! chain ear-N         on an interface, ingress: jump claims
//! chain claims        an announcement: goto heard
//! chain heard         from a peer: goto proof; count, drop
//! chain proof         an expected one: delete from `uncontested`, drop; about this node: count, drop; about others: drop;
//!                     of another version or cut off: count, drop
//! ```
//!
//! Every rule loads its own values: newer kernels refuse a rule that reads what another one loaded.

use std::net::IpAddr;

use super::message::{AttributeWriter, Batch, MessageType};
use crate::gate::{
    hook::Hook,
    pattern::{Pattern, Proof, Subject},
};

// linux/netfilter/nf_tables.h. Tables, chains, rules, sets, elements …
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
/// The table belongs to the socket that made it: no other process can change or flush it (Linux 5.12) …
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
/// … and outlives that socket (Linux 6.9).
pub(super) const NFT_TABLE_F_PERSIST: u32 = 4;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_HOOK_DEVS: u16 = 4;
pub(super) const NFTA_DEVICE_NAME: u16 = 1;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
/// The set's elements have data.
const NFT_SET_MAP: u32 = 0x8;
/// The set's elements may have a time-out.
const NFT_SET_TIMEOUT: u32 = 0x10;
/// Packets may change the set.
const NFT_SET_EVAL: u32 = 0x20;
/// The data type of verdicts.
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(super) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_OBJ_TABLE: u16 = 1;
pub(super) const NFTA_OBJ_NAME: u16 = 2;
pub(super) const NFTA_OBJ_TYPE: u16 = 3;
pub(super) const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_COUNTER: u32 = 1;
pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(super) const NFTA_GEN_ID: u16 = 1;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
// … and the hooks and verdicts of linux/netfilter.h and linux/netfilter_netdev.h.
const NF_NETDEV_INGRESS: u32 = 0;
const NF_NETDEV_EGRESS: u32 = 1;
const NF_ACCEPT: i32 = 1;
const NF_DROP: i32 = 0;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;
/// Before the rules of others: their verdicts cannot let a packet pass that ours drop.
const PRIORITY: i32 = -500;

/// The most elements of one request: its list must be below 64 KiB.
const ELEMENTS_MAX: usize = 400;

pub(super) const GATES: &str = "gates";
pub(super) const SERVICE4: &str = "service4";
pub(super) const SERVICE6: &str = "service6";
pub(super) const UNCONTESTED: &str = "uncontested";
pub(super) const LEASED: &str = "leased";
pub(super) const LEASES: &str = "leases";
pub(super) const OPEN: &str = "open";
pub(super) const PORTS: &str = "ports";
pub(super) const PEERS4: &str = "peers4";
pub(super) const PEERS6: &str = "peers6";
pub(super) const OURS: &str = "ours";
pub(super) const PROOFS: &str = "proofs";
/// The element of `uncontested` that belongs to no gate: no rival was heard by any gate.
pub(super) const NO_RIVAL: u32 = u32::MAX;
/// The name of the counter of announcements that prove nothing.
pub(super) const REFUSED: &str = "refused";

/// A set: its name, the type that `nft` shows for its keys and their length in bytes, the data of its elements, and its
/// flags.
struct SetSpec {
    name: &'static str,
    keys: (u32, u32),
    data: Option<SetData>,
    flags: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetData {
    Numbers,
    Verdicts,
}

// Types that `nft` knows: none, address of either family, port, mark. The type of a key with several parts is made of
// theirs, six bits each.
const BYTES: u32 = 0;
const V4: u32 = 7;
const V6: u32 = 8;
const PORT: u32 = 13;
const NUMBER: u32 = 19;

const SETS: [SetSpec; 12] = [
    set(GATES, (NUMBER, 4), None, 0),
    set(SERVICE4, (V4, 4), Some(SetData::Numbers), 0),
    set(SERVICE6, (V6, 16), Some(SetData::Numbers), 0),
    set(UNCONTESTED, (NUMBER, 4), None, NFT_SET_EVAL),
    set(LEASED, (NUMBER, 4), Some(SetData::Numbers), 0),
    set(LEASES, (NUMBER, 4), None, NFT_SET_TIMEOUT | NFT_SET_EVAL),
    set(OPEN, (NUMBER, 4), Some(SetData::Verdicts), 0),
    set(PORTS, (PORT, 2), None, 0),
    set(PEERS4, (V4 << 6 | PORT, 8), None, 0),
    set(PEERS6, (V6 << 6 | PORT, 20), None, 0),
    set(OURS, (BYTES, Subject::BYTES as u32), Some(SetData::Numbers), 0),
    set(PROOFS, (BYTES, (Subject::BYTES + Proof::BYTES) as u32), Some(SetData::Numbers), 0),
];

const fn set(name: &'static str, keys: (u32, u32), data: Option<SetData>, flags: u32) -> SetSpec {
    SetSpec { name, keys, data, flags }
}

/// A field of a packet that may hold a service address.
struct AddressField {
    /// The chain for packets with a service address in this field.
    chain: &'static str,
    protocol: [u8; 2],
    condition: FieldCondition,
    /// The field's offset in the network header.
    offset: u32,
    bytes: u32,
    set: &'static str,
}

#[derive(Clone, Copy)]
enum FieldCondition {
    None,
    /// ARP of IPv4 over 6-byte hardware addresses.
    Arp,
    /// A neighbour solicitation or advertisement.
    Neighbours,
}

const FIELDS: [AddressField; 7] = [
    field("from4", ETH_P_IP, FieldCondition::None, 12, SERVICE4),
    field("to4", ETH_P_IP, FieldCondition::None, 16, SERVICE4),
    field("arp-from", ETH_P_ARP, FieldCondition::Arp, 14, SERVICE4),
    field("arp-to", ETH_P_ARP, FieldCondition::Arp, 24, SERVICE4),
    field("from6", ETH_P_IPV6, FieldCondition::None, 8, SERVICE6),
    field("to6", ETH_P_IPV6, FieldCondition::None, 24, SERVICE6),
    field("about6", ETH_P_IPV6, FieldCondition::Neighbours, 48, SERVICE6),
];

const fn field(
    chain: &'static str,
    protocol: [u8; 2],
    condition: FieldCondition,
    offset: u32,
    set: &'static str,
) -> AddressField {
    let bytes = if protocol[0] == ETH_P_IPV6[0] { 16 } else { 4 };
    AddressField { chain, protocol, condition, offset, bytes, set }
}

/// The chains that are not hooked to interfaces and serve all gates.
const ARRIVING: &str = "arriving";
const GATE: &str = "gate";
const CLAIMS: &str = "claims";
const HEARD: &str = "heard";
const PROOF: &str = "proof";

/// The number of rules of each chain that is not hooked to an interface and serves all gates.
pub(super) fn expected_rules() -> impl Iterator<Item = (&'static str, usize)> {
    let judging = FIELDS.iter().map(|field| (field.chain, 2));
    judging.chain([(ARRIVING, 3), (GATE, FIELDS.len()), (CLAIMS, 1), (HEARD, 3), (PROOF, 4)])
}

/// The number of rules in the chain of a renewed cohort.
pub(super) const COHORT_RULES: usize = 2;

/// The name of a cohort's chain.
pub(super) fn open_chain(cohort: u32) -> String {
    format!("open-{cohort}")
}

/// What names an element.
#[derive(Clone, Copy)]
pub(super) struct ElementKey {
    bytes: [u8; Subject::BYTES + Proof::BYTES],
    length: usize,
}

impl ElementKey {
    fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self { bytes: [0; _], length: 0 };
        for part in parts {
            key.bytes[key.length..][..part.len()].copy_from_slice(part);
            key.length += part.len();
        }
        key
    }

    pub(super) fn number(number: u32) -> Self {
        Self::of(&[&number.to_ne_bytes()])
    }

    pub(super) fn port(port: u16) -> Self {
        Self::of(&[&port.to_be_bytes()])
    }

    pub(super) fn subject(subject: Subject) -> Self {
        Self::of(&[&subject.0])
    }

    pub(super) fn proof(subject: Subject, proof: Proof) -> Self {
        Self::of(&[&subject.0, &proof.0])
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The map for a service address, and its key there.
pub(super) fn service(ip: IpAddr) -> (&'static str, ElementKey) {
    match ip {
        IpAddr::V4(ip) => (SERVICE4, ElementKey::of(&[&ip.octets()])),
        IpAddr::V6(ip) => (SERVICE6, ElementKey::of(&[&ip.octets()])),
    }
}

/// The set for a peer, and its key there. Parts of a key begin at multiples of four bytes.
pub(super) fn peer(ip: IpAddr, port: u16) -> (&'static str, ElementKey) {
    let port = port.to_be_bytes();
    match ip {
        IpAddr::V4(ip) => (PEERS4, ElementKey::of(&[&ip.octets(), &port, &[0; 2]])),
        IpAddr::V6(ip) => (PEERS6, ElementKey::of(&[&ip.octets(), &port, &[0; 2]])),
    }
}

/// Writes requests about one table.
pub(super) struct TableWriter<'a> {
    pub(super) name: &'a str,
    pub(super) batch: &'a mut Batch,
}

impl TableWriter<'_> {
    /// Makes the table, still empty.
    pub(super) fn make(&mut self, flags: u32) {
        self.batch.request(MessageType::NewTable, |a| {
            a.text(NFTA_TABLE_NAME, self.name);
            a.number(NFTA_TABLE_FLAGS, flags);
        });
    }

    /// Deletes the table with all its content.
    pub(super) fn delete(&mut self) {
        self.batch.request(MessageType::DeleteTable, |a| a.text(NFTA_TABLE_NAME, self.name));
    }

    /// Everything but what stands on interfaces, what cohorts have, and elements. What stands already stays; its rules are made
    /// anew. An open gate stays open.
    pub(super) fn make_shared_parts(&mut self, pattern: &Pattern) {
        for (number, set) in (1..).zip(&SETS) {
            self.make_set(number, set);
        }
        for (chain, _) in expected_rules() {
            self.make_chain(chain);
        }
        self.gate_rules();
        self.listener_rules(pattern);
    }

    /// Makes the counter of a new table.
    pub(super) fn make_counter(&mut self) {
        self.batch.request(MessageType::NewObject, |a| {
            a.text(NFTA_OBJ_TABLE, self.name);
            a.text(NFTA_OBJ_NAME, REFUSED);
            a.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
            a.nest(NFTA_OBJ_DATA, |a| {
                a.long(NFTA_COUNTER_BYTES, 0);
                a.long(NFTA_COUNTER_PACKETS, 0);
            });
        });
    }

    /// Hooks a chain to an interface, for the gates or for the claim listener. Without `device` the chain exists
    /// already.
    pub(super) fn make_hook(&mut self, hook: Hook, device: Option<&str>) {
        let chain = hook.name();
        let (number, target) = match hook {
            Hook::Ingress(_) => (NF_NETDEV_INGRESS, ARRIVING),
            Hook::Egress(_) => (NF_NETDEV_EGRESS, GATE),
            Hook::ClaimListener(_) => (NF_NETDEV_INGRESS, CLAIMS),
        };
        if let Some(device) = device {
            self.batch.request(MessageType::NewChain, |a| {
                a.text(NFTA_CHAIN_TABLE, self.name);
                a.text(NFTA_CHAIN_NAME, &chain);
                a.nest(NFTA_CHAIN_HOOK, |a| {
                    a.number(NFTA_HOOK_HOOKNUM, number);
                    a.number(NFTA_HOOK_PRIORITY, PRIORITY.cast_unsigned());
                    a.text(NFTA_HOOK_DEV, device);
                });
                a.number(NFTA_CHAIN_POLICY, NF_ACCEPT.cast_unsigned());
                a.text(NFTA_CHAIN_TYPE, "filter");
            });
        }
        self.clear(&chain);
        self.rule(&chain, |e| e.verdict(NFT_JUMP, Some(target)));
    }

    pub(super) fn delete_hook(&mut self, hook: Hook) {
        let chain = hook.name();
        self.clear(&chain);
        self.batch.request(MessageType::DeleteChain, |a| {
            a.text(NFTA_CHAIN_TABLE, self.name);
            a.text(NFTA_CHAIN_NAME, &chain);
        });
    }

    /// Makes a cohort that does not exist yet.
    pub(super) fn make_cohort(&mut self, cohort: u32) {
        let chain = open_chain(cohort);
        self.make_chain(&chain);
        self.items(MessageType::NewElement, OPEN, [ElementKey::number(cohort)], |a, _| {
            a.nest(NFTA_SET_ELEM_DATA, |a| verdict(a, NFT_GOTO, Some(&chain)));
        });
    }

    /// Deletes a cohort that has no gates.
    pub(super) fn delete_cohort(&mut self, cohort: u32) {
        let chain = open_chain(cohort);
        self.elements(MessageType::DeleteElement, OPEN, [ElementKey::number(cohort)]);
        // The lease may have ended by itself.
        self.delete_if_present(LEASES, [ElementKey::number(cohort)]);
        self.clear(&chain);
        self.batch.request(MessageType::DeleteChain, |a| {
            a.text(NFTA_CHAIN_TABLE, self.name);
            a.text(NFTA_CHAIN_NAME, &chain);
        });
    }

    /// Sets the lease of a cohort: it runs for that many milliseconds, but not beyond that nanosecond of the wall
    /// clock.
    pub(super) fn lease(&mut self, cohort: u32, millis: u64, wall: u64) {
        let note = comment(&format!("{UNTIL}{wall}"));
        // Adding an existing element changes nothing, and deleting a missing one is an error.
        for kind in [MessageType::NewElement, MessageType::DeleteElement, MessageType::NewElement] {
            self.items(kind, LEASES, [ElementKey::number(cohort)], |a, _| {
                if kind == MessageType::NewElement {
                    a.long(NFTA_SET_ELEM_TIMEOUT, millis);
                    a.bytes(NFTA_SET_ELEM_USERDATA, &note);
                }
            });
        }
        let chain = open_chain(cohort);
        self.clear(&chain);
        self.rule(&chain, |e| {
            e.number(NFT_REG_1, cohort);
            e.lookup(LEASES, NFT_REG_1);
            e.earlier_than(wall);
            e.verdict(NFT_RETURN, None);
        });
        self.rule(&chain, |e| e.verdict(NF_DROP, None));
    }

    /// Notes the number of a group's gate.
    pub(super) fn gate(&mut self, number: u32, group: &str) {
        let note = comment(group);
        self.items(MessageType::NewElement, GATES, [ElementKey::number(number)], |a, _| {
            a.bytes(NFTA_SET_ELEM_USERDATA, &note)
        });
    }

    /// Adds or deletes elements of a set.
    pub(super) fn elements(
        &mut self,
        kind: MessageType,
        set: &str,
        keys: impl IntoIterator<Item = ElementKey>,
    ) {
        self.items(kind, set, keys, |_, _| ());
    }

    /// Adds or deletes elements of a map. For deleting, their data do not matter.
    pub(super) fn pairs(
        &mut self,
        kind: MessageType,
        map: &str,
        pairs: impl IntoIterator<Item = (ElementKey, u32)>,
    ) {
        self.items(kind, map, pairs, |a, (_, number)| {
            if kind == MessageType::NewElement {
                a.nest(NFTA_SET_ELEM_DATA, |a| a.bytes(NFTA_DATA_VALUE, &number.to_ne_bytes()));
            }
        });
    }

    /// Deletes elements whether they exist or not: packets also delete some.
    pub(super) fn delete_if_present(
        &mut self,
        set: &str,
        keys: impl IntoIterator<Item = ElementKey, IntoIter: Clone>,
    ) {
        let keys = keys.into_iter();
        self.elements(MessageType::NewElement, set, keys.clone());
        self.elements(MessageType::DeleteElement, set, keys);
    }

    fn items<T: HasKey>(
        &mut self,
        kind: MessageType,
        set: &str,
        items: impl IntoIterator<Item = T>,
        more: impl Fn(&mut AttributeWriter<'_>, &T),
    ) {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            self.batch.request(kind, |a| {
                a.text(NFTA_SET_ELEM_LIST_TABLE, self.name);
                a.text(NFTA_SET_ELEM_LIST_SET, set);
                a.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |a| {
                    for item in items.by_ref().take(ELEMENTS_MAX) {
                        a.nest(NFTA_LIST_ELEM, |a| {
                            a.nest(NFTA_SET_ELEM_KEY, |a| a.bytes(NFTA_DATA_VALUE, item.key().bytes()));
                            more(a, &item);
                        });
                    }
                });
            });
        }
    }

    fn gate_rules(&mut self) {
        self.clear(ARRIVING);
        for tag in [ETH_P_8021Q, ETH_P_8021AD] {
            // The kernel has removed the first tag, and removes further tags of VLAN 0 behind this hook.
            self.rule(ARRIVING, |e| {
                e.meta(NFT_META_PROTOCOL);
                e.compare(Comparison::Equal, &tag);
                for (base, offset) in [(NFT_PAYLOAD_LL_HEADER, ETH_HLEN), (NFT_PAYLOAD_NETWORK_HEADER, 0)] {
                    e.load(base, offset, 2, NFT_REG_1);
                    e.mask(&VLAN_VID_MASK);
                    e.compare(Comparison::Equal, &[0; 2]);
                }
                e.verdict(NF_DROP, None);
            });
        }
        self.rule(ARRIVING, |e| e.verdict(NFT_GOTO, Some(GATE)));
        self.clear(GATE);
        for field in &FIELDS {
            self.clear(field.chain);
            let (offset, bytes) = (field.offset, field.bytes);
            self.rule(GATE, |e| {
                e.meta(NFT_META_PROTOCOL);
                e.compare(Comparison::Equal, &field.protocol);
                match field.condition {
                    FieldCondition::None => {}
                    // The protocol and the lengths of addresses.
                    FieldCondition::Arp => {
                        e.load(NFT_PAYLOAD_NETWORK_HEADER, 2, 4, NFT_REG_1);
                        e.compare(Comparison::Equal, &[8, 0, 6, 4]);
                    }
                    // ICMPv6 135 and 136.
                    FieldCondition::Neighbours => {
                        e.load(NFT_PAYLOAD_NETWORK_HEADER, 6, 1, NFT_REG_1);
                        e.compare(Comparison::Equal, &[IPPROTO_ICMPV6]);
                        e.load(NFT_PAYLOAD_NETWORK_HEADER, 40, 1, NFT_REG_1);
                        e.compare(Comparison::NotLess, &[135]);
                        e.compare(Comparison::NotGreater, &[136]);
                    }
                }
                e.load(NFT_PAYLOAD_NETWORK_HEADER, offset, bytes, NFT_REG_1);
                e.translate(field.set, NFT_REG_1, NFT_REG_2);
                e.verdict(NFT_JUMP, Some(field.chain));
            });
            self.rule(field.chain, |e| {
                e.load(NFT_PAYLOAD_NETWORK_HEADER, offset, bytes, NFT_REG_1);
                e.translate(field.set, NFT_REG_1, NFT_REG_2);
                e.lookup(UNCONTESTED, NFT_REG_2);
                e.translate(LEASED, NFT_REG_2, NFT_REG_1);
                // From that chain back to the packet's next field, or to no chain.
                e.translate(OPEN, NFT_REG_1, NFT_REG_VERDICT);
            });
            self.rule(field.chain, |e| e.verdict(NF_DROP, None));
        }
    }

    /// What rivals do. Whatever looks like an announcement is for nobody else: a flood of it is not to fill a socket.
    fn listener_rules(&mut self, pattern: &Pattern) {
        let offset = |part: usize| UDP_BYTES + u32::try_from(part).expect("a pattern was checked");
        for chain in [CLAIMS, HEARD, PROOF] {
            self.clear(chain);
        }
        self.rule(CLAIMS, |e| {
            e.meta(NFT_META_L4PROTO);
            e.compare(Comparison::Equal, &[IPPROTO_UDP]);
            e.load(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
            e.lookup(PORTS, NFT_REG_1);
            e.load(NFT_PAYLOAD_TRANSPORT_HEADER, UDP_BYTES, Pattern::SHAPE_BYTES as u32, NFT_REG_1);
            e.compare(Comparison::Equal, &pattern.shape());
            e.verdict(NFT_GOTO, Some(HEARD));
        });
        // The source of IPv4 is at 12, that of IPv6 at 8.
        for (protocol, offset, bytes, peers) in [(ETH_P_IP, 12, 4, PEERS4), (ETH_P_IPV6, 8, 16, PEERS6)] {
            self.rule(HEARD, |e| {
                e.meta(NFT_META_PROTOCOL);
                e.compare(Comparison::Equal, &protocol);
                e.load(NFT_PAYLOAD_NETWORK_HEADER, offset, bytes, NFT_REG32_00);
                e.load(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_00 + bytes / 4);
                e.lookup(peers, NFT_REG32_00);
                e.verdict(NFT_GOTO, Some(PROOF));
            });
        }
        self.refuse(HEARD);
        self.rule(PROOF, |e| {
            e.load(NFT_PAYLOAD_TRANSPORT_HEADER, UDP_BYTES, 8, NFT_REG_1);
            e.compare(Comparison::Equal, &pattern.head);
            e.load(
                NFT_PAYLOAD_TRANSPORT_HEADER,
                offset(pattern.subject),
                Subject::BYTES as u32,
                NFT_REG32_00,
            );
            e.load(
                NFT_PAYLOAD_TRANSPORT_HEADER,
                offset(pattern.proof),
                Proof::BYTES as u32,
                NFT_REG32_00 + Subject::BYTES as u32 / 4,
            );
            e.translate(PROOFS, NFT_REG32_00, NFT_REG_4);
            // First shut the gate, then note that a rival was heard: a reader that sees the second also sees the first.
            e.delete(UNCONTESTED, NFT_REG_4);
            e.number(NFT_REG_1, NO_RIVAL);
            e.delete(UNCONTESTED, NFT_REG_1);
            e.verdict(NF_DROP, None);
        });
        self.rule(PROOF, |e| {
            e.load(
                NFT_PAYLOAD_TRANSPORT_HEADER,
                offset(pattern.subject),
                Subject::BYTES as u32,
                NFT_REG32_00,
            );
            e.translate(OURS, NFT_REG32_00, NFT_REG_4);
            e.count(REFUSED);
            e.verdict(NF_DROP, None);
        });
        self.rule(PROOF, |e| {
            e.load(NFT_PAYLOAD_TRANSPORT_HEADER, UDP_BYTES, 8, NFT_REG_1);
            e.compare(Comparison::Equal, &pattern.head);
            // That no byte is missing.
            e.load(NFT_PAYLOAD_TRANSPORT_HEADER, offset(pattern.bytes() - 1), 1, NFT_REG_1);
            e.verdict(NF_DROP, None);
        });
        self.refuse(PROOF);
    }

    fn refuse(&mut self, chain: &str) {
        self.rule(chain, |e| {
            e.count(REFUSED);
            e.verdict(NF_DROP, None);
        });
    }

    fn make_chain(&mut self, chain: &str) {
        self.batch.request(MessageType::NewChain, |a| {
            a.text(NFTA_CHAIN_TABLE, self.name);
            a.text(NFTA_CHAIN_NAME, chain);
        });
    }

    fn make_set(&mut self, number: u32, set: &SetSpec) {
        let is_map = if set.data.is_some() { NFT_SET_MAP } else { 0 };
        self.batch.request(MessageType::NewSet, |a| {
            a.text(NFTA_SET_TABLE, self.name);
            a.text(NFTA_SET_NAME, set.name);
            a.number(NFTA_SET_FLAGS, set.flags | is_map);
            a.number(NFTA_SET_KEY_TYPE, set.keys.0);
            a.number(NFTA_SET_KEY_LEN, set.keys.1);
            match set.data {
                Some(SetData::Numbers) => {
                    a.number(NFTA_SET_DATA_TYPE, NUMBER);
                    a.number(NFTA_SET_DATA_LEN, 4);
                }
                Some(SetData::Verdicts) => a.number(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT),
                None => {}
            }
            a.number(NFTA_SET_ID, number);
        });
    }

    /// Deletes all elements of a set.
    pub(super) fn empty(&mut self, set: &str) {
        self.batch.request(MessageType::DeleteElement, |a| {
            a.text(NFTA_SET_ELEM_LIST_TABLE, self.name);
            a.text(NFTA_SET_ELEM_LIST_SET, set);
        });
    }

    /// Deletes all rules of a chain.
    pub(super) fn clear(&mut self, chain: &str) {
        self.batch.request(MessageType::DeleteRule, |a| {
            a.text(NFTA_RULE_TABLE, self.name);
            a.text(NFTA_RULE_CHAIN, chain);
        });
    }

    fn rule(&mut self, chain: &str, body: impl FnOnce(&mut RuleExpressions<'_, '_>)) {
        self.batch.request(MessageType::NewRule, |a| {
            a.text(NFTA_RULE_TABLE, self.name);
            a.text(NFTA_RULE_CHAIN, chain);
            a.nest(NFTA_RULE_EXPRESSIONS, |a| body(&mut RuleExpressions(a)));
        });
    }
}

#[cfg(test)]
impl TableWriter<'_> {
    /// Makes sets as earlier versions had them: name, bytes of a key, flags.
    pub(super) fn make_old(&mut self, sets: &[(&'static str, u32, u32)]) {
        for (number, &(name, bytes, flags)) in (1..).zip(sets) {
            self.make_set(number, &set(name, (NUMBER, bytes), None, flags));
        }
    }

    pub(super) fn old_lease(&mut self, set: &str, key: u32, millis: u64, wall: u64) {
        self.items(MessageType::NewElement, set, [ElementKey::number(key)], |a, _| {
            a.long(NFTA_SET_ELEM_TIMEOUT, millis);
            a.bytes(NFTA_SET_ELEM_USERDATA, &comment(&format!("{UNTIL}{wall}")));
        });
    }
}

/// An element's key, with or without data.
trait HasKey {
    fn key(&self) -> &ElementKey;
}

impl HasKey for ElementKey {
    fn key(&self) -> &ElementKey {
        self
    }
}

impl HasKey for (ElementKey, u32) {
    fn key(&self) -> &ElementKey {
        &self.0
    }
}

/// Asks for one element of a set, to see whether it exists.
pub(super) fn ask_element(batch: &mut Batch, table: &str, set: &str, key: &ElementKey) -> u32 {
    batch.question(MessageType::GetElement, false, |a| {
        a.text(NFTA_SET_ELEM_LIST_TABLE, table);
        a.text(NFTA_SET_ELEM_LIST_SET, set);
        a.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |a| {
            a.nest(NFTA_LIST_ELEM, |a| a.nest(NFTA_SET_ELEM_KEY, |a| a.bytes(NFTA_DATA_VALUE, key.bytes())))
        });
    })
}

/// A comment in the form that `nft` shows: kind 0, length, text.
fn comment(text: &str) -> Vec<u8> {
    let mut note = vec![0, (text.len() + 1) as u8];
    note.extend(text.as_bytes());
    note.push(0);
    note
}

/// The text of an element's comment.
pub(super) fn text_of(note: &[u8]) -> Option<String> {
    super::message::text(note.get(2..)?)
}

const UNTIL: &str = "until ";

/// The deadline in an element's comment.
pub(super) fn deadline_of(note: &[u8]) -> Option<u64> {
    text_of(note)?.strip_prefix(UNTIL)?.parse().ok()
}

// linux/if_ether.h, RFC 791, RFC 8200, RFC 768
const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETH_P_ARP: [u8; 2] = [0x08, 0x06];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
// IEEE 802.1Q and 802.1ad: the kinds of tags, and the bits of a tag that are the VLAN's number.
const ETH_P_8021Q: [u8; 2] = [0x81, 0x00];
const ETH_P_8021AD: [u8; 2] = [0x88, 0xa8];
const VLAN_VID_MASK: [u8; 2] = [0x0f, 0xff];
/// The position of the first tag in the link header.
const ETH_HLEN: u32 = 14;
const IPPROTO_UDP: u8 = 17;
const UDP_BYTES: u32 = 8;
const IPPROTO_ICMPV6: u8 = 58;
// linux/netfilter/nf_tables.h
const NFT_META_PROTOCOL: u32 = 1;
const NFT_META_L4PROTO: u32 = 16;
const NFT_META_TIME_NS: u32 = 30;
const NFT_PAYLOAD_LL_HEADER: u32 = 0;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// The register of the packet's verdict.
const NFT_REG_VERDICT: u32 = 0;
/// Registers of 16 bytes: the first, …
const NFT_REG_1: u32 = 1;
/// … one for the result of a lookup with the first, …
const NFT_REG_2: u32 = 2;
/// … and one behind a key of several parts that begins in the first.
const NFT_REG_4: u32 = 4;
/// The first register again, in the numbering by four bytes.
const NFT_REG32_00: u32 = 8;

/// How a register is compared with a value, byte by byte.
#[derive(Clone, Copy)]
enum Comparison {
    Equal = 0,      // NFT_CMP_EQ
    Less = 2,       // NFT_CMP_LT
    NotGreater = 3, // NFT_CMP_LTE
    NotLess = 5,    // NFT_CMP_GTE
}

/// The expressions of a rule. Each continues with the next one or leaves the rule.
struct RuleExpressions<'a, 'b>(&'a mut AttributeWriter<'b>);

impl RuleExpressions<'_, '_> {
    fn expression(&mut self, name: &str, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        self.0.nest(NFTA_LIST_ELEM, |a| {
            a.text(1, name);
            a.nest(2, body);
        });
    }

    /// `register = the kernel's information about the packet`
    fn meta(&mut self, key: u32) {
        self.expression("meta", |a| {
            a.number(1, NFT_REG_1);
            a.number(2, key);
        });
    }

    /// `register = bytes of the packet`
    fn load(&mut self, base: u32, offset: u32, bytes: u32, register: u32) {
        self.expression("payload", |a| {
            a.number(1, register);
            a.number(2, base);
            a.number(3, offset);
            a.number(4, bytes);
        });
    }

    /// Continues if the comparison holds for the first register.
    fn compare(&mut self, is: Comparison, value: &[u8]) {
        self.expression("cmp", |a| {
            a.number(1, NFT_REG_1);
            a.number(2, is as u32);
            a.nest(3, |a| a.bytes(NFTA_DATA_VALUE, value));
        });
    }

    /// `the first register &= mask`
    fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |a| {
            a.number(1, NFT_REG_1);
            a.number(2, NFT_REG_1);
            a.number(3, mask.len() as u32);
            a.nest(4, |a| a.bytes(NFTA_DATA_VALUE, mask));
            a.nest(5, |a| a.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]));
        });
    }

    /// Continues if the register is an element of the set.
    fn lookup(&mut self, set: &str, register: u32) {
        self.expression("lookup", |a| {
            a.text(1, set);
            a.number(2, register);
        });
    }

    /// `to = map[register]`; continues if there is such an element.
    fn translate(&mut self, map: &str, register: u32, to: u32) {
        self.expression("lookup", |a| {
            a.text(1, map);
            a.number(2, register);
            a.number(3, to);
        });
    }

    fn number(&mut self, register: u32, number: u32) {
        self.expression("immediate", |a| {
            a.number(1, register);
            a.nest(2, |a| a.bytes(NFTA_DATA_VALUE, &number.to_ne_bytes()));
        });
    }

    /// Continues if the wall clock is below that nanosecond.
    fn earlier_than(&mut self, wall: u64) {
        self.meta(NFT_META_TIME_NS);
        // To network order, because values are compared byte by byte.
        self.expression("byteorder", |a| {
            a.number(1, NFT_REG_1);
            a.number(2, NFT_REG_1);
            a.number(3, 1);
            a.number(4, 8);
            a.number(5, 8);
        });
        self.compare(Comparison::Less, &wall.to_be_bytes());
    }

    /// Deletes the register's value from the set.
    fn delete(&mut self, set: &str, register: u32) {
        const NFT_DYNSET_OP_DELETE: u32 = 2;
        self.expression("dynset", |a| {
            a.text(1, set);
            a.number(3, NFT_DYNSET_OP_DELETE);
            a.number(4, register);
        });
    }

    fn count(&mut self, counter: &str) {
        self.expression("objref", |a| {
            a.number(1, NFT_OBJECT_COUNTER);
            a.text(2, counter);
        });
    }

    /// Decides about the packet, or sends it to a chain.
    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |a| {
            a.number(1, NFT_REG_VERDICT);
            a.nest(2, |a| verdict(a, code, chain));
        });
    }
}

/// A verdict as the data of an element or of an expression.
fn verdict(a: &mut AttributeWriter<'_>, code: i32, chain: Option<&str>) {
    a.nest(NFTA_DATA_VERDICT, |a| {
        a.number(1, code.cast_unsigned());
        if let Some(chain) = chain {
            a.text(2, chain);
        }
    });
}
