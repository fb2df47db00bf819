//! The three programs: the judge, which drops; the ear, which hears rivals; the clock, which shows the kernel's time.
//!
//! Packets are read through helpers, never directly: the same offset then serves interfaces with and without a link
//! header, and a packet in pieces is an error that can be mended. Facts: bpf-helpers(7).

use std::{mem::offset_of, os::fd::BorrowedFd};

use super::{
    insn::{
        Assembler, If, Label,
        Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10},
        Size,
    },
    state::State,
};
use crate::gate::claim::{Ballot, Claim};

// linux/bpf.h: helpers …
const MAP_LOOKUP: i32 = 1;
const STORE_BYTES: i32 = 9;
const PULL_DATA: i32 = 39;
const LOAD_BYTES_RELATIVE: i32 = 68;
const BOOT_NANOS: i32 = 125;
/// … for which offset 0 is the first byte behind the link header, if there is one …
const FROM_NETWORK_HEADER: i32 = 1;
/// … fields of `struct __sk_buff` …
const SKB_LENGTH: i16 = 0;
const SKB_PROTOCOL: i16 = 16;
/// … and what a program on tcx answers: the next one decides, or nobody does.
const NEXT: i32 = -1;
const DROP: i32 = 2;

// linux/if_ether.h
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
// RFC 791, RFC 8200, RFC 4861
const UDP: i32 = 17;
const ICMPV6: i32 = 58;
const SOLICITATION: i32 = 135;
const ADVERTISEMENT: i32 = 136;
/// Further into a packet nobody looks: link header (Ethernet with two tags), IPv6, UDP and a claim, or less.
const LOOKED_AT_BYTES: i32 = 22 + 40 + 8 + Claim::BYTES as i32;

/// A service address: the judge shuts it.
pub(super) const SERVICE: u8 = 1;
/// A peer: the ear believes it.
pub(super) const PEER: u8 = 2;

/// The judge's stack: three keys of [`super::KEY_BYTES`], each an IPv6 address or an IPv4 address mapped into one.
const KEYS: [i16; 3] = [-16, -32, -48];
/// Behind the keys: what a packet is read into.
const SCRATCH: i16 = -56;
/// The ear's stack: an IP header, then a UDP header with a claim.
const HEADER: i16 = -56;
const DATAGRAM: i16 = HEADER - 8 - Claim::BYTES as i16;

/// Drops what concerns a service address while the gate is shut; passes all else. `addresses` says which are.
pub(super) fn judge(state: BorrowedFd<'_>, addresses: BorrowedFd<'_>) -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    let [shut, look, ipv4, arp, ipv6, known, short, pass, drop] = std::array::from_fn(|_| a.label());
    a.copy(R6, R1); // the packet, for ever
    a.map_value(R7, state); // the state, for ever

    // Open, if the lease runs and was renewed by a beat that was sent after a rival was heard.
    a.call(BOOT_NANOS);
    a.load(Size::Double, R1, R7, field(offset_of!(State, deadline)));
    a.jump_if_register(R0, If::NotLess, R1, shut);
    a.load(Size::Double, R1, R7, field(offset_of!(State, sent)));
    a.load(Size::Double, R2, R7, field(offset_of!(State, shut_at)));
    a.jump_if_register(R1, If::Greater, R2, pass);

    a.here(shut);
    a.set(R9, 0); // not pulled together yet
    a.here(look);
    for key in KEYS {
        a.store_value(Size::Double, R10, key, 0);
        a.store_value(Size::Word, R10, key + 8, network(0x0000_ffff)); // ::ffff:0:0/96
        a.store_value(Size::Word, R10, key + 12, 0);
    }
    a.load(Size::Word, R1, R6, SKB_PROTOCOL);
    a.jump_if(R1, If::Equal, protocol(IPV4), ipv4);
    a.jump_if(R1, If::Equal, protocol(ARP), arp);
    a.jump_if(R1, If::Equal, protocol(IPV6), ipv6);
    a.jump(pass);

    // IPv4: source at 12, destination at 16.
    a.here(ipv4);
    read(&mut a, 12, 4, KEYS[0] + 12, short);
    read(&mut a, 16, 4, KEYS[1] + 12, short);
    a.jump(known);

    // ARP of IPv4 over 6-byte addresses: protocol at 2, lengths at 4 and 5, sender at 14, target at 24 (RFC 826).
    a.here(arp);
    read(&mut a, 0, 8, SCRATCH, short);
    a.load(Size::Half, R1, R10, SCRATCH + 2);
    a.jump_if(R1, If::NotEqual, protocol(IPV4), pass);
    a.load(Size::Half, R1, R10, SCRATCH + 4);
    a.jump_if(R1, If::NotEqual, protocol(0x0604), pass);
    read(&mut a, 14, 4, KEYS[0] + 12, short);
    read(&mut a, 24, 4, KEYS[1] + 12, short);
    a.jump(known);

    // IPv6: next header at 6, source at 8, destination at 24; a neighbour message's target at 40 + 8.
    a.here(ipv6);
    read(&mut a, 8, 16, KEYS[0], short);
    read(&mut a, 24, 16, KEYS[1], short);
    read(&mut a, 6, 1, SCRATCH, short);
    a.load(Size::Byte, R1, R10, SCRATCH);
    a.jump_if(R1, If::NotEqual, ICMPV6, known);
    read(&mut a, 40, 1, SCRATCH, short);
    a.load(Size::Byte, R1, R10, SCRATCH);
    let neighbour = a.label();
    a.jump_if(R1, If::Equal, SOLICITATION, neighbour);
    a.jump_if(R1, If::NotEqual, ADVERTISEMENT, known);
    a.here(neighbour);
    read(&mut a, 48, 16, KEYS[2], short);

    a.here(known);
    for key in KEYS {
        let other = a.label();
        look_up(&mut a, addresses, key);
        a.jump_if(R0, If::Equal, 0, other);
        a.load(Size::Byte, R1, R0, 0);
        a.jump_if(R1, If::AnyBitOf, i32::from(SERVICE), drop);
        a.here(other);
    }

    a.here(pass);
    a.set(R0, NEXT);
    a.exit();
    a.here(drop);
    a.set(R0, DROP);
    a.exit();

    // A packet in pieces, or one that ends too early. What was read of the latter is judged; the rest is zero.
    a.here(short);
    a.jump_if(R9, If::NotEqual, 0, known);
    pull_together(&mut a);
    a.jump(look);
    a.assemble()
}

/// Shuts the gate when a peer announces to `port` that a claim to this gate's group above its ballot is owned. Drops
/// nothing.
pub(super) fn ear(
    state: BorrowedFd<'_>,
    addresses: BorrowedFd<'_>,
    port: u16,
    cluster: u64,
    group: u64,
) -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    let [look, ipv4, ipv6, from, above, short, pass] = std::array::from_fn(|_| a.label());
    a.copy(R6, R1);
    a.map_value(R7, state);
    a.set(R9, 0);
    a.here(look);
    a.load(Size::Word, R1, R6, SKB_PROTOCOL);
    a.jump_if(R1, If::Equal, protocol(IPV4), ipv4);
    a.jump_if(R1, If::Equal, protocol(IPV6), ipv6);
    a.jump(pass);

    // IPv4 without options and in one piece: flags and offset at 6, protocol at 9, source at 12.
    a.here(ipv4);
    read(&mut a, 0, 20, HEADER, short);
    a.load(Size::Byte, R1, R10, HEADER);
    a.jump_if(R1, If::NotEqual, 0x45, pass);
    a.load(Size::Byte, R1, R10, HEADER + 9);
    a.jump_if(R1, If::NotEqual, UDP, pass);
    a.load(Size::Half, R1, R10, HEADER + 6);
    a.jump_if(R1, If::AnyBitOf, protocol(0x3fff), pass);
    a.store_value(Size::Double, R10, KEYS[0], 0);
    a.store_value(Size::Word, R10, KEYS[0] + 8, network(0x0000_ffff));
    a.load(Size::Word, R1, R10, HEADER + 12);
    a.store(Size::Word, R10, KEYS[0] + 12, R1);
    a.set(R8, 20); // where UDP begins
    a.jump(from);

    // IPv6 without extensions: next header at 6, source at 8.
    a.here(ipv6);
    read(&mut a, 0, 40, HEADER, short);
    a.load(Size::Byte, R1, R10, HEADER + 6);
    a.jump_if(R1, If::NotEqual, UDP, pass);
    for half in [0, 8] {
        a.load(Size::Double, R1, R10, HEADER + 8 + half);
        a.store(Size::Double, R10, KEYS[0] + half, R1);
    }
    a.set(R8, 40);

    a.here(from);
    look_up(&mut a, addresses, KEYS[0]);
    a.jump_if(R0, If::Equal, 0, pass);
    a.load(Size::Byte, R1, R0, 0);
    let peer = a.label();
    a.jump_if(R1, If::AnyBitOf, i32::from(PEER), peer);
    a.jump(pass);
    a.here(peer);
    a.copy(R2, R8);
    read_at_r2(&mut a, 8 + Claim::BYTES as i32, DATAGRAM, short);
    a.load(Size::Half, R1, R10, DATAGRAM + 2);
    a.jump_if(R1, If::NotEqual, protocol(port), pass);
    // Magic, version, kind, cluster and group as this gate's own claim would have them.
    let own = Claim { cluster, group, ballot: Ballot::default() }.encode();
    for (place, word) in (0i16..).step_by(8).zip(own[..24].chunks_exact(8)) {
        a.set_wide(R2, u64::from_ne_bytes(std::array::from_fn(|byte| word[byte])));
        a.load(Size::Double, R1, R10, DATAGRAM + 8 + place);
        a.jump_if_register(R1, If::NotEqual, R2, pass);
    }
    // Its ballot, first by round, must lie above this gate's.
    a.load(Size::Double, R8, R10, DATAGRAM + 8 + 24);
    a.big_endian(R8, Size::Double);
    a.load(Size::Word, R9, R10, DATAGRAM + 8 + 32);
    a.big_endian(R9, Size::Word);
    a.load(Size::Double, R1, R7, field(offset_of!(State, round)));
    a.jump_if_register(R8, If::Greater, R1, above);
    a.jump_if_register(R8, If::NotEqual, R1, pass);
    a.load(Size::Double, R1, R7, field(offset_of!(State, node)));
    a.jump_if_register(R9, If::NotGreater, R1, pass);

    a.here(above);
    a.call(BOOT_NANOS);
    a.store(Size::Double, R7, field(offset_of!(State, rival_round)), R8);
    a.store(Size::Double, R7, field(offset_of!(State, rival_node)), R9);
    a.store(Size::Double, R7, field(offset_of!(State, shut_at)), R0);
    a.here(pass);
    a.set(R0, NEXT);
    a.exit();

    a.here(short);
    a.jump_if(R9, If::NotEqual, 0, pass);
    pull_together(&mut a);
    a.jump(look);
    a.assemble()
}

/// Writes the kernel's boot time over the first eight bytes of the packet: to be run by hand, on nothing real.
pub(super) fn clock() -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    a.copy(R6, R1);
    a.call(BOOT_NANOS);
    a.store(Size::Double, R10, -8, R0);
    a.copy(R1, R6);
    a.set(R2, 0); // to the beginning
    a.copy(R3, R10);
    a.add(R3, -8); // from the stack
    a.set(R4, 8); // bytes
    a.set(R5, 0); // no flags
    a.call(STORE_BYTES);
    a.set(R0, NEXT);
    a.exit();
    a.assemble()
}

/// Reads `bytes` from `offset` behind the link header to the stack at `to`; to `short` if they are not there.
fn read(a: &mut Assembler, offset: i32, bytes: i32, to: i16, short: Label) {
    a.set(R2, offset);
    read_at_r2(a, bytes, to, short);
}

fn read_at_r2(a: &mut Assembler, bytes: i32, to: i16, short: Label) {
    a.copy(R1, R6);
    a.copy(R3, R10);
    a.add(R3, i32::from(to));
    a.set(R4, bytes);
    a.set(R5, FROM_NETWORK_HEADER);
    a.call(LOAD_BYTES_RELATIVE);
    a.jump_if(R0, If::NotEqual, 0, short);
}

/// `R0 =` the entry of the key on the stack at `key`, or 0
fn look_up(a: &mut Assembler, map: BorrowedFd<'_>, key: i16) {
    a.map(R1, map);
    a.copy(R2, R10);
    a.add(R2, i32::from(key));
    a.call(MAP_LOOKUP);
}

/// Brings all that is looked at into one piece, and notes in `R9` that it was tried.
fn pull_together(a: &mut Assembler) {
    let all = a.label();
    a.set(R9, 1);
    a.load(Size::Word, R2, R6, SKB_LENGTH);
    a.jump_if(R2, If::NotGreater, LOOKED_AT_BYTES, all);
    a.set(R2, LOOKED_AT_BYTES);
    a.here(all);
    a.copy(R1, R6);
    a.call(PULL_DATA);
}

/// A 16-bit number of the network as a load of two bytes, or `skb->protocol`, shows it.
fn protocol(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// Four bytes of the network as a load of a word shows them.
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

    /// `docs/gate.md` tells these numbers.
    #[test]
    fn the_programs_are_as_long_as_documented() {
        // Programs only carry the descriptors' numbers.
        let any = std::fs::File::open("/dev/null").unwrap();
        let (state, addresses) = (any.as_fd(), any.as_fd());
        let lengths = [judge(state, addresses).len(), ear(state, addresses, 1, 2, 3).len(), clock().len()];
        assert_eq!(lengths, [151, 97, 12]);
    }
}
