//! Where a witness answers one member.
//!
//! The stamp of a frame says who wrote it, not who sent this copy. Copies come from elsewhere too: a witness on the network
//! of the nodes also hears their broadcasts, and anybody can send on what he has seen. So a frame that is sent to a
//! witness carries its sender's address there (`at`) under the stamp:
//!
//! 1. A frame that comes from the address that it names settles the matter.
//! 2. Behind a translator of addresses none does. Then the first address stays as long as it brings what is new. Another
//!    one has its turn when the member says that it does not hear us.
//! 3. A frame that names no address (a broadcast, an older version) counts last.

use core::net::SocketAddr;

use crate::model::{
    identity::Heard,
    time::{Duration, Instant},
};

/// The address, and what speaks for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Home {
    chosen: Option<Chosen>,
    /// The newest frames with an address under their stamp, and without. A recording of older ones moves nothing.
    newest: [Option<Heard>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Chosen {
    address: SocketAddr,
    trust: Trust,
    since: Instant,
    heard: Instant,
}

/// What speaks for an address, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// A frame that names no address came from it.
    Unnamed,
    /// A frame that names another one came from it.
    Translated,
    /// A frame that names it came from it.
    Named,
}

impl Home {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.chosen.map(|chosen| chosen.address)
    }

    /// A frame came `from` there, and names `at`. `patience`: how long an address may bring nothing, or its member not hear
    /// us (`is_deaf`: it says so), before another may take its place.
    pub(super) fn came(
        &mut self,
        now: Instant,
        patience: Duration,
        is_deaf: bool,
        frame: Heard,
        from: SocketAddr,
        at: Option<SocketAddr>,
    ) {
        let newest = &mut self.newest[usize::from(at.is_none())];
        // Copies of one frame come from several addresses.
        if newest.is_some_and(|newest| frame < newest) {
            return;
        }
        *newest = Some(frame);
        // The scope of a link-local address is a number of this machine's.
        let is_named = at.is_some_and(|at| (at.ip(), at.port()) == (from.ip(), from.port()));
        let trust = match at {
            _ if is_named => Trust::Named,
            Some(_) => Trust::Translated,
            None => Trust::Unnamed,
        };
        if let Some(chosen) = self.chosen.as_mut() {
            if chosen.address == from && chosen.trust <= trust {
                (chosen.trust, chosen.heard) = (trust, now);
                return;
            }
            let is_stale = now.since(chosen.heard) >= patience;
            let may_stay = chosen.trust > trust || (chosen.trust == trust && trust != Trust::Named);
            let is_useless = trust == chosen.trust && is_deaf && now.since(chosen.since) >= patience;
            if may_stay && !is_stale && !is_useless {
                return;
            }
        }
        self.chosen = Some(Chosen { address: from, trust, since: now, heard: now });
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::{collection::vec as many, prelude::*};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);
    const BEAT: u64 = 100;

    fn address(port: u16) -> SocketAddr {
        ([10, 8, 0, 1], port).into()
    }

    fn frame(number: u64) -> Heard {
        Heard { generation: 1, number }
    }

    /// Copies of each of these frames: who brings one, and whether it is the one that was sent to the witness. Whether the
    /// member says that it hears us follows from where the last answer went.
    fn play(
        home: &mut Home,
        frames: core::ops::Range<u64>,
        at: SocketAddr,
        real: SocketAddr,
        copies: &[(SocketAddr, bool)],
    ) {
        for number in frames {
            let now = Instant::from_millis(number * BEAT);
            let is_deaf = home.address() != Some(real);
            for (from, is_ours) in copies {
                home.came(now, PATIENCE, is_deaf, frame(number), *from, is_ours.then_some(at));
            }
        }
    }

    proptest! {
        /// However many copies come, in whatever order, beside the frame that was sent to the witness: at the end of each
        /// beat the answers go to its sender.
        #[test]
        fn the_address_under_the_stamp_wins_over_every_copy(
            before in many((2_u16..9, any::<bool>()), 0..6),
            after in many((2_u16..9, any::<bool>()), 0..6),
        ) {
            let real = address(1);
            let copies = |list: &[(u16, bool)]| -> Vec<(SocketAddr, bool)> {
                list.iter().map(|(port, is_ours)| (address(*port), *is_ours)).collect()
            };
            let all = [copies(&before), alloc::vec![(real, true)], copies(&after)].concat();
            let mut home = Home::default();
            for number in 1..20 {
                play(&mut home, number..number + 1, real, real, &all);
                prop_assert_eq!(home.address(), Some(real));
            }
        }
    }

    #[test]
    fn behind_a_translator_a_relay_takes_no_answers_for_long() {
        let (named, real, relay, broadcast) = (address(1), address(2), address(3), address(4));
        for relay_is_first in [false, true] {
            for copies in
                [&[(relay, true), (real, true)][..], &[(broadcast, false), (relay, true), (real, true)]]
            {
                let mut home = Home::default();
                if !relay_is_first {
                    play(&mut home, 1..5, named, real, &[(real, true)]);
                    play(&mut home, 5..50, named, real, copies);
                    assert_eq!(home.address(), Some(real));
                }
                play(&mut home, 50..80, named, real, copies);
                assert_eq!(home.address(), Some(real));
            }
        }
    }

    #[test]
    fn an_older_version_is_answered_beside_its_broadcasts_too() {
        let mut home = Home::default();
        let (real, broadcast) = (address(1), address(2));
        play(&mut home, 1..30, real, real, &[(broadcast, false), (real, false)]);
        assert_eq!(home.address(), Some(real));
    }

    #[test]
    fn a_member_that_moves_is_followed_at_once_and_a_recording_moves_nothing() {
        let mut home = Home::default();
        let (old, new) = (address(1), address(2));
        play(&mut home, 1..5, old, old, &[(old, true)]);
        play(&mut home, 5..6, new, new, &[(new, true)]);
        assert_eq!(home.address(), Some(new));
        home.came(Instant::from_millis(600), PATIENCE, false, frame(3), old, Some(old));
        assert_eq!(home.address(), Some(new));
        // A translator comes between: the old address brings nothing any more.
        play(&mut home, 7..20, new, address(9), &[(address(9), true)]);
        assert_eq!(home.address(), Some(address(9)));
    }
}
