//! One daemon is frozen while the other node is started afresh. The new one takes everything because it hears nothing,
//! and then meets the older one, which has run all along. Neither has taken a group from a node that it heard. So the
//! older daemon start decides which of them stops, without any wait.

use locum_core::{
    model::{holding::Holding, order::Order, time::Duration},
    r1::plan::AutoFailback,
};

use crate::common::pair::Pair;

/// The longest time for which both nodes ran a group after they heard each other, with the worst case. No group may be
/// without an owner meanwhile.
pub(crate) fn overlap() -> (Duration, String) {
    let second = Duration::from_secs(1);
    let mut worst = (Duration::ZERO, String::new());
    for mode in [AutoFailback::On, AutoFailback::Off] {
        for (still, moved) in [(0, false), (0, true), (1, false), (1, true)] {
            for seed in 0..12 {
                let mut pair = Pair::new(mode);
                (pair.quiet, pair.seed) = (true, seed);
                pair.run(second);
                if moved {
                    pair.order(1 - still, Order::Standby(Holding::All));
                }
                pair.run(second * 2);
                let off = Duration::from_millis(pair.random(900));
                let time = second * 5 + Duration::from_millis(pair.random(1500));
                pair.freeze(still, time);
                pair.run(off);
                pair.power_off(1 - still);
                pair.run(Duration::from_millis(100));
                pair.power_on(1 - still);
                while pair.nodes[still].frozen > pair.now {
                    pair.run(Duration::from_millis(10));
                }
                let thawed = pair.now;
                pair.agent_delay = 50;
                pair.run(second * 6);
                let case = format!("{mode:?}, {still} stood still, moved {moved}, seed {seed}");
                for name in ["one", "two", "three"] {
                    assert!(pair.outage(name, thawed) < Duration::from_millis(300), "{case}: {name}");
                }
                let overlap = pair.overlap(thawed);
                if overlap > worst.0 {
                    worst = (overlap, case);
                }
            }
        }
    }
    worst
}

pub(crate) fn they_agree_within_a_deadtime() {
    let (overlap, case) = overlap();
    assert!(overlap < Duration::from_secs(1), "{overlap:?}: {case}");
}
