//! The rights that this daemon's configuration needs and the kernel does not give it, with the cure. `check` and the
//! status show them. The heart claims nothing that it cannot carry without them.

use std::fmt;

use locum_core::{model::resource::Agent, r1::plan::Medium};
use locum_sys::rights::{self, Right};

use crate::duties::{Duties, Gate, Way};

/// A right that is missing and needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    pub right: Right,
    /// Whether something does not work at all without it. Otherwise it works less well, or in another way.
    pub is_trouble: bool,
}

/// The rights that this host config needs and that are missing, as far as capabilities tell.
#[must_use]
pub fn lacks(duties: &Duties) -> Vec<Lack> {
    lacks_of(duties, &rights::missing(), unprivileged_ports())
}

/// The same for `check`, if the caller has any rights of a daemon: an ordinary user has none, and that says nothing.
#[must_use]
pub fn lacks_here(duties: &Duties) -> Vec<Lack> {
    if rights::has_any() { lacks(duties) } else { Vec::new() }
}

/// Why no service address can be put on an interface, if so.
#[must_use]
pub fn no_addresses() -> Option<String> {
    let lack = Lack { right: Right::NetAdmin, is_trouble: true };
    rights::missing().contains(&Right::NetAdmin).then(|| lack.to_string())
}

/// Why a node with this host config must not take a group with a service address: it could not put it anywhere, or it
/// would never hear that the other node has it.
#[must_use]
pub fn bars(duties: &Duties) -> Option<String> {
    let lacks = lacks(duties);
    let of = |right: Right| lacks.iter().find(|lack| lack.right == right).map(ToString::to_string);
    let is_deaf = || {
        duties.links.iter().all(|link| ports_of(&link.way).iter().any(|port| *port < unprivileged_ports()))
    };
    of(Right::NetAdmin).or_else(|| of(Right::NetBindService).filter(|_| is_deaf()))
}

fn lacks_of(duties: &Duties, missing: &[Right], unprivileged_ports: u16) -> Vec<Lack> {
    let mut agents = duties.resources().map(|(_, resource)| &resource.agent);
    let has_addresses = agents.any(|agent| matches!(agent, Agent::Address(_)));
    let mut agents = duties.resources().map(|(_, resource)| &resource.agent);
    let announces = agents.any(|agent| matches!(agent, Agent::Address(_) | Agent::SendArp(_)));
    let needs = |right: &Right| match right {
        Right::NetAdmin => has_addresses,
        Right::NetRaw => announces || !duties.pings.is_empty(),
        Right::Bpf => has_addresses && duties.groups.iter().any(|group| group.gate != Gate::None),
        Right::NetBindService => ports(duties).any(|port| port < unprivileged_ports),
        Right::SysNice => duties.realtime.is_some_and(|priority| !rights::may_be_realtime(priority.into())),
        Right::IpcLock => !rights::may_lock_memory(),
    };
    let needed = missing.iter().copied().filter(needs);
    needed.map(|right| Lack { right, is_trouble: is_trouble(right) }).collect()
}

const fn is_trouble(right: Right) -> bool {
    matches!(right, Right::NetAdmin | Right::NetRaw | Right::NetBindService)
}

/// The UDP ports at which this member listens.
fn ports(duties: &Duties) -> impl Iterator<Item = u16> {
    duties.links.iter().flat_map(|link| ports_of(&link.way))
}

fn ports_of(way: &Way) -> Vec<u16> {
    match way {
        Way::Interface(_, media, _) => media.iter().filter_map(port).collect(),
        Way::Routed { to: None, from } => vec![from.port()],
        Way::Routed { .. } | Way::Serial { .. } | Way::Nowhere => Vec::new(),
    }
}

fn port(medium: &Medium) -> Option<u16> {
    match medium {
        Medium::Broadcast { port, .. } | Medium::Multicast { port, .. } | Medium::Unicast { port, .. } => {
            Some(*port)
        }
        Medium::Serial { .. } => None,
    }
}

/// Ports from this number on need no right (ip(7)); port 0 is the kernel's choice.
fn unprivileged_ports() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

impl Lack {
    /// Says what does not work without the right.
    #[must_use]
    pub const fn harm(&self) -> &'static str {
        match self.right {
            Right::NetAdmin => {
                "no service address can be put on an interface, so no group with one can run here"
            }
            Right::NetRaw => {
                "service addresses cannot be announced, so neighbours go on asking the old owner for minutes after a takeover, \
                 and ping nodes cannot be asked"
            }
            Right::Bpf => "gates cannot be made by bpf; they are made by nft if it can",
            Right::NetBindService => "no link can be opened at a UDP port below 1024",
            Right::SysNice => "the heart has no real-time scheduling, so beats may be late on a busy machine",
            Right::IpcLock => "memory is not locked, so beats may be late when memory is short",
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

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{} is missing: {}; {}", self.right.name(), self.harm(), self.cure())
    }
}

#[cfg(test)]
mod tests {
    use locum_core::config::{Files, Options, check};

    use super::*;

    fn duties(ha_cf: &[u8], haresources: &[u8]) -> Duties {
        let files = Files {
            ha_cf: Some(ha_cf),
            authkeys: Some(b"auth 1\n1 sha1 secret\n"),
            haresources: Some(haresources),
        };
        let checked = check(&files, "web1", &Options::default());
        Duties::from(&checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diags)))
    }

    #[test]
    fn each_right_is_named_where_it_is_needed_and_nowhere_else() {
        const CF: &[u8] = b"bcast eth0\nnode web1 web2\nkeepalive 1\ndeadtime 5\n";
        const HIGH: &[u8] =
            b"udpport 1694\nbcast eth0\nnode web1 web2\nrealtime off\nkeepalive 1\ndeadtime 5\n";
        let address = duties(CF, b"web1 10.8.0.50/24/eth0\n");
        let nothing = duties(HIGH, b"web1 httpd\n");
        for (right, trouble) in [
            (Right::NetAdmin, Some(true)),
            (Right::NetRaw, Some(true)),
            (Right::Bpf, Some(false)),
            (Right::NetBindService, Some(true)),
        ] {
            let found = lacks_of(&address, &[right], 1024);
            assert_eq!(found.first().map(|lack| lack.is_trouble), trouble, "{right:?}");
            let text = found[0].to_string();
            assert!(text.contains(&format!("CAP_{} is missing", right.name())), "{text}");
            assert!(text.contains(&format!("--cap-add={}", right.name())), "{text}");
            assert_eq!(lacks_of(&nothing, &[right], 1024), [], "{right:?}");
        }
        assert_eq!(lacks_of(&address, &[Right::NetBindService], 0), [], "the system lets everybody");
        assert_eq!(lacks_of(&nothing, &[Right::SysNice], 1024), [], "not asked for");
        assert_eq!(lacks_of(&address, &[], 1024), []);
    }
}
