//! A handful of members with a network that delivers at once, unless a link is cut. These tests leave nothing to chance;
//! the model checker and the simulator play with chance.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};

use super::*;
use crate::{
    claims::{HeldClaim, VOTERS_MAX},
    model::claim::EarlierOwner,
};

mod single_vote;

const GROUP: GroupId = GroupId(7);
const LEASE: Duration = Duration::from_millis(1000);
const BEAT: Duration = Duration::from_millis(300);

struct Cluster {
    now: Instant,
    members: Vec<Option<ClaimMember>>,
    files: Vec<Option<DurableState>>,
    generations: Vec<u64>,
    /// Which voter set each one knows when it starts.
    sets: Vec<u32>,
    cut: BTreeSet<(u8, u8)>,
    claims: Vec<bool>,
    /// How many members vote: the first ones.
    voters: u8,
    notices: Vec<(u8, ClaimNotice)>,
    /// Writes are answered at once; else by hand.
    disks: bool,
}

impl Cluster {
    /// Nodes, of which the last may be a witness; all of them vote.
    fn new(nodes: u8, witness: bool) -> Self {
        Self::of(nodes, witness, nodes + u8::from(witness))
    }

    /// The same, in which the first `voters` members vote.
    fn of(nodes: u8, witness: bool, voters: u8) -> Self {
        let count = usize::from(nodes) + usize::from(witness);
        let mut cluster = Self {
            now: Instant::from_millis(1000),
            members: (0..count).map(|_| None).collect(),
            files: vec![None; count],
            generations: vec![0; count],
            sets: vec![1; count],
            cut: BTreeSet::new(),
            claims: (0..count).map(|index| index < usize::from(nodes)).collect(),
            voters,
            notices: Vec::new(),
            disks: true,
        };
        (0..count).for_each(|index| cluster.start(index));
        cluster
    }

    /// A cluster that has been founded and whose voters vote.
    fn settled(nodes: u8, witness: bool) -> Self {
        let mut cluster = Self::new(nodes, witness);
        cluster.run(8);
        let voting = |member: &Option<ClaimMember>| {
            member.as_ref().and_then(|member| member.standing(cluster.now)) == Some(VoterStanding::Voting)
        };
        assert!(cluster.members.iter().all(voting));
        cluster
    }

    fn start(&mut self, index: usize) {
        self.generations[index] += 1;
        let settings = ClaimSettings {
            me: MemberIndex(u8::try_from(index).unwrap()),
            generation: self.generations[index],
            voters: Voters { number: self.sets[index], members: (0..self.voters).map(MemberIndex).collect() },
            lease: Lease { length: LEASE, margin: Duration::from_millis(20) },
            retry: Duration::from_millis(50),
            claims: self.claims[index],
            // Only two voters use this.
            single_vote: Some(SingleVoteTiming { vote: LEASE * 9 / 10, silence: BEAT * 3 / 2 }),
        };
        self.members[index] = Some(ClaimMember::new(self.now, settings, self.files[index].clone()));
        self.deliver();
    }

    fn kill(&mut self, index: usize) {
        self.members[index] = None;
    }

    /// Everything that is on its way arrives, writes included.
    fn deliver(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..self.members.len() {
                while let Some(durable) =
                    self.members[from].as_mut().filter(|_| self.disks).and_then(ClaimMember::write)
                {
                    self.files[from] = Some(durable);
                    self.at(from, |member, now| member.written(now, true));
                    moved = true;
                }
                let Some(member) = self.members[from].as_mut() else { continue };
                let sent = member.take_out();
                let index = u8::try_from(from).unwrap();
                while let Some(notice) = member.poll() {
                    self.notices.push((index, notice));
                }
                for Envelope { to, message } in sent {
                    moved = true;
                    for other in 0..self.members.len() {
                        let target = u8::try_from(other).unwrap();
                        let is_meant = match to {
                            Receivers::All => other != from,
                            Receivers::One(one) => one.0 == target,
                        };
                        if is_meant && !self.cut.contains(&(index, target)) {
                            let (now, generation, set) = (self.now, self.generations[from], self.sets[from]);
                            if let Some(other) = self.members[other].as_mut() {
                                other.heard(now, MemberIndex(index), generation, set, message.clone());
                            }
                        }
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn at<T>(&mut self, index: usize, what: impl FnOnce(&mut ClaimMember, Instant) -> T) -> T {
        what(self.members[index].as_mut().expect("alive"), self.now)
    }

    /// A beat of every member, one after the other.
    fn beats(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].is_some() {
                let beat = self.at(index, ClaimMember::beat);
                self.at(index, |member, _| member.say(Receivers::All, ClaimMessage::Beat(beat)));
                self.deliver();
            }
        }
    }

    fn run(&mut self, beats: u32) {
        for _ in 0..beats {
            self.pass(BEAT);
            self.beats();
        }
    }

    /// Time passes, and only messages that are due are sent.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for index in 0..self.members.len() {
            if self.members[index].is_some() {
                self.at(index, ClaimMember::tick);
            }
        }
        self.deliver();
    }

    fn claim(&mut self, index: usize) {
        self.at(index, |member, now| member.claim(now, GROUP, false));
        self.deliver();
    }

    fn owner(&self) -> Vec<usize> {
        let owns = |member: &ClaimMember| {
            member.claimant().is_some_and(|claimant| claimant.held(self.now, GROUP).is_some())
        };
        (0..self.members.len()).filter(|index| self.members[*index].as_ref().is_some_and(owns)).collect()
    }

    fn held(&self, index: usize) -> HeldClaim {
        let claimant = self.members[index].as_ref().and_then(ClaimMember::claimant).expect("a node");
        claimant.held(self.now, GROUP).expect("held").clone()
    }

    fn take_notices(&mut self) -> Vec<(u8, ClaimNotice)> {
        core::mem::take(&mut self.notices)
    }
}

#[test]
fn a_new_cluster_is_founded_by_all_its_voters() {
    let mut cluster = Cluster::new(2, true);
    cluster.kill(2);
    cluster.run(20);
    let blank = |cluster: &Cluster, index: usize| {
        cluster.members[index].as_ref().unwrap().standing(cluster.now) == Some(VoterStanding::Blank)
    };
    assert!(blank(&cluster, 0) && blank(&cluster, 1), "one voter was never seen: it may remember something");
    cluster.start(2);
    cluster.run(3);
    assert!((0..3).all(|index| !blank(&cluster, index)), "{:?}", cluster.members);
}

#[test]
fn owned_by_one_and_renewed_by_beats_alone() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.claim(1);
    assert_eq!(cluster.owner(), [0]);
    let epoch = cluster.held(0).epoch;
    cluster.run(20);
    assert_eq!((cluster.owner(), cluster.held(0).epoch), (vec![0], epoch));
    let ClaimNotice::Own(ClaimEvent::Refused(GROUP, wait)) = cluster.notices.last().unwrap().1 else {
        panic!("{:?}", cluster.notices)
    };
    assert!(wait > Duration::ZERO && wait <= LEASE, "{wait:?}");
}

#[test]
fn a_dead_owner_is_followed_when_the_voters_grants_end() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(5);
    let old = cluster.held(0);
    cluster.kill(0);
    cluster.pass(Duration::from_millis(999));
    cluster.claim(1);
    assert_eq!(cluster.owner(), []);
    cluster.pass(Duration::from_millis(1));
    cluster.claim(1);
    assert_eq!(cluster.owner(), [1]);
    let new = cluster.held(1);
    assert!(new.epoch > old.epoch);
    assert_eq!(
        new.claim.unproved,
        [EarlierOwner { node: MemberIndex(0), generation: 1, ballot: old.claim.ballot }]
    );
}

#[test]
fn a_release_is_followed_at_once_and_names_the_successor() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    let epoch = cluster.held(0).epoch;
    cluster.take_notices();
    cluster.at(0, |member, now| member.release(now, GROUP, Some(MemberIndex(1))));
    cluster.deliver();
    assert_eq!(
        cluster.take_notices(),
        [
            (1, ClaimNotice::Released(GROUP, epoch, Some(MemberIndex(1)))),
            (2, ClaimNotice::Released(GROUP, epoch, Some(MemberIndex(1))))
        ]
    );
    cluster.claim(1);
    assert_eq!((cluster.owner(), cluster.held(1).claim.unproved), (vec![1], vec![]));
}

#[test]
fn an_owner_that_is_not_heard_loses_the_group_by_itself() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    cluster.take_notices();
    cluster.cut.extend([(0, 1), (0, 2)]);
    cluster.run(4);
    assert_eq!(cluster.owner(), []);
    assert_eq!(cluster.take_notices(), [(0, ClaimNotice::Own(ClaimEvent::Lost(GROUP)))]);
    cluster.claim(0);
    assert!(!cluster.members[0].as_ref().unwrap().claimant().unwrap().is_claiming(GROUP), "not yet stopped");
    cluster.claim(1);
    cluster.cut.clear();
    assert_eq!(cluster.owner(), [1]);
    // It stops late what it had; the release proves it.
    cluster.run(2);
    cluster.at(0, |member, now| member.release(now, GROUP, None));
    cluster.deliver();
    assert_eq!((cluster.owner(), cluster.held(1).claim.unproved), (vec![1], vec![]));
}

#[test]
fn a_living_earlier_owner_is_asked_and_answers_when_it_has_stopped() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    cluster.at(0, |member, _| member.set_running(GROUP, true));
    cluster.cut.extend([(0, 1), (0, 2)]);
    cluster.run(4);
    cluster.claim(1);
    cluster.cut.clear();
    cluster.run(3);
    assert_eq!(cluster.held(1).claim.unproved.len(), 1, "it may still run there");
    cluster.at(0, |member, _| member.set_running(GROUP, false));
    cluster.run(2);
    assert_eq!((cluster.owner(), cluster.held(1).claim.unproved), (vec![1], vec![]));
    assert!(cluster.take_notices().contains(&(1, ClaimNotice::Own(ClaimEvent::Cleared(GROUP, 0)))));
}

#[test]
fn a_restarted_voter_abstains_and_its_promise_is_claimed_above() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    let first = cluster.held(0);
    cluster.kill(2);
    cluster.start(2);
    assert!(matches!(
        cluster.members[2].as_ref().unwrap().standing(cluster.now),
        Some(VoterStanding::Mute(_))
    ));
    cluster.run(8);
    let again = cluster.held(0);
    assert!(again.claim.ballot > first.claim.ballot, "claimed again above the restarted voter's ceiling");
    assert_eq!(again.epoch, first.epoch, "the group does not notice");
    // From here on the restarted voter is enough for a majority.
    cluster.kill(1);
    cluster.run(10);
    assert_eq!(cluster.owner(), [0]);
}

#[test]
fn a_restarted_node_sweeps_and_its_old_claim_is_released() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    cluster.kill(0);
    cluster.start(0);
    cluster.beats();
    cluster.claim(1);
    assert_eq!((cluster.owner(), cluster.held(1).claim.unproved), (vec![1], vec![]));
}

#[test]
fn a_voter_that_missed_everything_is_told_the_list_and_grants_the_same_beat() {
    let mut cluster = Cluster::settled(2, true);
    cluster.cut.insert((0, 2));
    cluster.claim(0);
    cluster.cut.clear();
    cluster.run(1);
    let voter = cluster.members[2].as_ref().unwrap().voter().unwrap();
    assert!(voter.echo(MemberIndex(0)).unwrap().granted);
}

#[test]
fn a_voter_without_its_file_copies_from_a_majority_of_the_others() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(0);
    cluster.run(2);
    cluster.kill(2);
    cluster.files[2] = None;
    cluster.start(2);
    cluster.cut.extend([(1, 2)]);
    cluster.run(10);
    assert_eq!(cluster.members[2].as_ref().unwrap().standing(cluster.now), Some(VoterStanding::Blank));
    cluster.cut.clear();
    cluster.run(8);
    let witness = cluster.members[2].as_ref().unwrap();
    assert_eq!(witness.standing(cluster.now), Some(VoterStanding::Voting));
    assert_eq!(witness.voter().unwrap().holder(GROUP).unwrap().0.owner(), MemberIndex(0));
    assert_eq!(cluster.owner(), [0]);
}

#[test]
fn other_voters_are_founded_when_all_are_there_and_count_on_from_the_rounds_before() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(1);
    let before = cluster.held(1).epoch;
    let restart = |cluster: &mut Cluster, index: usize| {
        cluster.kill(index);
        cluster.sets[index] = 2;
        cluster.start(index);
        cluster.run(10);
    };
    let standing =
        |cluster: &Cluster, index: usize| cluster.members[index].as_ref().unwrap().standing(cluster.now);
    restart(&mut cluster, 0);
    assert_eq!(
        standing(&cluster, 0),
        Some(VoterStanding::Blank),
        "what the others remember is of another set"
    );
    cluster.claim(0);
    assert_eq!(cluster.owner(), [1], "the old set has a majority yet");
    restart(&mut cluster, 1);
    cluster.claim(1);
    assert_eq!(cluster.owner(), [], "and now none has");
    restart(&mut cluster, 2);
    assert!((0..3).all(|index| standing(&cluster, index) == Some(VoterStanding::Voting)));
    cluster.claim(0);
    assert_eq!(cluster.owner(), [0]);
    assert!(cluster.held(0).epoch > before);
}

#[test]
fn a_durable_accept_is_answered_when_it_is_on_disk_and_blocks_rivals_before() {
    let mut cluster = Cluster::settled(2, true);
    cluster.claim(1);
    cluster.at(1, |member, now| member.release(now, GROUP, None));
    cluster.deliver();
    cluster.disks = false;
    cluster.at(0, |member, now| member.claim(now, GROUP, true));
    cluster.deliver();
    assert_eq!(cluster.owner(), [], "nothing is on disk");
    cluster.take_notices();
    cluster.claim(1);
    assert!(
        matches!(cluster.take_notices()[..], [(1, ClaimNotice::Own(ClaimEvent::Refused(..)))]),
        "but it blocks"
    );
    cluster.disks = true;
    cluster.deliver();
    assert_eq!(cluster.owner(), [0]);
    let kept = cluster.files[2].as_ref().and_then(|file| file.claims.get(&GROUP)).expect("kept");
    assert_eq!(kept.accepted.as_ref().map(Claim::owner), Some(MemberIndex(0)));
}

#[test]
fn a_disk_that_fails_silences_a_voter_until_its_restart() {
    let mut cluster = Cluster::settled(2, true);
    cluster.disks = false;
    cluster.at(0, |member, now| member.claim(now, GROUP, true));
    cluster.deliver();
    assert!(cluster.at(2, |member, _| member.write()).is_some(), "an accept of a durable claim is written");
    cluster.at(2, |member, now| member.written(now, false));
    assert_eq!(cluster.members[2].as_ref().unwrap().standing(cluster.now), Some(VoterStanding::Broken));
    cluster.run(5);
    let witness = cluster.members[2].as_mut().unwrap();
    assert_eq!(witness.write(), None, "a file whose write failed is never written again");
}

#[test]
fn one_disputed_group_does_not_cost_the_others_their_lease() {
    let mut cluster = Cluster::settled(2, true);
    let others: Vec<GroupId> = (100..110).map(GroupId).collect();
    for group in &others {
        cluster.at(0, |member, now| member.claim(now, *group, false));
        cluster.deliver();
    }
    cluster.claim(0);
    cluster.run(2);
    // A rival that knows nothing of the grants: the witness forgot them with its file's ceiling far above.
    cluster.kill(2);
    cluster.start(2);
    for _ in 0..12 {
        cluster.run(1);
        let claimant = cluster.members[0].as_ref().unwrap().claimant().unwrap();
        assert_eq!(claimant.holds(cluster.now).count(), 11);
    }
}

#[test]
fn the_digest_is_of_the_set_and_sees_every_field() {
    let one = (GroupId(1), Ballot { round: 5, node: MemberIndex(0) });
    let two = (GroupId(2), Ballot { round: 5, node: MemberIndex(0) });
    assert_eq!(ClaimsDigest::of([one, two]), ClaimsDigest::of([two, one]));
    let mut seen: BTreeMap<u64, (GroupId, Ballot)> = BTreeMap::new();
    for group in 0..20 {
        for round in 0..20 {
            for node in 0..u8::try_from(VOTERS_MAX).unwrap() {
                let entry = (GroupId(group), Ballot { round, node: MemberIndex(node) });
                if let Some(other) = seen.insert(ClaimsDigest::of([entry]).0, entry) {
                    panic!("{}", format!("{entry:?} {other:?}"));
                }
            }
        }
    }
}

#[test]
fn who_does_not_vote_echoes_voters_alone() {
    let mut cluster = Cluster::of(9, false, 7);
    cluster.run(8);
    for index in 0..9 {
        let echoed = cluster.at(index, |member, now| member.beat(now).echoes.into_iter().map(|(of, _)| of.0));
        let others = (0..9).filter(|other| usize::from(*other) != index);
        let expected: Vec<u8> = if index < 7 { others.collect() } else { (0..7).collect() };
        assert_eq!(echoed.collect::<Vec<_>>(), expected, "of {index}");
    }
    // Nothing is missing: a node that does not vote owns, renews, and takes over.
    cluster.claim(8);
    cluster.run(8);
    assert_eq!(cluster.owner(), [8]);
    cluster.kill(8);
    cluster.run(4);
    cluster.claim(7);
    cluster.run(8);
    assert_eq!(cluster.owner(), [7]);
}
