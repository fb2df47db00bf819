//! Where a gate stands: the places on interfaces that both engines take.

use super::Settings;

/// A place on the interface with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// What comes in is judged.
    In(u32),
    /// What goes out is judged.
    Out(u32),
    /// What comes in is searched for rivals' claims.
    Ear(u32),
}

impl Hook {
    /// No other comes before it.
    pub(super) const FIRST: Self = Self::In(0);

    /// Both places of the judge.
    pub(super) fn judges(interface: u32) -> [Self; 2] {
        [Self::In(interface), Self::Out(interface)]
    }

    /// All that a gate takes, each once.
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

    /// What is pinned there, or the chain: `in-N`, `out-N` or `ear-N`.
    pub(super) fn name(self) -> String {
        let word = match self {
            Self::In(_) => "in",
            Self::Out(_) => "out",
            Self::Ear(_) => "ear",
        };
        format!("{word}-{}", self.interface())
    }

    /// The place of that name.
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
