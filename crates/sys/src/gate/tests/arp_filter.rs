//! The ARP filter with both backends: an address is answered for on its own interface alone.

use std::process::Output;

use super::*;
use crate::{
    gate::arp_filter::{self, ArpFilter, OwnInterfaces},
    netlink::LinkChange,
};

const CLUSTER: &str = "test.cluster";
const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 15);

both! {
    an_address_is_answered_for_on_its_own_interface_alone
    neighbour_questions_by_proxy_are_only_answered_on_the_own_interface
    a_bridge_lets_questions_through_to_the_new_owner
    deleted_parts_of_the_filter_are_put_back
    the_filter_of_an_earlier_daemon_is_taken_over
    four_thousand_addresses
}

/// A further cable between node and client.
struct SecondCable {
    eth: Interface,
    mac: [u8; 6],
    tap: Tap,
}

impl SecondCable {
    fn new(world: &GateTestbed, name: &str) -> Self {
        let there = format!("p{name}");
        let [eth, other] = veth_across(name, &there, &world.client).unwrap();
        let tap = inside(&world.client, || Tap::open(&there).unwrap());
        Self { eth, mac: other.mac.unwrap(), tap }
    }

    fn say(&self, ethertype: u16, payload: &[u8]) {
        self.tap.send(&[&[0xff; 6][..], &self.mac, &ethertype.to_be_bytes(), payload].concat()).unwrap();
    }

    /// Whether an ARP question is answered. Silence only counts after the third.
    fn arp_answers(&self, target: Ipv4Addr) -> bool {
        (0..3).any(|_| {
            self.drain();
            let head = [0, 1, 8, 0, 6, 4, 0, 1];
            let parts = [&head[..], &self.mac, &CLIENT4.octets(), &[0; 6], &target.octets()];
            self.say(0x0806, &parts.concat());
            self.hears(|frame| {
                frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && speaks_of(frame, target.into())
            })
        })
    }

    /// The same for a neighbour solicitation, sent to the address's solicited-node group.
    fn neighbour_answers(&self, target: Ipv6Addr) -> bool {
        (0..3).any(|_| {
            self.drain();
            let [.., a, b, c] = target.octets();
            let group =
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let own = [&[1, 1][..], &self.mac].concat();
            let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &own].concat();
            let packet = icmpv6(CLIENT6, group, 255, &message);
            let frame = [&[0x33, 0x33, 0xff, a, b, c][..], &self.mac, &[0x86, 0xdd], &packet].concat();
            self.tap.send(&frame).unwrap();
            self.hears(|frame| frame.get(54) == Some(&136) && speaks_of(frame, target.into()))
        })
    }

    fn hears(&self, mut is_it: impl FnMut(&[u8]) -> bool) -> bool {
        let end = clock::monotonic_nanos() + SILENCE.as_nanos() as u64;
        let mut buffer = [0; 2048];
        while clock::monotonic_nanos() < end {
            while let Some(got) = self.tap.receive(&mut buffer).unwrap() {
                let frame = &buffer[..got.length];
                if frame[6..12] != self.mac && is_it(frame) {
                    return true;
                }
            }
            clock::sleep_until(clock::monotonic_nanos() + MILLI / 5);
        }
        false
    }

    fn drain(&self) {
        while self.tap.receive(&mut [0; 64]).unwrap().is_some() {}
    }
}

fn own_interfaces(world: &GateTestbed) -> OwnInterfaces {
    [SERVICE4.into(), SERVICE6.into()].map(|ip| (ip, Some(world.eth.index))).into()
}

fn setting(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

fn ip(words: &str) -> Option<Output> {
    Command::new("ip").args(words.split(' ')).output().ok()
}

fn an_address_is_answered_for_on_its_own_interface_alone(backend: &Backend) {
    let world = GateTestbed::new();
    put("eth0", OTHER4.into());
    let second = SecondCable::new(&world, "eth1");
    // Without an address of the network on the second interface Linux answers there, too.
    assert!(second.arp_answers(SERVICE4), "what the filter is against");

    let filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
    assert!(!second.arp_answers(SERVICE4) && second.arp_answers(OTHER4));
    for (name, works) in world.probe_paths() {
        assert!(works, "at its own interface all goes on: {name}");
    }
    let deadline = patience();
    while !world.answers(SERVICE6) {
        assert!(deadline(), "the interface was down for a moment, and does not come back");
    }

    // Tags of VLAN 0 count as no tag.
    for tags in 1..3 {
        second.drain();
        let head = [&[0x81, 0, 0, 0].repeat(tags)[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        let parts = [&head[2..], &second.mac, &CLIENT4.octets(), &[0; 6], &SERVICE4.octets()].concat();
        second.say(0x8100, &parts);
        assert!(!second.hears(|frame| speaks_of(frame, SERVICE4.into())), "behind {tags}");
    }

    // An announcement of the address by another machine is heard, and noted, on all interfaces.
    let _ = ip("addr del 10.9.0.14/24 dev eth0");
    let _ = ip("addr add 10.9.0.3/24 dev eth1");
    let _ = ip("neigh replace 10.9.0.14 lladdr 02:00:00:00:00:99 dev eth1 nud stale");
    let new = [0, 1, 8, 0, 6, 4, 0, 1];
    let parts = [&new[..], &second.mac, &SERVICE4.octets(), &[0; 6], &SERVICE4.octets()];
    setting("ipv4/neigh/eth1/locktime", "0");
    second.say(0x0806, &parts.concat());
    let mac = second.mac.map(|byte| format!("{byte:02x}")).join(":");
    let known =
        || ip("neigh show 10.9.0.14").is_none_or(|out| String::from_utf8_lossy(&out.stdout).contains(&mac));
    let deadline = patience();
    while !known() {
        assert!(deadline(), "an announcement was not heard");
    }
    put("eth0", SERVICE4.into());
    // A question for this address from the owner of another one is a question.
    assert!(!second.arp_answers(SERVICE4));

    // It stays without renewals, and without a process.
    drop(filter);
    assert!(!second.arp_answers(SERVICE4) && second.arp_answers(OTHER4));
    let listed = arp_filter::list().unwrap();
    assert_eq!(
        (listed.len(), &listed[0].own_interfaces, &listed[0].backend),
        (1, &own_interfaces(&world), backend)
    );
    assert_eq!(listed[0].name.cluster(), CLUSTER);
    // As rules it also covers interfaces that come later.
    let third = SecondCable::new(&world, "eth2");
    assert_eq!(third.arp_answers(SERVICE4), *backend != Backend::Nft);
    let mut filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
    let fourth = SecondCable::new(&world, "eth3");
    filter.cover().unwrap();
    assert!(!third.arp_answers(SERVICE4) && !fourth.arp_answers(SERVICE4));

    // The address moves to another interface.
    filter.move_to(SERVICE4.into(), fourth.eth.index).unwrap();
    assert!(fourth.arp_answers(SERVICE4) && !third.arp_answers(SERVICE4));
    assert_eq!(filter.check_and_restore().unwrap(), Vec::<String>::new());

    filter.remove(CLUSTER).unwrap();
    assert!(third.arp_answers(SERVICE4));
    assert_eq!(arp_filter::list().unwrap(), []);
    if let Backend::Bpf { bpffs } = backend {
        assert!(!bpffs.join(ROOT).exists(), "no directory is left");
    }
}

/// Linux answers for an address of another interface only by proxy.
fn neighbour_questions_by_proxy_are_only_answered_on_the_own_interface(backend: &Backend) {
    let world = GateTestbed::new();
    let second = SecondCable::new(&world, "eth1");
    put("eth1", Ipv6Addr::new(0xfd00, 10, 0, 0, 0, 0, 0, 1).into());
    if ip("-6 neigh add proxy fd00:9::14 dev eth1").is_none_or(|out| !out.status.success()) {
        let _ = writeln!(io::stderr(), "skipped: no command ip");
        return;
    }
    setting("ipv6/conf/eth1/forwarding", "1");
    setting("ipv6/conf/eth1/proxy_ndp", "1");
    setting("ipv6/neigh/eth1/proxy_delay", "0");
    let deadline = patience();
    while !second.neighbour_answers(SERVICE6) {
        assert!(deadline(), "what the filter is against");
    }
    let filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
    assert!(!second.neighbour_answers(SERVICE6));
    assert!(world.answers(SERVICE6));
    filter.remove(CLUSTER).unwrap();
    assert!(second.neighbour_answers(SERVICE6));
}

fn a_bridge_lets_questions_through_to_the_new_owner(backend: &Backend) {
    let world = GateTestbed::new();
    let [asker, owner] = ["eth1", "eth2"].map(|name| SecondCable::new(&world, name));
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge("br0").unwrap();
    let bridge = netlink.interface("br0").unwrap().index;
    let filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
    for port in [&asker, &owner] {
        netlink.change_links(&[LinkChange::Join { port: port.eth.index, bridge }]).unwrap();
    }
    set_up("br0", true).unwrap();
    let mut filter = filter;
    filter.cover().unwrap();
    // This machine does not answer, …
    let deadline = patience();
    let question =
        |frame: &[u8]| frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[6..12] == asker.mac;
    loop {
        owner.drain();
        assert!(!asker.arp_answers(SERVICE4));
        // … and the machine behind the other port hears the question and answers.
        if owner.hears(question) {
            break;
        }
        assert!(deadline(), "the bridge does not forward the question");
    }
    let answer =
        [&[0, 1, 8, 0, 6, 4, 0, 2][..], &owner.mac, &SERVICE4.octets(), &asker.mac, &CLIENT4.octets()];
    asker.drain();
    owner.say(0x0806, &answer.concat());
    assert!(
        asker.hears(|frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[6..12] == owner.mac)
    );
    filter.remove(CLUSTER).unwrap();
    assert!(asker.arp_answers(SERVICE4), "without it the bridge answered");
}

fn deleted_parts_of_the_filter_are_put_back(backend: &Backend) {
    let world = GateTestbed::new();
    let second = SecondCable::new(&world, "eth1");
    let mut filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
    match backend {
        // If tables have owners, no other process can.
        Backend::Nft => {
            let listed = arp_filter::list().unwrap();
            match arp_filter::remove(&listed[0]) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ResourceBusy),
                Ok(()) => assert!(second.arp_answers(SERVICE4)),
            }
        }
        Backend::Bpf { bpffs } => {
            arp_filter::remove(&arp_filter::list().unwrap()[0]).unwrap();
            assert!(second.arp_answers(SERVICE4) && !bpffs.join(ROOT).exists());
            assert!(!filter.check_and_restore().unwrap().is_empty());
            filter.cover().unwrap();
        }
    }
    let _ = filter.check_and_restore().unwrap();
    assert_eq!(filter.check_and_restore().unwrap(), Vec::<String>::new());
    assert!(!second.arp_answers(SERVICE4));
    filter.remove(CLUSTER).unwrap();
    assert_eq!(arp_filter::list().unwrap(), []);
}

/// With other addresses or by the other backend. Addresses that are still configured on the machine are kept.
fn the_filter_of_an_earlier_daemon_is_taken_over(backend: &Backend) {
    let world = GateTestbed::new();
    put("eth0", OTHER4.into());
    let second = SecondCable::new(&world, "eth1");
    let gone = Ipv4Addr::new(10, 9, 0, 99);
    let mut all = own_interfaces(&world);
    all.insert(gone.into(), None);
    drop(ArpFilter::open(backend, CLUSTER, all).unwrap());
    let other = OwnInterfaces::from([(OTHER4.into(), Some(world.eth.index))]);
    let filter = ArpFilter::open(backend, CLUSTER, other.clone()).unwrap();
    assert!(!second.arp_answers(SERVICE4) && !second.arp_answers(OTHER4));
    let listed = arp_filter::list().unwrap();
    assert_eq!(listed[0].own_interfaces.len(), 3, "but not what stands nowhere: {listed:?}");
    drop(filter);
    // By hand: first some, then the rest.
    arp_filter::remove_addresses(&listed[0], &[OTHER4.into()]).unwrap();
    assert!(second.arp_answers(OTHER4) && !second.arp_answers(SERVICE4));
    arp_filter::remove_addresses(&listed[0], &[SERVICE4.into(), SERVICE6.into()]).unwrap();
    assert_eq!(arp_filter::list().unwrap(), []);

    // The cluster was renamed. What it had under the old name goes, except for addresses that it no longer has.
    let mut both = other.clone();
    both.insert(SERVICE4.into(), Some(world.eth.index));
    drop(ArpFilter::open(backend, "old.name", both).unwrap());
    let filter = ArpFilter::open(backend, CLUSTER, other.clone()).unwrap();
    let mut names: Vec<_> = arp_filter::list()
        .unwrap()
        .into_iter()
        .map(|listed| (listed.name.cluster(), listed.own_interfaces.len()))
        .collect();
    names.sort();
    assert_eq!(names, [("old.name".to_owned(), 1), (CLUSTER.to_owned(), 1)]);
    filter.remove(CLUSTER).unwrap();
    arp_filter::remove(&arp_filter::list().unwrap()[0]).unwrap();

    let rules = Backend::Nft;
    if *backend != rules && arp_filter::probe_rules().is_ok() {
        drop(ArpFilter::open(&rules, CLUSTER, other.clone()).unwrap());
        let filter = ArpFilter::open(backend, CLUSTER, other.clone()).unwrap();
        assert_eq!(arp_filter::list().unwrap().len(), 1);
        filter.remove(CLUSTER).unwrap();
        drop(ArpFilter::open(backend, CLUSTER, other.clone()).unwrap());
        let filter = ArpFilter::open(&rules, CLUSTER, other).unwrap();
        assert_eq!(arp_filter::list().unwrap().len(), 1);
        filter.remove(CLUSTER).unwrap();
        assert_eq!(arp_filter::list().unwrap(), []);
    }
}

fn four_thousand_addresses(backend: &Backend) {
    let world = GateTestbed::new();
    let second = SecondCable::new(&world, "eth1");
    let mut all = own_interfaces(&world);
    for number in 0..4096u32 {
        all.insert(Ipv4Addr::from_bits(0x0a40_0000 + number).into(), Some(world.eth.index));
        all.insert(Ipv6Addr::from_bits(0xfd40 << 112 | u128::from(number)).into(), None);
    }
    let begin = clock::monotonic_nanos();
    let mut filter = ArpFilter::open(backend, CLUSTER, all.clone()).unwrap();
    let made = clock::monotonic_nanos();
    assert_eq!(filter.check_and_restore().unwrap(), Vec::<String>::new());
    let looked = clock::monotonic_nanos();
    assert!(!second.arp_answers(SERVICE4));
    drop(filter);
    let again = clock::monotonic_nanos();
    let filter = ArpFilter::open(backend, CLUSTER, all).unwrap();
    let taken = clock::monotonic_nanos();
    filter.remove(CLUSTER).unwrap();
    let millis = |from: u64, to: u64| (to - from) / MILLI;
    println!(
        "8194 addresses: made in {} ms, looked after in {} ms, taken over in {} ms, removed in {} ms",
        millis(begin, made),
        millis(made, looked),
        millis(again, taken),
        millis(taken, clock::monotonic_nanos())
    );
}

/// Measures the times in `docs/gate.md` for many interfaces.
#[test]
fn many_cables_by_programs() {
    super::run(true, |backend| {
        /// `docs/gate.md` has the times for 150.
        const PAIRS: u8 = 10;
        let world = GateTestbed::new();
        let mut netlink = Netlink::open().unwrap();
        for number in 0..PAIRS {
            let names = [format!("v{number}a"), format!("v{number}b")];
            let end =
                |name, last| crate::netlink::VethEnd { name, mac: [2, 1, 0, 0, number, last], network: None };
            netlink.create_veth(end(&names[0], 0), end(&names[1], 1)).unwrap();
        }
        let begin = clock::monotonic_nanos();
        let mut filter = ArpFilter::open(backend, CLUSTER, own_interfaces(&world)).unwrap();
        let made = clock::monotonic_nanos();
        filter.cover().unwrap();
        let looked = clock::monotonic_nanos();
        filter.remove(CLUSTER).unwrap();
        let micros = |from: u64, to: u64| (to - from) / 1000;
        println!(
            "{} interfaces: made in {} us, looked after in {} us, removed in {} us",
            u32::from(PAIRS) * 2,
            micros(begin, made),
            micros(made, looked),
            micros(looked, clock::monotonic_nanos())
        );
    });
}
