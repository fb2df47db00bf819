//! The heart on a real kernel: two hearts in two network namespaces with cables between, judged by the state of the
//! kernel and by the frames on the wire. Skipped, with one line, where namespaces may not be made.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use locum::{
    heart::{self, Down, GateChoice, Handle, HeartOptions, HeartStats, Up},
    host_config::HostConfig,
};
use locum_core::{
    liveness::Liveness,
    model::{
        holding::Holding,
        identity::*,
        keys::{AuthMethod, Key, Keys},
        logging::*,
        order::{Answer, Order, OrderId},
        resource::*,
    },
    r1::{
        director::{R1Director, R1Identity},
        message::Uuid,
        plan::*,
        status::R1Status,
    },
};
use locum_sys::{
    namespace::{self, NewNamespaces},
    netlink::{InterfaceAddress, LinkChange, Netlink, NewAddress, VethEnd},
    tap::Tap,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const SERVICE: &str = "172.23.2.14";
const KEEPALIVE: Duration = Duration::from_millis(50);
const DEADTIME: Duration = Duration::from_millis(500);

// ---- the world: two namespaces, a LAN cable (eth0) and a crossover cable (eth1)

struct HeartWorld {
    networks: [OwnedFd; 2],
}

impl HeartWorld {
    /// `None`, after printing the reason, where it cannot be built.
    fn new() -> Option<Self> {
        if !namespace::may_enter_new() {
            crate::skipped("no right to make network namespaces here");
            return None;
        }
        let fresh = || {
            let make = || {
                namespace::enter_new(NewNamespaces { network: true, ..NewNamespaces::default() }).unwrap();
                namespace::network().unwrap()
            };
            thread::scope(|scope| scope.spawn(make).join().unwrap())
        };
        let world = Self { networks: [fresh(), fresh()] };
        world.lay("eth0", ["172.23.2.1", "172.23.2.2"]);
        world.lay("eth1", ["10.1.0.1", "10.1.0.2"]);
        Some(world)
    }

    /// Runs `body` in the namespace of one node.
    fn at<T: Send>(&self, node: usize, body: impl FnOnce() -> T + Send) -> T {
        let network = self.networks[node].as_fd();
        let run = move || {
            namespace::enter_network(network).unwrap();
            body()
        };
        thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects interfaces of the same name, each with its address.
    fn lay(&self, name: &str, ips: [&str; 2]) {
        self.at(0, || {
            let there = Some(self.networks[1].as_fd());
            let end = |node: u8| [2, 0, 0, 0, name.as_bytes()[3], node];
            let a = VethEnd { name, mac: end(1), network: None };
            let b = VethEnd { name, mac: end(2), network: there };
            Netlink::open().unwrap().create_veth(a, b).unwrap();
        });
        for (node, ip) in ips.into_iter().enumerate() {
            self.at(node, || {
                let mut netlink = Netlink::open().unwrap();
                let index = netlink.interface(name).unwrap().index;
                netlink.change_links(&[LinkChange::Up(index)]).unwrap();
                netlink.add_address(&plain(index, ip)).unwrap();
            });
        }
    }

    /// Removes a cable and both its interfaces.
    fn remove(&self, name: &str) {
        self.at(0, || {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.interface(name).unwrap().index;
            netlink.delete_interface(index).unwrap();
        });
    }

    fn addresses(&self, node: usize) -> Vec<InterfaceAddress> {
        self.at(node, || Netlink::open().unwrap().addresses().unwrap())
    }

    fn carries(&self, node: usize, ip: &str) -> bool {
        let ip: IpAddr = ip.parse().unwrap();
        self.addresses(node).iter().any(|address| address.ip == ip)
    }
}

fn plain(interface: u32, ip: &str) -> NewAddress {
    NewAddress::new(interface, ip.parse().unwrap(), 24)
}

/// Waits until the condition holds; returns how long it took.
#[expect(clippy::disallowed_methods, reason = "a test that waits for the kernel reads the clock")]
fn wait(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a test that looks whether nothing happens has to wait")]
fn pass(time: Duration) {
    thread::sleep(time);
}

// ---- the nodes

fn plan(me: usize, links: Vec<R1Link>, address: Address) -> R1Plan {
    let resource = Resource {
        text: address.ip.to_string(),
        script: "IPaddr".into(),
        args: vec![address.ip.to_string()],
        agent: Agent::Address(address),
    };
    R1Plan {
        cluster: "linux-ha".into(),
        nodes: vec!["a".into(), "b".into()],
        me: NodeIndex(me),
        timing: R1Timing {
            keepalive: KEEPALIVE,
            warntime: DEADTIME / 2,
            deadtime: DEADTIME,
            initdead: Duration::from_secs(2),
            deadping: DEADTIME,
        },
        auto_failback: AutoFailback::Off,
        links,
        pings: vec![],
        groups: vec![R1Group { node: NodeIndex(0), key: SERVICE.into(), resources: vec![resource] }],
        framing: FramingPlan { inner_auth: true, ttl: 3, rexmit_delay_max: Duration::from_millis(250) },
        generation: GenerationSource::File,
        logging: Logging::default(),
        realtime: Some(20),
        limits: R1Limits::default(),
        fencing: None,
        ipfail: false,
        clients: vec![],
        watchdog: None,
    }
}

fn service() -> Address {
    Address {
        ip: SERVICE.parse().unwrap(),
        prefix: None,
        interface: None,
        label: None,
        broadcast: None,
        by_route: false,
    }
}

fn broadcast(name: &str) -> R1Link {
    R1Link { name: name.into(), media: vec![R1Medium::Broadcast { interface: name.into(), port: 694 }] }
}

fn serial(device: &Path) -> R1Link {
    let device = device.to_str().unwrap().to_string();
    R1Link { name: device.clone(), media: vec![R1Medium::Serial { device, baud: 115_200 }] }
}

/// A running heart, its notes, and answers that were not fetched yet.
struct HeartNode {
    handle: Handle,
    notes: Vec<String>,
    answers: Vec<Answer>,
    states: Vec<(u64, R1Status, HeartStats)>,
    exited: bool,
    asked: u64,
}

impl HeartNode {
    fn start(world: &HeartWorld, plan: R1Plan, generation: u64) -> Self {
        let me = plan.me.0;
        let plan = Arc::new(plan);
        let secret = "s".into();
        let keys = Keys::new(1, vec![Key { number: 1, method: AuthMethod::Sha1, secret }]).unwrap();
        let uuid = Uuid([u8::try_from(me).unwrap() + 1; 16]);
        let identity = R1Identity {
            uuid,
            generation,
            peer_heard: None,
            stop_failed: Vec::new(),
            keeps: None,
            seed: me as u64,
        };
        let handle = world.at(me, || {
            let director = R1Director::new(Arc::clone(&plan), keys, identity, heart::now());
            // The host's bpf file system does not belong to the nodes, so nothing is pinned there.
            let options = HeartOptions { gates: GateChoice::None, ..HeartOptions::default() };
            heart::spawn(director, Arc::new(HostConfig::from(plan.as_ref())), options).unwrap()
        });
        Self { handle, notes: vec![], answers: vec![], states: vec![], exited: false, asked: 0 }
    }

    fn hear(&mut self) {
        while let Some(up) = self.handle.try_next() {
            match up {
                Up::Note { note, .. } => self.notes.push(note.text),
                Up::Reply { answer, .. } => self.answers.push(answer),
                Up::Status { request, status: heart::Status::R1(status), heart } => {
                    self.states.push((request, *status, *heart));
                }
                Up::Exit { clean, .. } => {
                    assert!(clean);
                    self.exited = true;
                }
                Up::Run { resource, .. } => panic!("the heart should have done {resource:?} itself"),
                Up::Fence { .. } => panic!("no fencing is configured"),
                Up::Write(_) | Up::Status { .. } => panic!("this is heartbeat's dialect"),
                Up::Active
                | Up::Abandon(_)
                | Up::Remember { .. }
                | Up::EventScript { .. }
                | Up::PortTaken(_) => {}
            }
        }
    }

    fn state(&mut self) -> (R1Status, HeartStats) {
        self.asked += 1;
        let request = self.asked;
        self.handle.send(Down::Status { request }).unwrap();
        wait("the heart answers", Duration::from_secs(5), || {
            self.hear();
            self.states.iter().any(|state| state.0 == request)
        });
        let (_, status, stats) = self.states.pop().unwrap();
        (status, stats)
    }

    fn stable(&mut self) -> bool {
        let (status, _) = self.state();
        format!("{:?}", status.state).contains("Stable") && status.transition.is_none()
    }

    fn link_down(&mut self, link: usize) -> Option<String> {
        self.state().0.links[link].down.clone()
    }

    fn order(&mut self, order: Order) -> Answer {
        self.handle.send(Down::Order { id: OrderId(1), order }).unwrap();
        wait("the order is answered", Duration::from_secs(5), || {
            self.hear();
            !self.answers.is_empty()
        });
        self.answers.pop().unwrap()
    }

    /// The daemon is killed: nothing is cleaned up.
    fn kill(self) {
        self.handle.send(Down::Stop).unwrap();
        self.handle.join().unwrap();
    }
}

/// Two nodes that hear each other; node 0 has the address.
fn pair(world: &HeartWorld, links: impl Fn(usize) -> Vec<R1Link>) -> [HeartNode; 2] {
    let mut nodes = [0, 1].map(|me| HeartNode::start(world, plan(me, links(me), service()), 100));
    wait("both are stable", Duration::from_secs(10), || nodes.iter_mut().all(HeartNode::stable));
    wait("node a carries the address", Duration::from_secs(1), || world.carries(0, SERVICE));
    assert!(!world.carries(1, SERVICE));
    nodes
}

fn both_links(_: usize) -> Vec<R1Link> {
    vec![broadcast("eth1"), broadcast("eth0")]
}

/// Notes the forms in which the `eth0` of a node (1 or 2) announced the service address: question, answer.
fn announced_by(tap: &Tap, node: u8, announced: &mut [bool; 2]) {
    let mut frame = [0; 2048];
    while let Some(heard) = tap.receive(&mut frame).unwrap() {
        let frame = &frame[..heard.length];
        let is_arp = frame.get(12..14) == Some(&[8, 6]) && frame.get(28..32) == Some(&[172, 23, 2, 14]);
        if is_arp && frame[6..12] == [2, 0, 0, 0, b'0', node] {
            announced[usize::from(frame[21] == 2)] = true;
        }
    }
}

// ---- the tests

#[test]
fn the_address_moves_when_its_owner_dies_and_when_it_is_asked_to() {
    let Some(world) = HeartWorld::new() else { return };
    let [a, mut b] = pair(&world, both_links);
    let there = world.addresses(0).into_iter().find(|address| address.ip.to_string() == SERVICE).unwrap();
    assert_eq!(there.prefix, 24, "the connected network's");
    assert_eq!(there.broadcast, Some("172.23.2.255".parse().unwrap()));
    assert!(there.secondary);

    let tap = world.at(0, || Tap::open("eth0").unwrap());
    a.kill();
    let outage = wait("b takes over", DEADTIME * 3, || world.carries(1, SERVICE));
    assert!(outage > DEADTIME - KEEPALIVE * 2, "not before deadtime: {outage:?}");
    let mut announced = [false; 2];
    wait("b announces the address in both forms", Duration::from_secs(2), || {
        announced_by(&tap, 2, &mut announced);
        announced == [true; 2]
    });

    // The killed node's kernel still has the address. Its new run keeps the address or drops it; in the end one of the
    // two holds it alone.
    let mut a = HeartNode::start(&world, plan(0, both_links(0), service()), 101);
    wait("both are stable again", Duration::from_secs(10), || a.stable() && b.stable());
    let _ = b.state();
    let answer = b.order(Order::Standby(Holding::All));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    wait("a carries it again", Duration::from_secs(2), || {
        world.carries(0, SERVICE) && !world.carries(1, SERVICE)
    });
    let answer = a.order(Order::Leave);
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    wait("the leaver has dropped it", Duration::from_secs(5), || {
        a.hear();
        a.exited && !world.carries(0, SERVICE)
    });
    wait("b carries it", Duration::from_secs(2), || world.carries(1, SERVICE));
}

#[test]
fn a_link_goes_and_returns_and_nothing_moves() {
    let Some(world) = HeartWorld::new() else { return };
    let [mut a, mut b] = pair(&world, both_links);
    world.remove("eth1");
    wait("the loss is seen", Duration::from_secs(1), || a.link_down(0).is_some() && b.link_down(0).is_some());
    assert_eq!(a.link_down(0).unwrap(), "there is no interface eth1");
    pass(DEADTIME * 2);
    world.lay("eth1", ["10.1.0.1", "10.1.0.2"]);
    wait("the return is seen", Duration::from_secs(2), || {
        a.link_down(0).is_none() && b.link_down(0).is_none()
    });
    world.at(1, || {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.interface("eth1").unwrap().index;
        netlink.change_links(&[LinkChange::Down(index)]).unwrap();
    });
    wait("a lost carrier is seen", Duration::from_secs(2), || a.link_down(0).is_some());
    assert_eq!(a.link_down(0).unwrap(), "interface eth1 has no carrier");
    assert_eq!(b.link_down(0).unwrap(), "interface eth1 is down");
    pass(DEADTIME * 2);
    assert!(world.carries(0, SERVICE) && !world.carries(1, SERVICE), "one link is not a node");
    assert!(a.stable() && b.stable());
}

#[test]
fn an_interface_that_comes_late_is_used() {
    let Some(world) = HeartWorld::new() else { return };
    let links = |_| vec![broadcast("late0")];
    let mut nodes = [0, 1].map(|me| HeartNode::start(&world, plan(me, links(me), service()), 100));
    assert_eq!(nodes[0].link_down(0).unwrap(), "there is no interface late0");
    world.lay("late0", ["10.9.0.1", "10.9.0.2"]);
    wait("both are stable", Duration::from_secs(10), || nodes.iter_mut().all(HeartNode::stable));
    assert_eq!(nodes[0].link_down(0), None);
    wait("only a carries it", Duration::from_secs(2), || {
        world.carries(0, SERVICE) && !world.carries(1, SERVICE)
    });
}

#[test]
fn an_address_taken_away_by_others_is_put_back() {
    let Some(world) = HeartWorld::new() else { return };
    let [mut a, _b] = pair(&world, both_links);
    for _ in 0..3 {
        let there = world.addresses(0).into_iter().find(|address| address.ip.to_string() == SERVICE).unwrap();
        world.at(0, || Netlink::open().unwrap().delete_address(&there).unwrap());
        wait("it is back", Duration::from_millis(500), || world.carries(0, SERVICE));
    }
    let (status, _) = a.state();
    assert_eq!(status.groups[0].taken_away, 3, "{:?}", a.notes);
    // A network manager that restarts removes everything from the interface, and our line names neither mask nor
    // interface.
    let there = world.addresses(0);
    let ours = there.iter().find(|address| address.ip.to_string() == SERVICE).unwrap();
    for of_interface in
        there.iter().filter(|address| address.interface == ours.interface && address.ip.is_ipv4())
    {
        world.at(0, || Netlink::open().unwrap().delete_address(of_interface).unwrap());
    }
    wait("it is back without a network", Duration::from_secs(8), || {
        let now = world.addresses(0);
        let on_it = |address: &&InterfaceAddress| address.interface == ours.interface && address.ip.is_ipv4();
        now.iter().filter(on_it).map(|address| address.ip.to_string()).eq([SERVICE])
    });
}

/// The source address of this machine's own datagrams to that address.
fn source(world: &HeartWorld, node: usize, to: &str) -> String {
    let any = if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    world.at(node, || {
        let socket = UdpSocket::bind(any).unwrap();
        socket
            .connect((to.parse::<IpAddr>().unwrap(), 9))
            .map_or_else(|error| error.to_string(), |()| socket.local_addr().unwrap().ip().to_string())
    })
}

/// Removes every IPv4 address of an interface, as `ip address flush` does: until none is left. Returns the number of
/// rounds.
fn flush(world: &HeartWorld, node: usize, name: &str) -> usize {
    world.at(node, || {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.interface(name).unwrap().index;
        for round in 0..10 {
            let mut all = netlink.addresses().unwrap();
            all.retain(|address| address.interface == index && address.ip.is_ipv4());
            if all.is_empty() {
                return round;
            }
            for address in all {
                let _ = netlink.delete_address(&address);
            }
        }
        10
    })
}

fn give(world: &HeartWorld, node: usize, name: &str, ip: &str, prefix: u8) {
    world.at(node, || {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.interface(name).unwrap().index;
        netlink.add_address(&NewAddress::new(index, ip.parse().unwrap(), prefix)).unwrap();
    });
}

fn there(world: &HeartWorld, node: usize, ip: &str) -> InterfaceAddress {
    let all = world.addresses(node);
    let there = all.iter().find(|address| address.ip.to_string() == ip);
    there.unwrap_or_else(|| panic!("no {ip} in {all:?}")).clone()
}

fn ip(world: &HeartWorld, node: usize, words: &[&str]) -> String {
    let run = || std::process::Command::new("ip").args(words).output().unwrap();
    let output = world.at(node, run);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The network of the owner is restarted. Its own address comes back before the service address. The service address
/// never is a source address, and takes no route with it when it moves.
#[test]
fn a_network_that_is_restarted_has_its_own_address_first() {
    let Some(world) = HeartWorld::new() else { return };
    let [mut a, mut b] = pair(&world, both_links);
    for late in [Duration::ZERO, Duration::from_millis(1500)] {
        let rounds = flush(&world, 0, "eth0");
        assert!(rounds <= 2, "{rounds} rounds: somebody puts back what is taken away");
        pass(late);
        assert!(!world.carries(0, SERVICE), "not before the machine's own");
        give(&world, 0, "eth0", "172.23.2.1", 24);
        ip(&world, 0, &["route", "add", "default", "via", "172.23.2.99"]);
        let back = wait("it is back", Duration::from_secs(2), || world.carries(0, SERVICE));
        eprintln!("back {back:?} after the machine's own address");
        assert!(there(&world, 0, SERVICE).secondary && !there(&world, 0, "172.23.2.1").secondary);
        assert_eq!(source(&world, 0, "172.23.2.99"), "172.23.2.1");
    }
    let routes = ip(&world, 0, &["route"]);
    assert!(routes.contains("default via 172.23.2.99"), "{routes}");
    assert!(a.stable() && b.stable());
    let answer = a.order(Order::Standby(Holding::All));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    wait("b carries it", Duration::from_secs(2), || world.carries(1, SERVICE) && !world.carries(0, SERVICE));
    assert_eq!(ip(&world, 0, &["route"]), routes);
}

/// If the machine's own address does not come back, the service waits for it only for a limited time.
#[test]
fn a_service_address_does_not_wait_for_ever_for_the_machines_own() {
    let Some(world) = HeartWorld::new() else { return };
    let [mut a, _b] = pair(&world, both_links);
    flush(&world, 0, "eth0");
    let back = wait("it is back", Duration::from_secs(8), || world.carries(0, SERVICE));
    assert!(back > Duration::from_secs(4), "{back:?}");
    // It steps back when the own address comes in the end.
    give(&world, 0, "eth0", "172.23.2.1", 24);
    wait("it stands behind it", Duration::from_secs(1), || {
        world.carries(0, SERVICE)
            && !there(&world, 0, "172.23.2.1").secondary
            && there(&world, 0, SERVICE).secondary
    });
    assert_eq!(source(&world, 0, "172.23.2.99"), "172.23.2.1");
    assert_eq!(a.state().0.groups[0].taken_away, 1, "{:?}", a.notes);
}

/// The kernel promotes a service address when the machine's own address goes or comes late. As soon as the own address
/// is there, it is the first of its network, with all its routes. The service address answers all the time.
#[test]
fn a_late_own_address_goes_in_front_of_the_service_addresses() {
    let Some(world) = HeartWorld::new() else { return };
    world.at(0, || {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1").unwrap();
    });
    let mut plan = plan(0, both_links(0), service());
    plan.nodes = vec!["a".into()];
    let services =
        [(SERVICE, 24), ("172.23.2.15", 24), ("172.23.2.16", 28), ("10.77.0.9", 16), ("172.23.2.17", 32)];
    let resource = |(ip, prefix): (&str, u8)| {
        let ip: IpAddr = ip.parse().unwrap();
        let address = Address { ip, prefix: Some(prefix), interface: Some("eth0".into()), ..service() };
        let (text, args) = (ip.to_string(), vec![ip.to_string()]);
        Resource { text, script: "IPaddr".into(), args, agent: Agent::Address(address) }
    };
    plan.groups[0].resources = services.into_iter().map(resource).collect();
    let mut a = HeartNode::start(&world, plan, 100);
    wait("all stand", Duration::from_secs(10), || services.iter().all(|(ip, _)| world.carries(0, ip)));
    let own = there(&world, 0, "172.23.2.1");
    for gap in [0, 50] {
        world.at(0, || Netlink::open().unwrap().delete_address(&own).unwrap());
        pass(Duration::from_millis(gap));
        give(&world, 0, "eth0", "172.23.2.1", 24);
        ip(&world, 0, &["route", "replace", "default", "via", "172.23.2.99", "src", "172.23.2.1"]);
        wait("the machine's own is the first", Duration::from_secs(1), || {
            let all = world.addresses(0);
            let place = |ip: &str| all.iter().position(|address| address.ip.to_string() == ip);
            let own = place("172.23.2.1");
            !there(&world, 0, "172.23.2.1").secondary
                && services.iter().all(|(ip, prefix)| {
                    place(ip) > own
                        && all.iter().filter(|a| a.ip.to_string() == *ip).count() == 1
                        && there(&world, 0, ip).prefix == *prefix
                })
        });
        assert_eq!(source(&world, 0, "172.23.2.18"), "172.23.2.1");
        assert_eq!(source(&world, 0, "192.0.2.1"), "172.23.2.1");
    }
    let routes = ip(&world, 0, &["route"]);
    assert!(routes.contains("default via 172.23.2.99 dev eth0 src 172.23.2.1"), "{routes}");
    assert_eq!(a.state().0.groups[0].taken_away, 0, "{:?}", a.notes);
    assert!(matches!(a.order(Order::Leave), Answer::Done(_)));
    wait("they are gone", Duration::from_secs(5), || !services.iter().any(|(ip, _)| world.carries(0, ip)));
    assert!(world.carries(0, "172.23.2.1"));
    let own_routes = |routes: &str| {
        routes.lines().filter(|line| !line.starts_with("10.77")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(own_routes(&ip(&world, 0, &["route"])), own_routes(&routes));
}

/// IPv6: neither the machine nor the links send from a service address, and its lifetime differs from that of the
/// network's route.
#[test]
fn an_ipv6_service_address_is_no_source() {
    let Some(world) = HeartWorld::new() else { return };
    for (node, ip) in ["2001:db8:8::1", "2001:db8:8::2"].into_iter().enumerate() {
        world.at(node, || {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.interface("eth0").unwrap().index;
            let new = NewAddress::new(index, ip.parse().unwrap(), 64);
            netlink.add_address(&new).unwrap();
        });
    }
    let resource = |ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        let address = Address { ip, prefix: Some(64), interface: Some("eth0".into()), ..service() };
        let (text, args) = (ip.to_string(), vec![ip.to_string()]);
        Resource { text, script: "IPv6addr".into(), args, agent: Agent::Address(address) }
    };
    let unicast =
        |peer: &str| R1Medium::Unicast { interface: "eth0".into(), peer: peer.parse().unwrap(), port: 694 };
    let media = vec![unicast("2001:db8:8::1"), unicast("2001:db8:8::2")];
    let mut nodes = [0, 1].map(|me| {
        let mut plan = plan(me, vec![R1Link { name: "eth0".into(), media: media.clone() }], service());
        plan.groups[0].resources =
            vec![resource("2001:db8:8::50"), resource("2001:db8:8::51"), resource("2001:db8:9::50")];
        HeartNode::start(&world, plan, 100)
    });
    wait("both are stable", Duration::from_secs(20), || nodes.iter_mut().all(HeartNode::stable));
    wait("all stand", Duration::from_secs(2), || world.carries(0, "2001:db8:9::50"));
    assert_eq!(source(&world, 0, "2001:db8:8::9"), "2001:db8:8::1");
    assert_eq!(source(&world, 0, "2001:db8:9::9"), "2001:db8:9::50", "nothing else is in that network");
    let tap = world.at(1, || Tap::open("eth0").unwrap());
    let mut frame = [0; 2048];
    let mut heard = 0;
    wait("frames come", Duration::from_secs(5), || {
        while let Some(came) = tap.receive(&mut frame).unwrap() {
            let frame = &frame[..came.length];
            let is_udp = frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&17);
            if is_udp && frame[6..12] == [2, 0, 0, 0, b'0', 1] {
                assert_eq!(frame[22..38], "2001:db8:8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
                heard += 1;
            }
        }
        heard > 5
    });
    // The machine's own address goes and comes back.
    let own = there(&world, 0, "2001:db8:8::1");
    world.at(0, || Netlink::open().unwrap().delete_address(&own).unwrap());
    wait("it is a source again", Duration::from_secs(1), || {
        source(&world, 0, "2001:db8:8::9").starts_with("2001:db8:8::5")
    });
    give(&world, 0, "eth0", "2001:db8:8::1", 64);
    wait("and no more", Duration::from_secs(3), || source(&world, 0, "2001:db8:8::9") == "2001:db8:8::1");
    let [mut a, mut b] = nodes;
    wait("both are stable again", Duration::from_secs(10), || a.stable() && b.stable());
    // A move: neither node takes an address that the other one put.
    let answer = a.order(Order::Standby(Holding::All));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    wait("b carries all", Duration::from_secs(2), || world.carries(1, "2001:db8:9::50"));
    pass(Duration::from_millis(300));
    for node in [&mut a, &mut b] {
        assert_eq!(node.state().0.groups[0].taken_away, 0, "{:?}", node.notes);
        assert!(!node.notes.iter().any(|note| note.contains("was taken from")), "{:?}", node.notes);
    }
}

/// Groups with addresses of both families are started and moved repeatedly. Late notifications of the kernel must not
/// look like addresses taken by another program.
#[test]
fn what_the_kernel_tells_late_was_taken_by_nobody() {
    let Some(world) = HeartWorld::new() else { return };
    let families = ["172.23.2.14", "fd00:1::14", "fd00:1::15", "172.23.2.15", "fd00:1::16"];
    let resource = |ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        let prefix = Some(if ip.is_ipv4() { 24 } else { 64 });
        let address = Address { ip, prefix, interface: Some("eth0".into()), ..service() };
        let (text, args) = (ip.to_string(), vec![ip.to_string()]);
        Resource { text, script: "IPaddr".into(), args, agent: Agent::Address(address) }
    };
    let mut nodes = [0, 1].map(|me| {
        let mut plan = plan(me, both_links(me), service());
        plan.groups[0].resources = families.map(resource).into();
        HeartNode::start(&world, plan, 100)
    });
    wait("both are stable", Duration::from_secs(20), || nodes.iter_mut().all(HeartNode::stable));
    for round in 0..6 {
        let owner = round % 2;
        wait("all stand", Duration::from_secs(2), || families.iter().all(|ip| world.carries(owner, ip)));
        let answer = nodes[owner].order(Order::Standby(Holding::All));
        assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
        wait("stable", Duration::from_secs(10), || nodes.iter_mut().all(HeartNode::stable));
    }
    for node in &mut nodes {
        assert_eq!(node.state().0.groups[0].taken_away, 0, "{:?}", node.notes);
    }
}

/// Another machine on the segment has the address, before the start and later. It is named, and answered at once, so
/// that caches keep our answer. An address that is not contested is announced again from time to time.
#[test]
fn another_machine_with_the_address_is_answered_and_named() {
    let Some(world) = HeartWorld::new() else { return };
    let (v4, v6) = (SERVICE, "fd00:1::14");
    for (ip, prefix) in [(v4, 24), (v6, 64)] {
        give(&world, 1, "eth0", ip, prefix);
    }
    pass(Duration::from_millis(100));
    let mut plan = plan(0, vec![broadcast("eth1")], service());
    plan.nodes = vec!["a".into()];
    let address =
        Address { prefix: Some(64), interface: Some("eth0".into()), ip: v6.parse().unwrap(), ..service() };
    let (text, args) = (v6.to_string(), vec![v6.to_string()]);
    plan.groups[0].resources.push(Resource {
        text,
        script: "IPv6addr".into(),
        args,
        agent: Agent::Address(address),
    });
    let mut a = HeartNode::start(&world, plan, 100);
    wait("both stand", Duration::from_secs(10), || world.carries(0, v4) && world.carries(0, v6));
    wait("both are named", Duration::from_secs(2), || {
        let rivals = a.state().1.rivals;
        [v4, v6].iter().all(|ip| {
            rivals.iter().any(|rival| {
                rival.address == *ip && rival.mac == "02:00:00:00:30:02" && rival.interface == "eth0"
            })
        })
    });
    for ip in [v4, v6] {
        let says = format!("{ip} is also announced by another machine, 02:00:00:00:30:02 on eth0");
        assert_eq!(a.notes.iter().filter(|note| note.contains(&says)).count(), 1, "{:?}", a.notes);
    }
    for ip in [v4, v6] {
        let theirs = there(&world, 1, ip);
        world.at(1, || Netlink::open().unwrap().delete_address(&theirs).unwrap());
    }
    // The announcements of the start, and the answer to the probe, are over.
    pass(Duration::from_secs(8));
    let tap = world.at(1, || Tap::open("eth0").unwrap());
    let mut heard = [false; 2];
    announced_by(&tap, 1, &mut heard);
    world.at(1, || {
        let eth0 = Netlink::open().unwrap().interface("eth0").unwrap();
        let announcer = locum_sys::announce::Announcer::open().unwrap();
        announcer.announce(&eth0, v4.parse().unwrap(), locum_sys::announce::AnnouncementForm::Reply).unwrap();
    });
    let mut heard = [false; 2];
    let took = wait("it is answered", Duration::from_secs(2), || {
        announced_by(&tap, 1, &mut heard);
        heard[0] || heard[1]
    });
    eprintln!("answered after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    pass(Duration::from_secs(2));
    let mut heard = [false; 2];
    announced_by(&tap, 1, &mut heard);
    let mut heard = [false; 2];
    wait("and now and then again", Duration::from_secs(70), || {
        announced_by(&tap, 1, &mut heard);
        heard == [true; 2]
    });
}

/// The service address is the machine's own, which may not be removed: it is not started, and stays.
#[test]
fn an_address_of_the_machine_itself_is_left_alone() {
    let Some(world) = HeartWorld::new() else { return };
    for ip in ["fd00:1::1", "172.23.2.1"] {
        if ip.contains(':') {
            give(&world, 0, "eth0", ip, 64);
        }
        let own =
            Address { ip: ip.parse().unwrap(), prefix: None, interface: Some("eth0".into()), ..service() };
        let links = vec![broadcast("eth1")];
        let mut a = HeartNode::start(&world, R1Plan { nodes: vec!["a".into()], ..plan(0, links, own) }, 100);
        wait("that is told", Duration::from_secs(10), || {
            a.hear();
            a.notes.iter().any(|note| note.contains("Locum did not put it there"))
        });
        pass(Duration::from_millis(300));
        assert!(world.carries(0, ip));
        assert!(matches!(a.order(Order::Leave), Answer::Done(_)));
        wait("it leaves", Duration::from_secs(5), || {
            a.hear();
            a.exited
        });
        assert!(world.carries(0, ip));
        a.kill();
    }
}

/// An address that another program put on another interface stays, even if it is the service address.
#[test]
fn a_twin_of_the_service_address_on_another_interface_is_left_alone() {
    let Some(world) = HeartWorld::new() else { return };
    let plan = R1Plan { nodes: vec!["a".into()], ..plan(0, vec![broadcast("eth1")], service()) };
    let mut a = HeartNode::start(&world, plan, 100);
    wait("the address is there", Duration::from_secs(10), || {
        a.hear();
        world.carries(0, SERVICE)
    });
    give(&world, 0, "eth1", SERVICE, 24);
    assert!(matches!(a.order(Order::Leave), Answer::Done(_)));
    wait("it leaves", Duration::from_secs(5), || {
        a.hear();
        a.exited
    });
    let left: Vec<_> =
        world.addresses(0).into_iter().filter(|there| there.ip.to_string() == SERVICE).collect();
    let eth1 = world.at(0, || Netlink::open().unwrap().interface("eth1").unwrap().index);
    assert!(matches!(&left[..], [there] if there.interface == eth1), "{left:?}");
}

/// `SendArp` announces an address that another program carries, and does not touch it.
#[test]
fn an_address_of_somebody_else_is_announced_and_left_alone() {
    let Some(world) = HeartWorld::new() else { return };
    let spoken = Address { interface: Some("eth0".into()), ..service() };
    let tap = world.at(1, || Tap::open("eth0").unwrap());
    let mut plan = R1Plan { nodes: vec!["a".into()], ..plan(0, both_links(0), spoken.clone()) };
    plan.groups[0].resources[0].agent = Agent::SendArp(spoken);
    let mut a = HeartNode::start(&world, plan, 100);
    let mut announced = [false; 2];
    wait("it is announced in both forms", Duration::from_secs(10), || {
        a.hear();
        announced_by(&tap, 1, &mut announced);
        announced == [true; 2]
    });
    assert!(!world.carries(0, SERVICE), "nothing was put anywhere");
    wait("the group runs", Duration::from_secs(5), || a.state().0.groups[0].owner.is_some());
    assert!(matches!(a.order(Order::Leave), Answer::Done(_)));
    while tap.receive(&mut [0; 2048]).unwrap().is_some() {}
    pass(Duration::from_millis(600));
    let mut after = [false; 2];
    announced_by(&tap, 1, &mut after);
    assert_eq!(after, [false; 2], "nobody is told any more");
}

#[test]
fn a_place_that_does_not_exist_is_told_with_the_cure() {
    let Some(world) = HeartWorld::new() else { return };
    let nowhere = Address { ip: "192.0.2.7".parse().unwrap(), ..service() };
    let links = both_links(0);
    let mut a = HeartNode::start(&world, R1Plan { nodes: vec!["a".into()], ..plan(0, links, nowhere) }, 100);
    wait("the failure is told", Duration::from_secs(10), || {
        a.hear();
        a.notes.iter().any(|note| note.contains("write the mask and the interface, as in 192.0.2.7/24/eth0"))
    });
}

#[test]
fn an_address_stands_as_it_is_written() {
    let Some(world) = HeartWorld::new() else { return };
    let address = Address {
        ip: "172.23.2.77".parse().unwrap(),
        prefix: Some(28),
        interface: Some("eth1".into()),
        label: Some("eth1:web".into()),
        broadcast: Some("172.23.2.79".parse().unwrap()),
        by_route: false,
    };
    let mut a = HeartNode::start(
        &world,
        R1Plan { nodes: vec!["a".into()], ..plan(0, both_links(0), address.clone()) },
        100,
    );
    wait("a carries it", Duration::from_secs(5), || world.carries(0, "172.23.2.77"));
    let there = world.addresses(0).into_iter().find(|there| there.ip == address.ip).unwrap();
    assert_eq!(
        (Some(there.prefix), there.label, there.broadcast),
        (Some(28), address.label, address.broadcast)
    );
    let eth1 = world.at(0, || Netlink::open().unwrap().interface("eth1").unwrap().index);
    assert_eq!(there.interface, eth1, "where it is written, although eth0 has the network");
    assert!(matches!(a.order(Order::Leave), Answer::Done(_)));
    wait("it is gone", Duration::from_secs(5), || !world.carries(0, "172.23.2.77"));
}

#[test]
fn ipv6_with_mask_and_interface_of_its_own() {
    let Some(world) = HeartWorld::new() else { return };
    let address = Address {
        ip: "fd00::14".parse().unwrap(),
        prefix: Some(64),
        interface: Some("eth0".into()),
        label: None,
        broadcast: None,
        by_route: false,
    };
    let mut a =
        HeartNode::start(&world, R1Plan { nodes: vec!["a".into()], ..plan(0, both_links(0), address) }, 100);
    wait("a carries it", Duration::from_secs(5), || world.carries(0, "fd00::14"));
    assert!(a.stable());
}

#[test]
fn every_kind_of_udp_link_and_a_ping_node() {
    let Some(world) = HeartWorld::new() else { return };
    // The same lines on both nodes: one of the unicast lines names the node itself.
    let unicast =
        |peer: &str| R1Medium::Unicast { interface: "eth1".into(), peer: peer.parse().unwrap(), port: 695 };
    let multicast = |group: &str| R1Medium::Multicast {
        interface: "eth0".into(),
        group: group.parse().unwrap(),
        port: 694,
        ttl: 1,
        loopback: false,
    };
    let links = vec![
        R1Link { name: "eth1".into(), media: vec![unicast("10.1.0.1"), unicast("10.1.0.2")] },
        R1Link { name: "eth0".into(), media: vec![multicast("239.0.0.43"), multicast("ff02::43")] },
    ];
    let ping = |name: &str, members: &[&str]| PingNode {
        name: name.into(),
        members: members.iter().map(|ip| ip.parse().unwrap()).collect(),
        is_group: members.len() > 1,
    };
    let pings = vec![ping("10.1.0.2", &["10.1.0.2"]), ping("nobody", &["10.1.0.77", "fd00::77"])];
    let mut nodes = [0, 1].map(|me| {
        HeartNode::start(&world, R1Plan { pings: pings.clone(), ..plan(me, links.clone(), service()) }, 100)
    });
    wait("both are stable", Duration::from_secs(10), || nodes.iter_mut().all(HeartNode::stable));
    for (link, frames) in [(0, 20), (1, 20)] {
        wait("frames come on each link", Duration::from_secs(5), || {
            nodes.iter_mut().all(|node| node.state().1.links[link].frames_in > frames)
        });
    }
    wait("the ping node answers, nobody does not", Duration::from_secs(5), || {
        let pings = nodes[0].state().0.pings;
        pings[0].liveness == Liveness::Alive && pings[1].liveness != Liveness::Alive
    });
}

#[test]
fn the_doctor_measures() {
    let Some(_world) = HeartWorld::new() else { return };
    let nowhere = tempfile::tempdir().unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_locum"))
        .args(["doctor", "--heart", "--seconds", "1", "--load", "--json", "--run"])
        .arg(nowhere.path())
        .output()
        .unwrap();
    assert!(matches!(run.status.code(), Some(0 | 1)), "{run:?}");
    let findings: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    for row in ["idle", "load"] {
        let ticks = findings[row]["count"].as_u64().unwrap();
        assert!((95..=101).contains(&ticks), "{findings}");
        assert!(findings[row]["p50_us"].as_u64() <= findings[row]["max_us"].as_u64());
    }
    assert_eq!(run.status.code() == Some(1), findings["realtime_refused"].is_string());
}

/// A null-modem cable: two pseudo terminals and a thread between.
struct Cable {
    devices: [PathBuf; 2],
    cut: Arc<AtomicBool>,
}

impl Cable {
    fn new() -> Self {
        let end = || {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
            // An open slave keeps the master readable while no other process has it open.
            let slave = File::options().read(true).write(true).open(&name).unwrap();
            (File::from(master), slave, PathBuf::from(name))
        };
        let ((a, a_slave, a_name), (b, b_slave, b_name)) = (end(), end());
        let cut = Arc::new(AtomicBool::new(false));
        for (mut from, mut to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
            let cut = Arc::clone(&cut);
            let slaves = [a_slave.try_clone().unwrap(), b_slave.try_clone().unwrap()];
            thread::spawn(move || {
                let _open = slaves;
                let mut buffer = [0; 4096];
                while let Ok(length) = from.read(&mut buffer) {
                    if !cut.load(Ordering::Relaxed) {
                        let _ = to.write_all(&buffer[..length]);
                    }
                }
            });
        }
        Self { devices: [a_name, b_name], cut }
    }
}

#[test]
fn a_serial_line_alone_makes_a_cluster_and_a_mute_one_is_seen() {
    let Some(world) = HeartWorld::new() else { return };
    let cable = Cable::new();
    let [mut a, mut b] = pair(&world, |me| vec![serial(&cable.devices[me])]);
    wait("beats pass", Duration::from_secs(5), || {
        let link = &a.state().1.links[0];
        link.frames_in > 10 && link.frames_out > 10
    });
    let (status, stats) = a.state();
    assert_eq!((stats.links[0].overtaken, stats.links[0].errors_out), (0, 0), "{stats:?}");
    // Opening a line drops what waits in it: the first frame may be a mix of two.
    let torn: u64 = status.frames.refused.values().sum();
    assert!(torn <= 2, "{:?}", status.frames.refused);
    cable.cut.store(true, Ordering::Relaxed);
    wait("the only link is gone: b takes over", DEADTIME * 3, || world.carries(1, SERVICE));
    cable.cut.store(false, Ordering::Relaxed);
    wait("one stops after the heal", Duration::from_secs(5), || {
        a.stable() && b.stable() && world.carries(0, SERVICE) != world.carries(1, SERVICE)
    });
}

#[test]
fn a_flood_delays_no_beat() {
    let Some(world) = HeartWorld::new() else { return };
    let [mut a, mut b] = pair(&world, both_links);
    let before = b.state().1;
    let (socket, stop) = (world.at(0, || UdpSocket::bind("10.1.0.1:0").unwrap()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let junk = [b'#'; 300];
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(&junk, "10.1.0.2:694");
            }
        });
        pass(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
    });
    let (status, after) = b.state();
    let read = after.links[0].frames_in - before.links[0].frames_in;
    let refused: u64 = status.frames.refused.values().sum();
    eprintln!(
        "flood: {read} read, {refused} refused, {} dropped by the kernel, {} breaths, lateness {:?}",
        after.links[0].dropped_in, after.yields, after.lateness
    );
    assert!(read > 3000, "only {read} frames were read");
    assert!(refused >= read / 2, "junk is refused");
    assert!(world.carries(0, SERVICE) && !world.carries(1, SERVICE), "{:?} {:?}", a.notes, b.notes);
    assert!(a.stable() && b.stable());
}

#[test]
fn the_control_plane_waits_for_the_heart_without_polling() {
    let Some(world) = HeartWorld::new() else { return };
    let mut node = HeartNode::start(&world, plan(0, both_links(0), service()), 100);
    let progress = node.handle.progress();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        node.handle.send(Down::Measure(Duration::from_millis(300))).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        node.handle.send(Down::Status { request: 7 }).unwrap();
        loop {
            // A dropped future loses no message.
            let waited = tokio::time::timeout(Duration::from_micros(100), node.handle.next()).await;
            if let Ok(Up::Status { request: 7, heart, .. }) = waited {
                return heart;
            }
        }
    });
    let measured = text.measured.unwrap();
    assert!((25..=31).contains(&measured.count), "{measured:?}");
    assert!(node.handle.progress() > progress);
}
