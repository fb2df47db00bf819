//! What a group is made of: things to start and stop, and what runs them.

use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr};

use super::time::Duration;

/// One thing to start and stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// As written in `haresources`, for people.
    pub text: String,
    /// The script's name (`IPaddr` for a bare address).
    pub script: String,
    /// The words after `::`.
    pub args: Vec<String>,
    /// What runs it.
    pub agent: Agent,
}

impl Resource {
    /// How lines of the log call it among the resources of its group: an OCF agent without its parameters, which its start
    /// has told, unless they alone tell two of them apart.
    pub fn name<'a>(&'a self, group: impl IntoIterator<Item = &'a Self>) -> &'a str {
        let is_ocf = matches!(self.agent, Agent::Ocf { .. });
        let is_alone = || group.into_iter().filter(|other| other.script == self.script).count() <= 1;
        if is_ocf && is_alone() { &self.script } else { &self.text }
    }
}

/// What runs a resource. The native ones are stand-ins for heartbeat's scripts of the same names; the scripts
/// themselves are used instead when the daemon is told to prefer them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// `IPaddr`, `IPaddr2`, `IPv6addr` and bare addresses.
    Address(Address),
    /// `SendArp::ADDRESS[::…]`: announce an address that something else carries.
    SendArp(Address),
    /// `MailTo::ADDRESSES[::SUBJECT]`
    MailTo {
        /// Blank separated.
        recipients: String,
        /// Prefix of the subject line.
        subject: Option<String>,
    },
    /// `Delay::START[::STOP]`
    Delay {
        /// Wait at start.
        start: Duration,
        /// Wait at stop.
        stop: Duration,
    },
    /// `Filesystem::DEVICE::DIRECTORY::TYPE[::OPTIONS]`
    Filesystem {
        /// What to mount.
        device: String,
        /// Where.
        directory: String,
        /// File system type; empty leaves it to mount(8).
        kind: Option<String>,
        /// Mount options.
        options: Option<String>,
    },
    /// An OCF agent with its parameters still in a file: `OCF::TYPE::INSTANCE`, read from
    /// `conf/OCF/TYPE/INSTANCE` in the configuration directory.
    OcfFile {
        /// The agent's name.
        kind: String,
        /// The file's name.
        instance: String,
    },
    /// `ocf:PROVIDER:TYPE::name=value::…`
    Ocf {
        /// For example `heartbeat`.
        provider: String,
        /// The agent's name.
        kind: String,
        /// Exported to the agent as `OCF_RESKEY_name`.
        parameters: Vec<(String, String)>,
    },
    /// A resource script or, if there is none of that name, a systemd unit; found by the hands.
    Script,
}

/// A service address as `haresources` writes it: `ip[/maskbits[/if[:label]][/broadcast]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Mask bits; without them, those of the connected network that contains the address.
    pub prefix: Option<u8>,
    /// The interface; without it, the one whose connected network contains the address, longest prefix first.
    pub interface: Option<String>,
    /// The alias label as the kernel shows it (`eth0:web`); IPv4 only.
    pub label: Option<String>,
    /// The broadcast address; without it, the highest of the network.
    pub broadcast: Option<Ipv4Addr>,
    /// Where no network of the machine contains it, it goes to the interface over which the machine would reach it: heartbeat's
    /// `IPaddr` with a mask.
    pub by_route: bool,
}
