//! The order of operations in a group when two of them could meet. The usual course is in `pair.rs`.

mod common;

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use locum_core::{
    group::{GroupPhase, REPAIR_PAUSE, STOP_PAUSE, STOP_TRIES},
    model::{
        action::{Action, Operation},
        event::{Outcome, Ticket},
        holding::Holding,
        identity::{GroupIndex, ResourceId},
        resource::{Address, Agent},
        time::{Duration, Instant},
    },
    r1::{
        plan::{AutoFailback, R1Plan},
        sets::Sets,
    },
};

const T: Instant = Instant::from_millis(1000);
const GROUP: GroupIndex = GroupIndex(1);
const ADDRESS: ResourceId = ResourceId { group: GROUP, member: 0 };

/// Node b's groups: its own has one member, an address.
fn groups() -> (Sets, VecDeque<Action>) {
    (Sets::new(&plan(), &[]), VecDeque::new())
}

fn plan() -> Arc<R1Plan> {
    let mut plan = Arc::unwrap_or_clone(common::pair::plan(1, AutoFailback::On));
    plan.groups[1].resources[0].agent = Agent::Address(Address {
        ip: IpAddr::from([172, 23, 2, 14]),
        prefix: None,
        interface: None,
        label: None,
        broadcast: None,
        by_route: false,
    });
    Arc::new(plan)
}

/// The operations asked for; notes are dropped.
fn runs(out: &mut VecDeque<Action>) -> Vec<(Ticket, Operation)> {
    let runs = out.drain(..).filter_map(|action| match action {
        Action::Run { ticket, operation, .. } => Some((ticket, operation)),
        _ => None,
    });
    runs.collect()
}

fn only(out: &mut VecDeque<Action>, expected: Operation) -> Ticket {
    let runs = runs(out);
    assert!(matches!(runs[..], [(_, operation)] if operation == expected), "{runs:?}");
    runs[0].0
}

fn running() -> (Sets, VecDeque<Action>) {
    let (mut groups, mut out) = groups();
    groups.want_set(Holding::Local, true, &mut out);
    let ticket = only(&mut out, Operation::Status);
    groups.done(T, ticket, &Outcome::Running, &mut out);
    assert_eq!(groups.phase(GROUP), GroupPhase::Running);
    out.clear();
    (groups, out)
}

#[test]
fn an_address_is_not_stopped_while_it_is_being_put_back() {
    let (mut groups, mut out) = running();
    groups.address_gone(ADDRESS, &mut out);
    let repair = only(&mut out, Operation::Start);
    groups.want_set(Holding::Local, false, &mut out);
    assert_eq!(runs(&mut out), [], "a start that ends after the stop would leave the address here");
    groups.done(T, repair, &Outcome::Ok, &mut out);
    let stop = only(&mut out, Operation::Stop);
    groups.done(T, stop, &Outcome::Ok, &mut out);
    assert_eq!(groups.phase(GROUP), GroupPhase::Stopped);
}

#[test]
fn an_address_is_put_back_by_one_operation_at_a_time() {
    let (mut groups, mut out) = running();
    groups.address_gone(ADDRESS, &mut out);
    let repair = only(&mut out, Operation::Start);
    groups.address_gone(ADDRESS, &mut out);
    assert_eq!((runs(&mut out), groups.taken_away(GROUP)), (vec![], 2));
    groups.done(T, repair, &Outcome::TimedOut, &mut out);
    groups.address_gone(ADDRESS, &mut out);
    let repair = only(&mut out, Operation::Start);
    groups.done(T, repair, &Outcome::Ok, &mut out);
    assert_eq!(groups.deadline(), None, "nothing is left to be tried");
}

#[test]
fn an_address_that_cannot_be_put_back_for_an_hour_is_told_in_a_few_lines() {
    let (mut groups, mut out) = running();
    let mut lines = Vec::new();
    let mut perform = |out: &mut VecDeque<Action>| {
        let mut ticket = None;
        for action in out.drain(..) {
            match action {
                Action::Run { ticket: new, .. } => ticket = Some(new),
                Action::Note(note) => lines.push(note.text),
                _ => {}
            }
        }
        ticket.expect("it is tried")
    };
    groups.address_gone(ADDRESS, &mut out);
    let mut now = T;
    for second in 0..3600 {
        let ticket = perform(&mut out);
        let why = if second < 1800 { "there is no interface eth0" } else { "interface eth0 is down" };
        groups.done(now, ticket, &Outcome::Failed(why.into()), &mut out);
        now = now + REPAIR_PAUSE;
        groups.tick(now, &mut out);
    }
    let ticket = perform(&mut out);
    groups.done(now, ticket, &Outcome::Ok, &mut out);
    // Then two programs fight over it.
    for _ in 0..1000 {
        groups.address_gone(ADDRESS, &mut out);
        let ticket = perform(&mut out);
        groups.done(now, ticket, &Outcome::Ok, &mut out);
        now = now + Duration::from_millis(1);
    }
    assert_eq!(groups.taken_away(GROUP), 1001);
    assert!((20..50).contains(&lines.len()), "{} lines: {lines:#?}", lines.len());
    let said = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!([said("no interface eth0"), said("eth0 is down"), said("1000 times")], [1, 1, 1]);
}

#[test]
fn wanted_again_after_it_could_not_be_stopped_it_is_started_again() {
    let (mut groups, mut out) = running();
    groups.want_set(Holding::Local, false, &mut out);
    for try_ in 1..=STOP_TRIES {
        let ticket = only(&mut out, Operation::Stop);
        groups.done(T, ticket, &Outcome::Failed("busy".into()), &mut out);
        if try_ < STOP_TRIES {
            groups.tick(T + STOP_PAUSE, &mut out);
        }
    }
    // The peer has died meanwhile: all groups are wanted here.
    groups.want_set(Holding::Local, true, &mut out);
    let status = only(&mut out, Operation::Status);
    groups.done(T, status, &Outcome::Running, &mut out);
    let status = only(&mut out, Operation::Status);
    groups.done(T, status, &Outcome::Running, &mut out);
    assert!(groups.acquired(Holding::Local), "{:?}", groups.phase(GROUP));
}

#[test]
fn an_address_taken_away_while_the_rest_of_its_group_starts_is_put_back() {
    let mut plan = Arc::unwrap_or_clone(common::pair::plan(1, AutoFailback::On));
    let slow = plan.groups[0].resources[0].clone();
    plan.groups[1].resources.push(slow);
    let (mut groups, mut out) = (Sets::new(&plan, &[]), VecDeque::new());
    groups.want_set(Holding::Local, true, &mut out);
    let status = only(&mut out, Operation::Status);
    groups.address_gone(ADDRESS, &mut out);
    assert_eq!(runs(&mut out), [], "it is not here yet");
    groups.done(T, status, &Outcome::Running, &mut out);
    let status = only(&mut out, Operation::Status);
    groups.done(T, status, &Outcome::Stopped, &mut out);
    let start = only(&mut out, Operation::Start);
    groups.address_gone(ADDRESS, &mut out);
    let repair = only(&mut out, Operation::Start);
    // The other member fails: nothing is stopped before the repair has ended.
    groups.done(T, start, &Outcome::Failed("no".into()), &mut out);
    assert_eq!(runs(&mut out), []);
    groups.done(T, repair, &Outcome::Ok, &mut out);
    for _ in 0..2 {
        let stop = only(&mut out, Operation::Stop);
        groups.done(T, stop, &Outcome::Ok, &mut out);
    }
    assert_eq!(groups.phase(GROUP), GroupPhase::Stopped);
}

#[test]
fn resources_an_earlier_start_could_not_stop_are_stop_failed() {
    let mut out = VecDeque::new();
    let mut groups = Sets::new(&plan(), &[ADDRESS]);
    assert_eq!(groups.phase(GROUP), GroupPhase::StopFailed(0));
    assert!(groups.at_rest(Holding::All) && groups.stop_failed(Holding::Local));
    assert!(!groups.released(Holding::Local), "nobody may be told that it is released");
    // A stop is tried again...
    groups.want_set(Holding::Local, false, &mut out);
    let ticket = only(&mut out, Operation::Stop);
    groups.done(T, ticket, &Outcome::Ok, &mut out);
    assert!(groups.released(Holding::Local));
    // ... and a start finds it running.
    let mut groups = Sets::new(&plan(), &[ADDRESS]);
    groups.want_set(Holding::Local, true, &mut out);
    let ticket = only(&mut out, Operation::Status);
    groups.done(T, ticket, &Outcome::Running, &mut out);
    assert_eq!(groups.phase(GROUP), GroupPhase::Running);
}

/// The start that follows a failed stop must remember what still runs.
#[test]
fn a_start_that_is_given_up_stops_what_could_not_be_stopped_before() {
    let plan = common::pair::plan(0, AutoFailback::On);
    let [left, right] = [0, 1].map(|member| ResourceId { group: GroupIndex(0), member });
    let mut out = VecDeque::new();
    let asked = |out: &mut VecDeque<Action>| {
        let run = out.drain(..).find_map(|action| match action {
            Action::Run { ticket, resource, operation, .. } => Some((ticket, resource, operation)),
            _ => None,
        });
        run.expect("an operation")
    };
    let mut groups = Sets::new(&plan, &[right]);
    groups.want_set(Holding::Local, true, &mut out);
    let (ticket, resource, operation) = asked(&mut out);
    assert_eq!((resource, operation), (left, Operation::Status));
    groups.want_set(Holding::Local, false, &mut out);
    groups.done(T, ticket, &Outcome::Stopped, &mut out);
    for member in [right, left] {
        let (ticket, resource, operation) = asked(&mut out);
        assert_eq!((resource, operation), (member, Operation::Stop));
        assert!(!groups.released(Holding::Local));
        groups.done(T, ticket, &Outcome::Ok, &mut out);
    }
    assert!(groups.released(Holding::Local));
}

#[test]
fn resources_an_earlier_start_left_running_are_not_started_again() {
    let (mut groups, mut out) = groups();
    groups.keep_set(Holding::Local, &mut out);
    assert!(groups.is_acquired(GROUP) && groups.acquired(Holding::Local));
    let look = only(&mut out, Operation::Status);
    // An address that is gone meanwhile is put back.
    groups.done(T, look, &Outcome::Stopped, &mut out);
    let repair = only(&mut out, Operation::Start);
    groups.done(T, repair, &Outcome::Ok, &mut out);
    assert_eq!((runs(&mut out), groups.phase(GROUP)), (vec![], GroupPhase::Running));
    // Stopped while its status is asked: the stop waits, as during a repair.
    let (mut groups, mut out) = self::groups();
    groups.keep_set(Holding::Local, &mut out);
    let look = only(&mut out, Operation::Status);
    groups.want_set(Holding::Local, false, &mut out);
    assert_eq!(runs(&mut out), []);
    groups.done(T, look, &Outcome::Running, &mut out);
    let stop = only(&mut out, Operation::Stop);
    groups.done(T, stop, &Outcome::Ok, &mut out);
    assert!(groups.released(Holding::Local));
}
