//! Addresses without a heart: for a person who starts and stops groups by hand while no daemon runs.

use std::io;

use locum_core::model::{action::Operation, event::Outcome, identity::ResourceId, resource::Agent};
use locum_sys::clock;

use super::{
    address::{Addresses, NO_PROCESSES},
    network::Network,
};
use crate::host_config::HostConfig;

/// The addresses of a configuration, and the kernel behind them.
pub struct StandaloneAddresses {
    addresses: Addresses,
    network: Network,
}

impl StandaloneAddresses {
    /// Reads the interfaces; changes nothing yet.
    ///
    /// # Errors
    /// When the kernel does not tell its interfaces.
    pub fn open(host_config: &HostConfig) -> io::Result<Self> {
        Ok(Self { addresses: Addresses::new(host_config), network: Network::open()? })
    }

    /// Puts an address on its interface, removes it, or looks whether it exists. A `SendArp` only announces, and leaves
    /// nothing that could be found.
    pub fn run(&mut self, host_config: &HostConfig, id: ResourceId, operation: Operation) -> Outcome {
        let now = clock::monotonic_nanos();
        let speaks = matches!(host_config.resource(id).agent, Agent::SendArp(_));
        let outcome = match (operation, speaks) {
            (Operation::Start, false) => self.addresses.start(id, &mut self.network, now, |_| Ok(())),
            (Operation::Stop, false) => self.addresses.stop(id, &mut self.network),
            (Operation::Status, false) => self.addresses.stands(id, &self.network),
            (Operation::Start, true) => self.addresses.speak_for(id, &self.network, now),
            (Operation::Stop, true) => self.addresses.be_silent(id),
            (Operation::Status, true) => Outcome::Stopped,
            (Operation::Terminate | Operation::Kill, _) => Outcome::Failed(NO_PROCESSES.to_owned()),
        };
        self.addresses.send_due(&self.network, now);
        outcome
    }

    /// When the next announcement is due, in nanoseconds of the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.addresses.deadline()
    }

    /// Sends the announcements that are due.
    pub fn send_due(&mut self) {
        self.addresses.send_due(&self.network, clock::monotonic_nanos());
    }
}
