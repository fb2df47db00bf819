//! The rack: its nodes, networks and lines; it pulls cables and cuts the power.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use locum_sys::{
    mount,
    namespace::{self, NewNamespaces},
    netlink::{LinkChange, Netlink, NewAddress, VethEnd},
    tap::Tap,
};

use crate::{
    clock::Moment,
    description::{Description, NetworkKind},
    dice::Dice,
    fault::{Doing, Fault},
    line::{LineCounters, NullModem},
    node::{Node, NodeFiles, bpffs},
    process::{self, Process, Program, ProgramOutcome},
    relay::{Counters, Impairment, Relay, RelayDirection, RelayState},
    room::Room,
    watch::{self, GatePost, PortTap, Record, Watch, WatchSpec},
};

/// The rack's directory, in its own mount namespace: a file system in memory covers the host's `/run`.
const ROOT: &str = "/run";
/// Below it: the pseudo terminals of the lines.
const TERMINALS: &str = "/run/pts";

/// Allows this process to build racks. Root of the host needs nothing; any other user becomes root of a user namespace.
///
/// # Errors
/// [`Fault::Missing`] where the host does not allow it, or if the process of another user than root has a second
/// thread.
pub fn enter() -> Result<(), Fault> {
    if namespace::may_enter_new() {
        return Ok(());
    }
    namespace::become_root_of_user_namespace().needed("a user namespace")
}

/// Nodes in namespaces of their own, connected as described. Everything (processes, interfaces, mounts and files) goes
/// when the rack is dropped, and also when its process is killed.
pub struct Rack {
    description: Description,
    files: OwnedFd,
    netlink: Netlink,
    watch: Option<Watch>,
    nodes: BTreeMap<String, Node>,
    networks: Vec<Cabling>,
    lines: Vec<NullModem>,
    /// Counts the interfaces made in the hub, so that their names are never used twice.
    made: u32,
    hub: Room,
}

/// A network's bridge and ports, in the order of the description.
struct Cabling {
    bridge: u32,
    ports: Vec<Outlet>,
}

/// The outer side of a node's port.
struct Outlet {
    /// The hardware address of the node's interface.
    mac: [u8; 6],
    /// The veth end in the hub whose partner is the node's interface; `None` while the node has no power.
    outer: Option<Outer>,
    /// With a relay: the pair between it and the bridge (relay's side, bridge's side).
    inner: Option<(String, u32)>,
    /// Whether the cable is pulled: no carrier.
    unplugged: bool,
    /// Whether nothing passes to the others, although the carrier stays.
    cut: bool,
    settings: Arc<RelayState>,
    relay: Option<Relay>,
}

struct Outer {
    index: u32,
    name: String,
    mac: [u8; 6],
}

impl Rack {
    /// Builds the rack and switches every node on.
    ///
    /// # Errors
    /// [`Fault::Missing`] where this process may not (see [`enter`]); [`Fault::Description`] for a rack that cannot be
    /// built; else the kernel's error.
    pub fn build(description: Description) -> Result<Self, Fault> {
        description.check()?;
        let hub = Room::open(enter_hub).doing(|| "start the hub's thread".into())??;
        let (netlink, files) = hub.run(|| (Netlink::open(), open_directory(Path::new(ROOT))));
        let mut rack = Self {
            netlink: netlink.doing(|| "ask the hub's kernel".into())?,
            files: files.doing(|| "open the rack's directory".into())?,
            watch: None,
            nodes: BTreeMap::new(),
            networks: Vec::new(),
            lines: Vec::new(),
            made: 0,
            hub,
            description,
        };
        rack.lay_networks()?;
        rack.lay_lines()?;
        for name in rack.description.nodes.clone() {
            rack.power_on(&name)?;
        }
        Ok(rack)
    }

    /// The names of all nodes, switched on or not.
    #[must_use]
    pub fn node_names(&self) -> &[String] {
        &self.description.nodes
    }

    /// Whether a node has power.
    #[must_use]
    pub fn is_on(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// The directory that survives a loss of power, as this process sees it; in the node it is `/run/disk`. It also
    /// holds the directories that the node has as `/etc/ha.d` (`ha.d`), `/var/lib` (`lib`) and `/var/log` (`log`).
    #[must_use]
    pub fn disk(&self, node: &str) -> PathBuf {
        self.directory().join(node).join("disk")
    }

    /// The node's `/run`, as this process sees it; empty again after a loss of power.
    #[must_use]
    pub fn volatile(&self, node: &str) -> PathBuf {
        self.directory().join(node).join("run")
    }

    /// Starts a program in a node. It ends with the node's power, or when the returned value is dropped.
    ///
    /// # Errors
    /// No such node, or it has no power; or the program cannot be started.
    pub fn start(&self, node: &str, program: &Program) -> Result<Process, Fault> {
        self.node(node)?.start(program).doing(|| format!("start {program:?} on {node}"))
    }

    /// Runs a program in a node to its end, and returns its output; at the limit the program is killed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn run(&self, node: &str, program: &Program, limit: Duration) -> Result<ProgramOutcome, Fault> {
        let job = program.clone();
        let doing = || format!("run {program:?} on {node}");
        let (child, reader) = self.node(node)?.run(move || job.spawn_heard()).doing(doing)?;
        process::hear(child, reader, limit).doing(doing)
    }

    /// The processes of a node by their process ids on the host, without its holder. An id is good as long as its
    /// process lives.
    ///
    /// # Errors
    /// No such node, or it has no power; or the process table cannot be read.
    pub fn processes(&self, node: &str) -> Result<Vec<u32>, Fault> {
        self.node(node)?.processes().doing(|| format!("look for the processes of {node}"))
    }

    /// Does `job` in the network, mount and UTS namespace of a node. Sockets that it opens can be used anywhere. It
    /// must not start threads.
    ///
    /// # Errors
    /// No such node, or it has no power.
    pub fn inside<T: Send + 'static>(
        &self,
        node: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        Ok(self.node(node)?.run(job))
    }

    /// Puts an address on a node's interface, without the knowledge of the daemon that manages it.
    ///
    /// # Errors
    /// No such node; or the kernel refuses.
    pub fn add_address(&self, node: &str, interface: &str, ip: IpAddr, prefix: u8) -> Result<(), Fault> {
        let name = interface.to_owned();
        let added = self.inside(node, move || add_address(&name, ip, prefix))?;
        added.doing(|| format!("put {ip}/{prefix} on {interface} of {node}"))
    }

    /// Takes an address from a node, whichever interface it is on.
    ///
    /// # Errors
    /// No such node; or the kernel refuses; `NotFound` when the node does not hold it.
    pub fn remove_address(&self, node: &str, ip: IpAddr) -> Result<(), Fault> {
        self.inside(node, move || remove_address(ip))?.doing(|| format!("take {ip} from {node}"))
    }

    /// Gives a node its power: fresh namespaces, its disk as it was, its cables plugged as they were. No program is
    /// started.
    ///
    /// # Errors
    /// No such node, or it has power; or the kernel refuses.
    pub fn power_on(&mut self, node: &str) -> Result<(), Fault> {
        if !self.description.nodes.iter().any(|name| name == node) || self.is_on(node) {
            return Err(Fault::Description(format!(
                "{node} has power already, or is not a node of the rack"
            )));
        }
        let place = NodeFiles {
            root: ROOT.into(),
            name: node.into(),
            program: self.description.program.clone(),
            devices: self.devices(node),
            layers: self.description.layers.clone(),
            machine_root: self.description.machine_root.clone(),
        };
        let on = self.hub.run(move || Node::switch_on(place))?;
        for (network, port) in self.ports_of(node) {
            self.plug_in(network, port, &on)?;
        }
        self.nodes.insert(node.into(), on);
        self.apply()?;
        self.shine(node, true);
        self.attach(node)
    }

    /// Cuts a node's power: all its links in one step, then all its processes, then its namespaces. Only its disk
    /// remains. Returns the moment before the step.
    ///
    /// # Errors
    /// No such node, or it has no power.
    pub fn power_off(&mut self, node: &str) -> Result<Moment, Fault> {
        self.node(node)?;
        let dark = self.dark_links(node);
        self.shine(node, false);
        let moment = Moment::now();
        let cut = self.netlink.change_links(&dark);
        let off = self.nodes.remove(node);
        if let Some(mut off) = off {
            off.kill();
        }
        if let Some(watch) = self.watch.as_mut() {
            watch.detach(node, moment);
        }
        for (network, port) in self.ports_of(node) {
            let outlet = &mut self.networks[network].ports[port];
            outlet.relay = None;
            if let Some(outer) = outlet.outer.take() {
                // The dying namespace may have taken its end of the pair, and so ours.
                let _ = self.netlink.delete_interface(outer.index);
            }
        }
        cut.doing(|| format!("cut the links of {node}"))?;
        match fs::remove_dir_all(self.volatile(node)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Fault::Kernel { doing: format!("wipe what {node} had in memory"), error })
            }
            _ => Ok(moment),
        }
    }

    /// Pulls a node's cable out of a network: its interface loses the carrier. Returns the moment before.
    ///
    /// # Errors
    /// No such network or port.
    pub fn unplug(&mut self, network: &str, node: &str) -> Result<Moment, Fault> {
        self.switch(network, node, |outlet| outlet.unplugged = true)
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// No such network or port.
    pub fn plug(&mut self, network: &str, node: &str) -> Result<Moment, Fault> {
        self.switch(network, node, |outlet| outlet.unplugged = false)
    }

    /// Cuts a node off from a network somewhere behind its port: the carrier stays, nothing passes. Returns the
    /// moment before.
    ///
    /// # Errors
    /// No such network or port.
    pub fn cut(&mut self, network: &str, node: &str) -> Result<Moment, Fault> {
        self.switch(network, node, |outlet| outlet.cut = true)
    }

    /// Undoes a [`cut`](Self::cut): frames pass again.
    ///
    /// # Errors
    /// No such network or port.
    pub fn mend(&mut self, network: &str, node: &str) -> Result<Moment, Fault> {
        self.switch(network, node, |outlet| outlet.cut = false)
    }

    /// Loses, delays, doubles or swaps frames through a node's port from now on.
    ///
    /// # Errors
    /// No such port, or the network was not described as relayed.
    pub fn impair(
        &self,
        network: &str,
        node: &str,
        direction: RelayDirection,
        impairment: Impairment,
    ) -> Result<(), Fault> {
        self.relayed(network, node).map(|settings| settings.impair(direction, impairment))
    }

    /// The counters of the relay in a node's port.
    ///
    /// # Errors
    /// As [`impair`](Self::impair).
    pub fn counters(&self, network: &str, node: &str, direction: RelayDirection) -> Result<Counters, Fault> {
        self.relayed(network, node).map(|settings| settings.counters(direction))
    }

    /// Cuts or mends a serial line. Returns the moment before.
    ///
    /// # Errors
    /// No such line.
    pub fn cut_line(&self, line: &str, cut: bool) -> Result<Moment, Fault> {
        let line = self.line(line)?;
        let moment = Moment::now();
        line.switches.cut(cut);
        Ok(moment)
    }

    /// Loses all bytes that a node writes to a serial line, or stops doing so. Bytes to the node still arrive.
    ///
    /// # Errors
    /// No such line, or it does not lead to the node.
    pub fn mute_line(&self, line: &str, node: &str, mute: bool) -> Result<(), Fault> {
        let switches = &self.line(line)?.switches;
        let described = self.description.lines.iter().find(|one| one.name == line);
        let end = described.and_then(|line| line.ends.iter().position(|(name, _)| name == node));
        let end = end.ok_or_else(|| Fault::Description(format!("{line} does not lead to {node}")))?;
        switches.mute(end, mute);
        Ok(())
    }

    /// From now on, loses this share of the writes to a serial line.
    ///
    /// # Errors
    /// No such line.
    pub fn lose_on_line(&self, line: &str, share: f64) -> Result<(), Fault> {
        self.line(line).map(|line| line.switches.lose(share))
    }

    /// The counters of a serial line since the rack was built.
    ///
    /// # Errors
    /// No such line.
    pub fn line_counters(&self, line: &str) -> Result<LineCounters, Fault> {
        self.line(line).map(|line| line.switches.counters())
    }

    /// Begins to watch. A running watch ends, and its record is lost.
    ///
    /// # Errors
    /// If a name is unknown; or the kernel refuses.
    pub fn watch(&mut self, spec: WatchSpec) -> Result<(), Fault> {
        self.watch = None;
        let client = &self.node(&spec.client)?.network;
        let nodes = spec.nodes.clone();
        self.watch = Some(Watch::start(spec, client).doing(|| "start the probes".into())?);
        nodes
            .iter()
            .filter(|node| self.is_on(node))
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .try_for_each(|node| self.attach(node))
    }

    /// A copy of the record of the watch so far; empty without a watch.
    #[must_use]
    pub fn record(&self) -> Record {
        self.watch.as_ref().map(Watch::record).unwrap_or_default()
    }

    /// Reads the record of the watch so far, without copying it; `None` without a watch.
    pub fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> Option<T> {
        self.watch.as_ref().map(|watch| watch.look(at))
    }

    /// Watches a node that has power, if it is one of those to be watched.
    fn attach(&mut self, name: &str) -> Result<(), Fault> {
        let Some(sight) = self.watch.as_ref().map(|watch| watch.spec.clone()) else { return Ok(()) };
        if !sight.nodes.iter().any(|node| node == name) {
            return Ok(());
        }
        let doing = || format!("watch {name}");
        let port = if sight.ask { Some(self.port_tap(&sight.network, name)?) } else { None };
        let node = self.node(name)?;
        let addresses = node.run(watch::look_at_addresses).doing(doing)?;
        let post = match sight.gates {
            true => Some(GatePost {
                network: node.network.try_clone().doing(doing)?,
                bpffs: node.run(|| open_directory(bpffs())).ok(),
            }),
            false => None,
        };
        let watch = self.watch.as_mut().expect("looked at above");
        watch.attach(name, addresses, port, post).doing(doing)
    }

    /// A tap on a node's port, until the node loses its power. Frames that arrive are those that the node sends; frames
    /// that are sent reach only the node, even if the network is cut behind the port.
    ///
    /// # Errors
    /// No such port, or the node has no power; or the kernel refuses.
    pub fn tap(&self, network: &str, node: &str) -> Result<Tap, Fault> {
        let (_, outer) = self.outlet(network, node)?;
        let name = outer.name.clone();
        self.hub.run(move || Tap::open(&name)).needed("a packet socket")
    }

    fn outlet(&self, network: &str, node: &str) -> Result<(&Outlet, &Outer), Fault> {
        let (at, port) = self.port(network, node)?;
        let outlet = &self.networks[at].ports[port];
        let outer = outlet.outer.as_ref();
        Ok((outlet, outer.ok_or_else(|| Fault::Description(format!("{node} has no power")))?))
    }

    fn port_tap(&self, network: &str, node: &str) -> Result<PortTap, Fault> {
        let (at, port) = self.port(network, node)?;
        let (outlet, outer) = self.outlet(network, node)?;
        let addresses = &self.description.networks[at].ports[port].addresses;
        let asker = addresses.iter().find_map(|&(ip, prefix)| unused_address(ip, prefix, port));
        let asker =
            asker.ok_or_else(|| Fault::Description(format!("{node} has no IPv4 address on {network}")))?;
        Ok(PortTap { tap: self.tap(network, node)?, outer_mac: outer.mac, node_mac: outlet.mac, asker })
    }

    fn directory(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.files.as_raw_fd()).into()
    }

    fn node(&self, name: &str) -> Result<&Node, Fault> {
        self.nodes.get(name).ok_or_else(|| Fault::Description(format!("{name} is not a node with power")))
    }

    fn line(&self, name: &str) -> Result<&NullModem, Fault> {
        let place = self.description.lines.iter().position(|line| line.name == name);
        place.map(|at| &self.lines[at]).ok_or_else(|| Fault::Description(format!("there is no line {name}")))
    }

    fn relayed(&self, network: &str, node: &str) -> Result<&RelayState, Fault> {
        let (network_at, port) = self.port(network, node)?;
        if self.description.networks[network_at].relayed {
            Ok(&self.networks[network_at].ports[port].settings)
        } else {
            Err(Fault::Description(format!("{network} has no relays")))
        }
    }

    /// The indices of a network and of a node's port on it.
    fn port(&self, network: &str, node: &str) -> Result<(usize, usize), Fault> {
        let networks = &self.description.networks;
        let found = networks.iter().position(|one| one.name == network).and_then(|at| {
            networks[at].ports.iter().position(|port| port.node == node).map(|port| (at, port))
        });
        found.ok_or_else(|| Fault::Description(format!("{node} has no port on a network {network}")))
    }

    fn ports_of(&self, node: &str) -> Vec<(usize, usize)> {
        let networks = self.description.networks.iter().enumerate();
        networks
            .flat_map(|(at, network)| {
                let mine = network.ports.iter().enumerate().filter(|(_, port)| port.node == node);
                mine.map(move |(port, _)| (at, port))
            })
            .collect()
    }

    fn devices(&self, node: &str) -> Vec<(String, PathBuf)> {
        let mut devices = Vec::new();
        for (line, described) in self.lines.iter().zip(&self.description.lines) {
            for (end, (name, device)) in described.ends.iter().enumerate() {
                if name == node {
                    devices.push((device.clone(), line.devices[end].clone()));
                }
            }
        }
        devices
    }

    /// Switches the node's ends of all lines on or off.
    fn shine(&self, node: &str, on: bool) {
        for (line, described) in self.lines.iter().zip(&self.description.lines) {
            for (end, (name, _)) in described.ends.iter().enumerate() {
                if name == node {
                    line.switches.darken(end, !on);
                }
            }
        }
    }

    fn lay_networks(&mut self) -> Result<(), Fault> {
        for (number, network) in self.description.networks.clone().into_iter().enumerate() {
            let name = self.fresh_name('b');
            self.netlink.create_bridge(&name).needed("a bridge")?;
            let bridge = self.index(&name)?;
            let mut changes = vec![LinkChange::Up(bridge)];
            let mut ports = Vec::new();
            for (place, _) in network.ports.iter().enumerate() {
                let inner = if network.relayed {
                    let (near, far) = (self.fresh_name('r'), self.fresh_name('r'));
                    let end = |name, side| VethEnd { name, mac: mac(number, place, side), network: None };
                    self.netlink.create_veth(end(&near, 2), end(&far, 3)).needed("a veth pair")?;
                    let (near_index, far_index) = (self.index(&near)?, self.index(&far)?);
                    changes.push(LinkChange::Join { port: far_index, bridge });
                    changes.extend([LinkChange::Up(near_index), LinkChange::Up(far_index)]);
                    Some((near, far_index))
                } else {
                    None
                };
                ports.push(Outlet {
                    mac: mac(number, place, 0),
                    outer: None,
                    inner,
                    unplugged: false,
                    cut: false,
                    settings: Arc::default(),
                    relay: None,
                });
            }
            self.netlink.change_links(&changes).doing(|| format!("set up {}", network.name))?;
            self.networks.push(Cabling { bridge, ports });
        }
        Ok(())
    }

    fn lay_lines(&mut self) -> Result<(), Fault> {
        for number in 0..self.description.lines.len() {
            let dice = Dice::new(self.description.seed, 1000 + number as u64);
            let line = self.hub.run(move || NullModem::lay(Path::new(TERMINALS), dice));
            self.lines.push(line.needed("a pseudo terminal")?);
        }
        Ok(())
    }

    /// Makes the cable between a node that is being switched on and its port on a network.
    fn plug_in(&mut self, network: usize, port: usize, node: &Node) -> Result<(), Fault> {
        use std::os::fd::AsFd;
        let described = self.description.networks[network].ports[port].clone();
        let name = self.fresh_name('p');
        let outlet = &mut self.networks[network].ports[port];
        let (outer_mac, node_mac) = (mac(network, port, 1), outlet.mac);
        let outer = VethEnd { name: &name, mac: outer_mac, network: None };
        let inner =
            VethEnd { name: &described.interface, mac: node_mac, network: Some(node.network.as_fd()) };
        self.netlink.create_veth(outer, inner).needed("a veth pair")?;
        let index = self.index(&name)?;
        let outlet = &mut self.networks[network].ports[port];
        outlet.outer = Some(Outer { index, name: name.clone(), mac: outer_mac });
        if let Some((near, _)) = outlet.inner.clone() {
            let taps =
                self.hub.run(move || Ok::<_, io::Error>((Tap::open_raw(&name)?, Tap::open_raw(&near)?)));
            let (node_side, network_side) = taps.needed("a packet socket")?;
            let dice = Dice::new(self.description.seed, (network * 100 + port) as u64);
            let relay = Relay::start(node_side, network_side, outlet.settings.clone(), dice);
            outlet.relay = Some(relay.doing(|| "start a relay".into())?);
        }
        let doing = format!("set up {} of {}", described.interface, described.node);
        node.run(move || set_up(&described.interface, &described.addresses)).doing(|| doing)
    }

    fn switch(
        &mut self,
        network: &str,
        node: &str,
        change: impl FnOnce(&mut Outlet),
    ) -> Result<Moment, Fault> {
        let (network, port) = self.port(network, node)?;
        change(&mut self.networks[network].ports[port]);
        let moment = Moment::now();
        self.apply()?;
        Ok(moment)
    }

    /// Brings all ports into the state that they should have.
    fn apply(&mut self) -> Result<(), Fault> {
        let mut changes = Vec::new();
        for (network, cabling) in self.networks.iter().enumerate() {
            for (port, outlet) in cabling.ports.iter().enumerate() {
                let Some(outer) = &outlet.outer else { continue };
                let carried = self.carried(network, port);
                changes.push(if carried {
                    LinkChange::Up(outer.index)
                } else {
                    LinkChange::Down(outer.index)
                });
                let joined = outlet.inner.as_ref().map_or(outer.index, |&(_, far)| far);
                changes.push(if outlet.cut {
                    LinkChange::Leave(joined)
                } else {
                    LinkChange::Join { port: joined, bridge: cabling.bridge }
                });
            }
        }
        self.netlink.change_links(&changes).doing(|| "switch the cables".into())
    }

    /// Whether a port should have carrier.
    fn carried(&self, network: usize, port: usize) -> bool {
        let ports = &self.networks[network].ports;
        match self.description.networks[network].kind {
            NetworkKind::Segment => !ports[port].unplugged,
            NetworkKind::Crossover => ports.iter().all(|end| end.outer.is_some() && !end.unplugged),
        }
    }

    /// All interfaces that lose their carrier with a node's power: its own ports and the other ends of its cables.
    fn dark_links(&self, node: &str) -> Vec<LinkChange> {
        let mut dark = Vec::new();
        for (network, port) in self.ports_of(node) {
            let ports = &self.networks[network].ports;
            let both = self.description.networks[network].kind == NetworkKind::Crossover;
            dark.extend(ports[port].outer.as_ref().map(|outer| LinkChange::Down(outer.index)));
            for (_, other) in ports.iter().enumerate().filter(|&(at, _)| both && at != port) {
                dark.extend(other.outer.as_ref().map(|outer| LinkChange::Down(outer.index)));
            }
        }
        dark
    }

    fn fresh_name(&mut self, letter: char) -> String {
        self.made += 1;
        format!("{letter}{}", self.made)
    }

    fn index(&mut self, name: &str) -> Result<u32, Fault> {
        self.netlink.interface(name).map(|found| found.index).doing(|| format!("find {name}"))
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        // The watch holds sockets of the nodes, and the nodes' rooms must not outlive the hub's.
        self.watch = None;
        self.nodes.clear();
    }
}

/// The hub: the namespace of all bridges, and the mount namespace that all nodes begin with.
fn enter_hub() -> Result<(), Fault> {
    namespace::enter_new(NewNamespaces { network: true, mounts: true, ..NewNamespaces::default() })
        .needed("namespaces")?;
    mount::make_private().needed("private mounts")?;
    mount::memory(Path::new(ROOT)).needed("a file system in memory")?;
    fs::create_dir(TERMINALS)
        .and_then(|()| mount::terminals(Path::new(TERMINALS)))
        .needed("pseudo terminals")?;
    // The hub itself takes no part in the networks: no address, no neighbour discovery.
    for which in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    Ok(())
}

/// An address near the end of a network, which descriptions do not use: the source of the questions on this port.
fn unused_address(ip: IpAddr, prefix: u8, port: usize) -> Option<Ipv4Addr> {
    let IpAddr::V4(ip) = ip else { return None };
    let broadcast = u32::from(ip) | u32::MAX.checked_shr(prefix.into())?;
    Some((broadcast - 1 - u32::try_from(port).ok()?).into())
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Into::into)
}

/// A locally administered address; the side distinguishes the node's interface (0) from those of the hub.
fn mac(network: usize, port: usize, side: u8) -> [u8; 6] {
    let byte = |number: usize| u8::try_from(number + 1).unwrap_or(u8::MAX);
    [0x02, 0x10, 0xc0, side, byte(network), byte(port)]
}

fn set_up(interface: &str, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.interface(interface)?.index;
    netlink.change_links(&[LinkChange::Up(index)])?;
    addresses.iter().try_for_each(|&(ip, prefix)| add_address(interface, ip, prefix))
}

fn add_address(interface: &str, ip: IpAddr, prefix: u8) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let interface = netlink.interface(interface)?.index;
    let broadcast = match ip {
        IpAddr::V4(ip) if prefix < 31 => Some((u32::from(ip) | (u32::MAX >> prefix)).into()),
        _ => None,
    };
    netlink.add_address(&NewAddress { broadcast, ..NewAddress::new(interface, ip, prefix) })
}

fn remove_address(ip: IpAddr) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let standing = netlink.addresses()?.into_iter().find(|address| address.ip == ip);
    netlink.delete_address(&standing.ok_or(io::ErrorKind::NotFound)?)
}
