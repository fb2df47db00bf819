//! A cluster to which nothing happens: what the simulator costs, measured.

use super::{faults::Step, world::World};

/// Three nodes and three groups at pace 1 s, which have come to rest.
#[derive(Debug)]
pub struct Steady(World);

impl Default for Steady {
    fn default() -> Self {
        Self::new()
    }
}

impl Steady {
    /// After a simulated minute.
    #[must_use]
    pub fn new() -> Self {
        let names = ["a", "b", "c"];
        let node = |(index, name)| format!("[nodes.{name}]\nlinks = {{ lan = \"10.0.0.{index}\" }}\n");
        let group = |name| {
            format!("[groups.{name}]\nresources = [\"daemon\"]\nguard = \"lease\"\nprefer = \"{name}\"\n")
        };
        let parts: String = (1..).zip(names).map(node).chain(names.map(group)).collect();
        // Words, as in nine seeds of ten.
        let world = World::new(&format!("cluster = \"rate\"\npace = \"1s\"\n{parts}"), 1, true, false, false);
        let mut steady = Self(world);
        steady.pass(1);
        steady
    }

    /// So many simulated minutes pass.
    ///
    /// # Panics
    /// When a group does not run where it should: what is measured is no cluster then.
    pub fn pass(&mut self, minutes: u64) {
        self.0.play(Step::Wait(minutes * 60_000)).expect("nothing happens to it");
        for group in 0..self.0.groups() {
            assert_eq!(self.0.holders(group).len(), 1, "each runs once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests() {
        Steady::new().pass(1);
    }
}
