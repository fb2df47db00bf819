//! Programs and devices beside the cluster: clients, the watchdog, lost frames.

use super::*;

/// A client that notes its user, says goodbye when it is asked to end, and does nothing else.
const KEEPER: &str = r#"#!/bin/sh
echo "$1 $(id -u) $(id -g) $(id -G) $HA_CURHOST" >> /run/journal
trap 'echo "$1 ends" >> /run/journal; exit 0' TERM
echo "$1 speaks"
echo $$ > /run/$1.pid
while :; do sleep 0.1; done
"#;

#[test]
fn clients_and_watchdog_live_with_the_node() {
    let Some(mut pair) = Pair::build(None) else { return };
    pair.put(0, "keeper", KEEPER);
    pair.put(0, "enough", "#!/bin/sh\necho enough >> /run/journal\nexit 100\n");
    pair.put(0, "hasty", "#!/bin/sh\necho hasty >> /run/journal\nexit 3\n");
    pair.put(0, "dog", "");
    pair.put(1, "keeper", KEEPER);
    pair.put(1, "reboot", "#!/bin/sh\necho \"$1\" > /run/disk/rebooted\n");
    let run = |pair: &Pair, node, line: &str| pair.run(node, &["/bin/sh", "-c", line]);
    for node in [0, 1] {
        run(&pair, node, "touch /run/journal; chmod 666 /run/journal; chmod 777 /run");
    }
    let lines = "watchdog /run/disk/dog\nrespawn root /run/disk/keeper first\nrespawn nobody /run/disk/keeper second\n\
                 respawn root /run/disk/enough\nrespawn root /run/disk/hasty\nrespawn nosuchuser /run/disk/hasty\n\
                 respawn root /usr/lib/heartbeat/dopd\n";
    pair.start(0, lines);
    pair.start(1, "failfast root /run/disk/keeper fast\n");
    let journal = |pair: &Pair, node| run(pair, node, "cat /run/journal");
    let began = |pair: &Pair, node, name: &str| {
        journal(pair, node).lines().filter(|line| line.starts_with(&format!("{name} 0 "))).count()
    };
    pair.wait("the clients run", |pair| began(pair, 0, "first") == 1 && began(pair, 1, "fast") == 1);
    pair.wait("the hasty one is given up", |pair| pair.log_has(0, "hasty \"respawning too fast\""));
    let text = journal(&pair, 0);
    let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("enough"), count("hasty")), (1, 11), "{text}");
    let nobody = run(&pair, 0, "id -u nobody; id -g nobody; id -G nobody").replace('\n', " ");
    assert!(text.contains(&format!("second {nobody}clustnode1")), "{text}");
    assert!(pair.log_has(0, "is not started: user nosuchuser: there is no such user in /etc/passwd"));
    assert!(pair.log_has(0, "Starting child client \"/run/disk/keeper first\" (0,0)"));
    assert!(pair.log_has(0, "first speaks"), "what it prints is in the log");
    assert!(pair.text(0, "output").contains("`dopd` is a client of heartbeat's programming interface"));

    // A killed client is started again; with failfast the machine would reboot.
    run(&pair, 0, "kill -9 $(cat /run/first.pid)");
    pair.wait("it runs again", |pair| began(pair, 0, "first") == 2);
    assert!(pair.log_has(0, "Client /run/disk/keeper first killed by signal 9."));
    assert!(pair.log_has(0, "Respawning client \"/run/disk/keeper first\":"));
    run(&pair, 1, "kill -9 $(cat /run/fast.pid)");
    pair.wait("the machine is rebooted", |pair| pair.text(1, "rebooted") == "/run/disk/keeper fast\n");
    assert!(pair.log_has(1, "CRIT: Rebooting system.  Reason: /run/disk/keeper fast"));

    // A leave ends the clients, the last one first, and stops the watchdog safely.
    let fed = pair.text(0, "dog");
    assert!(fed.len() > 5 && fed.bytes().all(|byte| byte == 0), "{fed:?}");
    pair.wait("stable", |pair| pair.is_stable(0));
    pair.run(0, &["locum", "stop"]);
    pair.wait("the daemon has ended", |pair| pair.status(0).is_none());
    pair.wait("all have ended", |pair| journal(pair, 0).contains("first ends"));
    let text = journal(&pair, 0);
    assert!(text.ends_with("second ends\nfirst ends\n"), "{text}");
    let watchdog = pair.text(0, "dog");
    assert!(watchdog.ends_with('V') && watchdog.matches('V').count() == 1, "{watchdog:?}");
    for (node, words) in
        [(0, "Successful watchdog close"), (0, "Shutting down client /run/disk/keeper second")]
    {
        assert!(pair.log_has(node, words), "{words}");
    }
}

#[test]
fn frames_are_lost_as_the_file_for_tests_says_and_after_a_hangup_no_more() {
    let Some(mut pair) = Pair::build(None) else { return };
    for node in [0, 1] {
        pair.put(node, "ha.d/OnlyForTesting", &format!("allownodes={};\n", NODES[node]));
        pair.start(node, "");
    }
    pair.wait("each is alone", |pair| [0, 1].iter().all(|&node| pair.peer(node) == Some(Liveness::Dead)));
    assert!(pair.log_has(0, "FRAMES ARE DROPPED ON PURPOSE: rcvloss 0, xmitloss 0, only [clustnode1] heard"));
    for node in [0, 1] {
        pair.put(node, "ha.d/OnlyForTesting", "rcvloss=0.1\nxmitloss=0.1\nseed=3\n");
        pair.daemons[node].as_mut().unwrap().signal(ProcessSignal::HangUp).unwrap();
    }
    pair.wait("they hear each other", |pair| {
        [0, 1].iter().all(|&node| pair.peer(node) == Some(Liveness::Alive) && pair.is_stable(node))
    });
    pair.wait("frames are lost and sent again", |pair| {
        pair.status(0).is_some_and(|report| report.cluster.frames.sent_again > 0)
    });
}
