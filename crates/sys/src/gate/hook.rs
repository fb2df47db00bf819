//! The hooks that a gate takes on interfaces, the same for both backends.

use super::Settings;

/// A hook on the interface with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// Filters arriving packets for the gates.
    In(u32),
    /// Filters departing packets for the gates.
    Out(u32),
    /// The claim listener: looks for rivals' claims among arriving packets.
    Ear(u32),
}

impl Hook {
    /// Sorts before all other hooks.
    pub(super) const FIRST: Self = Self::In(0);

    /// The two hooks of the packet filter on an interface.
    pub(super) fn judges(interface: u32) -> [Self; 2] {
        [Self::In(interface), Self::Out(interface)]
    }

    /// All hooks that a gate needs, each once.
    pub(super) fn wanted(settings: &Settings) -> Vec<Self> {
        let judges = settings.interfaces.iter().flat_map(|&interface| Self::judges(interface));
        let ears = settings.rivals.iter().flat_map(|rivals| &rivals.interfaces).map(|&i| Self::Ear(i));
        let mut wanted: Vec<_> = judges.chain(ears).collect();
        wanted.sort();
        wanted.dedup();
        wanted
    }

    pub(super) fn interface(self) -> u32 {
        let (Self::In(interface) | Self::Out(interface) | Self::Ear(interface)) = self;
        interface
    }

    /// The name of the pin or of the chain: `in-N`, `out-N` or `ear-N`.
    pub(super) fn name(self) -> String {
        let word = match self {
            Self::In(_) => "in",
            Self::Out(_) => "out",
            Self::Ear(_) => "ear",
        };
        format!("{word}-{}", self.interface())
    }

    /// The hook with that name; `None` for any other text.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let interface = name.split_once('-')?.1.parse().ok()?;
        let all = [Self::In(interface), Self::Out(interface), Self::Ear(interface)];
        all.into_iter().find(|hook| hook.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for hook in [Hook::In(1), Hook::Out(77), Hook::Ear(u32::MAX)] {
            assert_eq!(Hook::parse(&hook.name()), Some(hook));
        }
        for name in ["state", "in", "in-", "in-x", "in-07", "up-1", "in-99999999999"] {
            assert_eq!(Hook::parse(name), None, "{name}");
        }
    }
}
