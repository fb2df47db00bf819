//! The three programs: the gate program drops packets, the claim listener hears rivals, the clock reads the kernel's
//! time.
//!
//! Packets are read through helpers, never directly. The same offset then serves interfaces with and without a link
//! header, and a packet in pieces is an error that can be repaired. Facts: bpf-helpers(7).

use std::{mem::offset_of, os::fd::BorrowedFd};

use super::{
    insn::{
        AccessSize, Assembler, JumpCondition, JumpLabel,
        Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10},
    },
    state::{GateState, Slot},
};
use crate::gate::{
    PROOFS_MAX,
    pattern::{Pattern, Proof},
};

// linux/bpf.h: helpers …
const BPF_FUNC_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_FUNC_SKB_STORE_BYTES: i32 = 9;
const BPF_FUNC_SKB_PULL_DATA: i32 = 39;
const BPF_FUNC_SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const BPF_FUNC_KTIME_GET_BOOT_NS: i32 = 125;
/// … for which offset 0 is the first byte behind the link header, if there is one …
const BPF_HDR_START_NET: i32 = 1;
/// … fields of `struct __sk_buff` …
const SKB_LEN: i16 = 0;
pub(super) const SKB_PROTOCOL: i16 = 16;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;
/// … and the results of a program on tcx: the next program decides, or the packet is dropped.
pub(super) const TCX_NEXT: i32 = -1;
pub(super) const TCX_DROP: i32 = 2;

// linux/if_ether.h
pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_ARP: u16 = 0x0806;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// The bits of a tag that are the VLAN's number. Number 0 means no VLAN: an untagged frame with a priority (IEEE
/// 802.1Q, 9.6).
const VLAN_VID_MASK: u16 = 0x0fff;
const VLAN_HLEN: i32 = 4;
/// The most tags of VLAN 0 that the programs look behind. The kernel removes any number of them; in practice no sender
/// uses more than one.
const TAGS_MAX: i32 = 4;
// RFC 791, RFC 8200, RFC 4861
const IPPROTO_UDP: i32 = 17;
pub(super) const IPPROTO_ICMPV6: i32 = 58;
pub(super) const ND_NEIGHBOR_SOLICIT: i32 = 135;
const ND_NEIGHBOR_ADVERT: i32 = 136;
/// The most bytes of a packet that are looked at: link header (Ethernet with its tags), IPv6, UDP, and what a claim's
/// announcement is compared with.
const LOOKED_AT_BYTES: i32 = 14 + (1 + TAGS_MAX) * VLAN_HLEN + 40 + 8 + Pattern::BYTES_MAX as i32;

/// Bytes of a key of `addresses`: an IPv6 address, or an IPv4 address mapped into one.
pub(super) const ADDRESS_BYTES: usize = 16;
/// Bytes of a key of `peers`: an address as above, the port that the peer announces to, in network byte order, and two
/// zeros.
pub(super) const PEER_BYTES: usize = 20;

/// The gate program's stack: the IPv6 header, whose two addresses are used as keys in place, and a neighbour message's
/// target.
const HEADER: i16 = -56;
const SOURCE: i16 = HEADER + 8;
const DESTINATION: i16 = HEADER + 24;
const TARGET: i16 = -16;
/// Bytes read from other headers, and the number of a slot.
const SCRATCH: i16 = HEADER;
/// The claim listener's stack: a peer's key, an IP header, a UDP header with an announcement, the key of a port.
const PEER: i16 = -24;
const PEER_PORT: i16 = PEER + ADDRESS_BYTES as i16;
const LISTENER_HEADER: i16 = PEER - 40;
const DATAGRAM: i16 = LISTENER_HEADER - 8 - Pattern::BYTES_MAX as i16;
const PAYLOAD: i16 = DATAGRAM + 8;
const PORT: i16 = DATAGRAM - 24;

/// The maps that the programs read.
#[derive(Clone, Copy)]
pub(super) struct MapDescriptors<'a> {
    /// By slot: the [`GateState`] of a gate.
    pub(super) gates: BorrowedFd<'a>,
    /// By service address: the slot of its gate.
    pub(super) addresses: BorrowedFd<'a>,
    /// By peer and port: who is believed about announcements to that port.
    pub(super) peers: BorrowedFd<'a>,
    /// By group: the slot of its gate.
    pub(super) groups: BorrowedFd<'a>,
}

/// Drops packets from, to or about a service address whose gate is shut; passes all others.
///
/// The kernel has removed one VLAN tag before a packet arrives here. If that is of VLAN 0, the kernel later removes
/// further tags and then treats the packet as untagged, so the program looks behind them. A packet with more than
/// [`TAGS_MAX`] tags is dropped. A packet behind the tag of another VLAN belongs to that VLAN's own interface, and
/// passes.
pub(super) fn gate_program(maps: MapDescriptors<'_>) -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    let [look, ipv4, arp, ipv6, known, short, half, pulled, pass, drop] = std::array::from_fn(|_| a.label());
    a.copy(R6, R1); // keeps the packet
    a.set(R9, 0); // not yet linearized
    a.here(look);
    a.set(R8, 0); // no neighbour message's target
    a.set(R7, 0); // offset of the packet, behind the tags
    a.load(AccessSize::Word, R1, R6, SKB_PROTOCOL);
    to_protocol(
        &mut a,
        &[(ETH_P_IP, ipv4), (ETH_P_IPV6, ipv6), (ETH_P_ARP, arp)],
        SCRATCH,
        Exits { pass, drop, short },
    );

    // IPv4: source at 12, destination at 16.
    a.here(ipv4);
    read(&mut a, 12, 8, SCRATCH, short);
    a.load(AccessSize::Word, R1, R10, SCRATCH);
    a.load(AccessSize::Word, R2, R10, SCRATCH + 4);
    map_into_ipv6(&mut a, SOURCE);
    map_into_ipv6(&mut a, DESTINATION);
    a.store(AccessSize::Word, R10, SOURCE + 12, R1);
    a.store(AccessSize::Word, R10, DESTINATION + 12, R2);
    a.jump(known);

    // ARP of IPv4 over 6-byte addresses: protocol at 2, lengths at 4 and 5, sender at 14, target at 24 (RFC 826).
    a.here(arp);
    read(&mut a, 0, 8, SCRATCH, short);
    a.load(AccessSize::Half, R1, R10, SCRATCH + 2);
    a.jump_if(R1, JumpCondition::NotEqual, protocol(ETH_P_IP), pass);
    a.load(AccessSize::Half, R1, R10, SCRATCH + 4);
    a.jump_if(R1, JumpCondition::NotEqual, protocol(0x0604), pass);
    map_into_ipv6(&mut a, SOURCE);
    map_into_ipv6(&mut a, DESTINATION);
    read(&mut a, 14, 4, SOURCE + 12, short);
    read(&mut a, 24, 4, DESTINATION + 12, short);
    a.jump(known);

    // IPv6: next header at 6, source at 8, destination at 24; a neighbour message's target at 40 + 8.
    a.here(ipv6);
    read(&mut a, 0, 40, HEADER, short);
    a.load(AccessSize::Byte, R1, R10, HEADER + 6);
    a.jump_if(R1, JumpCondition::NotEqual, IPPROTO_ICMPV6, known);
    read(&mut a, 40, 1, SCRATCH, half);
    a.load(AccessSize::Byte, R1, R10, SCRATCH);
    let neighbour = a.label();
    a.jump_if(R1, JumpCondition::Equal, ND_NEIGHBOR_SOLICIT, neighbour);
    a.jump_if(R1, JumpCondition::NotEqual, ND_NEIGHBOR_ADVERT, known);
    a.here(neighbour);
    read(&mut a, 48, 16, TARGET, half);
    a.set(R8, 1);

    a.here(known);
    check_address(&mut a, maps, SOURCE, drop);
    check_address(&mut a, maps, DESTINATION, drop);
    a.jump_if(R8, JumpCondition::Equal, 0, pass);
    check_address(&mut a, maps, TARGET, drop);

    a.here(pass);
    a.set(R0, TCX_NEXT);
    a.exit();
    a.here(drop);
    a.set(R0, TCX_DROP);
    a.exit();

    // The packet is in pieces, or ends within its header and concerns no gate, or ends behind it.
    a.here(short);
    a.jump_if(R9, JumpCondition::NotEqual, 0, pass);
    a.jump(pulled);
    a.here(half);
    a.jump_if(R9, JumpCondition::NotEqual, 0, known);
    a.here(pulled);
    linearize(&mut a);
    a.jump(look);
    a.assemble()
}

/// Jump targets for a packet that concerns no gate, for one that must not pass, and for one that is in pieces.
#[derive(Clone, Copy)]
pub(super) struct Exits {
    pub(super) pass: JumpLabel,
    pub(super) drop: JumpLabel,
    pub(super) short: JumpLabel,
}

/// Jumps to the label of the packet's protocol, which `R1` must hold at the beginning. Behind tags of VLAN 0 the inner
/// protocol counts. `R7` is then the packet's offset behind the tags. Tags are read to `scratch` on the stack.
pub(super) fn to_protocol(a: &mut Assembler, known: &[(u16, JumpLabel)], scratch: i16, ways: Exits) {
    let [protocols, tag, inside] = std::array::from_fn(|_| a.label());
    a.here(protocols);
    for &(kind, label) in known {
        a.jump_if(R1, JumpCondition::Equal, protocol(kind), label);
    }
    for kind in TAGS {
        a.jump_if(R1, JumpCondition::Equal, protocol(kind), tag);
    }
    a.jump(ways.pass);
    // A tag: its VLAN at 0, the inner protocol at 2. The tag before it must be of VLAN 0, too.
    a.here(tag);
    pass_if_of_vlan(a, inside, ways.pass);
    a.here(inside);
    a.jump_if(R7, JumpCondition::NotLess, TAGS_MAX * VLAN_HLEN, ways.drop);
    read(a, 0, VLAN_HLEN, scratch, ways.short);
    a.load(AccessSize::Half, R1, R10, scratch);
    a.jump_if(R1, JumpCondition::AnyBitOf, protocol(VLAN_VID_MASK), ways.pass);
    a.add(R7, VLAN_HLEN);
    a.load(AccessSize::Half, R1, R10, scratch + 2);
    a.jump(protocols);
}

/// Jumps to `pass` if the kernel has removed a VLAN's tag, and to `own` if it has removed none.
pub(super) fn pass_if_of_vlan(a: &mut Assembler, own: JumpLabel, pass: JumpLabel) {
    a.load(AccessSize::Word, R1, R6, SKB_VLAN_PRESENT);
    a.jump_if(R1, JumpCondition::Equal, 0, own);
    a.load(AccessSize::Word, R1, R6, SKB_VLAN_TCI);
    a.jump_if(R1, JumpCondition::AnyBitOf, VLAN_VID_MASK.into(), pass);
}

/// Jumps to `drop` if the address on the stack at `key` has a shut gate. A gate is open if its lease runs and the beat
/// behind its last renewal was sent after the last rival was heard.
fn check_address(a: &mut Assembler, maps: MapDescriptors<'_>, key: i16, drop: JumpLabel) {
    let other = a.label();
    look_up(a, maps.addresses, key);
    a.jump_if(R0, JumpCondition::Equal, 0, other);
    find_state(a, maps, drop);
    a.call(BPF_FUNC_KTIME_GET_BOOT_NS);
    a.load(AccessSize::Double, R1, R7, field(offset_of!(GateState, deadline)));
    a.jump_if_register(R0, JumpCondition::NotLess, R1, drop);
    a.load(AccessSize::Double, R1, R7, field(offset_of!(GateState, sent)));
    a.load(AccessSize::Double, R2, R7, field(offset_of!(GateState, rival_heard_at)));
    a.jump_if_register(R1, JumpCondition::NotGreater, R2, drop);
    a.here(other);
}

/// `R7 =` the state in the slot whose number `R0` points to; jumps to `nowhere` if there is no such slot
fn find_state(a: &mut Assembler, maps: MapDescriptors<'_>, nowhere: JumpLabel) {
    a.load(AccessSize::Word, R1, R0, 0);
    a.store(AccessSize::Word, R10, SCRATCH, R1);
    look_up(a, maps.gates, SCRATCH);
    a.jump_if(R0, JumpCondition::Equal, 0, nowhere);
    a.copy(R7, R0);
}

/// Writes the IPv6 prefix of an IPv4 address at `key`, all but the last four bytes.
pub(super) fn map_into_ipv6(a: &mut Assembler, key: i16) {
    a.store_value(AccessSize::Double, R10, key, 0);
    a.store_value(AccessSize::Word, R10, key + 8, network(0x0000_ffff)); // ::ffff:0:0/96
}

/// Shuts a group's gate when a peer announces, to the port agreed with it, that a claim to the group is owned, and proves that
/// it has the key. Drops all that has the shape of an announcement and comes to that port: it is for nobody else, and a flood
/// of it is not to fill a socket. What proves nothing is counted.
pub(super) fn claim_listener(maps: MapDescriptors<'_>, pattern: Pattern) -> Vec<[u8; 8]> {
    let part = |offset: usize| PAYLOAD + i16::try_from(offset).expect("a pattern was checked");
    let (subject, proof) = (part(pattern.subject), part(pattern.proof));
    let all = i32::try_from(pattern.bytes()).expect("a pattern was checked");
    let mut a = Assembler::default();
    let [look, ipv4, ipv6, from, short, cut, is_some, proved, refused, pass, drop] =
        std::array::from_fn(|_| a.label());
    a.copy(R6, R1);
    a.set(R9, 0);
    a.here(look);
    a.set(R7, 0);
    a.load(AccessSize::Word, R1, R6, SKB_PROTOCOL);
    a.jump_if(R1, JumpCondition::Equal, protocol(ETH_P_IP), ipv4);
    a.jump_if(R1, JumpCondition::Equal, protocol(ETH_P_IPV6), ipv6);
    a.jump(pass);

    // IPv4 without options and in one piece: flags and offset at 6, protocol at 9, source at 12.
    a.here(ipv4);
    read(&mut a, 0, 20, LISTENER_HEADER, short);
    a.load(AccessSize::Byte, R1, R10, LISTENER_HEADER);
    a.jump_if(R1, JumpCondition::NotEqual, 0x45, pass);
    a.load(AccessSize::Byte, R1, R10, LISTENER_HEADER + 9);
    a.jump_if(R1, JumpCondition::NotEqual, IPPROTO_UDP, pass);
    a.load(AccessSize::Half, R1, R10, LISTENER_HEADER + 6);
    a.jump_if(R1, JumpCondition::AnyBitOf, protocol(0x3fff), pass);
    map_into_ipv6(&mut a, PEER);
    a.load(AccessSize::Word, R1, R10, LISTENER_HEADER + 12);
    a.store(AccessSize::Word, R10, PEER + 12, R1);
    a.set(R8, 20); // offset of UDP
    a.jump(from);

    // IPv6 without extensions: next header at 6, source at 8.
    a.here(ipv6);
    read(&mut a, 0, 40, LISTENER_HEADER, short);
    a.load(AccessSize::Byte, R1, R10, LISTENER_HEADER + 6);
    a.jump_if(R1, JumpCondition::NotEqual, IPPROTO_UDP, pass);
    for half in [0, 8] {
        a.load(AccessSize::Double, R1, R10, LISTENER_HEADER + 8 + half);
        a.store(AccessSize::Double, R10, PEER + half, R1);
    }
    a.set(R8, 40);

    // UDP: destination port at 2. Is it one where claims are announced?
    a.here(from);
    a.copy(R2, R8);
    read_at_r2(&mut a, 4, PEER_PORT, short);
    a.load(AccessSize::Half, R1, R10, PEER_PORT + 2);
    a.store_value(AccessSize::Word, R10, PEER_PORT, 0);
    a.store(AccessSize::Half, R10, PEER_PORT, R1);
    for half in [0, 8, 16] {
        a.store_value(AccessSize::Double, R10, PORT + half, 0);
    }
    a.store(AccessSize::Half, R10, PORT + ADDRESS_BYTES as i16, R1);
    look_up(&mut a, maps.peers, PORT);
    a.jump_if(R0, JumpCondition::Equal, 0, pass);
    // The first bytes of an announcement; from here on nobody else gets it.
    a.copy(R2, R8);
    read_at_r2(&mut a, 8 + 4, DATAGRAM, short);
    a.load(AccessSize::Word, R1, R10, PAYLOAD);
    a.set_wide(R2, u32::from_ne_bytes(pattern.shape()).into());
    a.jump_if_register(R1, JumpCondition::NotEqual, R2, pass);
    look_up(&mut a, maps.peers, PEER);
    a.jump_if(R0, JumpCondition::Equal, 0, refused);
    a.copy(R2, R8);
    read_at_r2(&mut a, 8 + all, DATAGRAM, cut);
    // All of the head; then what it is about, if this node has a gate for that.
    a.set_wide(R2, u64::from_ne_bytes(pattern.head));
    a.load(AccessSize::Double, R1, R10, PAYLOAD);
    a.jump_if_register(R1, JumpCondition::NotEqual, R2, refused);
    look_up(&mut a, maps.groups, subject);
    a.jump_if(R0, JumpCondition::Equal, 0, drop);
    find_state(&mut a, maps, drop);
    // One of the gate's proofs. An empty place has none that could be sent.
    a.load(AccessSize::Double, R1, R10, proof);
    a.load(AccessSize::Double, R2, R10, proof + 8);
    a.jump_if(R1, JumpCondition::NotEqual, 0, is_some);
    a.jump_if(R2, JumpCondition::Equal, 0, refused);
    a.here(is_some);
    for pins in 0..PROOFS_MAX {
        let other = a.label();
        let at = field(offset_of!(GateState, proofs) + pins * Proof::BYTES);
        a.load(AccessSize::Double, R3, R7, at);
        a.jump_if_register(R3, JumpCondition::NotEqual, R1, other);
        a.load(AccessSize::Double, R3, R7, at + 8);
        a.jump_if_register(R3, JumpCondition::Equal, R2, proved);
        a.here(other);
    }

    a.here(refused);
    a.store_value(AccessSize::Word, R10, SCRATCH, Slot::COUNTERS.number().cast_signed());
    look_up(&mut a, maps.gates, SCRATCH);
    a.jump_if(R0, JumpCondition::Equal, 0, drop);
    a.set(R1, 1);
    a.add_atomically(R0, field(offset_of!(GateState, refused)), R1);
    a.jump(drop);

    a.here(proved);
    a.call(BPF_FUNC_KTIME_GET_BOOT_NS);
    a.store(AccessSize::Double, R7, field(offset_of!(GateState, rival_heard_at)), R0);
    a.here(drop);
    a.set(R0, TCX_DROP);
    a.exit();
    a.here(pass);
    a.set(R0, TCX_NEXT);
    a.exit();

    // The packet is in pieces, or cut off.
    a.here(cut);
    a.jump_if(R9, JumpCondition::NotEqual, 0, refused);
    a.here(short);
    a.jump_if(R9, JumpCondition::NotEqual, 0, pass);
    linearize(&mut a);
    a.jump(look);
    a.assemble()
}

/// Writes the kernel's boot time over the first eight bytes of the packet. Only run with `BPF_PROG_TEST_RUN`, never on
/// real packets.
pub(super) fn clock() -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    a.copy(R6, R1);
    a.call(BPF_FUNC_KTIME_GET_BOOT_NS);
    a.store(AccessSize::Double, R10, -8, R0);
    a.copy(R1, R6);
    a.set(R2, 0); // to the beginning
    a.copy(R3, R10);
    a.add(R3, -8); // from the stack
    a.set(R4, 8); // bytes
    a.set(R5, 0); // no flags
    a.call(BPF_FUNC_SKB_STORE_BYTES);
    a.set(R0, TCX_NEXT);
    a.exit();
    a.assemble()
}

/// Reads `bytes` bytes at `offset` behind `R7` to the stack at `to`; jumps to `short` if the packet is shorter.
pub(super) fn read(a: &mut Assembler, offset: i32, bytes: i32, to: i16, short: JumpLabel) {
    a.copy(R2, R7);
    a.add(R2, offset);
    read_at_r2(a, bytes, to, short);
}

fn read_at_r2(a: &mut Assembler, bytes: i32, to: i16, short: JumpLabel) {
    a.copy(R1, R6);
    a.copy(R3, R10);
    a.add(R3, i32::from(to));
    a.set(R4, bytes);
    a.set(R5, BPF_HDR_START_NET);
    a.call(BPF_FUNC_SKB_LOAD_BYTES_RELATIVE);
    a.jump_if(R0, JumpCondition::NotEqual, 0, short);
}

/// `R0 =` the map's entry for the key on the stack at `key`, or 0
pub(super) fn look_up(a: &mut Assembler, map: BorrowedFd<'_>, key: i16) {
    a.map(R1, map);
    a.copy(R2, R10);
    a.add(R2, i32::from(key));
    a.call(BPF_FUNC_MAP_LOOKUP_ELEM);
}

/// Makes the part of the packet that the programs read linear, and notes in `R9` that this was tried.
pub(super) fn linearize(a: &mut Assembler) {
    let all = a.label();
    a.set(R9, 1);
    a.load(AccessSize::Word, R2, R6, SKB_LEN);
    a.jump_if(R2, JumpCondition::NotGreater, LOOKED_AT_BYTES, all);
    a.set(R2, LOOKED_AT_BYTES);
    a.here(all);
    a.copy(R1, R6);
    a.call(BPF_FUNC_SKB_PULL_DATA);
}

/// A 16-bit number in network order, as a load of two bytes or `skb->protocol` shows it.
pub(super) fn protocol(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// Four bytes in network order, as a load of a word shows them.
fn network(number: u32) -> i32 {
    number.to_be().cast_signed()
}

fn field(offset: usize) -> i16 {
    i16::try_from(offset).expect("a state is small")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// `docs/gate.md` states these numbers.
    #[test]
    fn the_programs_are_as_long_as_documented() {
        // The programs only contain the descriptors' numbers.
        let any = std::fs::File::open("/dev/null").unwrap();
        let any = any.as_fd();
        let maps = MapDescriptors { gates: any, addresses: any, peers: any, groups: any };
        let lengths = [gate_program(maps).len(), claim_listener(maps, Pattern::UNUSED).len(), clock().len()];
        assert_eq!(lengths, [195, 187, 12]);
    }
}
