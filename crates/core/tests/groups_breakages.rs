//! Planted breakages of the groups: each must fail its scenario, which passes without it. A test binary of its own,
//! because a breakage affects the whole process: `cargo test -p locum-core --features breakage --test
//! groups_breakages`.

mod common;
#[path = "common/older.rs"]
mod older;
#[expect(dead_code, reason = "what only the tests without breakages need")]
#[path = "common/world.rs"]
mod world;

use locum_core::model::breakage::{Breakage, plant};

#[test]
fn every_breakage_turns_its_scenario_red() {
    let table: [(Breakage, fn()); 8] = [
        (Breakage::MonitorIgnored, world::restarts_with_all_that_stands_right_of_it),
        (Breakage::RestartForever, world::one_failure_more_ends_it_here),
        (Breakage::LadderOfOneRung, world::a_stop_goes_down_the_ladder),
        (Breakage::MissingIsTriedAgain, world::what_has_no_agent_here_fails_once_and_is_stopped),
        (Breakage::MissingCannotBeStopped, world::what_has_no_agent_here_fails_once_and_is_stopped),
        (Breakage::LongStartAwaited, world::a_long_start_that_nobody_wants_is_ended),
        (Breakage::OlderRunIgnored, older::they_agree_within_a_deadtime),
        (Breakage::NoPauseAfterFailure, world::what_fails_at_once_is_not_tried_at_once_again),
    ];
    for (breakage, scenario) in table {
        scenario();
        plant(Some(breakage));
        let end = std::panic::catch_unwind(scenario);
        plant(None);
        assert!(end.is_err(), "{breakage:?} is not seen");
    }
}
