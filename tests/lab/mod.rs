//! The rack: it is built as described, and leaves nothing behind. Where no rack can be built, one line says so.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use locum_lab::{
    Description, Fault, Impairment, Program, Rack, RelayDirection, WatchSpec,
    clock::{Moment, await_some, pause},
    timeline::Span,
};
use locum_sys::netlink::Netlink;

mod commands;
mod demo;
mod gate;
mod machines;
mod native;
pub(crate) mod questions;
mod scale;
mod unprivileged;

/// The program under test.
pub(crate) const LOCUM: &str = env!("CARGO_BIN_EXE_locum");
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);

/// The article's two machines and a client.
fn pair() -> Description {
    Description::new(Path::new(LOCUM))
        .node("clustnode1")
        .node("clustnode2")
        .node("client")
        .segment(
            "lan",
            &[
                ("clustnode1", "eth0", "172.23.2.12/24"),
                ("clustnode2", "eth0", "172.23.2.13/24"),
                ("client", "eth0", "172.23.2.100/24"),
            ],
        )
        .crossover(
            "crossover",
            [("clustnode1", "eth1", "10.0.0.1/24"), ("clustnode2", "eth1", "10.0.0.2/24")],
        )
        .line("null modem", ("clustnode1", "ttyS0"), ("clustnode2", "ttyS0"))
}

/// Builds a rack, or prints one line with the reason why it cannot be built.
pub(crate) fn build(description: Description) -> Option<Rack> {
    match Rack::build(description) {
        Ok(rack) => Some(rack),
        Err(missing @ Fault::Missing { .. }) => {
            crate::skipped(format!("{missing}; or run the tests under: locum lab enter cargo test"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn both_watched(ask: bool) -> WatchSpec {
    WatchSpec {
        client: "client".into(),
        network: "lan".into(),
        services: vec![SERVICE],
        page: Some(SocketAddrV4::new(SERVICE, 80)),
        nodes: vec!["clustnode1".into(), "clustnode2".into()],
        ask,
        ..WatchSpec::default()
    }
}

fn text(rack: &Rack, node: &str, words: &[&str]) -> String {
    let outcome = rack.run(node, &Program::new(words), Duration::from_secs(10)).unwrap();
    assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.text);
    outcome.text
}

#[test]
fn a_node_has_everything_of_its_own() {
    let Some(rack) = build(pair()) else { return };
    let shell = |node: &str, line: &str| text(&rack, node, &["/bin/sh", "-c", line]);
    assert_eq!(shell("clustnode1", "read name < /proc/sys/kernel/hostname; echo $name"), "clustnode1\n");
    assert_eq!(shell("clustnode2", "read name < /proc/sys/kernel/hostname; echo $name"), "clustnode2\n");
    shell("clustnode1", "echo mine > /var/log/locum-lab-test; echo mine > /run/here; echo mine > /tmp/here");
    assert!(rack.disk("clustnode1").join("log/locum-lab-test").exists());
    assert!(rack.volatile("clustnode1").join("here").exists());
    for elsewhere in ["/var/log/locum-lab-test", "/run/here"] {
        assert!(!Path::new(elsewhere).exists(), "the host has {elsewhere}");
        shell("clustnode2", &format!("test ! -e {elsewhere}"));
    }
    // Its first process is the holder; the first program has the second number.
    let processes = shell("clustnode1", "echo /proc/[0-9]*");
    assert!(processes.starts_with("/proc/1 ") && processes.split_whitespace().count() <= 3, "{processes}");
}

#[test]
fn the_null_modem_carries_bytes_until_it_is_cut() {
    let Some(rack) = build(pair()) else { return };
    let listen =
        Program::new(&["/bin/sh", "-c", "while read word; do echo $word >> /run/heard; done < /run/ttyS0"]);
    let _listener = rack.start("clustnode2", &listen).unwrap();
    let heard = || fs::read_to_string(rack.volatile("clustnode2").join("heard")).unwrap_or_default();
    let say =
        |word: &str| text(&rack, "clustnode1", &["/bin/sh", "-c", &format!("echo {word} > /run/ttyS0")]);
    pause(Duration::from_millis(100));
    say("before");
    assert!(await_some(Duration::from_secs(5), || heard().contains("before").then_some(())).is_some());
    rack.cut_line("null modem", true).unwrap();
    say("during");
    pause(Duration::from_millis(100));
    rack.cut_line("null modem", false).unwrap();
    say("after");
    assert!(await_some(Duration::from_secs(5), || heard().contains("after").then_some(())).is_some());
    assert_eq!(heard(), "before\nafter\n");
}

#[test]
fn the_probes_see_a_cut_and_a_loss_of_power() {
    let Some(mut rack) = build(pair()) else { return };
    rack.watch(both_watched(false)).unwrap();
    rack.add_address("clustnode1", "eth0", SERVICE.into(), 24).unwrap();
    text(&rack, "clustnode1", &["locum", "demo-httpd", "start"]);
    let pages = |rack: &Rack| rack.record().pages;
    assert!(await_some(Duration::from_secs(5), || (pages(&rack).len() > 20).then_some(())).is_some());
    assert_eq!(pages(&rack)[0].text, "hello world from clustnode1");

    let begin = Moment::now();
    rack.cut("lan", "clustnode1").unwrap();
    pause(Duration::from_millis(300));
    rack.mend("lan", "clustnode1").unwrap();
    pause(Duration::from_millis(300));
    let record = rack.record();
    let window = Span::new(begin, begin + Duration::from_millis(550));
    let echo = record.outage(SERVICE, window).expect("answers before and after");
    let echo = echo.to.since(echo.from);
    assert!((300..2000).contains(&echo.as_millis()), "{echo:?}");
    let page = record.page_outage(window).expect("pages before and after");
    assert!(page.to.since(page.from) >= Duration::from_millis(290));

    rack.power_off("clustnode1").unwrap();
    assert!(!rack.is_on("clustnode1"));
    assert_eq!(rack.record().holders(SERVICE.into()), Vec::<&str>::new());
    assert!(rack.run("clustnode1", &Program::new(&["true"]), Duration::from_secs(1)).is_err());
    // The next owner does not announce the address here, so the client asks anew when its neighbour entry has expired.
    rack.add_address("clustnode2", "eth0", SERVICE.into(), 24).unwrap();
    let told = || (rack.record().holders(SERVICE.into()) == ["clustnode2"]).then_some(());
    assert!(await_some(Duration::from_secs(5), told).is_some());
}

#[test]
fn power_comes_back_to_the_disk_as_it_was() {
    let Some(mut rack) = build(pair()) else { return };
    text(&rack, "clustnode1", &["/bin/sh", "-c", "echo kept > /run/disk/kept; echo lost > /run/lost"]);
    let mut server = rack.start("clustnode1", &Program::new(&["locum", "demo-httpd", "serve"])).unwrap();
    rack.power_off("clustnode1").unwrap();
    assert!(server.wait(Duration::from_secs(5)).is_some(), "a process outlived the power");
    assert!(rack.power_off("clustnode1").is_err());
    rack.power_on("clustnode1").unwrap();
    assert!(rack.power_on("clustnode1").is_err());
    assert_eq!(
        text(
            &rack,
            "clustnode1",
            &["/bin/sh", "-c", "echo /run/lost; read word < /run/disk/kept; echo $word"]
        ),
        "/run/lost\nkept\n"
    );
    assert!(!rack.volatile("clustnode1").join("lost").exists());
    // Its cables are plugged in again.
    rack.watch(WatchSpec { services: vec![Ipv4Addr::new(172, 23, 2, 12)], ..both_watched(false) }).unwrap();
    let answered = || rack.look(|record| !record.echoes.is_empty()).unwrap_or(false).then_some(());
    assert!(await_some(Duration::from_secs(5), answered).is_some());
}

/// Checks the instruments: two nodes are made to hold and answer for a known time.
#[test]
fn two_holders_are_seen() {
    let Some(mut rack) = build(pair()) else { return };
    rack.watch(both_watched(true)).unwrap();
    rack.add_address("clustnode1", "eth0", SERVICE.into(), 24).unwrap();
    pause(Duration::from_millis(200));
    let begin = Moment::now();
    rack.add_address("clustnode2", "eth0", SERVICE.into(), 24).unwrap();
    pause(Duration::from_millis(300));
    rack.remove_address("clustnode1", SERVICE.into()).unwrap();
    pause(Duration::from_millis(200));
    let window = Span::new(begin - Duration::from_millis(100), Moment::now());
    let record = rack.record();
    let (hold, answer) = (record.two_hold(SERVICE.into(), window), record.two_answer(SERVICE, window));
    assert!((290..2000).contains(&hold.as_millis()), "two held for {hold:?}");
    assert!((250..2000).contains(&answer.as_millis()), "two answered for {answer:?}");
    assert_eq!(record.holders(SERVICE.into()), ["clustnode2"]);
    // A single holder does not count as two.
    let before = Span::new(begin - Duration::from_millis(200), begin);
    assert_eq!(record.two_hold(SERVICE.into(), before), Duration::ZERO);
}

#[test]
fn a_relay_loses_and_delays_as_it_is_told() {
    let Some(mut rack) = build(pair().relayed(7)) else { return };
    let address = Ipv4Addr::new(172, 23, 2, 12);
    rack.watch(WatchSpec { services: vec![address], ..both_watched(false) }).unwrap();
    let echoes = |rack: &Rack| rack.record().echoes.get(&address).map_or(0, Vec::len);
    assert!(await_some(Duration::from_secs(5), || (echoes(&rack) > 100).then_some(())).is_some());

    let lossy = Impairment { loss: 0.2, ..Impairment::default() };
    rack.impair("lan", "clustnode1", RelayDirection::FromNode, lossy).unwrap();
    pause(Duration::from_secs(1));
    let counters = rack.counters("lan", "clustnode1", RelayDirection::FromNode).unwrap();
    assert!(counters.lost > 50, "{counters:?}");
    assert_eq!(rack.counters("lan", "clustnode1", RelayDirection::ToNode).unwrap().lost, 0);
    println!("the relay's own delay: {:?} / {:?}", counters.own_delay_median, counters.own_delay_p99);

    // A cut in one direction only: questions arrive, answers do not.
    rack.impair(
        "lan",
        "clustnode1",
        RelayDirection::FromNode,
        Impairment { loss: 1.0, ..Impairment::default() },
    )
    .unwrap();
    pause(Duration::from_millis(50));
    let (before, asked) =
        (echoes(&rack), rack.counters("lan", "clustnode1", RelayDirection::ToNode).unwrap().passed);
    pause(Duration::from_millis(200));
    assert_eq!(echoes(&rack), before);
    assert!(rack.counters("lan", "clustnode1", RelayDirection::ToNode).unwrap().passed > asked);
    assert!(rack.impair("no such network", "clustnode1", RelayDirection::ToNode, lossy).is_err());
}

/// Sends numbered datagrams from one node to another.
#[test]
fn a_relay_delays_doubles_and_swaps() {
    let Some(rack) = build(pair().relayed(11)) else { return };
    let socket = |node: &str, address: &'static str| {
        rack.inside(node, move || UdpSocket::bind((address, 5000))).unwrap().unwrap()
    };
    let (sender, receiver) = (socket("clustnode1", "172.23.2.12"), socket("clustnode2", "172.23.2.13"));
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let impair = |impairment| rack.impair("lan", "clustnode2", RelayDirection::ToNode, impairment).unwrap();
    let send = |number: u8| sender.send_to(&[number], ("172.23.2.13", 5000)).unwrap();
    let receive = || {
        let mut number = [0];
        receiver.recv(&mut number).ok().map(|_| number[0])
    };
    // Fills the neighbour caches, so that ARP does not take part in the rest.
    send(0);
    assert_eq!(receive(), Some(0));

    let delay = Duration::from_millis(60);
    impair(Impairment { delay, ..Impairment::default() });
    let begin = Moment::now();
    send(1);
    assert_eq!(receive(), Some(1));
    let took = Moment::now().since(begin);
    assert!((delay..delay * 20).contains(&took), "{took:?}");

    impair(Impairment { duplicate: 1.0, ..Impairment::default() });
    send(2);
    assert_eq!([receive(), receive()], [Some(2); 2]);

    impair(Impairment { reorder: 0.3, ..Impairment::default() });
    for number in 100..200 {
        send(number);
        pause(Duration::from_millis(1));
    }
    let order: Vec<u8> = std::iter::from_fn(receive).collect();
    let swapped = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 100, "{order:?}");
    assert!(swapped > 5, "{order:?}");
}

#[test]
fn a_pulled_cable_takes_the_carrier_and_a_cut_behind_the_port_does_not() {
    let Some(mut rack) = build(pair()) else { return };
    let carrier = |rack: &Rack, node: &str, interface: &'static str| {
        let look = move || Netlink::open().and_then(|mut netlink| netlink.interface(interface));
        rack.inside(node, look).unwrap().unwrap().carrier
    };
    let becomes = |rack: &Rack, node: &str, interface: &'static str, wanted: bool| {
        await_some(Duration::from_secs(5), || (carrier(rack, node, interface) == wanted).then_some(()))
            .is_some()
    };
    rack.unplug("lan", "clustnode1").unwrap();
    assert!(becomes(&rack, "clustnode1", "eth0", false) && carrier(&rack, "clustnode2", "eth0"));
    rack.plug("lan", "clustnode1").unwrap();
    assert!(becomes(&rack, "clustnode1", "eth0", true));
    rack.cut("lan", "clustnode1").unwrap();
    pause(Duration::from_millis(100));
    assert!(carrier(&rack, "clustnode1", "eth0"));
    // A cable without a machine at its other end has no carrier; a switch keeps it.
    rack.power_off("clustnode2").unwrap();
    assert!(becomes(&rack, "clustnode1", "eth1", false) && carrier(&rack, "clustnode1", "eth0"));
    rack.power_on("clustnode2").unwrap();
    assert!(becomes(&rack, "clustnode1", "eth1", true) && becomes(&rack, "clustnode2", "eth1", true));
}

#[test]
fn a_tap_hears_the_node_and_speaks_to_it_behind_a_cut() {
    let Some(mut rack) = build(pair()) else { return };
    rack.cut("lan", "clustnode1").unwrap();
    let tap = rack.tap("lan", "clustnode1").unwrap();
    let socket = rack.inside("clustnode1", || UdpSocket::bind(("172.23.2.12", 0))).unwrap().unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(b"from the node", ("172.23.2.255", 5001)).unwrap();
    let mut buffer = [0; 2048];
    let heard = || {
        let got = tap.receive(&mut buffer).ok().flatten()?;
        buffer[..got.length].ends_with(b"from the node").then_some(())
    };
    assert!(await_some(Duration::from_secs(5), heard).is_some());
}

/// Kills a process that holds a rack, and looks for leftovers on the host.
#[test]
fn a_killed_rack_leaves_nothing_on_the_host() {
    if build(pair()).is_none() {
        return;
    }
    let before = host();
    let this = std::env::current_exe().unwrap();
    let mut keeper = Command::new(this)
        .args(["--exact", "lab::a_dropped_rack_leaves_nothing_on_the_host", "--nocapture"])
        .env(UNTIL_KILLED, "")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(keeper.stdout.take().unwrap());
    let mut holders = BTreeSet::new();
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0 && !line.starts_with("rack stands")
    {
        line.clear();
    }
    for process in processes() {
        if parent(process) == Some(keeper.id()) {
            holders.insert(process);
        }
    }
    assert!(holders.len() >= 4, "three holders and a server: {holders:?}");
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    let gone = || processes().is_disjoint(&holders).then_some(());
    assert!(await_some(Duration::from_secs(5), gone).is_some(), "processes are left");
    assert_eq!(host(), before);
}

/// Set for a second process of this test, which is to be killed.
const UNTIL_KILLED: &str = "LOCUM_TEST_UNTIL_KILLED";

#[test]
fn a_dropped_rack_leaves_nothing_on_the_host() {
    let before = host();
    let Some(rack) = build(pair()) else { return };
    let server = rack.start("clustnode1", &Program::new(&["locum", "demo-httpd", "serve"])).unwrap();
    if std::env::var_os(UNTIL_KILLED).is_some() {
        println!("\nrack stands");
        pause(Duration::from_secs(60));
    }
    let process = server.id();
    drop((server, rack));
    assert!(await_some(Duration::from_secs(5), || (!processes().contains(&process)).then_some(())).is_some());
    assert_eq!(host(), before);
}

/// Everything of a rack that might remain on the host: interfaces, mounts, files in the directories that it covers.
fn host() -> [BTreeSet<String>; 4] {
    let names = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    [names("/sys/class/net"), mounts.lines().map(str::to_owned).collect(), names("/run"), names("/var/log")]
}

fn processes() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn names_that_are_none_are_refused() {
    let Some(mut rack) = build(pair()) else { return };
    assert!(rack.cut("lan", "clustnode3").is_err());
    assert!(rack.unplug("wan", "clustnode1").is_err());
    assert!(rack.cut_line("lan", true).is_err());
    assert!(rack.power_on("clustnode3").is_err());
    let ip: IpAddr = SERVICE.into();
    assert!(rack.remove_address("clustnode1", ip).is_err());
    let fault = rack.impair("lan", "clustnode1", RelayDirection::ToNode, Impairment::default()).unwrap_err();
    assert_eq!(fault.to_string(), "lan has no relays");
}
