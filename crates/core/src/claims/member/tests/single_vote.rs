//! Single-vote mode: two voters without a third.

use super::*;

const STEP: Duration = Duration::from_millis(50);

impl Cluster {
    fn two() -> Self {
        let mut cluster = Self::settled(2, false);
        cluster.live(200, |_| ());
        cluster
    }

    /// Time passes in small steps, with a beat of every member when one is due; `look` is called after each step.
    fn live(&mut self, millis: u64, mut look: impl FnMut(&Self)) {
        for _ in 0..millis / 50 {
            self.pass(STEP);
            if self.now.as_nanos().is_multiple_of(u64::try_from(BEAT.as_nanos()).unwrap()) {
                self.beats();
            }
            look(self);
        }
    }

    fn is_single_vote(&self, index: usize) -> bool {
        self.members[index].as_ref().unwrap().single_vote_since().is_some()
    }

    fn split(&mut self) {
        self.cut.extend([(0, 1), (1, 0)]);
    }

    /// Both own the group; the second under the higher ballot.
    fn torn() -> Self {
        let mut cluster = Self::two();
        cluster.claim(0);
        cluster.live(600, |_| ());
        cluster.split();
        cluster.live(2100, |_| ());
        cluster.claim(1);
        cluster.live(600, |_| ());
        assert_eq!(cluster.owner(), [0, 1], "a partition, and nothing that could tell it from a death");
        assert!(cluster.held(1).claim.ballot > cluster.held(0).claim.ballot);
        cluster
    }

    /// Does what the layer above does with a group that was lost: it stops, and is given back.
    fn stop_what_is_lost(&mut self) -> Vec<u8> {
        let lost: Vec<u8> = self
            .take_notices()
            .into_iter()
            .filter_map(|(member, notice)| {
                (notice == ClaimNotice::Own(ClaimEvent::Lost(GROUP))).then_some(member)
            })
            .collect();
        for member in &lost {
            self.at(usize::from(*member), |member, now| member.release(now, GROUP, None));
        }
        self.deliver();
        lost
    }
}

#[test]
fn who_is_left_keeps_what_it_owns_without_a_gap() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    for phase in 0..6 {
        cluster.live(600 + phase * 50, |_| ());
        let epoch = cluster.held(0).epoch;
        cluster.kill(1);
        cluster.live(5000, |cluster| assert_eq!(cluster.owner(), [0], "at {:?}", cluster.now));
        assert_eq!(cluster.held(0).epoch, epoch);
        assert!(cluster.is_single_vote(0));
        // It comes back, and abstains at first, which costs nothing either.
        cluster.start(1);
        cluster.live(900, |cluster| {
            assert_eq!(cluster.owner(), [0]);
            assert!(cluster.is_single_vote(0), "the other does not vote yet");
        });
        cluster.live(1500, |cluster| assert_eq!(cluster.owner(), [0]));
        assert!(!cluster.is_single_vote(0) && !cluster.is_single_vote(1), "two voters again");
    }
}

#[test]
fn what_a_dead_owner_had_is_taken_when_its_grant_ends() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    cluster.live(600, |_| ());
    let old = cluster.held(0);
    cluster.kill(0);
    cluster.live(950, |_| ());
    cluster.claim(1);
    assert!(cluster.is_single_vote(1));
    assert_eq!(cluster.owner(), [], "the grant of our own vote runs");
    cluster.live(50, |_| ());
    cluster.claim(1);
    assert_eq!(cluster.owner(), [1]);
    let new = cluster.held(1);
    let entry = EarlierOwner { node: MemberIndex(0), generation: 1, ballot: old.claim.ballot };
    assert_eq!((new.epoch > old.epoch, new.claim.unproved), (true, vec![entry]));
    // It comes back, has swept, and takes nothing.
    cluster.start(0);
    cluster.live(3000, |cluster| assert_eq!(cluster.owner(), [1]));
    assert_eq!(cluster.held(1).claim.unproved, []);
    assert!(!cluster.is_single_vote(1));
}

#[test]
fn a_restart_too_short_for_a_silence_costs_the_other_nothing() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    for _ in 0..6 {
        cluster.live(1950, |cluster| assert_eq!(cluster.owner(), [0]));
        cluster.kill(1);
        cluster.live(100, |cluster| assert_eq!(cluster.owner(), [0]));
        cluster.start(1);
        cluster.live(3000, |cluster| assert_eq!(cluster.owner(), [0]));
        assert!(!cluster.is_single_vote(0) && !cluster.is_single_vote(1));
    }
}

#[test]
fn after_a_partition_the_higher_claim_stays_without_a_gap() {
    for phase in 0..6 {
        let mut cluster = Cluster::torn();
        cluster.live(phase * 50, |_| ());
        let epoch = cluster.held(1).epoch;
        cluster.take_notices();
        cluster.cut.clear();
        cluster.live(350, |cluster| assert!(cluster.owner().contains(&1)));
        assert_eq!(cluster.owner(), [1], "a beat and its answers are enough");
        assert_eq!(cluster.stop_what_is_lost(), [0]);
        cluster.live(5000, |cluster| assert_eq!(cluster.owner(), [1]));
        let held = cluster.held(1);
        assert_eq!((held.epoch, held.claim.unproved), (epoch, vec![]), "nobody outbids, and nobody is left");
        assert!(!cluster.is_single_vote(0) && !cluster.is_single_vote(1));
        assert_eq!(cluster.stop_what_is_lost(), [] as [u8; 0]);
    }
}

#[test]
fn a_partition_that_heals_one_way_leaves_who_is_heard() {
    let mut cluster = Cluster::torn();
    let higher = cluster.held(1).epoch;
    cluster.take_notices();
    cluster.cut.remove(&(0, 1));
    // The second hears the first, and is not heard: it leaves single-vote mode, although its claim is the higher one.
    cluster.live(2500, |cluster| assert!(cluster.owner().contains(&0)));
    assert_eq!(cluster.owner(), [0]);
    assert!(!cluster.is_single_vote(1));
    assert_eq!(cluster.stop_what_is_lost(), [1]);
    // Once it is heard, the epoch under which it ran is known: nothing goes on below that.
    cluster.cut.clear();
    cluster.live(1000, |_| ());
    assert_eq!(cluster.stop_what_is_lost(), [0]);
    cluster.claim(0);
    cluster.live(3000, |cluster| assert_eq!(cluster.owner(), [0]));
    assert!(cluster.held(0).epoch > higher);
}

#[test]
fn who_hears_the_other_and_is_not_heard_loses_its_groups_to_it() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    cluster.live(600, |_| ());
    cluster.cut.insert((0, 1));
    cluster.live(1350, |cluster| assert!(!cluster.is_single_vote(0)));
    assert_eq!(cluster.owner(), []);
    cluster.claim(1);
    assert_eq!(cluster.owner(), [1]);
    cluster.at(0, |member, now| member.release(now, GROUP, None));
    cluster.live(3000, |cluster| {
        assert_eq!(cluster.owner(), [1]);
        assert!(cluster.is_single_vote(1) && !cluster.is_single_vote(0));
    });
    cluster.cut.clear();
    cluster.live(3000, |cluster| assert_eq!(cluster.owner(), [1]));
    assert!(!cluster.is_single_vote(1));
}

#[test]
fn a_node_that_starts_alone_serves_after_it_abstained_if_it_remembers() {
    let mut cluster = Cluster::two();
    cluster.kill(0);
    cluster.kill(1);
    cluster.live(5000, |_| ());
    cluster.start(0);
    cluster.live(1000, |cluster| assert!(!cluster.is_single_vote(0), "mute"));
    cluster.live(1000, |_| ());
    cluster.claim(0);
    assert_eq!(cluster.owner(), [0]);
    // Without a file it would not know what it has promised.
    cluster.kill(0);
    cluster.files[0] = None;
    cluster.start(0);
    cluster.live(5000, |cluster| assert!(!cluster.is_single_vote(0)));
    cluster.claim(0);
    assert_eq!(cluster.owner(), []);
}

#[test]
fn a_member_without_its_file_copies_from_the_one_other() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    cluster.live(600, |_| ());
    cluster.kill(1);
    cluster.live(2000, |_| ());
    cluster.files[1] = None;
    cluster.start(1);
    cluster.live(4000, |cluster| assert_eq!(cluster.owner(), [0]));
    let member = cluster.members[1].as_ref().unwrap();
    assert_eq!(member.standing(cluster.now), Some(VoterStanding::Voting));
    assert_eq!(member.voter().unwrap().holder(GROUP).unwrap().0.owner(), MemberIndex(0));
    assert!(!cluster.is_single_vote(0));
}

#[test]
fn a_voter_whose_disk_fails_is_done_without() {
    let mut cluster = Cluster::two();
    cluster.claim(0);
    cluster.live(600, |_| ());
    cluster.disks = false;
    cluster.at(1, |member, now| member.claim(now, GroupId(8), true));
    cluster.deliver();
    assert!(cluster.at(1, |member, _| member.write()).is_some());
    cluster.at(1, |member, now| member.written(now, false));
    cluster.live(5000, |cluster| {
        assert_eq!(cluster.owner(), [0]);
        assert!(!cluster.is_single_vote(1), "it does not even count itself");
    });
}

#[test]
fn our_own_pause_is_not_the_silence_of_the_other() {
    let mut cluster = Cluster::two();
    cluster.live(600, |_| ());
    let pause = Duration::from_secs(5);
    cluster.now = cluster.now + pause;
    cluster.at(0, |member, now| {
        member.forgive(now, pause);
        member.tick(now);
    });
    assert!(!cluster.is_single_vote(0));
    cluster.at(1, ClaimMember::tick);
    assert!(cluster.is_single_vote(1), "as it must be when nobody tells it that it slept");
}

#[test]
fn a_member_that_is_refused_lives() {
    let mut cluster = Cluster::two();
    cluster.kill(1);
    cluster.kill(0);
    cluster.start(0);
    for _ in 0..100 {
        cluster.live(100, |cluster| assert!(!cluster.is_single_vote(0)));
        cluster.at(0, |member, now| member.heard_uncounted(now, MemberIndex(1), 9));
    }
    cluster.live(500, |_| ());
    assert!(cluster.is_single_vote(0), "now it is silent");
}

#[test]
fn of_three_voters_none_ever_enters_single_vote_mode() {
    for (nodes, witness) in [(2, true), (3, false)] {
        let mut cluster = Cluster::settled(nodes, witness);
        cluster.claim(0);
        cluster.live(600, |_| ());
        cluster.kill(1);
        cluster.kill(2);
        cluster.live(10_000, |cluster| assert!(!cluster.is_single_vote(0)));
        assert_eq!(cluster.owner(), []);
        cluster.start(1);
        cluster.live(5000, |cluster| assert!(!cluster.is_single_vote(0) && !cluster.is_single_vote(1)));
    }
}
