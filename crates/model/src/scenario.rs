//! The initial states and budgets of searches. Each scenario asks one question; together they cover the rules.

use locum_core::{
    claims::{CEILING_STEP, ClaimMessage, Voters},
    model::identity::MemberIndex,
};

use crate::{
    search::Situation,
    world::{Act, Budget, Guard, MEMBERS_MAX, Rules, World, all_vote},
};

/// One search: an initial state, rules and a budget.
#[derive(Debug)]
pub struct Scenario {
    /// The name by which tests and the command line choose it.
    pub name: &'static str,
    /// The question that it answers.
    pub about: &'static str,
    /// The members, and the events that may happen.
    pub rules: Rules,
    /// Makes the initial state of the search.
    pub begin: fn(&Rules) -> World,
    /// The situations that an exhaustive search must see.
    pub sees: &'static [Situation],
    /// Too large for a test: the test ends after this many states.
    pub ends: Option<usize>,
}

const NONE: [u8; MEMBERS_MAX] = [0; MEMBERS_MAX];

const NOTHING: Budget = Budget {
    claims: NONE,
    reclaims: NONE,
    releases: NONE,
    stops: NONE,
    beats: NONE,
    crashes: NONE,
    losses: NONE,
    failures: NONE,
    duplicates: 0,
    drifts: NONE,
    fences: 0,
};

/// Rules for two nodes and a witness.
const TWO: Rules = Rules {
    nodes: 2,
    members: 3,
    voters: all_vote,
    lease: 2,
    margin: 0,
    guard: Guard::Lease,
    horizon: 4,
    budget: NOTHING,
    prompt_disks: true,
    lost: chatter,
    doubled: all,
    prunes: true,
};

/// Frames that only speed things up: lists, copies, refusals, and the message that a new run has swept.
const fn chatter(message: &ClaimMessage, _: u8) -> bool {
    matches!(
        message,
        ClaimMessage::AskList
            | ClaimMessage::List(_)
            | ClaimMessage::AskCopy
            | ClaimMessage::Copy(_)
            | ClaimMessage::Swept
            | ClaimMessage::Refuse(_)
    )
}

/// The two nodes do not hear each other; the witness hears both.
const fn apart(message: &ClaimMessage, to: u8) -> bool {
    let asks =
        matches!(message, ClaimMessage::Prepare(_) | ClaimMessage::Propose(..) | ClaimMessage::Release(_));
    chatter(message, to) || (asks && to < 2)
}

const fn all(_: &ClaimMessage) -> bool {
    true
}

fn settled(rules: &Rules) -> World {
    // Far enough apart that no node has to learn rounds first, near enough that the voters admit them.
    World::settled(rules, &[1600, 2200, 1000, 1000, 1000])
}

/// A world in which all members have used the same rounds.
fn level(rules: &Rules) -> World {
    World::settled(rules, &[1024; MEMBERS_MAX])
}

/// A world in which node 1 has used far more rounds than all others, so that it need not learn them first.
fn one_ahead(rules: &Rules) -> World {
    World::settled(rules, &[1600, 2700, 1000, 1000, 1000])
}

/// Node 0 owns by its own vote and the witness's; node 1 missed all of it.
fn owned(rules: &Rules, mut world: World) -> World {
    let heard = heard(rules);
    world.act(&heard, &Act::Claim(0));
    world.exchange(&heard, &[0, 2]);
    world.lose(|_| false);
    world.begin(rules)
}

const fn of(node: usize, times: u8) -> [u8; MEMBERS_MAX] {
    let mut each = NONE;
    each[node] = times;
    each
}

const fn first(one: u8, two: u8, three: u8) -> [u8; MEMBERS_MAX] {
    [one, two, three, 0, 0]
}

/// All scenarios, in the order of the command line.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "claims",
        about: "two nodes claim; nothing is held at first",
        rules: Rules { horizon: 3, budget: Budget { claims: first(1, 1, 0), ..NOTHING }, ..TWO },
        begin: settled,
        sees: &[Situation::Followed],
        ends: Some(300_000),
    },
    Scenario {
        name: "doubled",
        about: "an owner, a rival; a frame arrives twice",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(1, 1, 0), duplicates: 1, ..NOTHING },
            prunes: false,
            ..TWO
        },
        begin: settled,
        sees: &[Situation::Followed],
        ends: Some(300_000),
    },
    Scenario {
        name: "drift",
        about: "an owner, a rival; the witness's clock gets ahead by the margin",
        rules: Rules {
            margin: 1,
            lease: 2,
            horizon: 3,
            budget: Budget { claims: first(0, 1, 0), drifts: first(0, 0, 1), ..NOTHING },
            ..TWO
        },
        begin: |rules| owned(rules, settled(rules)),
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "again",
        about: "an owner claims again while its lease runs, or gives back; a rival claims",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(1, 1, 0), reclaims: of(0, 1), releases: of(0, 1), ..NOTHING },
            lost: apart,
            ..TWO
        },
        begin: |rules| owned(rules, settled(rules)),
        sees: &[Situation::Followed, Situation::ClaimedAgain],
        ends: None,
    },
    Scenario {
        name: "released",
        about: "an old release of what is owned again is still on its way",
        rules: Rules { horizon: 3, budget: Budget { claims: first(0, 1, 0), ..NOTHING }, ..TWO },
        begin: owned_again_after_a_release,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "given-back",
        about: "what was owned has been given back; both claim",
        rules: Rules { horizon: 3, budget: Budget { claims: first(1, 1, 0), ..NOTHING }, lost: apart, ..TWO },
        begin: |rules| {
            let mut world = owned(rules, settled(rules));
            world.act(&heard(rules), &Act::Release(0));
            world.exchange(&heard(rules), &[0, 1, 2]);
            world.begin(rules)
        },
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "witness",
        about: "an owner, a rival; the witness restarts, its writes take time",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(0, 1, 0), crashes: of(2, 1), ..NOTHING },
            prompt_disks: false,
            ..TWO
        },
        begin: |rules| owned(rules, one_ahead(rules)),
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "owner-dies",
        about: "an owner's daemon dies, its gate stands; it starts again and claims, as does the other",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(1, 1, 0), crashes: of(0, 1), beats: of(0, 1), ..NOTHING },
            lost: |message, to| match message {
                ClaimMessage::Swept => false,
                ClaimMessage::Beat(_) => true,
                _ => apart(message, to),
            },
            ..TWO
        },
        begin: |rules| owned(rules, settled(rules)),
        sees: &[Situation::Followed, Situation::Outlived],
        ends: None,
    },
    Scenario {
        name: "beats",
        about: "an owner renews by beats and echoes; a rival claims",
        rules: Rules {
            horizon: 4,
            budget: Budget { claims: first(0, 1, 0), beats: first(2, 0, 2), ..NOTHING },
            lost: |message, to| match message {
                ClaimMessage::Beat(_) => to == 1,
                _ => apart(message, to),
            },
            ..TWO
        },
        begin: |rules| owned(rules, settled(rules)),
        sees: &[Situation::Followed, Situation::Renewed],
        ends: Some(300_000),
    },
    Scenario {
        name: "lists",
        about: "a voter that missed the confirmation is told the list",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(0, 1, 0), beats: first(1, 0, 1), ..NOTHING },
            lost: |message, to| match message {
                ClaimMessage::Beat(_) | ClaimMessage::AskList | ClaimMessage::List(_) => to == 1,
                _ => apart(message, to),
            },
            ..TWO
        },
        begin: unconfirmed,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "old-echo",
        about: "an owner in its second run; an echo of a beat of its first run comes late",
        rules: Rules {
            horizon: 4,
            budget: Budget { claims: first(0, 1, 0), beats: first(2, 0, 0), ..NOTHING },
            lost: |message, to| apart(message, to) || matches!(message, ClaimMessage::Beat(_)),
            ..TWO
        },
        begin: old_echo,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "proposed",
        about: "a proposal is on its way, its answers may come late and twice; a rival claims",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(0, 1, 0), duplicates: 1, ..NOTHING },
            doubled: |message| matches!(message, ClaimMessage::Accept(_)),
            prunes: false,
            ..TWO
        },
        begin: proposed,
        sees: &[Situation::Followed],
        ends: Some(300_000),
    },
    Scenario {
        name: "beats-before",
        about: "beats are said before the claim is confirmed",
        rules: Rules {
            horizon: 4,
            budget: Budget { claims: first(0, 1, 0), beats: first(1, 0, 1), ..NOTHING },
            lost: |message, to| apart(message, to) || (to == 1 && matches!(message, ClaimMessage::Beat(_))),
            ..TWO
        },
        begin: unconfirmed,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "disks",
        about: "a durable proposal is on its way, a rival claims; writes take time or fail, the nodes do not hear each other",
        rules: Rules {
            horizon: 3,
            guard: Guard::Fence,
            budget: Budget { claims: first(0, 1, 0), failures: of(2, 1), ..NOTHING },
            prompt_disks: false,
            lost: apart,
            ..TWO
        },
        begin: proposed,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "fence",
        about: "an owner stops late, or is fenced, starts again, or releases; both claim again",
        rules: Rules {
            horizon: 3,
            guard: Guard::Fence,
            budget: Budget {
                claims: first(1, 1, 0),
                stops: of(0, 1),
                releases: first(1, 0, 0),
                fences: 1,
                ..NOTHING
            },
            lost: apart,
            ..TWO
        },
        begin: |rules| owned(rules, settled(rules)),
        sees: &[Situation::Followed, Situation::Waits, Situation::Cleared, Situation::RunsOn],
        ends: None,
    },
    Scenario {
        name: "third",
        about: "an earlier owner that is unproved, a second owner that died waiting, and a third that claims",
        rules: Rules {
            horizon: 3,
            guard: Guard::Fence,
            budget: Budget { claims: first(0, 1, 0), ..NOTHING },
            ..TWO
        },
        begin: second_died_waiting,
        sees: &[Situation::Waits, Situation::RunsOn],
        ends: None,
    },
    Scenario {
        name: "late-fence",
        about: "a fence of an earlier run is answered late",
        rules: Rules {
            horizon: 3,
            guard: Guard::Fence,
            budget: Budget { claims: first(0, 1, 0), ..NOTHING },
            ..TWO
        },
        begin: fence_unanswered,
        sees: &[Situation::Waits, Situation::RunsOn],
        ends: None,
    },
    Scenario {
        name: "late-release",
        about: "a release of an earlier claim arrives at the holder that waits",
        rules: Rules {
            horizon: 3,
            guard: Guard::Fence,
            budget: Budget { claims: first(0, 1, 0), ..NOTHING },
            ..TWO
        },
        begin: owned_again_after_a_release,
        sees: &[Situation::Waits, Situation::RunsOn],
        ends: None,
    },
    Scenario {
        name: "forgetful",
        about: "durable claims; the witness restarts, the owner's daemon is dead and its service runs",
        rules: Rules {
            horizon: 4,
            guard: Guard::Fence,
            budget: Budget { claims: first(0, 1, 0), crashes: first(1, 0, 1), ..NOTHING },
            ..TWO
        },
        begin: |rules| owned(rules, one_ahead(rules)),
        sees: &[Situation::Waits, Situation::RunsOn, Situation::Outlived],
        ends: None,
    },
    Scenario {
        name: "file-lost",
        about: "the witness loses its file, copies from the others, and votes again",
        rules: Rules {
            horizon: 4,
            budget: Budget {
                claims: first(0, 1, 0),
                beats: first(0, 0, 1),
                crashes: of(2, 1),
                losses: of(2, 1),
                duplicates: 1,
                ..NOTHING
            },
            lost: |message, to| match message {
                ClaimMessage::AskCopy | ClaimMessage::Copy(_) => false,
                ClaimMessage::Beat(_) => to != 2,
                _ => apart(message, to),
            },
            doubled: |message| matches!(message, ClaimMessage::Propose(..)),
            ..TWO
        },
        begin: |rules| owned(rules, World::settled(rules, &[500; MEMBERS_MAX])),
        sees: &[Situation::Followed, Situation::Copied],
        ends: None,
    },
    Scenario {
        name: "forgotten",
        about: "a node claims and no other hears it; it loses its file, copies from the others and claims",
        rules: Rules {
            horizon: 3,
            budget: Budget {
                claims: first(2, 0, 0),
                beats: first(1, 0, 0),
                crashes: of(0, 1),
                losses: of(0, 1),
                ..NOTHING
            },
            lost: |message, to| match message {
                ClaimMessage::AskCopy | ClaimMessage::Copy(_) => false,
                ClaimMessage::Beat(_) => true,
                _ => apart(message, to),
            },
            ..TWO
        },
        // As far ahead of the others as they believe that any member may be.
        begin: |rules| World::settled(rules, &[500 + CEILING_STEP, 500, 500, 500, 500]),
        sees: &[],
        ends: None,
    },
    Scenario {
        name: "outbid",
        about: "an owner's confirmation was refused by a voter that has restarted; the earlier owner is cleared, \
                and claims",
        rules: Rules {
            horizon: 3,
            budget: Budget { claims: first(1, 0, 0), beats: first(1, 0, 0), ..NOTHING },
            prompt_disks: false,
            lost: |message, to| match message {
                ClaimMessage::Swept => to != 1,
                ClaimMessage::Beat(_) => true,
                _ => apart(message, to),
            },
            ..TWO
        },
        begin: outbid,
        sees: &[Situation::Followed],
        ends: None,
    },
    Scenario {
        name: "ballots",
        about: "a node claims, dies, starts again and claims; its writes take time",
        rules: Rules {
            horizon: 2,
            budget: Budget { claims: first(2, 0, 0), crashes: of(0, 2), ..NOTHING },
            prompt_disks: false,
            ..TWO
        },
        begin: settled,
        sees: &[],
        ends: None,
    },
    Scenario {
        name: "sets",
        about: "the witness (2) has been replaced by 3; a node that does not know it yet claims beside one that does",
        rules: Rules {
            nodes: 3,
            members: 4,
            voters: one_replaced,
            horizon: 1,
            budget: Budget { claims: first(0, 1, 1), ..NOTHING },
            ..TWO
        },
        begin: level,
        sees: &[],
        ends: None,
    },
    Scenario {
        name: "watchdog",
        about: "an owner is stopped by its own watchdog; the next waits for that",
        rules: Rules {
            horizon: 4,
            guard: Guard::Watchdog(1),
            budget: Budget { beats: first(0, 1, 1), ..NOTHING },
            lost: |message, to| match message {
                ClaimMessage::Beat(_) => to == 0,
                _ => apart(message, to),
            },
            ..TWO
        },
        begin: |rules| one_waits(rules).begin(rules),
        sees: &[Situation::Waits, Situation::RunsOn, Situation::Cleared],
        ends: None,
    },
    Scenario {
        name: "three",
        about: "three nodes claim",
        rules: Rules { nodes: 3, horizon: 2, budget: Budget { claims: first(1, 1, 1), ..NOTHING }, ..TWO },
        begin: level,
        sees: &[Situation::Followed],
        ends: Some(300_000),
    },
];

/// The scenario of this name.
///
/// # Panics
/// If no scenario has this name.
#[must_use]
pub fn named(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario of this name")
}

/// The same rules, but every frame between members arrives.
fn heard(rules: &Rules) -> Rules {
    Rules { lost: |_, _| false, ..rules.clone() }
}

/// Node 0 has claimed, given back and claimed again, and owns. Its release is still on its way to all, although the
/// witness has received it once.
fn owned_again_after_a_release(rules: &Rules) -> World {
    let heard = heard(rules);
    let mut world = owned(rules, settled(rules));
    world.act(&heard, &Act::Release(0));
    let releases = world.on_its_way();
    world.exchange(&heard, &[0, 2]);
    let mut world = owned(rules, world);
    world.still_on_its_way(&releases);
    world
}

/// Node 0 has sent its proposal to the witness.
fn proposed(rules: &Rules) -> World {
    let mut world = settled(rules);
    world.act(rules, &Act::Claim(0));
    world.arrive(rules, |message| matches!(message, ClaimMessage::Prepare(_)), 2);
    world.arrive(rules, |message| matches!(message, ClaimMessage::Promise(_)), 0);
    world.lose(|packet| packet.to == 2);
    world.begin(rules)
}

/// Node 0 owns and has not announced it yet: its claim is not confirmed.
fn unconfirmed(rules: &Rules) -> World {
    let mut world = proposed(rules);
    world.arrive(rules, |message| matches!(message, ClaimMessage::Propose(..)), 2);
    world.arrive(rules, |message| matches!(message, ClaimMessage::Accept(_)), 0);
    world.begin(rules)
}

/// Node 0 owned and has restarted. Node 1 owns by its own vote and the witness's, and the witness has accepted the
/// confirmation, too. Node 0 has refused it, because its ceiling is far above.
fn outbid(rules: &Rules) -> World {
    let heard = heard(rules);
    let mut world = owned(rules, settled(rules));
    // Each run raises its ceiling, until node 1 has to write before it can claim above that.
    for _ in 0..3 {
        world.act(rules, &Act::Crash(0, false));
        world.act(rules, &Act::Restart(0));
        world.exchange(&heard, &[0]);
    }
    world.lose(|_| false);
    world.pass(rules, rules.lease);
    world.act(&heard, &Act::Claim(1));
    world.arrive(&heard, |message| matches!(message, ClaimMessage::Prepare(_)), 2);
    world.arrive(&heard, |message| matches!(message, ClaimMessage::Promise(_)), 1);
    for voter in [2, 1, 2, 0] {
        world.arrive(
            &heard,
            |message| matches!(message, ClaimMessage::Propose(..) | ClaimMessage::Accept(_)),
            voter,
        );
        // The confirmation's answer is lost.
        let is_confirmed = voter == 2 && world.held(1).is_some();
        world.lose(if is_confirmed { |packet| packet.to == 0 } else { |_| true });
    }
    // Not delivered by `arrive`, which ends all writes: the disk takes its time.
    let refusals = world.on_its_way();
    let refused = refusals.iter().filter(|packet| packet.value.to == 1);
    for packet in refused.cloned() {
        world.act(rules, &Act::Arrives { packet, again: false });
    }
    world.lose(|_| false);
    world.begin(rules)
}

/// Node 0 started the group and has lost it; node 1 holds it, and may not start it yet.
fn one_waits(rules: &Rules) -> World {
    let heard = heard(rules);
    let mut world = owned(rules, settled(rules));
    world.pass(rules, rules.lease);
    world.act(&heard, &Act::Claim(1));
    world.exchange(&heard, &[1, 2]);
    world.lose(|_| false);
    world
}

/// As in [`one_waits`], and then node 1 died.
fn second_died_waiting(rules: &Rules) -> World {
    let mut world = one_waits(rules);
    world.act(rules, &Act::Crash(1, false));
    world.begin(rules)
}

/// Node 1 waited, had node 0 fenced and gave up before the device answered. Node 0 has started again, has claimed the
/// group and runs it.
fn fence_unanswered(rules: &Rules) -> World {
    let heard = heard(rules);
    let mut world = one_waits(rules);
    let entry = world.held(1).expect("it holds").claim.unproved[0];
    world.act(rules, &Act::Fence(1, entry));
    world.act(rules, &Act::FenceFires(0));
    world.act(&heard, &Act::Release(1));
    world.exchange(&heard, &[1, 2]);
    world.act(rules, &Act::Restart(0));
    world.act(&heard, &Act::Claim(0));
    world.exchange(&heard, &[0, 1, 2]);
    world.lose(|_| false);
    world.begin(rules)
}

/// Node 0 owns in its second run. The witness's echo of the second beat of its first run is on its way.
fn old_echo(rules: &Rules) -> World {
    let heard = heard(rules);
    let mut world = World::settled(rules, &[999, 2100, 1000, 1000, 1000]);
    // The first beat was sent as it settled.
    world.act(&heard, &Act::Beat(0));
    world.exchange(&heard, &[0, 2]);
    world.act(&heard, &Act::Beat(2));
    let echoes = world.on_its_way();
    world.act(rules, &Act::Crash(0, false));
    world.lose(|_| false);
    world.act(rules, &Act::Restart(0));
    world.pass(rules, rules.lease);
    let mut world = owned(rules, world);
    world.still_on_its_way(&echoes);
    world
}

/// Members 0, 1 and 3 know a newer voter set than member 2, which is not in it.
fn one_replaced(_: u8, me: u8) -> Voters {
    let (number, members) = if me == 2 { (1, [0, 1, 2]) } else { (2, [0, 1, 3]) };
    Voters { number, members: members.into_iter().map(MemberIndex).collect() }
}
