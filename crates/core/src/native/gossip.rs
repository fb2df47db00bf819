//! The gossip state: what every node must know although it happened at one of them. These are the pins that people set,
//! and the groups that failures have moved.
//!
//! Each entry has a unique number, and of the pins of one group the highest number counts. So states that are merged in
//! any order, however often, become equal. A beat carries the digest of its sender's state. A node that hears another
//! digest than its own answers with its entries: after one exchange both know all.
//!
//! Nothing of it is on disk. A node that starts is told by the others; when the last node stops, the state is
//! forgotten.

use alloc::{collections::BTreeMap, vec::Vec};

use super::plan::{HoldDown, NativePlan};
use crate::{
    claims::ClaimsDigest,
    model::{
        claim::{Ballot, GroupId},
        identity::{GroupIndex, MemberIndex},
        time::{Duration, Instant},
    },
};

/// One entry of the gossip state, as messages carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipEntry {
    /// A person has pinned a group, or all of them, or has ended such a pin.
    Pin {
        /// The pinned group; `None` is maintenance: all groups.
        group: Option<GroupId>,
        /// The round is above that of every pin of the same group known to the node at which the person asked.
        number: Ballot,
        /// Whether the pin begins or ends.
        on: bool,
        /// The uid of the user who asked, on that node's machine.
        user: u32,
        /// The time since the person asked.
        age: Duration,
    },
    /// A failure has moved a group.
    Moved {
        group: GroupId,
        /// The epoch of the ownership that the failure ended.
        epoch: Ballot,
        /// The time since the move.
        age: Duration,
    },
}

/// A pin of one group, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipPin {
    number: Ballot,
    on: bool,
    since: Past,
    /// The uid of the user who asked, on the machine of [`Self::by`].
    pub user: u32,
}

impl GossipPin {
    /// For how long the pin has stood.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.since.ago(now)
    }

    /// The node at which the person asked.
    #[must_use]
    pub const fn by(&self) -> MemberIndex {
        self.number.node
    }
}

/// A moment that may lie before this machine's clock began: `before` earlier than `this`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    before: Duration,
    this: Instant,
}

impl Past {
    const fn now(now: Instant) -> Self {
        Self { before: Duration::ZERO, this: now }
    }

    const fn ago(self, now: Instant) -> Duration {
        self.before.saturating_add(now.since(self.this))
    }
}

/// Moves by failure of one group, by the epoch that each one ended.
type Moves = BTreeMap<Ballot, Past>;

/// The hold of a group that failures have moved too often: it stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDown {
    /// For how long it is held already.
    pub age: Duration,
    /// When the hold ends.
    pub until: Instant,
}

/// The gossip state as one node knows it.
#[derive(Clone, Debug, Default)]
pub struct GossipState {
    /// `None` is maintenance. A pin that has ended stays here, so that a node that missed the end cannot bring it back.
    pins: BTreeMap<Option<GroupId>, GossipPin>,
    moves: BTreeMap<GroupId, Moves>,
    /// The digest of all entries, updated with every change.
    digest: ClaimsDigest,
}

impl GossipState {
    /// The digest of all entries. Equal digests mean equal states.
    #[must_use]
    pub const fn digest(&self) -> ClaimsDigest {
        self.digest
    }

    /// All entries, with their ages at `now`.
    #[must_use]
    pub fn entries(&self, now: Instant) -> Vec<GossipEntry> {
        let pin = |(group, pinned): (&Option<GroupId>, &GossipPin)| GossipEntry::Pin {
            group: *group,
            number: pinned.number,
            on: pinned.on,
            user: pinned.user,
            age: pinned.age(now),
        };
        let moved = |(group, moves): (&GroupId, &Moves)| {
            let group = *group;
            let one = move |(epoch, at): (&Ballot, &Past)| GossipEntry::Moved {
                group,
                epoch: *epoch,
                age: at.ago(now),
            };
            moves.iter().map(one).collect::<Vec<_>>()
        };
        self.pins.iter().map(pin).chain(self.moves.iter().flat_map(moved)).collect()
    }

    /// The pin of this group alone, or with `None` of all, if it holds now.
    #[must_use]
    pub fn pinned(&self, group: Option<GroupId>) -> Option<&GossipPin> {
        self.pins.get(&group).filter(|pinned| pinned.on)
    }

    /// The groups that failures have moved.
    pub fn moved_groups(&self) -> impl Iterator<Item = GroupId> {
        self.moves.keys().copied()
    }

    /// For how long a group has been held and until when, if it is: failures have moved it as often as `rule` says.
    #[must_use]
    pub fn held_down(&self, now: Instant, group: GroupId, rule: &HoldDown) -> Option<HeldDown> {
        let moves = self.moves.get(&group)?;
        let age = moves.values().next_back()?.ago(now);
        let counts = |at: &&Past| at.ago(now).saturating_sub(age) < rule.within;
        let is_enough =
            moves.values().filter(counts).count() >= usize::try_from(rule.moves).unwrap_or(usize::MAX);
        (is_enough && age < rule.rest).then(|| HeldDown { age, until: now + (rule.rest - age) })
    }

    /// Sets or ends a pin at a person's request at this node. Returns the new entry; `None` if the pin already was so:
    /// then the first request stays.
    pub fn pin(
        &mut self,
        now: Instant,
        me: MemberIndex,
        group: Option<GroupId>,
        on: bool,
        user: u32,
    ) -> Option<GossipEntry> {
        let known = self.pins.get(&group);
        if known.map_or(!on, |known| known.on == on) {
            return None;
        }
        let round = known.map_or(0, |known| known.number.round).saturating_add(1);
        let number = Ballot { round, node: me };
        self.put(group, GossipPin { number, on, since: Past::now(now), user });
        Some(GossipEntry::Pin { group, number, on, user, age: Duration::ZERO })
    }

    /// Records that a failure ends our ownership of this epoch.
    pub fn moved(&mut self, now: Instant, group: GroupId, epoch: Ballot, rule: &HoldDown) -> GossipEntry {
        self.add_move(group, epoch, Past::now(now), rule);
        GossipEntry::Moved { group, epoch, age: Duration::ZERO }
    }

    /// Takes an entry from another node; entries about groups that the plan does not have are dropped. Returns whether
    /// it was new.
    pub fn merge(
        &mut self,
        now: Instant,
        plan: &NativePlan,
        index: &BTreeMap<GroupId, GroupIndex>,
        entry: &GossipEntry,
    ) -> bool {
        let at = |age: Duration| Past { before: age, this: now };
        match *entry {
            GossipEntry::Pin { group, number, on, user, age } => {
                let is_known = group.is_none_or(|group| index.contains_key(&group));
                let is_newer = self.pins.get(&group).is_none_or(|known| known.number < number);
                if is_known && is_newer {
                    self.put(group, GossipPin { number, on, since: at(age), user });
                }
                is_known && is_newer
            }
            GossipEntry::Moved { group, epoch, age } => {
                let Some(known) = index.get(&group) else { return false };
                let rule = &plan.groups[known.0].hold_down;
                age < memory(rule) && self.add_move(group, epoch, at(age), rule)
            }
        }
    }

    /// Forgets the moves of groups whose moves are all too old to count.
    pub fn forget(&mut self, now: Instant, plan: &NativePlan, index: &BTreeMap<GroupId, GroupIndex>) {
        let known = self.moves.len();
        self.moves.retain(|group, moves| {
            let rule = index.get(group).map(|group| &plan.groups[group.0].hold_down);
            let newest = moves.values().next_back();
            rule.zip(newest).is_some_and(|(rule, newest)| newest.ago(now) < memory(rule))
        });
        if self.moves.len() != known {
            self.update_digest();
        }
    }

    fn put(&mut self, group: Option<GroupId>, pinned: GossipPin) {
        self.pins.insert(group, pinned);
        self.update_digest();
    }

    /// Adds a move and keeps only as many of the newest as can count. Returns whether this one was new and is kept.
    fn add_move(&mut self, group: GroupId, epoch: Ballot, at: Past, rule: &HoldDown) -> bool {
        let moves = self.moves.entry(group).or_default();
        if moves.contains_key(&epoch) {
            return false;
        }
        moves.insert(epoch, at);
        while u32::try_from(moves.len()).map_or(true, |count| count > rule.moves.max(1)) {
            moves.pop_first();
        }
        let is_news = moves.contains_key(&epoch);
        if is_news {
            self.update_digest();
        }
        is_news
    }

    fn update_digest(&mut self) {
        // The complement tells a pin from a move of the same number; maintenance takes the complement of 0.
        let pins = self
            .pins
            .iter()
            .map(|(group, pinned)| (GroupId(!group.map_or(0, |group| group.0)), pinned.number));
        let moves =
            self.moves.iter().flat_map(|(group, moves)| moves.keys().map(move |epoch| (*group, *epoch)));
        self.digest = ClaimsDigest::of(pins.chain(moves));
    }
}

/// The longest time for which a move can count.
fn memory(rule: &HoldDown) -> Duration {
    rule.within.max(rule.rest)
}

#[cfg(test)]
mod tests {
    use alloc::{format, sync::Arc, vec};

    use proptest::{collection::vec as many, prelude::*};

    use super::*;
    use crate::config::locum_toml;

    const RULE: HoldDown =
        HoldDown { moves: 2, within: Duration::from_secs(100), rest: Duration::from_secs(50) };
    const WEB: GroupId = GroupId(7);

    const fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    const fn epoch(round: u64) -> Ballot {
        Ballot { round, node: MemberIndex(0) }
    }

    #[test]
    fn as_many_moves_within_the_time_hold_a_group_down_and_fewer_do_not() {
        let mut board = GossipState::default();
        let held = |board: &GossipState, now| {
            board.held_down(at(now), WEB, &RULE).map(|held| (held.age.as_secs(), held.until))
        };
        board.moved(at(1000), WEB, epoch(1), &RULE);
        assert_eq!(held(&board, 1000), None);
        board.moved(at(1100), WEB, epoch(2), &RULE);
        assert_eq!(held(&board, 1100), None, "the first is too old by now");
        board.moved(at(1199), WEB, epoch(3), &RULE);
        assert_eq!(held(&board, 1199), Some((0, at(1249))));
        assert_eq!(held(&board, 1248), Some((49, at(1249))));
        assert_eq!(held(&board, 1249), None);
        assert_eq!(board.entries(at(1200)).len(), 2, "as many as count are kept");
    }

    #[test]
    fn a_machine_that_has_just_been_switched_on_reckons_as_those_that_ran_before() {
        let toml = "cluster = 'x'\nnodes.a.links.l = '10.0.0.1'\nnodes.b.links.l = '10.0.0.2'\nwitnesses.w.address = '10.0.0.3'\n\
                    groups.web.resources = 'x'\ngroups.web.moves = 1\n";
        let plan = locum_toml::check(toml.as_bytes(), "a").plan.unwrap();
        let web = GroupId::of("web");
        let index = BTreeMap::from([(web, GroupIndex(0))]);
        let mut board = GossipState::default();
        let told = GossipEntry::Moved { group: web, epoch: epoch(1), age: Duration::from_secs(500) };
        assert!(board.merge(at(2), &plan, &index, &told));
        let held = board.held_down(at(3), web, &plan.groups[0].hold_down).unwrap();
        assert_eq!((held.age.as_secs(), held.until), (501, at(102)));
    }

    #[test]
    fn the_last_word_counts_and_what_is_so_already_stays_as_it_was() {
        let mut board = GossipState::default();
        assert!(board.pin(at(1), MemberIndex(0), None, false, 0).is_none(), "nothing was pinned");
        assert!(board.pin(at(1), MemberIndex(0), None, true, 1).is_some());
        assert!(board.pin(at(2), MemberIndex(1), None, true, 2).is_none());
        let pinned = *board.pinned(None).unwrap();
        assert_eq!((pinned.age(at(3)).as_secs(), pinned.user, pinned.by()), (2, 1, MemberIndex(0)));
        assert!(board.pin(at(3), MemberIndex(1), None, false, 2).is_some());
        assert_eq!(board.pinned(None), None);
        assert_eq!(board.entries(at(3)).len(), 1, "the end is told, too");
    }

    fn entries() -> impl Strategy<Value = Vec<GossipEntry>> {
        let number = (0_u64..4, 0_u8..3).prop_map(|(round, node)| Ballot { round, node: MemberIndex(node) });
        let group = || (0_usize..3).prop_map(|group| GroupId::of(&format!("g{group}")));
        // Two entries with one number are the same entry, so the content is made from the number.
        let pin =
            (proptest::option::of(group()), number.clone()).prop_map(|(group, number)| GossipEntry::Pin {
                group,
                number,
                on: number.round.is_multiple_of(2),
                user: u32::from(number.node.0),
                age: Duration::from_secs(number.round),
            });
        let moved = (group(), number).prop_map(|(group, epoch)| GossipEntry::Moved {
            group,
            epoch,
            age: Duration::from_secs(100 - epoch.round),
        });
        many(prop_oneof![pin, moved], 0..20)
    }

    proptest! {
        #[test]
        fn states_that_heard_the_same_in_any_order_are_the_same(
            (entries, shuffled) in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        ) {
            let toml = "cluster = 'x'\nnodes.a.links.l = '10.0.0.1'\nnodes.b.links.l = '10.0.0.2'\n\
                        witnesses.w.address = '10.0.0.3'\ngroups.g0.resources = 'x'\n\
                        groups.g1.resources = 'y'\ngroups.g1.moves = 1\n";
            let plan = Arc::new(locum_toml::check(toml.as_bytes(), "a").plan.unwrap());
            let index = plan.groups.iter().enumerate()
                .map(|(index, group)| (GroupId::of(&group.name), GroupIndex(index))).collect();
            let hear = |entries: &[GossipEntry]| {
                let mut board = GossipState::default();
                for entry in entries {
                    let before = board.digest();
                    let is_news = board.merge(at(5000), &plan, &index, entry);
                    prop_assert_eq!(is_news, before != board.digest());
                }
                Ok(board)
            };
            let (one, other) = (hear(&entries)?, hear(&shuffled)?);
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert_eq!(one.entries(at(5000)), other.entries(at(5000)));
            // What one tells the other is not new.
            let mut again = one.clone();
            let news: Vec<bool> = other.entries(at(5001)).iter().map(|e| again.merge(at(5001), &plan, &index, e)).collect();
            prop_assert_eq!(news.iter().filter(|news| **news).count(), 0);
            // An entry about a group that the plan does not have is dropped.
            let strange = GroupId::of("g2");
            prop_assert!(!one.moves.contains_key(&strange) && one.pinned(Some(strange)).is_none());
            let mut late = one;
            late.forget(at(5000 + 3600), &plan, &index);
            prop_assert_eq!(late.moves.len(), 0);
            let _ = vec![()];
        }
    }
}
