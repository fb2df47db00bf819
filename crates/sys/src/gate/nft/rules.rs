//! What stands in a gate's table.
//!
//! ```text
//! chain in-N, out-N   on an interface, ingress and egress: jump gate
//! chain gate          a packet about a service address: goto judge
//! chain judge         jump open; drop
//! chain open          nothing (shut), or: uncontested, leased, earlier than the deadline: accept
//! chain ear-N         on an interface, ingress: jump claims
//! chain claims        from a peer: goto heard
//! chain heard         a claim with one of our proofs: delete the element of `uncontested`
//! ```

use std::net::IpAddr;

use super::message::{Attributes, Batch, Kind};
use crate::gate::{Ballot, Claim, PROOFS_MAX, Proof, Rivals, Settings, hook::Hook};

// linux/netfilter/nf_tables.h. Tables, chains, rules, sets, elements …
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
/// Belongs to the socket that made it: nobody else can change or flush it (Linux 5.12) …
pub(super) const OWNED: u32 = 2;
/// … but it survives that socket (Linux 6.9).
pub(super) const PERSISTS: u32 = 4;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const HOOK_DEVICE: u16 = 3;
pub(super) const HOOK_DEVICES: u16 = 4;
pub(super) const DEVICE_NAME: u16 = 1;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_BYTES: u16 = 5;
const SET_NUMBER: u16 = 10;
/// Its elements may have a time-out.
const TIMED: u32 = 0x10;
/// Packets may change it.
const CHANGED_BY_PACKETS: u32 = 0x20;
pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS: u16 = 3;
pub(super) const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
pub(super) const ELEMENT_EXPIRES: u16 = 5;
pub(super) const ELEMENT_NOTE: u16 = 6;
pub(super) const DATA: u16 = 1;
const VERDICT: u16 = 2;
const ITEM: u16 = 1;
// … and the hooks and verdicts of linux/netfilter.h and linux/netfilter_netdev.h.
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
/// Before the rules of others: their verdicts cannot open what is shut.
const PRIORITY: i32 = -500;

/// The sets, each with what its keys are.
const SERVICE: [(&str, Keys); 2] = [("service4", Keys::V4), ("service6", Keys::V6)];
const PEERS: [(&str, Keys); 2] = [("peers4", Keys::V4), ("peers6", Keys::V6)];
pub(super) const LEASE: &str = "lease";
pub(super) const UNCONTESTED: &str = "uncontested";
/// The chains that stand on no interface.
const GATE: &str = "gate";
const JUDGE: &str = "judge";
const OPEN: &str = "open";
const CLAIMS: &str = "claims";
const HEARD: &str = "heard";
/// The one key of the sets that have one element or none.
const THE_KEY: [u8; 4] = 1u32.to_ne_bytes();

#[derive(Clone, Copy)]
enum Keys {
    V4,
    V6,
    Mark,
}

impl Keys {
    /// The type that `nft` shows, and its length.
    fn shape(self) -> (u32, u32) {
        match self {
            Self::V4 => (7, 4),
            Self::V6 => (8, 16),
            Self::Mark => (19, 4),
        }
    }
}

/// How many rules each chain has that stands on no interface; `open` may have one or none.
pub(super) fn expected(settings: &Settings) -> Vec<(&'static str, usize)> {
    let mut expected = vec![(GATE, 7), (JUDGE, 2)];
    if settings.rivals.is_some() {
        expected.push((CLAIMS, 2));
        // A chain without a rule is not among those that have some.
        expected.extend(Some((HEARD, settings.proofs.len().min(PROOFS_MAX))).filter(|(_, count)| *count > 0));
    }
    expected
}

/// Writes requests about one table.
pub(super) struct Table<'a> {
    pub(super) name: &'a str,
    pub(super) batch: &'a mut Batch,
}

impl Table<'_> {
    /// The table itself.
    pub(super) fn make(&mut self, flags: u32) {
        self.batch.request(Kind::NewTable, |a| {
            a.text(TABLE_NAME, self.name);
            a.number(TABLE_FLAGS, flags);
        });
    }

    /// The table and all in it.
    pub(super) fn delete(&mut self) {
        self.batch.request(Kind::DeleteTable, |a| a.text(TABLE_NAME, self.name));
    }

    /// Everything but what stands on interfaces. What stands already stays; its addresses and rules are made anew. An
    /// open gate stays open.
    pub(super) fn furnish(&mut self, settings: &Settings) {
        for (number, (set, keys)) in (0..).zip(SERVICE.into_iter().chain(PEERS)) {
            self.make_set(number, set, keys, 0);
        }
        self.make_set(4, LEASE, Keys::Mark, TIMED | CHANGED_BY_PACKETS);
        self.make_set(5, UNCONTESTED, Keys::Mark, CHANGED_BY_PACKETS);
        for chain in [OPEN, JUDGE, GATE, HEARD, CLAIMS] {
            self.batch.request(Kind::NewChain, |a| {
                a.text(CHAIN_TABLE, self.name);
                a.text(CHAIN_NAME, chain);
            });
        }
        let peers = settings.rivals.as_ref().map_or(&[][..], |rivals| &rivals.peers);
        self.write_addresses(SERVICE, &settings.addresses);
        self.write_addresses(PEERS, peers);
        self.judge();
        self.listen(settings.rivals.as_ref(), &settings.proofs);
    }

    /// What comes in or goes out there is judged, or heard. Without a device the chain stands already.
    pub(super) fn make_hook(&mut self, hook: Hook, device: Option<&str>) {
        let chain = hook.name();
        let (number, target) = match hook {
            Hook::In(_) => (INGRESS, GATE),
            Hook::Out(_) => (EGRESS, GATE),
            Hook::Ear(_) => (INGRESS, CLAIMS),
        };
        if let Some(device) = device {
            self.batch.request(Kind::NewChain, |a| {
                a.text(CHAIN_TABLE, self.name);
                a.text(CHAIN_NAME, &chain);
                a.nest(CHAIN_HOOK, |a| {
                    a.number(HOOK_NUMBER, number);
                    a.number(HOOK_PRIORITY, PRIORITY.cast_unsigned());
                    a.text(HOOK_DEVICE, device);
                });
                a.number(CHAIN_POLICY, ACCEPT.cast_unsigned());
                a.text(CHAIN_TYPE, "filter");
            });
        }
        self.clear(&chain);
        self.rule(&chain, |e| e.verdict(JUMP, Some(target)));
    }

    pub(super) fn delete_hook(&mut self, hook: Hook) {
        let chain = hook.name();
        self.clear(&chain);
        self.batch.request(Kind::DeleteChain, |a| {
            a.text(CHAIN_TABLE, self.name);
            a.text(CHAIN_NAME, &chain);
        });
    }

    /// No rival has been heard.
    pub(super) fn settle(&mut self) {
        self.element(Kind::NewElement, UNCONTESTED, |_| ());
    }

    /// Open for that many milliseconds, and not after that nanosecond of the wall clock.
    pub(super) fn open(&mut self, millis: u64, wall: u64) {
        let note = note(wall);
        // Adding what is there changes nothing, and deleting what is not there is an error.
        for kind in [Kind::NewElement, Kind::DeleteElement, Kind::NewElement] {
            self.element(kind, LEASE, |a| {
                if kind == Kind::NewElement {
                    a.long(ELEMENT_TIMEOUT, millis);
                    a.bytes(ELEMENT_NOTE, &note);
                }
            });
        }
        self.clear(OPEN);
        self.rule(OPEN, |e| {
            e.the_key();
            e.lookup(UNCONTESTED);
            e.lookup(LEASE);
            e.earlier_than(wall);
            e.verdict(ACCEPT, None);
        });
    }

    /// Shut.
    pub(super) fn shut(&mut self) {
        self.empty(LEASE);
        self.clear(OPEN);
    }

    /// What rivals do; nothing without them.
    pub(super) fn listen(&mut self, rivals: Option<&Rivals>, proofs: &[Proof]) {
        self.clear(CLAIMS);
        self.clear(HEARD);
        let Some(rivals) = rivals else { return };
        // The source of IPv4 is at 12, that of IPv6 at 8.
        self.about(CLAIMS, IPV4, |_| (), 12, 4, PEERS[0].0, HEARD);
        self.about(CLAIMS, IPV6, |_| (), 8, 16, PEERS[1].0, HEARD);
        let Rivals { cluster, group, member: ended, .. } = *rivals;
        for &proof in proofs.iter().take(PROOFS_MAX) {
            let own = Claim { cluster, group, ended, ballot: Ballot::default(), proof }.encode();
            self.rule(HEARD, |e| {
                e.meta(META_TRANSPORT);
                e.compare(Is::Equal, &[UDP]);
                e.load(TRANSPORT, 2, 2);
                e.compare(Is::Equal, &rivals.port.to_be_bytes());
                // Behind UDP's eight bytes: magic to cluster, group and node, the proof.
                e.load(TRANSPORT, 8, 16);
                e.compare(Is::Equal, &own[..16]);
                e.load(TRANSPORT, 24, 12);
                e.compare(Is::Equal, &own[16..28]);
                e.load(TRANSPORT, 48, 16);
                e.compare(Is::Equal, &own[40..56]);
                e.the_key();
                e.delete(UNCONTESTED);
            });
        }
    }

    fn judge(&mut self) {
        self.clear(GATE);
        self.clear(JUDGE);
        // IPv4: source and destination.
        for offset in [12, 16] {
            self.about(GATE, IPV4, |_| (), offset, 4, SERVICE[0].0, JUDGE);
        }
        // ARP of IPv4 over 6-byte addresses (protocol and lengths at 2): sender and target.
        for offset in [14, 24] {
            let condition = |e: &mut Expressions<'_, '_>| {
                e.load(NETWORK, 2, 4);
                e.compare(Is::Equal, &[8, 0, 6, 4]);
            };
            self.about(GATE, ARP, condition, offset, 4, SERVICE[0].0, JUDGE);
        }
        // IPv6: source and destination.
        for offset in [8, 24] {
            self.about(GATE, IPV6, |_| (), offset, 16, SERVICE[1].0, JUDGE);
        }
        // Neighbour solicitation and advertisement (ICMPv6 135 and 136): target.
        let condition = |e: &mut Expressions<'_, '_>| {
            e.load(NETWORK, 6, 1);
            e.compare(Is::Equal, &[ICMPV6]);
            e.load(NETWORK, 40, 1);
            e.compare(Is::NotLess, &[135]);
            e.compare(Is::NotGreater, &[136]);
        };
        self.about(GATE, IPV6, condition, 48, 16, SERVICE[1].0, JUDGE);
        self.rule(JUDGE, |e| e.verdict(JUMP, Some(OPEN)));
        self.rule(JUDGE, |e| e.verdict(DROP, None));
    }

    /// A rule: what of that protocol fulfils the condition, and has in its network header an address of the set, goes
    /// to the chain.
    #[expect(clippy::too_many_arguments, reason = "a table's row")]
    fn about(
        &mut self,
        chain: &str,
        protocol: [u8; 2],
        condition: impl FnOnce(&mut Expressions<'_, '_>),
        offset: u32,
        bytes: u32,
        set: &str,
        target: &str,
    ) {
        self.rule(chain, |e| {
            e.meta(META_PROTOCOL);
            e.compare(Is::Equal, &protocol);
            condition(e);
            e.load(NETWORK, offset, bytes);
            e.lookup(set);
            e.verdict(GOTO, Some(target));
        });
    }

    fn make_set(&mut self, number: u32, set: &str, keys: Keys, flags: u32) {
        let (kind, bytes) = keys.shape();
        self.batch.request(Kind::NewSet, |a| {
            a.text(SET_TABLE, self.name);
            a.text(SET_NAME, set);
            a.number(SET_FLAGS, flags);
            a.number(SET_KEY_TYPE, kind);
            a.number(SET_KEY_BYTES, bytes);
            a.number(SET_NUMBER, number + 1);
        });
    }

    fn write_addresses(&mut self, sets: [(&str, Keys); 2], addresses: &[IpAddr]) {
        for (set, keys) in sets {
            self.empty(set);
            let mut elements: Vec<Vec<u8>> = addresses
                .iter()
                .filter_map(|ip| match (keys, ip) {
                    (Keys::V4, IpAddr::V4(ip)) => Some(ip.octets().to_vec()),
                    (Keys::V6, IpAddr::V6(ip)) => Some(ip.octets().to_vec()),
                    _ => None,
                })
                .collect();
            elements.sort();
            elements.dedup();
            if elements.is_empty() {
                continue;
            }
            self.batch.request(Kind::NewElement, |a| {
                a.text(ELEMENTS_TABLE, self.name);
                a.text(ELEMENTS_SET, set);
                a.nest(ELEMENTS, |a| {
                    for element in &elements {
                        a.nest(ITEM, |a| a.nest(ELEMENT_KEY, |a| a.bytes(DATA, element)));
                    }
                });
            });
        }
    }

    fn element(&mut self, kind: Kind, set: &str, more: impl FnOnce(&mut Attributes<'_>)) {
        self.batch.request(kind, |a| {
            a.text(ELEMENTS_TABLE, self.name);
            a.text(ELEMENTS_SET, set);
            a.nest(ELEMENTS, |a| {
                a.nest(ITEM, |a| {
                    a.nest(ELEMENT_KEY, |a| a.bytes(DATA, &THE_KEY));
                    more(a);
                });
            });
        });
    }

    /// Takes all elements from a set.
    fn empty(&mut self, set: &str) {
        self.batch.request(Kind::DeleteElement, |a| {
            a.text(ELEMENTS_TABLE, self.name);
            a.text(ELEMENTS_SET, set);
        });
    }

    /// Takes all rules from a chain.
    fn clear(&mut self, chain: &str) {
        self.batch.request(Kind::DeleteRule, |a| {
            a.text(RULE_TABLE, self.name);
            a.text(RULE_CHAIN, chain);
        });
    }

    fn rule(&mut self, chain: &str, body: impl FnOnce(&mut Expressions<'_, '_>)) {
        self.batch.request(Kind::NewRule, |a| {
            a.text(RULE_TABLE, self.name);
            a.text(RULE_CHAIN, chain);
            a.nest(RULE_EXPRESSIONS, |a| body(&mut Expressions(a)));
        });
    }
}

/// Asks whether the one element of a set is there.
pub(super) fn ask_element(batch: &mut Batch, table: &str, set: &str) -> u32 {
    batch.question(Kind::GetElement, false, |a| {
        a.text(ELEMENTS_TABLE, table);
        a.text(ELEMENTS_SET, set);
        a.nest(ELEMENTS, |a| a.nest(ITEM, |a| a.nest(ELEMENT_KEY, |a| a.bytes(DATA, &THE_KEY))));
    })
}

/// The set with this gate's addresses of one family.
pub(super) fn service_sets() -> [&'static str; 2] {
    SERVICE.map(|(set, _)| set)
}

/// A comment, as `nft` shows them: kind 0, length, text.
fn note(wall: u64) -> Vec<u8> {
    let text = format!("{NOTE}{wall}");
    let mut note = vec![0, (text.len() + 1) as u8];
    note.extend(text.as_bytes());
    note.push(0);
    note
}

const NOTE: &str = "until ";

/// The deadline that a comment tells.
pub(super) fn deadline_of(note: &[u8]) -> Option<u64> {
    super::message::text(note.get(2..)?)?.strip_prefix(NOTE)?.parse().ok()
}

// linux/if_ether.h, RFC 791, RFC 8200
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
// linux/netfilter/nf_tables.h
const META_PROTOCOL: u32 = 1;
const META_TRANSPORT: u32 = 16;
const META_TIME: u32 = 30;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// The one register, of 16 bytes, that all expressions use.
const REGISTER: u32 = 1;

/// How a register compares with a value, byte by byte.
#[derive(Clone, Copy)]
enum Is {
    Equal = 0,
    Less = 2,
    NotGreater = 3,
    NotLess = 5,
}

/// The expressions of a rule: each goes on to the next, or leaves the rule.
struct Expressions<'a, 'b>(&'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(ITEM, |a| {
            a.text(1, name);
            a.nest(2, body);
        });
    }

    /// `register = what the kernel knows of the packet`
    fn meta(&mut self, key: u32) {
        self.expression("meta", |a| {
            a.number(1, REGISTER);
            a.number(2, key);
        });
    }

    /// `register = bytes of the packet`
    fn load(&mut self, base: u32, offset: u32, bytes: u32) {
        self.expression("payload", |a| {
            a.number(1, REGISTER);
            a.number(2, base);
            a.number(3, offset);
            a.number(4, bytes);
        });
    }

    /// Goes on if the register compares so.
    fn compare(&mut self, is: Is, value: &[u8]) {
        self.expression("cmp", |a| {
            a.number(1, REGISTER);
            a.number(2, is as u32);
            a.nest(3, |a| a.bytes(DATA, value));
        });
    }

    /// Goes on if the register is an element of the set.
    fn lookup(&mut self, set: &str) {
        self.expression("lookup", |a| {
            a.text(1, set);
            a.number(2, REGISTER);
        });
    }

    /// `register = the one key`
    fn the_key(&mut self) {
        self.expression("immediate", |a| {
            a.number(1, REGISTER);
            a.nest(2, |a| a.bytes(DATA, &THE_KEY));
        });
    }

    /// Goes on if the wall clock is below that nanosecond.
    fn earlier_than(&mut self, wall: u64) {
        self.meta(META_TIME);
        // To network order, in which numbers compare as bytes do.
        self.expression("byteorder", |a| {
            a.number(1, REGISTER);
            a.number(2, REGISTER);
            a.number(3, 1);
            a.number(4, 8);
            a.number(5, 8);
        });
        self.compare(Is::Less, &wall.to_be_bytes());
    }

    /// Deletes the element that the register is from the set.
    fn delete(&mut self, set: &str) {
        self.expression("dynset", |a| {
            a.text(1, set);
            a.number(3, 2);
            a.number(4, REGISTER);
        });
    }

    /// Ends the packet's way, or leads it to a chain.
    fn verdict(&mut self, verdict: i32, chain: Option<&str>) {
        self.expression("immediate", |a| {
            a.number(1, 0);
            a.nest(2, |a| {
                a.nest(VERDICT, |a| {
                    a.number(1, verdict.cast_unsigned());
                    if let Some(chain) = chain {
                        a.text(2, chain);
                    }
                });
            });
        });
    }
}
