//! Announcements of claims, and the proofs that the gates of a node expect.

use super::*;

#[test]
fn a_claim_is_announced_with_each_beat_to_an_earlier_owner_that_is_in_doubt() {
    let mut world = World::new(TOML);
    world.pass(4000);
    // First the group had no owner. Then it moves, and its earlier owner has stopped.
    let order = Order::Native { order: NativeOrder::Move(GroupIndex(0), None), user: 0 };
    world.handle(0, Event::Order { id: OrderId(1), order });
    world.pass(4000);
    assert_eq!(world.owner(), Some(1));
    assert_eq!(
        [0, 1].map(|member| world.machines[member].announced.len()),
        [0, 0],
        "there is nobody to tell"
    );
    // The gate of a silent owner may still be open.
    world.machines[1].director = None;
    world.pass(20_000);
    assert_eq!(world.owner(), Some(0));
    let announced = &world.machines[0].announced[..];
    let beat = plan(TOML, "a").timing.beat.as_millis();
    let ([(first, one), ..], Some((last, _))) = (announced, announced.last()) else { panic!() };
    assert!(announced.iter().all(|(_, other)| other == one), "{announced:?}");
    assert_eq!((one.subject, one.owner), (subject_of("b"), MemberId::of("a")));
    assert_eq!(world.machines[1].proofs, [one.proof], "what the silent one's gate was told");
    let own = &world.machines[0].proofs;
    assert!(own.len() == 1 && !own.contains(&one.proof));
    let long = u128::from(last - first);
    assert!(long < 10_000 && long + beat >= 10_000, "{announced:?}");
    let beats = 10_000 / beat;
    let count = announced.len() as u128;
    assert!((beats..=beats + 2).contains(&count), "{count} in {beats} beats");
}

/// After a restart a voter lets nothing below its ceiling pass, so the owner proposes a higher ballot. A rival may meet
/// that ballot at one voter alone. The owner's gate knows it first, and knows the old one until the new one is owned.
#[test]
fn a_ballot_is_expected_before_it_is_proposed() {
    let mut world = World::new(TOML);
    world.pass(4000);
    assert_eq!(world.owner(), Some(0));
    let [old] = world.machines[0].proofs[..] else { panic!("one ballot, one key") };
    world.machines[0].proofs_before.clear();
    let mut ledger = world.machines[2].ledgers.last().cloned().unwrap();
    ledger.ceiling += 1000;
    world.machines[2].ledgers.push(ledger);
    world.restart(2, 20, false);
    world.pass(6000);
    assert_eq!(world.owner(), Some(0), "it is claimed again while its lease runs");
    let [new] = world.machines[0].proofs[..] else { panic!("{:?}", world.machines[0].proofs) };
    assert_ne!(new, old);
    let before = &world.machines[0].proofs_before;
    assert!(before.starts_with(&[vec![old], vec![old, new]]), "{before:?}");
    assert!(world.machines[0].announced.is_empty(), "nothing of its own is ever proved");
}

/// In a roll-over a gate cannot know which key a rival signs with.
#[test]
fn a_gate_expects_proofs_by_every_key_that_is_accepted() {
    let mut world = World::new(TOML);
    world.pass(4000);
    let order = Order::Native { order: NativeOrder::Move(GroupIndex(0), None), user: 0 };
    world.handle(0, Event::Order { id: OrderId(1), order });
    world.pass(4000);
    assert_eq!(world.owner(), Some(1));
    let [old] = world.machines[1].proofs[..] else { panic!("one ballot, one key") };
    let both = |signing| Keys::new(signing, vec![key(0, "secret"), key(1, "other")]).unwrap();
    world.handle(1, Event::Keys(both(0)));
    let [first, second] = world.machines[1].proofs[..] else { panic!("{:?}", world.machines[1].proofs) };
    assert!(first == old && second != old);
    // The taker already signs with the new key.
    (0..3).for_each(|member| world.handle(member, Event::Keys(both(u8::from(member != 1)))));
    world.machines[1].director = None;
    world.pass(4000);
    assert_eq!(world.owner(), Some(0));
    let (_, announced) = world.machines[0].announced[0];
    assert_eq!(announced.proof, second);
    assert_eq!(world.machines[1].proofs, [first, second]);
}

/// A witness that has a key of its own speaks only for itself: a proof by that key ends no ownership.
#[test]
fn a_witness_s_key_proves_nothing_to_a_gate() {
    let secret = "11".repeat(32);
    let mut world = World::new(&format!("{TOML}\nwitnesses.w.key = \"{secret}\"\n"));
    world.pass(4000);
    assert_eq!(world.owner(), Some(0));
    let [expected] = world.machines[0].proofs[..] else { panic!("one ballot, one key") };
    let subject = {
        let director = world.director(0);
        let ballot = director.expected[&GroupIndex(0)][0];
        announcement::proved(director.subject(GroupIndex(0), ballot).unwrap(), ballot.round)
    };
    assert_eq!(keys().claim_proof([&subject[..]]), expected);
    assert_ne!(keys_of(Secret([0x11; 32])).claim_proof([&subject[..]]), expected);
}
