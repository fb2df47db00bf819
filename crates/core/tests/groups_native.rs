//! Groups in the native dialect: monitors, restarts in place, epochs, the stop ladder, frozen groups.
//! [`World`](world::World) is a simulated machine that checks every operation; proptest chooses the events.

#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;

use locum_core::{
    group::{CALM, GroupEvent, GroupPhase},
    model::{action::Operation, event::Outcome, time::Duration},
};
use proptest::prelude::*;

use Operation::{Kill, Start, Status, Stop, Terminate};
use world::*;

// ---- monitors and restarts --------------------------------------------------

#[test]
fn what_runs_is_asked_at_its_period_and_no_two_at_the_same_moment() {
    let mut world = World::running(1);
    let begin = world.now;
    let mut firsts = BTreeSet::new();
    for _ in 0..MEMBERS {
        world.wait();
        let [(Status, member)] = world.asked()[..] else { panic!("{:?}", world.asked()) };
        let after = world.now.since(begin);
        assert!(after >= EVERY && after < EVERY + EVERY / 8, "{after:?}");
        firsts.insert((after, member));
        world.rest();
    }
    assert_eq!(firsts.len(), MEMBERS);
    // A member that has not answered is not asked again.
    let slow = world.groups.deadline().unwrap();
    world.pass(slow.since(world.now));
    let [(Status, member)] = world.asked()[..] else { panic!("{:?}", world.asked()) };
    for _ in 0..5 {
        world.wait();
    }
    assert_eq!(world.asked().iter().filter(|(_, asked)| *asked == member).count(), 1);
    world.rest();
    world.unwant();
    world.rest();
    assert_eq!((world.groups.deadline(), world.phase()), (None, GroupPhase::Stopped));
}

#[test]
fn what_fails_is_started_again_with_all_that_stands_right_of_it() {
    restarts_with_all_that_stands_right_of_it();
}

#[test]
fn one_failure_more_than_allowed_ends_the_group_here() {
    one_failure_more_ends_it_here();
}

#[test]
fn old_failures_are_forgotten() {
    let mut world = World::running(1);
    for _ in 0..5 {
        world.monitor(0, &Outcome::Stopped);
        world.rest();
        world.pass(WITHIN);
        world.rest();
    }
    assert_eq!(world.phase(), GroupPhase::Running);
}

#[test]
fn a_failed_start_counts_too() {
    let mut world = World::new(1);
    world.want(1);
    world.end_one(Status, 0, Outcome::Ok);
    world.end_one(Start, 0, Outcome::Ok);
    world.end_one(Status, 1, Outcome::Ok);
    world.end_one(Start, 1, Outcome::TimedOut);
    world.end_one(Stop, 1, Outcome::Ok);
    world.end_one(Status, 1, Outcome::Ok);
    world.end_one(Start, 1, Outcome::Failed("no".into()));
    for member in [1, 0] {
        world.end_one(Stop, member, Outcome::Ok);
    }
    assert_eq!(world.events, [GroupEvent::Restarting(GROUP), GroupEvent::Failed(GROUP)]);
}

#[test]
fn an_answer_about_an_earlier_run_says_nothing_of_this_one() {
    let mut world = World::running(3);
    // Two members are asked. The first fails; the second answers when the group runs again.
    world.pass(EVERY * 2);
    let late = *world.asked.iter().find(|(_, asked)| asked.member == 2).unwrap().0;
    world.end_one(Status, 1, Outcome::Stopped);
    while let Some(ticket) = world.asked.keys().find(|ticket| **ticket != late).copied() {
        world.end(ticket, Outcome::Ok);
    }
    assert_eq!(world.phase(), GroupPhase::Running);
    world.end(late, Outcome::Stopped);
    assert_eq!((world.phase(), world.groups.restarts(GROUP, world.now)), (GroupPhase::Running, 1));
    // That member is still asked again.
    world.monitor(2, &Outcome::Stopped);
    assert_eq!(world.groups.restarts(GROUP, world.now), 2);
}

#[test]
fn a_monitor_under_way_does_not_hold_up_a_stop() {
    let mut world = World::running(1);
    world.pass(EVERY * 2);
    world.unwant();
    assert!(world.asked().contains(&(Stop, 2)), "{:?}", world.asked());
    world.end_one(Status, 2, Outcome::Stopped);
    for member in [2, 1, 0] {
        world.end_one(Stop, member, Outcome::Ok);
    }
    assert_eq!(world.events, [GroupEvent::Stopped(GROUP)]);
}

#[test]
fn what_has_no_agent_here_fails_once() {
    what_has_no_agent_here_fails_once_and_is_stopped();
}

/// It may run: its agent was there when it was started.
#[test]
fn what_lost_its_agent_while_it_ran_is_not_taken_for_stopped() {
    let mut world = World::running(1);
    world.unwant();
    world.end_one(Stop, 2, missing());
    world.end_one(Terminate, 2, Outcome::Ok);
    world.end_one(Status, 2, missing());
    world.end_one(Kill, 2, Outcome::Ok);
    world.end_one(Status, 2, missing());
    assert_eq!(
        (world.phase(), &world.events[..]),
        (GroupPhase::StopFailed(2), &[GroupEvent::StopFailed(GROUP)][..])
    );
    // Its agent is back: it can be stopped.
    world.unwant();
    world.rest();
    assert_eq!(world.events.last(), Some(&GroupEvent::Stopped(GROUP)));
}

#[test]
fn a_long_start_that_nobody_wants_any_more_is_ended_and_not_waited_for() {
    a_long_start_that_nobody_wants_is_ended();
}

#[test]
fn what_fails_at_once_waits_longer_each_time_and_no_longer_when_it_has_run() {
    what_fails_at_once_is_not_tried_at_once_again();
    let mut world = World::new(9);
    world.want(1);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        world.end_one(Status, 0, Outcome::Ok);
        world.end_one(Start, 0, Outcome::Failed("no".into()));
        let before = world.now;
        world.end_one(Stop, 0, Outcome::Ok);
        if world.asked().is_empty() {
            world.wait();
        }
        pauses.push(world.now.since(before).as_secs());
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8]);
    world.rest();
    assert_eq!(world.phase(), GroupPhase::Running);
    world.pass(CALM);
    world.rest();
    world.monitor(2, &Outcome::Stopped);
    world.end_one(Stop, 2, Outcome::Ok);
    assert_eq!(world.asked(), [(Status, 2)], "it has run for long: started again without a pause");
}

#[test]
fn what_waits_for_its_pause_is_left_alone_when_nobody_wants_it_and_begins_when_a_person_has_seen_to_it() {
    let fails = |world: &mut World| {
        for _ in 0..2 {
            world.end_one(Status, 0, Outcome::Ok);
            world.end_one(Start, 0, Outcome::Failed("no".into()));
            world.end_one(Stop, 0, Outcome::Ok);
        }
        assert_eq!((world.asked(), world.phase()), (vec![], GroupPhase::Starting(0)));
    };
    let mut world = World::new(9);
    world.want(1);
    fails(&mut world);
    world.unwant();
    world.rest();
    assert_eq!((world.phase(), world.groups.deadline()), (GroupPhase::Stopped, None));
    let mut world = World::new(9);
    world.want(1);
    fails(&mut world);
    assert!(world.groups.paused(GROUP).is_some());
    world.groups.forgive(&mut world.out);
    world.pass(Duration::ZERO);
    world.rest();
    assert_eq!((world.phase(), world.groups.paused(GROUP)), (GroupPhase::Running, None));
}

// ---- epochs -----------------------------------------------------------------

#[test]
fn what_runs_keeps_the_epoch_under_which_it_was_started() {
    let mut world = World::running(1);
    world.want(5);
    assert_eq!(world.asked(), []);
    world.monitor(1, &Outcome::Stopped);
    world.rest();
    assert!(world.epochs.iter().all(|under| *under == epoch(1)));
    assert_eq!(epoch(17).unwrap().as_str(), "17.1");
}

#[test]
fn what_is_being_stopped_is_stopped_before_it_starts_under_another_epoch() {
    let mut world = World::running(1);
    world.unwant();
    world.want(2);
    assert_eq!(world.end_one(Stop, 2, Outcome::Ok).epoch, epoch(1));
    world.end_one(Stop, 1, Outcome::Ok);
    world.end_one(Stop, 0, Outcome::Ok);
    assert_eq!(world.end_one(Status, 0, Outcome::Ok).epoch, epoch(2));
    world.rest();
    assert_eq!((world.phase(), &world.epochs[0]), (GroupPhase::Running, &epoch(2)));
    // Under the same epoch it is started again at once.
    world.unwant();
    world.want(2);
    world.end_one(Stop, 2, Outcome::Ok);
    assert_eq!(world.asked(), [(Status, 2)]);
}

/// A member that was to stay up during a restart is stopped after all, and the group is wanted again meanwhile. If the
/// address were put back now, it would be started during its own stop.
#[test]
fn an_address_that_is_being_stopped_is_not_put_back() {
    let mut world = World::running(1);
    world.monitor(1, &Outcome::Stopped);
    world.unwant();
    for member in [2, 1] {
        world.end_one(Stop, member, Outcome::Ok);
    }
    world.want(1);
    world.lose_address();
    assert_eq!(world.asked(), [(Stop, 0)]);
    world.rest();
    assert_eq!((world.phase(), world.runs), (GroupPhase::Running, [true; MEMBERS]));
}

/// The group was given up because its first member failed. It is wanted again while the last member is being stopped.
/// It must not start again before the first member was stopped, too.
#[test]
fn what_failed_is_stopped_before_it_is_started_again() {
    let mut world = World::running(0);
    world.monitor(0, &Outcome::Stopped);
    world.want(1);
    for member in [2, 1, 0] {
        world.end_one(Stop, member, Outcome::Ok);
    }
    assert_eq!(world.asked(), [(Status, 0)]);
    world.rest();
    assert_eq!((world.phase(), world.runs), (GroupPhase::Running, [true; MEMBERS]));
}

/// A group is stop-failed at a member. It is started again from the left and does not get that far. That member is
/// stopped first, and the members below it that were not started do not count as running.
#[test]
fn members_below_a_stop_failed_one_are_started() {
    for again in [World::want as fn(&mut World, u64), |world, round| {
        for rung in [Stop, Terminate, Kill] {
            world.end_one(rung, 2, Outcome::TimedOut);
        }
        assert_eq!(world.phase(), GroupPhase::StopFailed(2));
        world.unwant();
        world.wait();
        world.want(round);
    }] {
        let mut world = World::running(0);
        world.unwant();
        for rung in [Stop, Terminate, Kill] {
            world.end_one(rung, 2, Outcome::TimedOut);
        }
        world.runs[1] = false;
        world.want(1);
        world.end_one(Status, 0, Outcome::Ok);
        world.end_one(Status, 1, Outcome::Ok);
        world.end_one(Start, 1, Outcome::TimedOut);
        assert_eq!(world.asked(), [(Stop, 2)]);
        again(&mut world, 1);
        if world.asked().is_empty() {
            world.wait();
        }
        world.end_one(Stop, 2, Outcome::Ok);
        assert_eq!(world.asked(), [(Stop, 1)]);
        world.rest();
        assert_eq!((world.phase(), world.runs), (GroupPhase::Running, [true; MEMBERS]));
    }
}

// ---- the ladder -------------------------------------------------------------

#[test]
fn a_stop_that_hangs_goes_down_the_ladder() {
    a_stop_goes_down_the_ladder();
}

#[test]
fn only_it_does_not_run_is_the_end_of_the_ladder() {
    for (rungs, last) in [
        // It runs although it was terminated, and although it was killed.
        (vec![(Terminate, Outcome::Ok), (Status, Outcome::Running), (Kill, Outcome::Ok)], Outcome::Running),
        (vec![(Terminate, Outcome::TimedOut), (Kill, Outcome::Ok)], Outcome::Unknown("?".into())),
        (vec![(Terminate, Outcome::TimedOut), (Kill, Outcome::Ok)], Outcome::TimedOut),
    ] {
        let mut world = World::running(1);
        world.unwant();
        world.end_one(Stop, 2, Outcome::TimedOut);
        for (operation, outcome) in rungs {
            world.end_one(operation, 2, outcome);
        }
        world.end_one(Status, 2, last);
        assert_eq!(
            (world.phase(), &world.events[..]),
            (GroupPhase::StopFailed(2), &[GroupEvent::StopFailed(GROUP)][..])
        );
    }
    let mut world = World::running(1);
    world.unwant();
    world.end_one(Stop, 2, Outcome::TimedOut);
    world.end_one(Terminate, 2, Outcome::TimedOut);
    world.end_one(Kill, 2, Outcome::Failed("process 7 does not die".into()));
    assert_eq!(world.phase(), GroupPhase::StopFailed(2));
    // The next stop begins at the first rung.
    world.unwant();
    assert_eq!(world.asked(), [(Stop, 2)]);
    world.rest();
    assert_eq!(world.phase(), GroupPhase::Stopped);
}

#[test]
fn a_restart_whose_stop_fails_is_stop_failed() {
    let mut world = World::running(1);
    world.monitor(2, &Outcome::Stopped);
    world.end_one(Stop, 2, Outcome::TimedOut);
    world.end_one(Terminate, 2, Outcome::TimedOut);
    world.end_one(Kill, 2, Outcome::TimedOut);
    assert_eq!(
        (world.phase(), world.events.last()),
        (GroupPhase::StopFailed(2), Some(&GroupEvent::StopFailed(GROUP)))
    );
}

// ---- frozen -----------------------------------------------------------------

#[test]
fn a_frozen_group_is_watched_and_nothing_is_done() {
    let mut world = World::running(1);
    world.freeze(true);
    world.monitor(1, &Outcome::Stopped);
    world.monitor(1, &Outcome::Stopped);
    assert_eq!((world.phase(), &world.events[..]), (GroupPhase::Running, &[][..]));
    assert_eq!(world.groups.complaints(GROUP).collect::<Vec<_>>(), [("m1", "it does not run")]);
    assert_eq!(world.notes.iter().filter(|note| note.contains("frozen")).count(), 1);
    // An administrator has repaired it by hand.
    world.monitor(1, &Outcome::Running);
    assert_eq!(world.groups.complaints(GROUP).count(), 0);
    world.monitor(1, &Outcome::Stopped);
    world.lose_address();
    assert_eq!(world.asked(), [], "it is not put back");
    // After the thaw the address is checked, and the member that failed is asked at once.
    world.freeze(false);
    assert_eq!(world.asked(), [(Status, 0)]);
    world.rest();
    world.pass(Duration::ZERO);
    assert_eq!(world.asked(), [(Status, 1)]);
}

#[test]
fn what_is_wanted_of_a_frozen_group_is_done_afterwards() {
    let mut world = World::running(1);
    world.freeze(true);
    world.unwant();
    assert_eq!((world.asked(), world.phase()), (vec![], GroupPhase::Running));
    world.freeze(false);
    assert_eq!(world.asked(), [(Stop, 2)]);
    // The group is frozen in the middle of it; the operation under way ends.
    world.freeze(true);
    world.end_one(Stop, 2, Outcome::Ok);
    assert_eq!((world.asked(), world.phase()), (vec![], GroupPhase::Stopping(1)));
    world.freeze(false);
    world.rest();
    assert_eq!(world.phase(), GroupPhase::Stopped);
    world.freeze(true);
    world.want(2);
    assert_eq!(world.asked(), []);
    world.freeze(false);
    world.end_one(Status, 0, Outcome::Ok);
    world.freeze(true);
    world.end_one(Start, 0, Outcome::Ok);
    assert_eq!(world.phase(), GroupPhase::Starting(1));
    world.unwant();
    world.freeze(false);
    assert_eq!(world.asked(), [(Stop, 1)], "nobody wants it any more");
}

// ---- any sequence of events -------------------------------------------------

#[derive(Clone, Debug)]
enum Move {
    Want(u64),
    Unwant,
    Freeze(bool),
    Pass(u64),
    Wait,
    /// The operation that ends, by its place among those under way, and its outcome.
    End(usize, Outcome),
    Dies(usize),
    /// The address is removed from outside.
    Gone,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Ok),
        1 => Just(Outcome::Failed("no".into())),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Unknown("?".into())),
        1 => Just(missing()),
    ]
}

fn failure() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Failed("no".into())),
        2 => Just(missing()),
        1 => Just(Outcome::Unknown("?".into())),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Stopped),
        1 => Just(Outcome::Ok),
    ]
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => (1_u64..4).prop_map(Move::Want),
        1 => Just(Move::Unwant),
        1 => any::<bool>().prop_map(Move::Freeze),
        1 => (0_u64..30_000).prop_map(Move::Pass),
        4 => Just(Move::Wait),
        20 => (any::<usize>(), outcome()).prop_map(|(which, outcome)| Move::End(which, outcome)),
        1 => (0..MEMBERS).prop_map(Move::Dies),
        1 => Just(Move::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]
    /// [`World`] checks every step: no two operations at once except monitors, the order, the freeze, and that nothing
    /// runs that is reported as stopped. In the end every operation succeeds, and the group is where it is wanted.
    #[test]
    fn whatever_comes_the_order_holds(moves in prop::collection::vec(a_move(), 1..150), in_place in 0_u32..3) {
        let mut world = World::new(in_place);
        for step in moves {
            match step {
                Move::Want(round) => world.want(round),
                Move::Unwant => world.unwant(),
                Move::Freeze(on) => world.freeze(on),
                Move::Pass(millis) => world.pass(Duration::from_millis(millis)),
                Move::Wait => world.wait(),
                Move::End(which, outcome) => {
                    let under_way = world.asked.len();
                    if let Some(ticket) = world.asked.keys().nth(which % under_way.max(1)).copied() {
                        world.end(ticket, outcome);
                    }
                }
                Move::Dies(member) => world.runs[member] = false,
                Move::Gone => world.lose_address(),
            }
        }
        world.freeze(false);
        world.rest();
        world.unwant();
        world.rest();
        prop_assert_eq!(world.phase(), GroupPhase::Stopped);
        world.want(9);
        world.rest();
        prop_assert_eq!(world.phase(), GroupPhase::Running);
        prop_assert!(world.epochs.iter().all(|under| *under == epoch(9)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    /// Answers of any kind, in any order, all at once: a failing start, stop or status never repeats without a pause.
    /// One answer in ten may be a success, so that starts get to any member before they fail.
    #[test]
    fn operations_of_instant_failures_are_bounded(
        answers in prop::collection::vec(failure(), 1..40),
        in_place in 0_u32..2000,
        wanted_again in any::<bool>(),
    ) {
        // A running group is asked by its monitors: each member once in ten seconds.
        prop_assume!(answers.iter().any(|answer| !matches!(answer, Outcome::Ok | Outcome::Stopped)));
        let count = operations(Duration::from_secs(600), in_place, &answers, wanted_again);
        prop_assert!(count < 900, "{} operations in ten minutes", count);
    }
}
