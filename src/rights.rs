//! The rights that this daemon's configuration needs and the kernel does not give it, with the cure. `check` and the
//! status show them. The heart claims nothing that it cannot carry without them.

use std::fmt;

use locum_core::{model::resource::Agent, r1::plan::R1Medium};
use locum_sys::rights::{self, Capability};

use crate::host_config::{GatePolicy, HostConfig, LinkPath};

/// A right that is missing and needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingRight {
    pub right: Capability,
    /// Whether something does not work at all without it. Otherwise it works less well, or in another way.
    pub is_trouble: bool,
}

/// The rights that this host config needs and that are missing, as far as capabilities tell.
#[must_use]
pub fn lacks(host_config: &HostConfig) -> Vec<MissingRight> {
    lacks_of(host_config, &rights::missing(), unprivileged_ports())
}

/// The same for `check`, if the caller has any rights of a daemon: an ordinary user has none, and that says nothing.
#[must_use]
pub fn lacks_here(host_config: &HostConfig) -> Vec<MissingRight> {
    if rights::has_any() { lacks(host_config) } else { Vec::new() }
}

/// Why no service address can be put on an interface, if so.
#[must_use]
pub fn no_addresses() -> Option<String> {
    let lack = MissingRight { right: Capability::NetAdmin, is_trouble: true };
    rights::missing().contains(&Capability::NetAdmin).then(|| lack.to_string())
}

/// Why a node with this host config must not take a group with a service address: it could not put it anywhere, or it
/// would never hear that the other node has it.
#[must_use]
pub fn bars(host_config: &HostConfig) -> Option<String> {
    let lacks = lacks(host_config);
    let of = |right: Capability| lacks.iter().find(|lack| lack.right == right).map(ToString::to_string);
    let is_deaf = || {
        host_config
            .links
            .iter()
            .all(|link| ports_of(&link.path).iter().any(|port| *port < unprivileged_ports()))
    };
    of(Capability::NetAdmin).or_else(|| of(Capability::NetBindService).filter(|_| is_deaf()))
}

fn lacks_of(host_config: &HostConfig, missing: &[Capability], unprivileged_ports: u16) -> Vec<MissingRight> {
    let mut agents = host_config.resources().map(|(_, resource)| &resource.agent);
    let has_addresses = agents.any(|agent| matches!(agent, Agent::Address(_)));
    let mut agents = host_config.resources().map(|(_, resource)| &resource.agent);
    let announces = agents.any(|agent| matches!(agent, Agent::Address(_) | Agent::SendArp(_)));
    let needs = |right: &Capability| match right {
        Capability::NetAdmin => has_addresses,
        Capability::NetRaw => announces || !host_config.pings.is_empty(),
        Capability::Bpf => {
            has_addresses && host_config.groups.iter().any(|group| group.gate != GatePolicy::None)
        }
        Capability::NetBindService => ports(host_config).any(|port| port < unprivileged_ports),
        Capability::SysNice => {
            host_config.realtime.is_some_and(|priority| !rights::may_be_realtime(priority.into()))
        }
        Capability::IpcLock => !rights::may_lock_memory(),
    };
    let needed = missing.iter().copied().filter(needs);
    needed.map(|right| MissingRight { right, is_trouble: is_trouble(right) }).collect()
}

const fn is_trouble(right: Capability) -> bool {
    matches!(right, Capability::NetAdmin | Capability::NetRaw | Capability::NetBindService)
}

/// The UDP ports at which this member listens.
fn ports(host_config: &HostConfig) -> impl Iterator<Item = u16> {
    host_config.links.iter().flat_map(|link| ports_of(&link.path))
}

fn ports_of(way: &LinkPath) -> Vec<u16> {
    match way {
        LinkPath::Interface(_, media, _) => media.iter().filter_map(port).collect(),
        LinkPath::Routed { to: None, from } => vec![from.port()],
        LinkPath::Routed { .. } | LinkPath::Serial { .. } | LinkPath::Nowhere => Vec::new(),
    }
}

fn port(medium: &R1Medium) -> Option<u16> {
    match medium {
        R1Medium::Broadcast { port, .. }
        | R1Medium::Multicast { port, .. }
        | R1Medium::Unicast { port, .. } => Some(*port),
        R1Medium::Serial { .. } => None,
    }
}

/// Ports from this number on need no right (ip(7)); port 0 is the kernel's choice.
fn unprivileged_ports() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

impl MissingRight {
    /// Says what does not work without the right.
    #[must_use]
    pub const fn harm(&self) -> &'static str {
        match self.right {
            Capability::NetAdmin => {
                "no service address can be put on an interface, so no group with an address can run here"
            }
            Capability::NetRaw => {
                "service addresses cannot be announced, so neighbours use the old owner for minutes after a \
                 takeover, and ping nodes cannot be asked"
            }
            Capability::Bpf => "gates cannot be made by bpf; nft is used instead if possible",
            Capability::NetBindService => "no link can be opened at a UDP port below 1024",
            Capability::SysNice => {
                "the heart has no real-time scheduling, so beats may be late on a busy machine"
            }
            Capability::IpcLock => "memory is not locked, so beats may be late when memory is short",
        }
    }

    /// Says where to give the daemon the right.
    #[must_use]
    pub fn cure(&self) -> String {
        let name = self.right.name();
        format!(
            "give the daemon CAP_{name}: `--cap-add={name}` of its container, CapabilityBoundingSet= and \
             AmbientCapabilities= of its unit"
        )
    }
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{} is missing: {}; {}", self.right.name(), self.harm(), self.cure())
    }
}

#[cfg(test)]
mod tests {
    use locum_core::config::{CheckOptions, HaFiles, check};

    use super::*;

    fn host_config(ha_cf: &[u8], haresources: &[u8]) -> HostConfig {
        let files = HaFiles {
            ha_cf: Some(ha_cf),
            authkeys: Some(b"auth 1\n1 sha1 secret\n"),
            haresources: Some(haresources),
        };
        let checked = check(&files, "web1", &CheckOptions::default());
        HostConfig::from(&checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diags)))
    }

    #[test]
    fn each_right_is_named_where_it_is_needed_and_nowhere_else() {
        const CF: &[u8] = b"bcast eth0\nnode web1 web2\nkeepalive 1\ndeadtime 5\n";
        const HIGH: &[u8] =
            b"udpport 1694\nbcast eth0\nnode web1 web2\nrealtime off\nkeepalive 1\ndeadtime 5\n";
        let address = host_config(CF, b"web1 10.8.0.50/24/eth0\n");
        let nothing = host_config(HIGH, b"web1 httpd\n");
        for (right, trouble) in [
            (Capability::NetAdmin, Some(true)),
            (Capability::NetRaw, Some(true)),
            (Capability::Bpf, Some(false)),
            (Capability::NetBindService, Some(true)),
        ] {
            let found = lacks_of(&address, &[right], 1024);
            assert_eq!(found.first().map(|lack| lack.is_trouble), trouble, "{right:?}");
            let text = found[0].to_string();
            assert!(text.contains(&format!("CAP_{} is missing", right.name())), "{text}");
            assert!(text.contains(&format!("--cap-add={}", right.name())), "{text}");
            assert_eq!(lacks_of(&nothing, &[right], 1024), [], "{right:?}");
        }
        assert_eq!(lacks_of(&address, &[Capability::NetBindService], 0), [], "the system lets everybody");
        assert_eq!(lacks_of(&nothing, &[Capability::SysNice], 1024), [], "not asked for");
        assert_eq!(lacks_of(&address, &[], 1024), []);
    }
}
