//! The two sets of groups as one value. [`Holding`] stands on the wire (`rsc_hold`), in commands and in the dialect's
//! state. Its functions join and intersect such sets, and turn them to the other node's point of view.

/// `rsc_hold`: a set of groups, seen from one node: *local* are those that prefer it, *foreign* those that prefer
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holding {
    None,
    Local,
    Foreign,
    All,
}

impl Holding {
    /// The set that consists of these halves.
    #[must_use]
    pub const fn of(local: bool, foreign: bool) -> Self {
        match (local, foreign) {
            (false, false) => Self::None,
            (true, false) => Self::Local,
            (false, true) => Self::Foreign,
            (true, true) => Self::All,
        }
    }

    /// Whether the local set is in it.
    #[must_use]
    pub const fn has_local(self) -> bool {
        matches!(self, Self::Local | Self::All)
    }

    /// Whether the foreign set is in it.
    #[must_use]
    pub const fn has_foreign(self) -> bool {
        matches!(self, Self::Foreign | Self::All)
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// The union of both sets.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::of(self.has_local() || other.has_local(), self.has_foreign() || other.has_foreign())
    }

    /// The difference: what is in this set and not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self::of(self.has_local() && !other.has_local(), self.has_foreign() && !other.has_foreign())
    }

    /// The intersection of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self::of(self.has_local() && other.has_local(), self.has_foreign() && other.has_foreign())
    }

    /// The same groups, named from the other node's point of view: my local groups are its foreign ones.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self::of(self.has_foreign(), self.has_local())
    }
}

#[cfg(test)]
mod tests {
    use super::Holding::{self, All, Foreign, Local, None};

    const EVERY: [Holding; 4] = [None, Local, Foreign, All];

    #[test]
    fn the_algebra_holds_for_every_pair() {
        for a in EVERY {
            assert_eq!(a.mirrored().mirrored(), a);
            for b in EVERY {
                assert_eq!(a.minus(b).plus(a.and(b)), a, "{a:?} {b:?}");
                assert_eq!(a.plus(b).mirrored(), a.mirrored().plus(b.mirrored()));
            }
        }
        assert_eq!(Local.mirrored(), Foreign);
    }
}
