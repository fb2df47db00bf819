//! Tests of tags of VLAN 0: the kernel removes any number of them, and treats the rest as an untagged packet.

use super::*;

#[test]
fn no_stack_of_tags_passes_a_shut_gate_of_bpf() {
    run(true, no_stack_of_tags_passes_a_shut_gate);
}

#[test]
fn no_stack_of_tags_passes_a_shut_gate_of_nft() {
    run(false, no_stack_of_tags_passes_a_shut_gate);
}

/// Tags, each with its kind (802.1Q or 802.1ad) and its two bytes: priority and number.
type TagStack = Vec<(u16, u16)>;

const PRIORITY: u16 = 0x6000;

/// Stacks of VLAN 0, of each kind and of both in turn, and with one tag of another VLAN at each position.
fn stacks() -> Vec<TagStack> {
    let kinds: [fn(usize) -> u16; 3] =
        [|_| 0x8100, |_| 0x88a8, |place| if place % 2 == 0 { 0x8100 } else { 0x88a8 }];
    let mut stacks = vec![Vec::new()];
    for depth in 1..=8 {
        for kind in kinds {
            let stack: TagStack = (0..depth).map(|place| (kind(place), PRIORITY)).collect();
            stacks.push(stack.clone());
            let others = (0..depth).map(|place| {
                let mut other = stack.clone();
                other[place].1 = 7;
                other
            });
            stacks.extend(others.filter(|_| depth < 4));
        }
    }
    stacks
}

fn of_vlan_0(stack: &TagStack) -> bool {
    stack.iter().all(|(_, tag)| tag & 0xfff == 0)
}

/// Sends a packet behind tags to the node.
fn say(world: &GateTestbed, stack: &TagStack, ethertype: u16, payload: &[u8]) {
    let mut bytes = Vec::new();
    let kinds = stack.iter().map(|(kind, _)| *kind).chain([ethertype]).collect::<Vec<_>>();
    for ((_, tag), next) in stack.iter().zip(&kinds[1..]) {
        bytes.extend(tag.to_be_bytes());
        bytes.extend(next.to_be_bytes());
    }
    bytes.extend(payload);
    world.say(kinds[0], &bytes);
}

/// Whether the node mentions the address after this question.
fn is_answered(world: &GateTestbed, stack: &TagStack, ethertype: u16, payload: &[u8], about: IpAddr) -> bool {
    world.drain();
    say(world, stack, ethertype, payload);
    world.hear(about, SILENCE).is_some()
}

/// An echo, an ARP question and a solicitation for an address.
fn questions(world: &GateTestbed, v4: Ipv4Addr, v6: Ipv6Addr) -> [(u16, Vec<u8>, IpAddr); 4] {
    let mut echo = [8, 0, 0, 0, 1, 2, 3, 4];
    let sum = checksum::internet(&[&echo]);
    echo[2..4].copy_from_slice(&sum);
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &world.client_mac, &CLIENT4.octets(), &[0; 6], &v4.octets()];
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &v6.octets(), &[1, 1], &world.client_mac].concat();
    [
        (0x0800, ipv4(CLIENT4, v4, 1, &echo), v4.into()),
        (0x0806, arp.concat(), v4.into()),
        (0x86dd, icmpv6(CLIENT6, v6, 64, &[128, 0, 0, 0, 1, 2, 3, 4]), v6.into()),
        (0x86dd, icmpv6(CLIENT6, v6, 255, &solicitation), v6.into()),
    ]
}

fn no_stack_of_tags_passes_a_shut_gate(backend: &Backend) {
    // The most tags that an open gate lets through: more are dropped in any case, and no sender uses them.
    let passed = if matches!(backend, Backend::Bpf { .. }) { 5 } else { 1 };
    let world = GateTestbed::new();
    let service = questions(&world, SERVICE4, SERVICE6);
    let own = questions(&world, OWN4, OWN6);
    let answered = |stack: &TagStack, questions: &[(u16, Vec<u8>, IpAddr)]| {
        let is_answered = |(ethertype, payload, about): &(u16, Vec<u8>, IpAddr)| {
            (0..3).any(|_| is_answered(&world, stack, *ethertype, payload, *about))
        };
        questions.iter().map(is_answered).collect::<Vec<_>>()
    };
    let stacks = stacks();
    // Datagrams that a program receives. An answer would have to pass the gate again.
    let listeners = [IpAddr::from(SERVICE4), SERVICE6.into()].map(|ip| {
        let listener = UdpSocket::bind((ip, PORT)).unwrap();
        listener.set_read_timeout(Some(SILENCE)).unwrap();
        listener
    });
    let udp4 = [&PORT.to_be_bytes()[..], &PORT.to_be_bytes(), &[0, 10, 0, 0], b"hi"].concat();
    let mut udp6 = udp4.clone();
    let sum =
        checksum::internet(&[&CLIENT6.octets(), &SERVICE6.octets(), &[0, 0, 0, 10, 0, 0, 0, 17], &udp6]);
    udp6[6..8].copy_from_slice(&sum);
    let tell = |stack: &TagStack| {
        say(&world, stack, 0x0800, &ipv4(CLIENT4, SERVICE4, 17, &udp4));
        say(&world, stack, 0x86dd, &ipv6(CLIENT6, SERVICE6, 17, 64, &udp6));
    };
    let told = || listeners.each_ref().map(|listener| listener.recv(&mut [0; 16]).is_ok());
    for stack in stacks.iter().filter(|stack| of_vlan_0(stack)) {
        assert_eq!(answered(stack, &service), [true; 4], "without a gate the kernel looks behind {stack:x?}");
        tell(stack);
        assert_eq!(told(), [true; 2], "without a gate, behind {stack:x?}");
    }
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    stacks.iter().for_each(tell);
    assert_eq!(told(), [false; 2], "a program gets something from behind tags");
    // All at once: a single answer to any of them would be heard.
    for about in [IpAddr::from(SERVICE4), SERVICE6.into()] {
        world.drain();
        for stack in &stacks {
            for (ethertype, payload, _) in service.iter().filter(|(_, _, of)| *of == about) {
                say(&world, stack, *ethertype, payload);
            }
        }
        let heard = world.hear(about, SILENCE * 4);
        assert!(heard.is_none(), "{about} answers behind tags: {:x?}", heard.map(|(frame, _)| frame));
    }
    for stack in stacks.iter().filter(|stack| of_vlan_0(stack)) {
        let passes = stack.len() <= passed;
        assert_eq!(answered(stack, &own), [passes; 4], "other addresses, behind {stack:x?}");
    }
    gate.renew(for_millis(600_000)).unwrap();
    for stack in stacks.iter().filter(|stack| of_vlan_0(stack)) {
        let passes = stack.len() <= passed;
        assert_eq!(answered(stack, &service), [passes; 4], "open, behind {stack:x?}");
    }
    gate.close().unwrap();
    stacks.iter().for_each(tell);
    assert_eq!(told(), [false; 2], "shut again");
}
