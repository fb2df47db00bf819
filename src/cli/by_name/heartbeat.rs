//! `heartbeat`: starts the daemon, asks whether it runs, makes it reread its files, stops it. Facts:
//! `docs/heartbeat.md`, section 1.

use std::{
    io::{Read as _, Write as _},
    process::{Command, ExitCode, Stdio},
};

use clap::Parser as _;
use locum_core::{
    config::{
        CheckedHaFiles,
        directives::{Directive, ROWS},
    },
    r1::plan::{R1Medium, R1Plan},
};
use locum_sys::process::Process;

use super::ParsedWords;
use crate::{
    cli::{self, Cli, CommonOptions},
    control::{lifecycle::READY, state},
    files::Files,
    observe::diagnostics,
};

/// Heartbeat's exit codes of `heartbeat`.
mod code {
    pub(super) const GENERIC: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const STOPPED: u8 = 3;
    pub(super) const NO_PERMISSION: u8 = 4;
    pub(super) const NOT_CONFIGURED: u8 = 6;
}

const USAGE: &str = "
Usage: heartbeat [-dDfklrsvV] [-- OPTION-OF-LOCUM-RUN...]
\twithout an option: start the daemon and return
\t-f start it in the foreground   -d with more in the log   -l without real-time rights
\t-s say whether it runs          -r let it reread its files (start it if it does not run)
\t-k stop it and wait             -v print the configuration   -D the defaults   -V the version";

pub(super) fn run(common: &CommonOptions, mut words: Vec<String>) -> ExitCode {
    let more = match words.iter().position(|word| word == "--") {
        Some(at) => words.split_off(at).split_off(1),
        None => Vec::new(),
    };
    let given = match ParsedWords::read(&words, "dDfklrsvVWMRC") {
        Ok(given) => given,
        Err(letter) => {
            errln!("heartbeat: invalid option -- '{letter}'\n{USAGE}");
            return ExitCode::from(code::USAGE);
        }
    };
    if given.has('V') {
        outln!("3.0.6 (locum {})", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if given.has('D') {
        print_defaults();
        return ExitCode::SUCCESS;
    }
    if given.has('M') || given.has('R') || given.has('C') {
        errln!(
            "heartbeat: -M, -R and -C are refused: a node that manages nothing has an empty haresources, and a restart \
             that keeps resources is asked for by -r"
        );
        return ExitCode::from(code::USAGE);
    }
    if given.has('s') {
        return status(common);
    }
    if given.has('k') {
        return stop(common);
    }
    if given.has('v') {
        return match configuration(common) {
            Ok((files, checked)) => dump(&files, &checked),
            Err(code) => ExitCode::from(code),
        };
    }
    if given.has('r') { reload(common, &given, &more) } else { start(common, &given, &more) }
}

// ---- the running daemon ----------------------------------------------------------------------------------------------

fn status(common: &CommonOptions) -> ExitCode {
    let run_dir = common.run_dir();
    match state::living(&run_dir) {
        Some(pid) => {
            let host = crate::files::host_name();
            let node = Files::read(&common.config_dir(), None).node;
            outln!("heartbeat OK [pid {pid} et al] is running on {host} [{node}]...");
            ExitCode::SUCCESS
        }
        None => {
            outln!("heartbeat is stopped. No process");
            // LSB: 1 when a dead daemon left its pid file.
            let left = state::running(&run_dir).is_some();
            ExitCode::from(if left { code::GENERIC } else { code::STOPPED })
        }
    }
}

/// Sends TERM and waits until the daemon has ended. There is no limit: stopping a group takes as long as its agents
/// need.
fn stop(common: &CommonOptions) -> ExitCode {
    let Some(pid) = state::living(&common.run_dir()) else {
        outln!("INFO: Heartbeat already stopped.");
        return ExitCode::SUCCESS;
    };
    match Process::open(pid).and_then(|daemon| daemon.terminate().map(|()| daemon)) {
        Ok(daemon) => match daemon.wait() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                errln!("ERROR: Could not wait for pid {pid} : {error}");
                ExitCode::from(code::GENERIC)
            }
        },
        // It ended since we looked.
        Err(_) if state::living(&common.run_dir()).is_none() => ExitCode::SUCCESS,
        Err(error) => {
            errln!("ERROR: Could not kill pid {pid} : {error}");
            ExitCode::from(code::NO_PERMISSION)
        }
    }
}

/// Sends HUP if the files are correct. If no daemon runs, starts one, as heartbeat does.
fn reload(common: &CommonOptions, given: &ParsedWords, more: &[String]) -> ExitCode {
    let running = state::living(&common.run_dir());
    if let Err(code) = configuration(common) {
        return match running {
            Some(pid) => {
                errln!("heartbeat: info: Config errors: Heartbeat pid {pid} NOT restarted");
                ExitCode::from(code::GENERIC)
            }
            None => ExitCode::from(code),
        };
    }
    let Some(pid) = running else { return start(common, given, more) };
    errln!("heartbeat: info: Signalling heartbeat pid {pid} to reread config files");
    match Process::open(pid).and_then(|daemon| daemon.hang_up()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("ERROR: Could not signal pid {pid} : {error}");
            ExitCode::from(code::NO_PERMISSION)
        }
    }
}

// ---- the start -------------------------------------------------------------------------------------------------------

fn start(common: &CommonOptions, given: &ParsedWords, more: &[String]) -> ExitCode {
    if let Err(code) = configuration(common) {
        return ExitCode::from(code);
    }
    if let Some(pid) = state::living(&common.run_dir()) {
        errln!("heartbeat: info: heartbeat: already running [pid {pid}].");
        return ExitCode::SUCCESS;
    }
    let words = command_line(common, given, more);
    if given.has('f') {
        return match Cli::try_parse_from(std::iter::once("locum".to_owned()).chain(words)) {
            Ok(cli) => cli::dispatch(cli),
            Err(error) => {
                let _ = error.print();
                ExitCode::from(code::USAGE)
            }
        };
    }
    match in_background(words) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(text)) => {
            let _ = std::io::stderr().write_all(&text);
            errln!("ERROR: Heartbeat not started.");
            // Another start won the race, which is as good.
            match state::living(&common.run_dir()) {
                Some(pid) => {
                    errln!("heartbeat: info: heartbeat: already running [pid {pid}].");
                    ExitCode::SUCCESS
                }
                None => ExitCode::from(code::GENERIC),
            }
        }
        Err(error) => {
            errln!("ERROR: Heartbeat not started: {error}");
            ExitCode::from(code::GENERIC)
        }
    }
}

/// `locum run` with the same directories.
fn command_line(common: &CommonOptions, given: &ParsedWords, more: &[String]) -> Vec<String> {
    let place = |name: &str, path: std::path::PathBuf| format!("--{name}={}", path.display());
    let mut words = vec![
        place("config", common.config_dir()),
        place("state", common.state_dir()),
        place("run", common.run_dir()),
    ];
    if given.has('d') {
        words.push("--log=debug".to_owned());
    }
    words.push("run".to_owned());
    if given.has('l') {
        words.push("--no-realtime".to_owned());
    }
    if !given.has('f') {
        words.push("--background".to_owned());
    }
    words.extend_from_slice(more);
    words
}

/// Starts the daemon in a session of its own and returns when it answers on its control socket, long before it takes
/// part. The inner error is the daemon's output before it gave up.
fn in_background(words: Vec<String>) -> std::io::Result<Result<(), Vec<u8>>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    locum_sys::child::detach(&mut command, None);
    let mut daemon = command.spawn()?;
    let mut text = Vec::new();
    if let Some(mut errors) = daemon.stderr.take() {
        // The daemon closes this pipe when it is ready or dead.
        errors.read_to_end(&mut text)?;
    }
    if text.ends_with(READY) {
        return Ok(Ok(()));
    }
    let end = daemon.wait()?;
    if text.is_empty() {
        text = format!("the daemon ended: {end}\n").into_bytes();
    }
    Ok(Err(text))
}

// ---- the files -------------------------------------------------------------------------------------------------------

/// Reads the files. If they are wrong, prints everything that is wrong with them and returns the exit code.
fn configuration(common: &CommonOptions) -> Result<(Files, CheckedHaFiles), u8> {
    let files = Files::read(&common.config_dir(), None);
    let checked = files.check();
    if !checked.failed() {
        return Ok((files, checked));
    }
    let here_alone = diagnostics::complain(&files, &checked);
    errln!("heartbeat: ERROR: Configuration error, heartbeat not started.");
    Err(if here_alone && !rustix::process::geteuid().is_root() {
        code::NO_PERMISSION
    } else {
        code::NOT_CONFIGURED
    })
}

fn print_defaults() {
    outln!("{:<24} {:<9} Description\n{}", "Directive", "Default", "-".repeat(80));
    for Directive { name, default, meaning, .. } in ROWS.iter().filter(|row| !row.default.is_empty()) {
        outln!("{name:<24} {default:<9} {meaning}");
    }
}

/// Prints the configuration as it was understood, in the form of an ha.cf.
fn dump(files: &Files, checked: &CheckedHaFiles) -> ExitCode {
    outln!("#\n#\tLinux-HA heartbeat configuration (on {})\n#", crate::files::host_name());
    for (name, value) in &checked.parameters {
        // Parameters that `env` set are not directives.
        if let Some(row) = Directive::named(name) {
            outln!("{name}\t{value}\t#\t{}", row.meaning);
        }
    }
    if let Some(plan) = &checked.plan {
        outln!("#\n#\tHA Cluster nodes (this is {}):\n#", files.node);
        for node in &plan.nodes {
            outln!("node {node}");
        }
        outln!("#\n#\tCommunications media:\n#");
        media(plan).for_each(|line| outln!("{line}"));
    }
    ExitCode::SUCCESS
}

fn media(plan: &R1Plan) -> impl Iterator<Item = String> + '_ {
    let links = plan.links.iter().flat_map(|link| &link.media).map(|medium| match medium {
        R1Medium::Broadcast { interface, .. } => format!("bcast {interface}"),
        R1Medium::Multicast { interface, group, port, ttl, loopback } => {
            let word = if group.is_ipv6() { "mcast6" } else { "mcast" };
            format!("{word} {interface} {group} {port} {ttl} {}", u8::from(*loopback))
        }
        R1Medium::Unicast { interface, peer, .. } => {
            format!("{} {interface} {peer}", if peer.is_ipv6() { "ucast6" } else { "ucast" })
        }
        R1Medium::Serial { device, .. } => format!("serial {device}"),
    });
    let pings = plan.pings.iter().map(|ping| {
        let members: Vec<String> = ping.members.iter().map(ToString::to_string).collect();
        match ping.is_group {
            true => format!("ping_group {} {}", ping.name, members.join(" ")),
            false => format!("ping {}", ping.name),
        }
    });
    links.chain(pings)
}
