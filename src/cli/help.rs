//! What `--help` of each command shows at its end: an example, and the exit codes.

use clap::{Command, CommandFactory};

use super::Cli;

/// A command, below `locum`; an example of it without `locum`; its exit codes.
type Row = (&'static str, &'static str, &'static [(u8, &'static str)]);

const NOT_RUNNING: (u8, &str) = (3, "no daemon runs here");
const NO_PERMISSION: (u8, &str) = (4, "no permission: run as root, or as a member of the socket's group");
const ORDERED: &[(u8, &str)] =
    &[(0, "done"), (1, "refused"), (2, "not done in time"), NOT_RUNNING, NO_PERMISSION];
const MOVED: &[(u8, &str)] = &[
    (0, "done (with --no-wait: begun)"),
    (1, "refused"),
    (2, "not done in time, or not all of it"),
    NOT_RUNNING,
    NO_PERMISSION,
];
const LAB_CANNOT: (u8, &str) = (77, "no rack can be built here");

const ROWS: &[Row] = &[
    (
        "demo",
        "demo --pace quick",
        &[(0, "every step went as expected"), (1, "a step failed"), LAB_CANNOT, (130, "ended by the user")],
    ),
    (
        "check",
        "check --config /etc/locum",
        &[
            (0, "a daemon would start here, and everything can run"),
            (1, "the files are correct, but do not fit this host, or not everything can run here"),
            (2, "the files are wrong"),
        ],
    ),
    (
        "explain timing",
        "explain timing --pace 300ms",
        &[
            (0, "printed"),
            (1, "no locum.toml in the directory of --config, and no --pace"),
            (2, "the configuration is wrong"),
        ],
    ),
    (
        "init",
        "init --cluster shop --node web1=10.0.0.1,10.1.0.1 --node web2=10.0.0.2,10.1.0.2 --witness third=10.9.0.1 \
         --resource 10.0.0.100/24 --resource nginx",
        &[(0, "written"), (1, "not written")],
    ),
    (
        "import",
        "import --from /etc/ha.d --print",
        &[
            (0, "written or printed"),
            (1, "not written"),
            (2, "heartbeat's files are wrong"),
            (3, "written or printed, but a decision is left open"),
        ],
    ),
    ("keygen", "keygen --roll add", &[(0, "written"), (1, "not written")]),
    (
        "doctor",
        "doctor --heart --seconds 60 --load",
        &[
            (0, "measured"),
            (1, "measured without real-time rights, or the daemon did not answer"),
            NO_PERMISSION,
            (77, "nothing can be measured here"),
        ],
    ),
    (
        "run",
        "run --gates auto",
        &[
            (0, "left the cluster"),
            (1, "cannot start, or runs already"),
            (2, "the configuration is wrong"),
            (3, "left the cluster, but a resource here could not be stopped"),
        ],
    ),
    (
        "status",
        "status --watch",
        &[
            (0, "all is well"),
            (1, "something needs attention: see the PROBLEM lines"),
            NOT_RUNNING,
            NO_PERMISSION,
        ],
    ),
    ("standby", "standby", MOVED),
    ("online", "online", ORDERED),
    ("move", "move web web2", MOVED),
    ("maintenance", "maintenance on", ORDERED),
    ("freeze", "freeze web --off", ORDERED),
    ("takeover", "takeover local", MOVED),
    (
        "stop",
        "stop",
        &[
            (0, "the daemon has ended, and nothing is left running"),
            (1, "refused, or ended without an answer"),
            (2, "the daemon has ended, but a resource here could not be stopped"),
            NOT_RUNNING,
            NO_PERMISSION,
        ],
    ),
    (
        "resources",
        "resources status 10.0.0.100/24",
        &[
            (0, "done; of `status`: it runs"),
            (1, "not done"),
            (2, "the files are wrong"),
            (3, "of `status`: it does not run"),
            (4, "of `status`: unknown"),
        ],
    ),
    (
        "gate",
        "gate --remove --group web",
        &[
            (0, "done"),
            (1, "not done: a daemon runs, a gate is open, or there is no such gate"),
            NO_PERMISSION,
        ],
    ),
    ("witness add", "witness add shop --address 10.9.0.1", &[(0, "added"), (1, "not added")]),
    ("witness run", "witness run", &[(0, "ended by a signal"), (1, "cannot start")]),
    (
        "witness status",
        "witness status",
        &[(0, "all is well"), (1, "something needs attention"), (3, "no cluster is served here")],
    ),
    ("links", "links /usr/bin cl_status", &[(0, "all links exist"), (1, "a link could not be made")]),
    (
        "lab bench",
        "lab bench --peers locum,keepalived --runs 20",
        &[(0, "measured"), (1, "not measured"), LAB_CANNOT],
    ),
    ("lab cost", "lab cost --time 60s", &[(0, "measured"), (1, "not measured"), LAB_CANNOT]),
    (
        "lab mixed",
        "lab mixed --racks 2",
        &[(0, "Locum passes every audit that two real heartbeats pass"), (1, "it does not"), LAB_CANNOT],
    ),
    (
        "lab cts",
        "lab cts --steps 50 --seed 21 --oracle",
        &[(0, "Locum passes every audit that two real heartbeats pass"), (1, "it does not"), LAB_CANNOT],
    ),
    ("lab replace", "lab replace", &[(0, "every audit was passed"), (1, "one was not"), LAB_CANNOT]),
    (
        "lab gate",
        "lab gate --runs 100 --backend nft",
        &[(0, "no address answered after its lease"), (1, "one did"), LAB_CANNOT],
    ),
    (
        "lab native",
        "lab native --pace 1s --runs 3",
        &[(0, "no two owners, and the service came back in time"), (1, "otherwise"), LAB_CANNOT],
    ),
    (
        "lab machines",
        "lab machines --groups 20",
        &[(0, "every group ran on exactly one node after every step"), (1, "otherwise"), LAB_CANNOT],
    ),
    (
        "lab scale",
        "lab scale --groups 1000",
        &[(0, "all groups came up, and came back after a power loss"), (1, "otherwise"), LAB_CANNOT],
    ),
    ("lab enter", "lab enter locum lab gate", &[(1, "the command could not be run"), LAB_CANNOT]),
];

/// The command line, with an example and the exit codes at the end of each command's help.
pub(super) fn command() -> Command {
    let mut all = Cli::command();
    for &(path, example, codes) in ROWS {
        let text = text(example, codes);
        all = add(all, &path.split(' ').collect::<Vec<_>>(), &text);
    }
    let end = text("status", &[]);
    all.after_help(end)
}

fn add(command: Command, path: &[&str], text: &str) -> Command {
    match path {
        [] => command.after_help(text.to_owned()),
        [first, rest @ ..] => command.mut_subcommand(first, |below| add(below, rest, text)),
    }
}

fn text(example: &str, codes: &[(u8, &str)]) -> String {
    let mut text = format!("Example:\n  locum {example}\n\nExit codes:\n");
    for (code, meaning) in codes {
        text += &format!("  {code:<3} {meaning}\n");
    }
    text += &format!("  {:<3} wrong command line", super::USAGE);
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Each command that does something, by its path.
    fn paths(command: &Command, above: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let path = format!("{above}{}", below.get_name());
            // The subcommands of `resources` are heartbeat's, and share its help.
            if below.has_subcommands() && path != "resources" {
                paths(below, &format!("{path} "), found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_is_parsed() {
        let mut found = Vec::new();
        paths(&Cli::command(), "", &mut found);
        let mut rows: Vec<&str> = ROWS.iter().map(|(path, ..)| *path).collect();
        found.sort();
        rows.sort_unstable();
        assert_eq!(rows, found);
        for (path, example, codes) in ROWS {
            assert!(example.starts_with(path), "{path}: {example}");
            let words = ["locum"].into_iter().chain(example.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{example}: {error}");
            }
            assert!(codes.is_sorted(), "{path}: {codes:?}");
        }
    }

    #[test]
    fn help_ends_with_the_example_and_the_exit_codes() {
        let mut all = command();
        all.build();
        let help = all.find_subcommand_mut("move").unwrap().render_help().to_string();
        let end = help.split("Example:\n").nth(1).expect("an example");
        assert!(end.starts_with("  locum move web web2\n\nExit codes:\n  0   done"), "{help}");
        assert!(end.trim_end().ends_with("64  wrong command line"), "{help}");
    }
}
