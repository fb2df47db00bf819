//! A native cluster on a rack: two nodes and a witness, real daemons, judged by a client that asks for echoes and by
//! the answers on the wire. The tests work on any machine whose delays stay below a minute.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

use locum::observe::report::NativeStatusReport;
use locum_core::{
    group::GroupPhase,
    native::{status::OwnVote, wire::announcement},
};
use locum_lab::{
    Description, Hold, Process, ProcessSignal, Program, Rack, WatchSpec,
    clock::{Moment, await_some},
    timeline::Span,
};

use crate::lab::{LOCUM, build};

mod arp_filter;
mod disk;
mod forged;
mod gates;
mod overtaken;
mod pair;

const NODES: [&str; 2] = ["alpha", "beta"];
const WITNESS: &str = "third";
const CLIENT: &str = "client";
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 100);
const PATIENCE: Duration = Duration::from_secs(90);
const CONFIG: &str = "/run/disk/locum";

const FILE: &str = r#"
[nodes.alpha]
links = { front = "172.23.2.12", back = "10.0.0.1" }

[nodes.beta]
links = { front = "172.23.2.13", back = "10.0.0.2" }

[groups.web]
resources = ["172.23.2.100/24/eth0", { script = "marker" }]
prefer = "alpha"
guard = "lease"
"#;

/// The part of the file above its tables. Slow enough for a machine that is busy with other tests.
const HEAD: &str = "cluster = \"shop\"\npace = \"2s\"\n";
/// With that pace, the lifetime of an address that is not renewed. The kernel removes it up to a second late.
const LIFETIME: Duration = Duration::from_secs(10);
/// A witness that shares the cluster's key.
const SHARING: &str = "witnesses.third = { address = \"172.23.2.14\" }\n";

/// A script that writes the epoch of its start into a file.
const MARKER: &str = "#!/bin/sh
marker=/run/marker
case $1 in
start) echo \"$LOCUM_EPOCH\" > $marker; echo \"$LOCUM_EPOCH\" >> /run/disk/epochs;;
stop) rm -f $marker;;
status) if [ -f $marker ]; then echo running; else echo stopped; exit 3; fi;;
esac
";

/// Two nodes, a witness, a client.
struct Shop {
    /// Declared before the rack, so that processes end before their hosts.
    daemons: Vec<(&'static str, Process)>,
    rack: Rack,
    /// Whether the witness has a key of its own, and is run by `locum witness run`.
    apart: bool,
    /// The gate backend, if it is not to be chosen.
    gates: Option<&'static str>,
}

impl Shop {
    /// `None`, after printing the reason, where no rack can be built.
    fn build(apart: bool) -> Option<Self> {
        Self::build_of(apart, FILE)
    }

    /// As [`Self::build`], with another group.
    fn build_of(apart: bool, tables: &str) -> Option<Self> {
        let [one, two] = NODES;
        let description = Description::new(Path::new(LOCUM))
            .node(one)
            .node(two)
            .node(WITNESS)
            .node(CLIENT)
            .segment(
                "lan",
                &[
                    (one, "eth0", "172.23.2.12/24"),
                    (two, "eth0", "172.23.2.13/24"),
                    (WITNESS, "eth0", "172.23.2.14/24"),
                    (CLIENT, "eth0", "172.23.2.20/24"),
                ],
            )
            .segment(
                "link",
                &[
                    (one, "eth1", "10.0.0.1/24"),
                    (two, "eth1", "10.0.0.2/24"),
                    (CLIENT, "eth1", "10.0.0.20/24"),
                ],
            );
        let mut rack = build(description)?;
        let sight = WatchSpec {
            client: CLIENT.into(),
            network: "lan".into(),
            services: vec![SERVICE],
            page: None,
            nodes: NODES.map(String::from).into(),
            ask: true,
            gates: true,
        };
        rack.watch(sight).unwrap();
        let shop = Self { daemons: Vec::new(), rack, apart, gates: None };
        let keys = tempfile::tempdir().unwrap();
        let made = Command::new(LOCUM).arg("--config").arg(keys.path()).arg("keygen").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let key = fs::read_to_string(keys.path().join("locum.key")).unwrap();
        let line = match apart {
            false => SHARING.to_owned(),
            true => {
                let words = ["--config", CONFIG, "witness", "add", "shop", "--address", "172.23.2.14"];
                let (code, said) = shop.locum(WITNESS, &words);
                let line = said.lines().find(|line| line.starts_with("witnesses.third = {"));
                format!("{}\n", line.unwrap_or_else(|| panic!("{code:?} {said}")))
            }
        };
        let file = format!("{HEAD}{line}{tables}");
        for member in NODES {
            shop.put(member, "locum/locum.toml", &file, 0o600);
            shop.put(member, "locum/resource.d/marker", MARKER, 0o755);
            shop.put(member, "locum/locum.key", &key, 0o600);
        }
        if apart {
            shop.put(WITNESS, "locum/witness/shop/locum.toml", &file, 0o600);
        } else {
            shop.put(WITNESS, "locum/locum.toml", &file, 0o600);
            shop.put(WITNESS, "locum/locum.key", &key, 0o600);
        }
        Some(shop)
    }

    /// Builds and starts a cluster that serves on the first node.
    fn serving(apart: bool) -> Option<Self> {
        Some(Self::build(apart)?.served())
    }

    fn served(self) -> Self {
        let mut shop = self;
        for member in [WITNESS, NODES[0], NODES[1]] {
            shop.start(member);
        }
        shop.await_founding();
        shop.wait("the group runs where it should", |shop| shop.runs(NODES[0]));
        shop.wait("the client is answered", |shop| shop.answers_since(Moment::now()));
        shop
    }

    /// Waits until every member has written its ledger: before that a new cluster does not survive the loss of one.
    /// Each node must also have heard the owner before a move can be ordered.
    fn await_founding(&self) {
        let own = if self.apart { "witness/shop/" } else { "" };
        let places = [(NODES[0], ""), (NODES[1], ""), (WITNESS, own)];
        self.wait("the cluster is founded", |shop| {
            let written = |(member, place): &(&str, &str)| {
                shop.rack.disk(member).join(format!("state/{place}ledger-shop-a")).exists()
            };
            places.iter().all(written) && NODES.iter().all(|node| shop.owner(node).is_some())
        });
        // The member that has its ledger first may claim first; the file says that the group stays there.
        self.wait("the group is on the first node", |shop| {
            if shop.owner(NODES[1]).as_deref() == Some(NODES[1]) {
                shop.locum(NODES[1], &["move", "web", NODES[0]]);
            }
            NODES.iter().all(|node| shop.owner(node).as_deref() == Some(NODES[0]))
        });
    }

    fn put(&self, node: &str, name: &str, text: &str, mode: u32) {
        let path = self.rack.disk(node).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn text(&self, node: &str, name: &str) -> String {
        fs::read_to_string(self.rack.disk(node).join(name)).unwrap_or_default()
    }

    fn start(&mut self, member: &'static str) {
        self.start_with(member, &[]);
    }

    /// As [`Self::start`], with more options of the daemon.
    fn start_with(&mut self, member: &'static str, options: &[&str]) {
        let command: &[&str] = if self.apart && member == WITNESS { &["witness", "run"] } else { &["run"] };
        let gates = self.gates.filter(|_| member != WITNESS).map(|backend| ["--gates", backend]);
        let gates = gates.as_ref().map_or(&[][..], |words| &words[..]);
        let words =
            [&["locum", "--config", CONFIG, "--state", "/run/disk/state"], command, gates, options].concat();
        let program = Program::new(&words).output("/run/disk/output");
        self.daemons.retain(|(name, _)| *name != member);
        self.daemons.push((member, self.rack.start(member, &program).unwrap()));
    }

    fn daemon(&mut self, member: &str) -> &mut Process {
        let daemon = self.daemons.iter_mut().find(|(name, _)| *name == member);
        &mut daemon.unwrap().1
    }

    fn locum(&self, node: &str, words: &[&str]) -> (Option<i32>, String) {
        let words = [&["locum"], words].concat();
        let outcome = self.rack.run(node, &Program::new(&words), PATIENCE).unwrap();
        (outcome.code, outcome.text)
    }

    fn status(&self, node: &str) -> Option<NativeStatusReport> {
        serde_json::from_str(&self.locum(node, &["status", "--json"]).1).ok()
    }

    /// The owner of the group, as this node knows it.
    fn owner(&self, node: &str) -> Option<String> {
        self.status(node)?.cluster.groups.swap_remove(0).owner
    }

    fn runs(&self, node: &str) -> bool {
        self.status(node).is_some_and(|report| {
            let group = &report.cluster.groups[0];
            group.phase == GroupPhase::Running && group.owner.as_deref() == Some(node)
        })
    }

    /// Whether the client got an answer after that moment; waits a little for it.
    fn answers_since(&self, moment: Moment) -> bool {
        let last = || self.rack.look(|record| record.echoes.get(&SERVICE)?.last().copied()).flatten();
        await_some(Duration::from_secs(1), || last().filter(|&at| at > moment)).is_some()
    }

    /// How long two nodes answered for the service since then.
    fn two_answered(&self, since: Moment) -> Duration {
        let window = Span::new(since, Moment::now());
        self.rack.look(|record| record.two_answer(SERVICE, window)).unwrap_or_default()
    }

    /// Gives an order, and repeats it while it is refused, as an administrator would: on a starved machine a group may
    /// be without an owner for a moment.
    #[track_caller]
    fn order(&self, node: &str, words: &[&str]) {
        let mut said = String::new();
        let taken = await_some(PATIENCE, || {
            let (code, answer) = self.locum(node, words);
            said = answer;
            (code == Some(0)).then_some(())
        });
        assert!(taken.is_some(), "{node}: {words:?} is refused: {said}");
    }

    #[track_caller]
    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let waited = await_some(PATIENCE, || is_so(self).then_some(()));
        if waited.is_none() {
            for member in [NODES[0], NODES[1], WITNESS] {
                let (_, status) = self.locum(member, &["status"]);
                eprintln!("---- {member}\n{}\n{status}", self.text(member, "output"));
            }
            panic!("not in time: {what}");
        }
    }
}

#[test]
fn a_group_is_served_moved_and_handed_over() {
    let Some(mut shop) = Shop::serving(true) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    let (code, page) = shop.locum(alpha, &["status"]);
    assert!(
        page.contains("on alpha") && page.contains("gates by") && page.contains("witness"),
        "{code:?} {page}"
    );
    shop.order(beta, &["move", "web", "beta"]);
    shop.wait("the group has moved", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    let (code, said) = shop.locum(alpha, &["move", "nothing"]);
    assert!(code == Some(1) && said.contains("the groups are: web"), "{said}");
    // An administrator freezes it where it is.
    shop.order(beta, &["freeze", "web"]);
    shop.wait("the pin is shown", |shop| {
        // Every node shows it, with the node on which it was asked for.
        let is_told = |node| {
            let pins = shop.status(node).map(|mut report| report.cluster.groups.remove(0).pins);
            pins.is_some_and(|pins| pins.iter().any(|pin| pin.by.as_deref() == Some(beta)))
        };
        is_told(alpha) && is_told(beta)
    });
    // Pins are sent at once; the owner of a group comes with the next beat.
    shop.wait("a move of what is frozen is refused", |shop| {
        let (code, said) = shop.locum(alpha, &["move", "web", "alpha"]);
        assert_ne!(code, Some(0), "{said}");
        said.contains("frozen")
    });
    shop.order(alpha, &["freeze", "web", "--off"]);
    shop.wait("it is free everywhere", |shop| {
        let pins = |node| shop.status(node).map(|mut report| report.cluster.groups.remove(0).pins);
        NODES.iter().all(|node| pins(*node).is_some_and(|pins| pins.iter().all(|pin| pin.by.is_none())))
    });
    // A node that leaves hands its group over.
    shop.order(beta, &["stop"]);
    shop.wait("the group is back", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
    // Nothing is left of the gate on the earlier owner.
    let (_, gates) = shop.locum(beta, &["gate"]);
    assert!(gates.contains("no gates here"), "{gates}");
    let epochs = [alpha, beta].map(|node| shop.text(node, "epochs"));
    let starts = epochs.each_ref().map(|epochs| epochs.lines().count());
    let has_lapsed = NODES.iter().any(|node| shop.text(node, "output").contains("was lost: the lease ended"));
    let is_as_ordered = starts == [2, 1] || starts == [2, 2];
    assert!(is_as_ordered || has_lapsed, "once more where the cluster began: {epochs:?}");
    assert!(epochs.iter().flat_map(|epochs| epochs.lines()).all(|epoch| epoch.contains('.')), "{epochs:?}");
    shop.daemon(beta).wait(PATIENCE);
    // The witness's own process ends with the one that started it, and never knew the cluster's key.
    let (code, page) = shop.locum(WITNESS, &["--config", CONFIG, "witness", "status"]);
    assert!(code.is_some() && page.contains("a witness"), "{page}");
    shop.daemon(WITNESS).signal(ProcessSignal::Terminate).unwrap();
    let ended = shop.daemon(WITNESS).wait(PATIENCE);
    assert_eq!(ended.and_then(|end| end.code()), Some(0), "{}", shop.text(WITNESS, "output"));
    let daemons = shop.rack.processes(WITNESS).unwrap();
    let left = daemons.iter().filter(|id| {
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).any(|word| word == b"--only-as-witness")
    });
    assert_eq!(left.count(), 0);
}

/// Two daemons at one port, as those of two clusters are by default, would take each other's frames, unseen.
#[test]
fn links_whose_port_another_program_has_are_told_and_open_when_it_is_free() {
    let Some(mut shop) = Shop::build(false) else { return };
    let [alpha, beta] = NODES;
    let other = shop.rack.inside(alpha, || UdpSocket::bind(("0.0.0.0", 6940))).unwrap().unwrap();
    shop.start(alpha);
    shop.wait("both links are told", |shop| {
        let (_, page) = shop.locum(alpha, &["status"]);
        page.matches("UDP port 6940 is in use").count() >= 2
    });
    drop(other);
    shop.start(beta);
    shop.wait("both links are open", |shop| {
        let (_, page) = shop.locum(alpha, &["status"]);
        page.matches("beta both ways").count() == 2 && !page.contains("6940")
    });
}

#[test]
fn a_killed_owner_falls_silent_and_its_next_start_sweeps() {
    let Some(mut shop) = Shop::serving(false) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    shop.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    let (_, gates) = shop.locum(alpha, &["gate"]);
    assert!(gates.contains("group web: shut"), "{gates}");
    let holders = shop.rack.look(|record| record.holders(SERVICE.into()).len()).unwrap();
    // On a machine this slow the address's own lifetime has ended.
    let is_early = Moment::now().since(begun) < LIFETIME * 2 / 3;
    assert!(holders == 2 || !is_early, "it still stands where the daemon was killed, behind its gate");
    shop.start(alpha);
    shop.wait("what the earlier life left is swept", |shop| {
        shop.rack.look(|record| record.holders(SERVICE.into()).len()) == Some(1)
            && shop.status(alpha).is_some()
    });
    assert!(shop.locum(alpha, &["gate"]).1.contains("no gates here"));
    assert!(shop.runs(beta), "who returns takes nothing: failback stays");
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}

/// If the daemon is killed and its gate removed, its addresses answer where they should not, but only until their
/// lifetime ends.
#[test]
fn addresses_go_by_themselves_when_nobody_renews_them() {
    const SIXTH: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100));
    let tables = FILE.replace("eth0\", {", &format!("eth0\", \"{SIXTH}/64/eth0\", {{"));
    let Some(shop) = Shop::build_of(false, &tables) else { return };
    let mut shop = shop.served();
    let [alpha, beta] = NODES;
    let both = [IpAddr::V4(SERVICE), SIXTH];
    // As an administrator does who gives the wrong directories. The gate is put back, and the log line gives the epoch.
    let elsewhere = ["--run", "/run/disk/elsewhere", "--state", "/run/disk/elsewhere"];
    let (code, said) =
        shop.locum(alpha, &[&elsewhere[..], &["gate", "--remove", "--keep-addresses"]].concat());
    if code == Some(0) {
        shop.wait("the gate is put back", |shop| {
            let epochs = shop.text(alpha, "epochs");
            let lines = shop.text(alpha, "output");
            let mut lines =
                lines.lines().filter(|line| line.contains("another program removed a part of it"));
            lines.any(|line| epochs.lines().any(|epoch| line.ends_with(&format!("(epoch {epoch})"))))
        });
    } else {
        // A table of `nft` has an owner.
        assert!(said.contains("a running process"), "{said}");
    }
    let holds = |shop: &Shop, node: &str| {
        let holders = |ip| shop.rack.look(|record| record.holders(ip).contains(&node)).unwrap_or(false);
        both.map(holders)
    };
    // Renewed: they outlive their lifetime.
    let served = Moment::now();
    shop.wait("a lifetime passes", |shop| {
        assert_eq!(holds(shop, alpha), [true; 2]);
        Moment::now().since(served) > LIFETIME * 3 / 2
    });
    let gone = |shop: &Shop| {
        let is_gone = |hold: &&Hold| hold.node == alpha && !hold.held && hold.at > served;
        shop.rack.look(|record| record.holds.iter().filter(is_gone).count())
    };
    assert_eq!(gone(&shop), Some(0));
    // The other members are stopped, so that the group is not taken over meanwhile.
    for member in [beta, WITNESS] {
        shop.daemon(member).signal(ProcessSignal::Kill).unwrap();
    }
    let killed = Moment::now();
    shop.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    assert!(shop.daemon(alpha).wait(PATIENCE).is_some());
    let (code, said) = shop.locum(alpha, &["gate", "--remove", "--keep-addresses"]);
    assert!(code == Some(0) && said.contains("removed: "), "{said}");
    assert!(shop.answers_since(killed), "nothing stands in its way");
    shop.wait("they have gone", |shop| holds(shop, alpha) == [false; 2]);
    let last = shop.rack.look(|record| record.holds.last().map(|hold| hold.at)).flatten().unwrap();
    let stood = last.since(killed);
    // The kernel's own second; the looking process may also get no processor for a while.
    assert!(stood <= LIFETIME + Duration::from_secs(2), "{stood:?}");
    assert!(stood >= LIFETIME / 2, "{stood:?}");
}

#[test]
fn a_frozen_owner_falls_silent_and_gives_up() {
    let Some(mut shop) = Shop::serving(false) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    let tap = shop.rack.tap("lan", beta).unwrap();
    let mut buffer = vec![0; 2000];
    let mut is_announced = || {
        let mut frames = std::iter::from_fn(|| {
            let stamped = tap.receive(&mut buffer).ok()??;
            Some(buffer.get(..stamped.length).unwrap_or_default().to_vec())
        });
        frames.any(|frame| frame.windows(8).any(|bytes| bytes == announcement::HEAD))
    };
    shop.daemon(alpha).signal(ProcessSignal::Stop).unwrap();
    // While it is in doubt it is told with each beat.
    shop.wait("the packets' path of the frozen machine is told", |_| is_announced());
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    shop.daemon(alpha).signal(ProcessSignal::Continue).unwrap();
    shop.wait("the thawed node gives up what it lost", |shop| {
        shop.rack.look(|record| record.holders(SERVICE.into()).len()) == Some(1)
            && shop.status(alpha).is_some_and(|report| {
                let group = &report.cluster.groups[0];
                group.phase == GroupPhase::Stopped && group.owner.as_deref() == Some(beta)
            })
    });
    assert!(shop.answers_since(Moment::now()));
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}

#[test]
fn an_owner_that_is_cut_off_falls_silent_before_the_other_answers() {
    let Some(mut shop) = Shop::serving(false) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    shop.rack.cut("link", alpha).unwrap();
    shop.rack.cut("lan", alpha).unwrap();
    shop.wait("the majority's side has taken over", |shop| {
        shop.runs(beta) && shop.answers_since(Moment::now())
    });
    shop.wait("the minority's side has given up", |shop| {
        shop.rack.look(|record| record.holders(SERVICE.into()).len()) == Some(1)
    });
    shop.rack.mend("lan", alpha).unwrap();
    shop.rack.mend("link", alpha).unwrap();
    shop.wait("both know one owner", |shop| {
        NODES.iter().all(|node| {
            let report = shop.status(node);
            report.is_some_and(|report| report.cluster.groups[0].owner.as_deref() == Some(beta))
        })
    });
    assert!(shop.answers_since(Moment::now()));
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}

#[test]
fn a_machine_without_power_returns_without_its_ledger_and_votes_again() {
    let Some(mut shop) = Shop::serving(false) else { return };
    let begun = Moment::now();
    let [alpha, beta] = NODES;
    shop.rack.power_off(alpha).unwrap();
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    // A short run may have written only one of its files.
    let files = ["a", "b"].map(|which| shop.rack.disk(alpha).join(format!("state/ledger-shop-{which}")));
    assert!(files.iter().filter(|file| fs::remove_file(file).is_ok()).count() > 0);
    shop.rack.power_on(alpha).unwrap();
    shop.start(alpha);
    shop.wait("its vote is copied from the others", |shop| {
        shop.status(alpha).is_some_and(|report| report.cluster.votes.own == OwnVote::Votes)
    });
    assert!(shop.text(alpha, "output").contains("the ledger of this member's earlier runs is gone"));
    // Without the witness the two nodes are a majority, if both vote.
    shop.daemon(WITNESS).signal(ProcessSignal::Kill).unwrap();
    shop.wait("the witness is silent", |shop| shop.locum(beta, &["status"]).1.contains("third (SILENT)"));
    shop.order(beta, &["move", "web", "alpha"]);
    shop.wait("it runs there", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}

#[test]
fn a_gate_of_either_backend_is_put_back_and_holds_when_the_daemon_is_killed() {
    let Some(mut shop) = Shop::build(false) else { return };
    let [alpha, beta] = NODES;
    let mount = ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"];
    let mounted = shop.rack.run(alpha, &Program::new(&mount), PATIENCE).unwrap();
    if mounted.code != Some(0) {
        return crate::skipped(format!("no bpf file system in a node: {}", mounted.text));
    }
    for member in [WITNESS, alpha, beta] {
        shop.start(member);
    }
    shop.await_founding();
    shop.wait("the group runs", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
    let begun = Moment::now();
    let (_, page) = shop.locum(alpha, &["status"]);
    if !page.contains("gates by bpf") {
        return crate::skipped(format!("no bpf gate in a node: {page}"));
    }
    // Another program tidies up.
    let tidy = ["/bin/sh", "-c", "rm -r /sys/fs/bpf/locum/shop/web"];
    let tidied = shop.rack.run(alpha, &Program::new(&tidy), PATIENCE).unwrap();
    assert_eq!(tidied.code, Some(0), "{}", tidied.text);
    shop.wait("the gate is put back", |shop| {
        shop.status(alpha).is_some_and(|report| report.heart.gates.gates[0].restored > 0)
    });
    shop.wait("it is open", |shop| shop.answers_since(Moment::now()));
    shop.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
    let (_, gates) = shop.locum(alpha, &["gate"]);
    assert!(gates.contains("group web: shut, by bpf"), "{gates}");
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}
