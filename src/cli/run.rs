//! `locum run`: the daemon, in the foreground. TERM and INT make it leave the cluster gracefully. HUP makes it reread
//! the files and reload in place while everything runs.
//!
//! Exit code: 0 left cleanly, 1 it cannot start or runs already, 2 the configuration is wrong, 3 it left but something
//! here could not be stopped.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use locum_core::model::note::Level;

use crate::{
    cli::{CommonOptions, LogLevel},
    control::lifecycle::{self, DaemonOutcome, Refused, Settings},
    files::ConfigDialect,
    heart::GateChoice,
};

/// The options of `locum run`: settings for which the files have no key.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Which files to use if both ha.cf and locum.toml are in the configuration directory
    #[arg(long, value_enum)]
    pub dialect: Option<ConfigDialect>,
    /// Time limit of a resource's start (ha.cf only); then its agent and children are killed
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub start_limit: Duration,
    /// Time limit of a resource's stop (ha.cf only)
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub stop_limit: Duration,
    /// Time limit of a resource's status check (ha.cf only)
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub status_limit: Duration,
    /// Use installed scripts named IPaddr, IPaddr2, IPv6addr, SendArp, MailTo, Delay and Filesystem instead of the
    /// built-in agents
    #[arg(long)]
    pub prefer_scripts: bool,
    /// Backend of the gates; `none` (ha.cf only) lets addresses keep answering if this daemon is killed or frozen
    #[arg(long, value_enum, default_value_t)]
    pub gates: GateChoice,
    /// Do not use real-time priority, even if ha.cf sets `realtime`
    #[arg(long)]
    pub no_realtime: bool,
    /// Run only as a witness (used by `locum witness run`)
    #[arg(long, hide = true)]
    pub only_as_witness: bool,
    /// Write a zero byte to standard error when the control socket answers, then close it (used by `heartbeat` without `-f`)
    #[arg(long, hide = true)]
    pub background: bool,
    /// Run this program, instead of rebooting this machine at once, if a `failfast` client dies
    #[arg(long, value_name = "PROGRAM")]
    pub reboot_program: Option<PathBuf>,
}

/// Runs the daemon until it has left the cluster.
///
/// # Errors
/// If the daemon cannot start.
pub fn run(common: &CommonOptions, options: RunOptions) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        config_dir: common.config_dir(),
        state_dir: common.state_dir(),
        run_dir: common.run_dir(),
        fifo: common.fifo(),
        heartbeat_pid: common.heartbeat_pid(),
        log: common.log.map(level),
        dialect: options.dialect,
        start_limit: options.start_limit,
        stop_limit: options.stop_limit,
        status_limit: options.status_limit,
        prefer_scripts: options.prefer_scripts,
        gates: options.gates,
        no_realtime: options.no_realtime,
        only_as_witness: options.only_as_witness,
        background: options.background,
        reboot_program: options.reboot_program,
    };
    Ok(match lifecycle::run(settings)? {
        DaemonOutcome::Clean => ExitCode::SUCCESS,
        DaemonOutcome::Unclean => ExitCode::from(3),
        DaemonOutcome::NotStarted(Refused::OnlyHere) => ExitCode::FAILURE,
        DaemonOutcome::NotStarted(Refused::Wrong) => ExitCode::from(2),
    })
}

const fn level(asked: LogLevel) -> Level {
    match asked {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    }
}

/// Parses `500ms`, `30s`, `5min`, `1h`; a bare number is seconds. Refuses zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number with ms, s, min or h, such as 500ms or 5min".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a whole number with ms, s, min or h, such as 500ms or 5min".to_owned())?;
    let total = number.checked_mul(millis).filter(|&total| total > 0);
    total
        .map(Duration::from_millis)
        .ok_or_else(|| "out of range: write a time above zero, such as 500ms or 5min".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [("500ms", 500), ("30s", 30_000), ("2", 2000), ("5min", 300_000), ("1h", 3_600_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "0", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "18446744073709551615h", "5d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
