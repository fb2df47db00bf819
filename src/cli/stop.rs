//! `locum stop`: makes the daemon leave the cluster gracefully, and returns when it has ended.
//!
//! Exit code: 0 it ended and left nothing running, 1 it could not be asked or ended without an answer, 2 it ended but
//! something here could not be stopped, 3 no daemon runs here, 4 no permission.

use std::{
    io::{self, BufRead},
    process::ExitCode,
};

use clap::Args;

use crate::{
    cli::{CommonOptions, failed},
    observe::socket::{ClientFault, ControlClient, OutcomeKind, StopOrder},
};

/// The options of `locum stop`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StopOptions {
    /// Do not wait until the daemon has ended
    #[arg(long)]
    pub no_wait: bool,
}

/// Asks the daemon to leave and waits until it has ended. Stopping its groups takes as long as their agents need.
///
/// # Errors
/// None: a failure is printed and is in the exit code.
pub fn run(common: &CommonOptions, options: StopOptions) -> anyhow::Result<ExitCode> {
    Ok(stop(&ControlClient::new(&common.run_dir()), options).unwrap_or_else(|fault| failed(&fault)))
}

fn stop(client: &ControlClient, options: StopOptions) -> Result<ExitCode, ClientFault> {
    // The daemon closes a watcher's connection only by its own end. While it starts it cannot be watched, and only its
    // answer is awaited.
    let watched = if options.no_wait { None } else { client.watch().ok() };
    let outcome = client.stop(StopOrder { wait: !options.no_wait })?;
    let code = match outcome.outcome {
        OutcomeKind::Done | OutcomeKind::Begun => ExitCode::SUCCESS,
        OutcomeKind::TimedOut => {
            errln!("locum: {}", outcome.text);
            ExitCode::from(2)
        }
        OutcomeKind::Refused | OutcomeKind::Forbidden | OutcomeKind::Unavailable => {
            errln!("locum: refused: {}", outcome.text);
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(watched) = watched {
        wait_for_end(watched);
    }
    Ok(code)
}

/// Waits until the connection ends; a reset is an end, too.
fn wait_for_end(mut watched: impl BufRead) {
    let _ = io::copy(&mut watched, &mut io::sink());
}
