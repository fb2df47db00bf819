//! The address at which a witness answers one member.
//!
//! The stamp of a frame shows who wrote it, but not who sent this copy. Copies come from elsewhere, too: a witness on the
//! network of the nodes also hears their broadcasts, and anybody can forward frames that he has seen. So a frame that is sent
//! to a witness carries its sender's address there (`at`) under the stamp:
//!
//! 1. An address counts most if a frame comes from it and names it.
//! 2. Behind a translator of addresses (NAT) no frame does. Then the first address stays as long as it brings new frames.
//!    Another one has its turn when the member says that it does not hear us.
//! 3. A frame that names no address (a broadcast, an older version) counts least.

use core::net::SocketAddr;

use crate::model::{
    identity::LastHeard,
    time::{Duration, Instant},
};

/// The address for answers, and how far it is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Home {
    chosen: Option<Chosen>,
    /// The newest frame that names an address, and the newest that names none. Recordings of older frames change
    /// nothing.
    newest: [Option<LastHeard>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Chosen {
    address: SocketAddr,
    trust: Trust,
    since: Instant,
    heard: Instant,
}

/// Why an address is trusted, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// A frame that names no address came from it.
    Unnamed,
    /// A frame that names another address came from it.
    Translated,
    /// A frame that names this address came from it.
    Named,
}

impl Home {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.chosen.map(|chosen| chosen.address)
    }

    /// A frame came from the address `from`, and names `at`. Another address may replace the chosen one only after
    /// `patience`, in which that brought nothing or the member did not hear us (`is_deaf`: the member says so).
    pub(super) fn came(
        &mut self,
        now: Instant,
        patience: Duration,
        is_deaf: bool,
        frame: LastHeard,
        from: SocketAddr,
        at: Option<SocketAddr>,
    ) {
        let newest = &mut self.newest[usize::from(at.is_none())];
        // Copies of one frame come from several addresses.
        if newest.is_some_and(|newest| frame < newest) {
            return;
        }
        *newest = Some(frame);
        // The scope of a link-local address is a number of this machine only.
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

    fn frame(number: u64) -> LastHeard {
        LastHeard { generation: 1, number }
    }

    /// Plays copies of each of these frames: the address each comes from, and whether it is a copy of the one sent to
    /// the witness. The member says that it hears us if the last answer went to `real`.
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
        /// Copies come beside the frame that was sent to the witness, in any number and order. At the end of each beat
        /// the answers go to that frame's sender.
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
        // A translator comes between, so the old address brings nothing any more.
        play(&mut home, 7..20, new, address(9), &[(address(9), true)]);
        assert_eq!(home.address(), Some(address(9)));
    }
}
