//! The description of a rack, as plain values.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::fault::Fault;

/// Longest name of an interface that the kernel takes.
const INTERFACE_BYTES_MAX: usize = 15;

/// The nodes of a rack, and the networks and lines between them.
#[derive(Clone, Debug)]
pub struct Description {
    /// The program that every node runs as its holder (`program lab-node`); in the nodes it is found as `locum`.
    pub program: PathBuf,
    /// The seed of all random numbers of relays.
    pub seed: u64,
    /// The nodes' names, which are also their host names.
    pub nodes: Vec<String>,
    /// The networks between them.
    pub networks: Vec<Network>,
    /// The serial lines between them.
    pub lines: Vec<Line>,
    /// Directories whose `usr` and `etc` are laid over those of the nodes, the first on top. Programs unpacked there
    /// are as if installed in every node, and nowhere else.
    pub layers: Vec<PathBuf>,
    /// The root of a Debian machine, for nodes in which one is booted ([`crate::machines::Machine`]).
    pub machine_root: Option<PathBuf>,
}

/// The path of [`Description::machine_root`] in a node.
pub(crate) const MACHINE_ROOT: &str = "/run/machine-root";

/// The kind of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// A switch with a port for each node: a node whose partner dies keeps its carrier.
    Segment,
    /// One cable between two nodes: both have carrier, or none has.
    Crossover,
}

/// One Ethernet network of a rack.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name in the rack.
    pub name: String,
    pub kind: NetworkKind,
    /// Whether each port has a relay of the lab, which can lose, delay, double and swap frames.
    pub relayed: bool,
    /// The ports of the nodes on this network.
    pub ports: Vec<Port>,
}

/// A node's port on a network.
#[derive(Clone, Debug)]
pub struct Port {
    pub node: String,
    pub interface: String,
    /// The addresses that the interface has from the start, with their mask bits.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A null-modem line: two serial devices, crossed.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the rack.
    pub name: String,
    /// Node and device name of each end; the device appears in the node as `/run/NAME`.
    pub ends: [(String, String); 2],
}

impl Description {
    /// A description without nodes and networks.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            seed: 1,
            nodes: Vec::new(),
            networks: Vec::new(),
            lines: Vec::new(),
            layers: Vec::new(),
            machine_root: None,
        }
    }

    /// Adds a node of this name.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push(name.into());
        self
    }

    /// Adds a switch. Ports are node, interface and `ADDRESS/MASKBITS`, several with blanks between.
    ///
    /// # Panics
    /// If an address cannot be parsed: descriptions are written by programmers.
    #[must_use]
    pub fn segment(self, name: &str, ports: &[(&str, &str, &str)]) -> Self {
        self.network(name, NetworkKind::Segment, ports)
    }

    /// Adds a cable between two nodes; ports as in [`segment`](Self::segment).
    ///
    /// # Panics
    /// As [`segment`](Self::segment).
    #[must_use]
    pub fn crossover(self, name: &str, ports: [(&str, &str, &str); 2]) -> Self {
        self.network(name, NetworkKind::Crossover, &ports)
    }

    /// Adds a serial line; ends are node and device name.
    #[must_use]
    pub fn line(mut self, name: &str, a: (&str, &str), b: (&str, &str)) -> Self {
        let end = |(node, device): (&str, &str)| (node.to_owned(), device.to_owned());
        self.lines.push(Line { name: name.into(), ends: [end(a), end(b)] });
        self
    }

    /// Lays a directory's `usr` and `etc` over the nodes' own, below those laid before.
    #[must_use]
    pub fn layer(mut self, directory: &Path) -> Self {
        self.layers.push(directory.to_owned());
        self
    }

    /// Puts a relay into every port of the networks added so far, with random numbers from `seed`.
    #[must_use]
    pub fn relayed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self.networks.iter_mut().for_each(|network| network.relayed = true);
        self
    }

    fn network(mut self, name: &str, kind: NetworkKind, ports: &[(&str, &str, &str)]) -> Self {
        let port = |(node, interface, addresses): &(&str, &str, &str)| Port {
            node: (*node).into(),
            interface: (*interface).into(),
            addresses: addresses.split_whitespace().map(with_mask).collect(),
        };
        let ports = ports.iter().map(port).collect();
        self.networks.push(Network { name: name.into(), kind, relayed: false, ports });
        self
    }

    /// Refuses a description that cannot be built.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let wrong = |what: String| Err(Fault::Description(what));
        let mut nodes = BTreeSet::new();
        for name in &self.nodes {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
            if name.is_empty() || name.len() > 64 || !plain || name.starts_with('.') || name == "pts" {
                return wrong(format!("{name:?} cannot be the name of a node"));
            }
            if !nodes.insert(name) {
                return wrong(format!("there are two nodes {name}"));
            }
        }
        let mut places = BTreeSet::new();
        let mut names = BTreeSet::new();
        for network in &self.networks {
            if !names.insert(&network.name) {
                return wrong(format!("there are two links {}", network.name));
            }
            if network.kind == NetworkKind::Crossover && network.ports.len() != 2 {
                return wrong(format!("{} is a cable and needs two ends", network.name));
            }
            for Port { node, interface, .. } in &network.ports {
                if !nodes.contains(node) {
                    return wrong(format!(
                        "{} leads to {node}, which is not a node of the rack",
                        network.name
                    ));
                }
                if interface.is_empty() || interface.len() > INTERFACE_BYTES_MAX {
                    return wrong(format!("{interface:?} cannot be the name of an interface"));
                }
                if !places.insert((node, interface)) {
                    return wrong(format!("{node} has two interfaces {interface}"));
                }
            }
        }
        for line in &self.lines {
            if !names.insert(&line.name) {
                return wrong(format!("there are two links {}", line.name));
            }
            for (node, device) in &line.ends {
                if !nodes.contains(node) {
                    return wrong(format!("{} leads to {node}, which is not a node of the rack", line.name));
                }
                if device.is_empty() || device.contains('/') || device.starts_with('.') {
                    return wrong(format!("{device:?} cannot be the name of a device"));
                }
                if !places.insert((node, device)) {
                    return wrong(format!("{node} has two devices {device}"));
                }
            }
        }
        Ok(())
    }
}

fn with_mask(text: &str) -> (IpAddr, u8) {
    let parts = text.split_once('/').and_then(|(ip, bits)| Some((ip.parse().ok()?, bits.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("{text} is not ADDRESS/MASKBITS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_refused_with_the_reason() {
        let two = || Description::new(Path::new("locum")).node("a").node("b");
        assert!(two().check().is_ok());
        let reason = |description: Description| description.check().unwrap_err().to_string();
        assert_eq!(reason(two().node("a")), "there are two nodes a");
        assert_eq!(reason(two().node("../a")), "\"../a\" cannot be the name of a node");
        assert_eq!(
            reason(two().segment("lan", &[("c", "eth0", "")])),
            "lan leads to c, which is not a node of the \
                                                                        rack"
        );
        assert_eq!(
            reason(two().segment("lan", &[("a", "eth0", "")]).segment("san", &[("a", "eth0", "")])),
            "a has two interfaces eth0"
        );
        assert_eq!(
            reason(two().line("modem", ("a", "../tty"), ("b", "tty"))),
            "\"../tty\" cannot be the name of a device"
        );
    }
}
