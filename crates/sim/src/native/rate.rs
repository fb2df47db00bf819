//! Measures the traffic of clusters in which nothing, or one thing, happens, and the CPU time of the simulator and the
//! core.

use std::fmt::Write as _;

use super::{
    faults::ScenarioStep,
    world::{NativeWorld, Traffic},
};

/// The longest wait for a condition, in simulated milliseconds.
const PATIENCE: u64 = 120_000;
/// Between two looks at a condition, in simulated milliseconds.
const LOOK: u64 = 10;

/// A cluster at pace 1 s that has come to rest.
#[derive(Debug)]
pub struct Steady {
    world: NativeWorld,
    nodes: u64,
}

/// The traffic of one node in a second.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Frames that the node sends.
    pub frames: f64,
    /// Bytes of one of these frames.
    pub frame_bytes: f64,
    /// Frames that the node receives. Where there is no multicast, as many are sent.
    pub copies: f64,
    /// Bytes of all copies together.
    pub copied_bytes: f64,
}

impl Steady {
    /// A cluster with this many nodes and groups. `bytes`: messages are encoded and read back as frames.
    ///
    /// # Panics
    /// If the cluster does not come to rest.
    #[must_use]
    pub fn new(nodes: u64, groups: u64, bytes: bool) -> Self {
        let mut toml = String::from("cluster = \"rate\"\npace = \"1s\"\n");
        for node in 1..=nodes {
            // The simulation reads the configuration first as the node of this name.
            let name = if node == 1 { "a".to_owned() } else { format!("n{node}") };
            let _ = write!(toml, "[nodes.{name}]\nlinks = {{ lan = \"10.0.0.{node}\" }}\n");
        }
        if nodes == 2 {
            toml += "[witnesses.w]\naddress = \"10.0.0.99\"\n";
        }
        for group in 1..=groups {
            let _ = write!(toml, "[groups.g{group}]\nresources = [\"daemon{group}\"]\nguard = \"lease\"\n");
        }
        let mut steady =
            Self { world: NativeWorld::new(&toml, u64::from(!bytes), true, false, false), nodes };
        steady.wait_for_owners();
        steady.pass(30_000);
        steady
    }

    /// Waits until every group has one owner, and returns after how many simulated milliseconds.
    ///
    /// # Panics
    /// If some group has no single owner within two minutes.
    pub fn wait_for_owners(&mut self) -> u64 {
        for waited in (0..PATIENCE).step_by(10) {
            if (0..self.world.groups()).all(|group| self.world.open_gates(group).len() == 1) {
                return waited;
            }
            self.pass(LOOK);
        }
        panic!("not every group has an owner within {PATIENCE} ms");
    }

    /// Lets this many simulated milliseconds pass.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn pass(&mut self, millis: u64) {
        self.world.play(ScenarioStep::Wait(millis)).expect("nothing is broken in it");
    }

    /// Powers an owner off and returns how many groups it owned.
    ///
    /// # Panics
    /// As [`Self::pass`].
    pub fn lose_an_owner(&mut self) -> usize {
        let owner = self.world.open_gates(0)[0];
        let owned = (0..self.world.groups()).filter(|group| self.world.open_gates(*group) == [owner]).count();
        self.world.play(ScenarioStep::PowerOff(owner)).expect("a death is survived");
        self.nodes -= 1;
        owned
    }

    /// Lets this many milliseconds pass and returns the traffic of one node in a second of them.
    pub fn load(&mut self, millis: u64) -> Load {
        let before = self.world.traffic;
        self.pass(millis);
        self.load_since(before, millis)
    }

    /// The traffic so far, since the cluster began.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.world.traffic
    }

    /// The traffic of one node in a second of the last `millis` milliseconds; `before` is the traffic at their
    /// beginning.
    #[must_use]
    pub fn load_since(&self, before: Traffic, millis: u64) -> Load {
        let node_seconds = (self.nodes * millis) as f64 / 1000.0;
        let Traffic { frames, bytes, copies, copied_bytes } = self.world.traffic;
        let frames = (frames - before.frames) as f64;
        Load {
            frames: frames / node_seconds,
            frame_bytes: (bytes - before.bytes) as f64 / frames.max(1.0),
            copies: (copies - before.copies) as f64 / node_seconds,
            copied_bytes: (copied_bytes - before.copied_bytes) as f64 / node_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_follows_their_number_and_not_that_of_the_groups() {
        let load = |nodes, groups| Steady::new(nodes, groups, true).load(9_000);
        let (small, many_groups, many_nodes) = (load(4, 4), load(4, 100), load(8, 4));
        let is_about = |one: f64, other: f64| (one / other - 1.0).abs() < 0.05;
        assert!(is_about(small.copies, 10.0), "ten beats in three seconds, to three others: {small:?}");
        assert!(is_about(many_groups.copied_bytes, small.copied_bytes), "{many_groups:?} {small:?}");
        assert!(is_about(many_nodes.copies / 7.0, small.copies / 3.0), "{many_nodes:?} {small:?}");
        assert!(many_nodes.frame_bytes < small.frame_bytes * 2.0, "{many_nodes:?} {small:?}");
        // Seven nodes vote and echo all; the others echo those seven. So each further node costs the same.
        let heard = |nodes| load(nodes, 4).copied_bytes;
        let (eight, sixteen, more) = (many_nodes.copied_bytes, heard(16), heard(32));
        let (first, second) = ((sixteen - eight) / 8.0, (more - sixteen) / 16.0);
        assert!(second < 2000.0 && second < first * 1.05, "{eight} {sixteen} {more}");
    }

    #[test]
    fn a_death_among_many_groups_is_survived() {
        let mut steady = Steady::new(3, 50, false);
        assert!(steady.lose_an_owner() > 5);
        let taken_over = steady.wait_for_owners();
        assert!((500..2500).contains(&taken_over), "{taken_over} ms");
    }
}
