//! The processes that starts leave running, and how the stop ladder ends them.

use super::*;

/// A resource script whose start leaves three daemons: one that terminates when told to, one that notes the signal and
/// goes on, and one that ignores it in a session of its own. `hide` begins the last one's command.
fn three_daemons(house: &mut AgentSandbox, hide: &str) -> ResourceId {
    let text = format!(
        r#"[ $1 = start ] || exit 0
        exec > /dev/null 2>&1
        sleep 1000 & echo $! > $D/polite
        sh -c 'trap "echo told >> $0/told" TERM; echo $$ > $0/deaf; while :; do sleep 0.1; done' $D &
        ({hide} sh -c 'trap "" TERM; echo $$ > $0/away; while :; do sleep 1000; done' $D &)
        while [ ! -s $D/deaf ] || [ ! -s $D/away ]; do :; done"#
    );
    house.script("three", &text)
}

/// The lower rungs of the ladder end all processes that a start has left, and no others. A later run of the daemon does
/// so, too: each operation here is asked of new agents.
fn the_lower_rungs(house: &mut AgentSandbox, hide: &str) {
    house.keeps_kin = true;
    let neighbour = house
        .script("neighbour", "[ $1 = start ] || exit 0; sleep 1000 > /dev/null & echo $! > $D/neighbour");
    let id = three_daemons(house, hide);
    assert_eq!(house.run(neighbour, Start), Outcome::Ok);
    assert_eq!(house.run(id, Start), Outcome::Ok);
    let pid = |name: &str| Killed(house.read(name).trim().to_owned());
    let [polite, deaf, away, beside] = ["polite", "deaf", "away", "neighbour"].map(pid);
    assert_eq!(house.run_within(id, Terminate, Duration::from_secs(2)), Outcome::TimedOut);
    assert!(!alive(&polite.0) && alive(&deaf.0) && alive(&away.0));
    assert_eq!(house.read("told"), "told\n", "one word is enough");
    assert!(house.has_note("three terminate: still there: sh (process "), "{:?}", house.note_texts());
    assert_eq!(house.run(id, Kill), Outcome::Ok);
    assert!(!alive(&deaf.0) && !alive(&away.0));
    assert!(alive(&beside.0), "what stands beside it is not touched");
    assert_eq!(house.run(id, Kill), Outcome::Ok, "nothing is left");
    assert_eq!(house.run(neighbour, Terminate), Outcome::Ok);
    assert!(!alive(&beside.0));
}

#[test]
fn what_ignores_its_stop_is_terminated_and_killed() {
    the_lower_rungs(&mut AgentSandbox::new(), "setsid");
}

#[test]
fn with_a_control_group_the_ladder_finds_whoever_has_dropped_the_mark() {
    let Some(group) = ControlGroup::new() else {
        crate::skipped("no control group can be made here");
        return;
    };
    let mut house = AgentSandbox::new();
    house.cgroup = Some(group.0.clone());
    the_lower_rungs(&mut house, "setsid env -i");
    let gone = || {
        house.run(ResourceId { group: GroupIndex(0), member: 0 }, Status);
        (group.groups() == 0).then_some(())
    };
    assert!(await_some(LONG, gone).is_some(), "the empty ones are removed");
}

/// A service whose main process is dead and whose workers live, as nginx after a SIGKILL: its agent finds nothing to
/// stop.
fn half_of_it_dies(house: &mut AgentSandbox) {
    house.keeps_kin = true;
    let text = r#"case $1 in
        start) sleep 1000 > /dev/null 2>&1 & echo $! > $D/main; sleep 1000 > /dev/null 2>&1 & echo $! > $D/worker; touch $D/up;;
        stop) rm -f $D/up; kill $(cat $D/main) 2> /dev/null; exit 0;;
        status) test -e $D/up || { echo stopped; exit 3; };;
        esac"#;
    let id = house.script("half", text);
    let pid = |house: &AgentSandbox, name: &str| Killed(house.read(name).trim().to_owned());
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert_eq!(house.run(id, Status), Outcome::Running);
    let (main, worker) = (pid(house, "main"), pid(house, "worker"));
    let left = house.run(id, Stop);
    let expected =
        format!("its agent reports it stopped, but these processes are left: sleep (process {})", worker.0);
    assert_eq!(left, Outcome::Failed(expected));
    assert!(!alive(&main.0));
    assert_eq!(house.run(id, Terminate), Outcome::Ok);
    assert_eq!((house.run(id, Status), house.run(id, Stop)), (Outcome::Stopped, Outcome::Ok));

    // The next run of the daemon finds it at its start.
    assert_eq!(house.run(id, Start), Outcome::Ok);
    let (main, worker) = (pid(house, "main"), pid(house, "worker"));
    fs::remove_file(house.path("up")).unwrap();
    let number = main.0.parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    let agents = house.agents();
    let none: Arc<dyn AddressAccess> = Arc::new(Machine::default());
    let found = block_on(leftovers::survey(&agents, &none, &leftovers::Progress::default()));
    assert!(found.is_empty() && !alive(&worker.0), "{found:?}");
    assert!(house.has_note("half does not run, but an earlier daemon has left processes of it: killed"));
}

#[test]
fn what_half_of_a_service_leaves_is_ended() {
    half_of_it_dies(&mut AgentSandbox::new());
}

#[test]
fn with_a_control_group_what_half_of_a_service_leaves_is_ended() {
    let Some(group) = ControlGroup::new() else {
        crate::skipped("no control group can be made here");
        return;
    };
    let mut house = AgentSandbox::new();
    house.cgroup = Some(group.0.clone());
    half_of_it_dies(&mut house);
}

#[test]
fn with_heartbeats_files_what_a_service_leaves_is_its_own() {
    let mut house = AgentSandbox::new();
    let id = house.script("any", "[ $1 = start ] || exit 0; sleep 1000 > /dev/null 2>&1 & echo $! > $D/left");
    assert_eq!(house.run(id, Start), Outcome::Ok);
    let left = Killed(house.read("left").trim().to_owned());
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    assert!(alive(&left.0));
}

#[test]
fn without_a_name_for_its_kin_nothing_is_terminated() {
    let mut house = AgentSandbox::new();
    let id = house.script("any", "exit 0");
    assert!(matches!(house.run(id, Kill), Outcome::Failed(_)), "unknown is not yes");
}
