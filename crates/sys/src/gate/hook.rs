//! The hooks that a gate takes on interfaces, the same for both backends.

use super::GateSettings;

/// A hook on the interface with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// Filters arriving packets for the gates.
    Ingress(u32),
    /// Filters departing packets for the gates.
    Egress(u32),
    /// The claim listener: looks for rivals' claims among arriving packets.
    ClaimListener(u32),
}

impl Hook {
    /// Sorts before all other hooks.
    pub(super) const FIRST: Self = Self::Ingress(0);

    /// The two hooks of the packet filter on an interface.
    pub(super) fn of_packet_filter(interface: u32) -> [Self; 2] {
        [Self::Ingress(interface), Self::Egress(interface)]
    }

    /// All hooks that a gate needs, each once.
    pub(super) fn wanted(settings: &GateSettings) -> Vec<Self> {
        let filters = settings.interfaces.iter().flat_map(|&interface| Self::of_packet_filter(interface));
        let listeners =
            settings.rivals.iter().flat_map(|rivals| &rivals.interfaces).map(|&i| Self::ClaimListener(i));
        let mut wanted: Vec<_> = filters.chain(listeners).collect();
        wanted.sort();
        wanted.dedup();
        wanted
    }

    pub(super) fn interface(self) -> u32 {
        let (Self::Ingress(interface) | Self::Egress(interface) | Self::ClaimListener(interface)) = self;
        interface
    }

    /// The name of the pin or of the chain: `in-N`, `out-N` or `ear-N`.
    pub(super) fn name(self) -> String {
        let prefix = match self {
            Self::Ingress(_) => "in",
            Self::Egress(_) => "out",
            Self::ClaimListener(_) => "ear",
        };
        format!("{prefix}-{}", self.interface())
    }

    /// The hook with that name; `None` for any other text.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let interface = name.split_once('-')?.1.parse().ok()?;
        let all = [Self::Ingress(interface), Self::Egress(interface), Self::ClaimListener(interface)];
        all.into_iter().find(|hook| hook.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for hook in [Hook::Ingress(1), Hook::Egress(77), Hook::ClaimListener(u32::MAX)] {
            assert_eq!(Hook::parse(&hook.name()), Some(hook));
        }
        for name in ["state", "in", "in-", "in-x", "in-07", "up-1", "in-99999999999"] {
            assert_eq!(Hook::parse(name), None, "{name}");
        }
    }
}
