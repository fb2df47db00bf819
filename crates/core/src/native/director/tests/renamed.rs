//! A group is renamed, or a resource goes to another group, and the new file reaches one node after the other.

use super::*;

/// The groups of an old and a new file; [`HEAD`] stands before both.
struct Case {
    old: &'static str,
    new: &'static str,
}

const HEAD: &str = r#"
cluster = "test"
pace = "1s"
nodes.a.links = { front = "10.0.0.1", back = "10.1.0.1" }
nodes.b.links = { front = "10.0.0.2", back = "10.1.0.2" }
witnesses.w.address = "10.9.0.1"
"#;

/// Each of these things runs in one place at most.
const THINGS: [&str; 3] = ["10.0.0.101", "apache2", "db.service"];

const CASES: [Case; 4] = [
    // Another name, and another form of the address.
    Case {
        old: "groups.web.resources = ['10.0.0.101/24', 'apache2']",
        new: "groups.www.resources = ['IPaddr2::10.0.0.101/16', 'apache2']",
    },
    // An address goes to another group.
    Case {
        old: "groups.one.resources = ['10.0.0.101', 'apache2']\ngroups.two.resources = ['db.service']",
        new: "groups.one.resources = ['apache2']\ngroups.two.resources = ['10.0.0.101', 'db.service']",
    },
    // A unit goes to another group.
    Case {
        old: "groups.one.resources = ['10.0.0.101', 'apache2', 'db.service']\ngroups.two.resources = ['10.0.0.102']",
        new: "groups.one.resources = ['10.0.0.101', 'apache2']\ngroups.two.resources = ['10.0.0.102', 'db.service']",
    },
    // The same in a family.
    Case {
        old: "groups.one.resources = ['10.0.0.101']\ngroups.two.resources = ['apache2', 'db.service']\ngroups.two.together = 'one'",
        new: "groups.one.resources = ['10.0.0.102']\n\
              groups.two.resources = ['10.0.0.101', 'apache2', 'db.service']\ngroups.two.together = 'one'",
    },
];

impl Case {
    fn files(&self) -> [String; 2] {
        [self.old, self.new].map(|groups| format!("{HEAD}{groups}\n"))
    }
}

impl World {
    /// A cluster in which all members have this file.
    fn with(toml: &str) -> Self {
        let mut world = Self::new(TOML);
        (0..3).for_each(|member| world.begin(member, toml, 20));
        world
    }

    /// The members on which a thing runs behind an open gate.
    fn having(&self, thing: &str) -> Vec<usize> {
        let has = |machine: &Machine| {
            machine.running.iter().any(|(group, text)| {
                let gate = machine.gates.get(group);
                text.split([':', '/']).any(|word| word == thing)
                    && gate.is_some_and(|gate| gate.until > Instant::from_millis(self.millis))
            })
        };
        (0..3).filter(|member| has(&self.machines[*member])).collect()
    }

    /// Passes this many ms, and checks in each that every thing is in one place at most.
    fn audit(&mut self, millis: u64) -> Result<(), String> {
        for _ in 0..millis {
            self.pass(1);
            if self.machines.iter().filter(|machine| machine.runs).count() < 2 {
                continue;
            }
            for thing in THINGS {
                let having = self.having(thing);
                if having.len() > 1 {
                    return Err(format!("{}: {thing} is at {having:?}", self.millis));
                }
            }
        }
        Ok(())
    }

    /// Restarts a member with another file, as `systemctl restart` does.
    fn restart_with(&mut self, member: usize, toml: &str, generation: u64, away: u64) -> Result<(), String> {
        if member < 2 {
            let order = Order::Native { order: NativeOrder::Leave, user: 0 };
            self.handle(member, Event::Order { id: OrderId(7), order });
            self.audit(50)?;
            assert!(self.machines[member].left);
        }
        self.machines[member].director = None;
        self.audit(away)?;
        self.begin(member, toml, generation);
        Ok(())
    }

    fn troubles(&mut self, member: usize) -> Vec<String> {
        let now = now(self.millis);
        self.director(member).status(now).troubles
    }
}

#[test]
fn a_renamed_group_is_not_started_while_a_node_lives_that_may_run_it_under_its_old_name() {
    let [old, new] = CASES[0].files();
    let mut world = World::with(&old);
    world.audit(5000).unwrap();
    assert_eq!(world.having("10.0.0.101"), [0]);
    world.restart_with(1, &new, 30, 100).unwrap();
    world.audit(5000).unwrap();
    assert_eq!(world.having("10.0.0.101"), [0], "who runs it keeps it");
    let cure = "make the files equal, then restart locum on the node with the wrong one";
    let text = |group: &str, does: &str, node: &str, other: &str| {
        format!("{group} {does}: {node}'s locum.toml has 10.0.0.101 in group {other}; {cure}")
    };
    assert_eq!(world.troubles(0), [text("web", "is not taken over", "b", "www")]);
    assert_eq!(world.troubles(1)[0], text("www", "is not started here", "a", "web"));
    assert_eq!(world.blocked(1), [format!("www: a's locum.toml has 10.0.0.101 in group web; {cure}")]);
    // No node would start it.
    let order = Order::Native { order: NativeOrder::Move(GroupIndex(0), Some(NodeIndex(1))), user: 0 };
    world.handle(0, Event::Order { id: OrderId(1), order });
    world.audit(3000).unwrap();
    let Some(Answer::Refused(text)) = world.machines[0].answers.pop() else { panic!("not refused") };
    assert!(text.contains("b's locum.toml has 10.0.0.101 in group www"), "{text}");
    assert_eq!(world.having("10.0.0.101"), [0]);
    world.restart_with(0, &new, 31, 100).unwrap();
    world.audit(5000).unwrap();
    assert_eq!(world.having("10.0.0.101").len(), 1);
    assert_eq!((world.troubles(0), world.troubles(1)), (vec![], vec![]));
}

#[test]
fn a_dead_node_s_file_counts_as_long_as_its_lease_and_no_longer() {
    let [old, new] = CASES[0].files();
    let mut world = World::with(&old);
    world.audit(5000).unwrap();
    world.restart_with(1, &new, 30, 100).unwrap();
    world.audit(5000).unwrap();
    // Its agents and its gate stay until the lease ends; its daemon is gone.
    world.machines[0].director = None;
    world.audit(3000).unwrap();
    assert_eq!(world.having("10.0.0.101"), [1]);
}

#[test]
fn nothing_is_claimed_before_it_is_known_what_a_living_node_s_file_says_for_a_bounded_time() {
    let [old, new] = CASES[0].files();
    // The lines of files never arrive; everything else does.
    let started = |lines_come: u64| {
        let mut world = World::with(&old);
        world.begin(1, &new, 30);
        world.swallows_settings = true;
        for _ in 0..lines_come {
            world.pass(1);
            if world.machines.iter().any(|machine| machine.runs) {
                return Some(world.millis - 1000);
            }
        }
        let untold =
            |why: &str| why.ends_with("the differences of other nodes' files are not known here yet");
        assert!(
            (0..2).all(|member| world.blocked(member).iter().all(|why| untold(why))),
            "{:?}",
            world.blocked(0)
        );
        world.swallows_settings = false;
        world.pass(5000);
        assert!(!world.machines.iter().any(|machine| machine.runs), "each knows what the other's file says");
        None
    };
    assert_eq!(started(9000), None);
    let at = started(12_000).expect("no service stays down for lines that never come");
    assert!((10_000..11_000).contains(&at), "{at}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For every order of restarts, every owner, and every lost frame.
    #[test]
    fn a_file_that_reaches_one_node_after_the_other_never_makes_two_owners(
        case in 0..CASES.len(),
        back in any::<bool>(),
        order in Just([0_usize, 1, 2]).prop_shuffle(),
        moved in any::<bool>(),
        away in many(1_u64..3000, 3),
        waits in many(0_u64..4000, 3),
        deaf in many(0_u64..300, 3),
        dies in prop::option::of(0_usize..2),
    ) {
        let [mut old, mut new] = CASES[case].files();
        if back {
            core::mem::swap(&mut old, &mut new);
        }
        let mut world = World::with(&old);
        world.audit(4000).map_err(TestCaseError::fail)?;
        if moved {
            let order = Order::Native { order: NativeOrder::Move(GroupIndex(0), Some(NodeIndex(1))), user: 0 };
            world.handle(0, Event::Order { id: OrderId(1), order });
            world.audit(2000).map_err(TestCaseError::fail)?;
        }
        for (turn, member) in order.into_iter().enumerate() {
            world.restart_with(member, &new, 30 + turn as u64, away[turn]).map_err(TestCaseError::fail)?;
            // Shorter than a lease: it does not hear the others yet, or they do not hear it.
            let others = (0..3).filter(|other| *other != member);
            let cuts = others.flat_map(|other| (0..3).map(move |link| (other, link)));
            let heard = deaf[turn] % 2 == 0;
            world.cuts = cuts.map(|(other, link)| if heard { (other, member, link) } else { (member, other, link) }).collect();
            world.audit(deaf[turn]).map_err(TestCaseError::fail)?;
            world.cuts.clear();
            world.audit(waits[turn]).map_err(TestCaseError::fail)?;
        }
        world.audit(6000).map_err(TestCaseError::fail)?;
        for thing in THINGS.into_iter().filter(|thing| new.contains(thing)) {
            prop_assert_eq!(world.having(thing).len(), 1, "{} with equal files", thing);
        }
        if let Some(dead) = dies {
            world.machines[dead].director = None;
            world.audit(6000).map_err(TestCaseError::fail)?;
            for thing in THINGS.into_iter().filter(|thing| new.contains(thing)) {
                prop_assert_eq!(world.having(thing), vec![1 - dead], "{} after a death", thing);
            }
        }
    }

    /// A node dies while the files differ. In the end everything in the living node's file runs.
    #[test]
    fn a_node_that_dies_while_the_files_differ_leaves_nothing_down(
        case in 0..CASES.len(),
        first in 0_usize..2,
        dead in 0_usize..2,
        wait in 3000_u64..6000,
    ) {
        let [old, new] = CASES[case].files();
        let mut world = World::with(&old);
        world.audit(4000).map_err(TestCaseError::fail)?;
        world.restart_with(first, &new, 30, 100).map_err(TestCaseError::fail)?;
        world.audit(wait).map_err(TestCaseError::fail)?;
        world.machines[dead].director = None;
        world.audit(6000).map_err(TestCaseError::fail)?;
        for thing in THINGS.into_iter().filter(|thing| new.contains(thing)) {
            prop_assert_eq!(world.having(thing), vec![1 - dead], "{}", thing);
        }
    }
}
