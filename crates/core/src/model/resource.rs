//! Resources, of which groups are made, and the agents that run them.

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
    pub agent: Agent,
}

impl Resource {
    /// Its name in lines of the log. An OCF agent is named without its parameters, which the line of its start has,
    /// unless only they tell two resources of the group apart.
    pub fn name<'a>(&'a self, group: impl IntoIterator<Item = &'a Self>) -> &'a str {
        let is_ocf = matches!(self.agent, Agent::Ocf { .. });
        let is_alone = || group.into_iter().filter(|other| other.script == self.script).count() <= 1;
        if is_ocf && is_alone() { &self.script } else { &self.text }
    }
}

/// The agent that runs a resource. The native ones are stand-ins for heartbeat's scripts of the same names. The scripts
/// themselves are used instead if the daemon is told to prefer them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// `IPaddr`, `IPaddr2`, `IPv6addr` and bare addresses.
    Address(Address),
    /// `SendArp::ADDRESS[::…]`: announce an address that something else carries.
    SendArp(Address),
    /// Sends mail about the group: `MailTo::ADDRESSES[::SUBJECT]`.
    MailTo {
        /// Mail addresses, separated by blanks.
        recipients: String,
        /// Prefix of the subject line.
        subject: Option<String>,
    },
    /// Waits for a while: `Delay::START[::STOP]`.
    Delay { start: Duration, stop: Duration },
    /// Mounts a file system: `Filesystem::DEVICE::DIRECTORY::TYPE[::OPTIONS]`.
    Filesystem {
        device: String,
        directory: String,
        /// File system type; empty leaves it to mount(8).
        kind: Option<String>,
        options: Option<String>,
    },
    /// An OCF agent with its parameters still in a file: `OCF::TYPE::INSTANCE`, read from
    /// `conf/OCF/TYPE/INSTANCE` in the configuration directory.
    OcfFile {
        /// The type of the agent.
        kind: String,
        /// The name of the file.
        instance: String,
    },
    /// An OCF agent with its parameters: `ocf:PROVIDER:TYPE::name=value::…`.
    Ocf {
        /// The provider of the agent, for example `heartbeat`.
        provider: String,
        /// The type of the agent.
        kind: String,
        /// Exported to the agent as `OCF_RESKEY_name`.
        parameters: Vec<(String, String)>,
    },
    /// A resource script or, if there is none of that name, a systemd unit. The control plane finds it.
    Script,
}

/// A service address as `haresources` writes it: `ip[/maskbits[/if[:label]][/broadcast]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// Mask bits; without them, those of the connected network that contains the address.
    pub prefix: Option<u8>,
    /// The interface; without it, the one whose connected network contains the address, longest prefix first.
    pub interface: Option<String>,
    /// The alias label as the kernel shows it (`eth0:web`); IPv4 only.
    pub label: Option<String>,
    /// The broadcast address; without it, the highest of the network.
    pub broadcast: Option<Ipv4Addr>,
    /// If no network of the machine contains it, it goes to the interface over which the machine would reach it, as
    /// heartbeat's `IPaddr` with a mask does.
    pub by_route: bool,
}
