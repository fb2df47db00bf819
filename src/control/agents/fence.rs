//! Fencing: a program drives the device that resets a node. A type that is named like a fence agent (`fence_…`) is one:
//! it reads its options from standard input. All others are plug-ins of cluster-glue; its `stonith` program reads their
//! parameters from standard input or from the file that `ha.cf` names. No secret is on a command line.
//!
//! The core decides which node is reset when, and what follows. This module asks a device, within a limit.

use std::{io, path::Path, sync::Arc, time::Duration};

use locum_core::{
    model::{
        event::FenceOutcome,
        note::{Level, Note},
    },
    r1::plan::{Fencing, FencingParameters},
};
use tokio::time::Instant;

use super::{
    Agents,
    job::{ProgramEnd, ProgramJob, ProgramReport},
    output::Speaker,
};
use crate::control::errands::call;

/// How the names of fence agents begin.
pub(crate) const AGENTS: &str = "fence_";
/// The limit of a reset: a power strip waits before it switches on again.
const RESET_LIMIT: Duration = Duration::from_secs(120);
/// The limit of the question whether the device works.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// Largest file of parameters, in bytes: it has to fit into a pipe.
const FILE_BYTES_MAX: u64 = 4096;
/// The exit code of cluster-glue's `stonith` if the device does not know the node [M, cluster-glue 1.0.12].
const BAD_HOST: i32 = 4;

/// A request to a device.
#[derive(Clone, Copy)]
enum FenceRequest<'a> {
    /// Reset the node of this name.
    Reset(&'a str),
    /// Say whether the device works.
    Check,
}

impl Agents {
    /// Resets a node with the device of the plan. Returns within a limit. Any answer but a clear yes counts as a
    /// failure.
    pub async fn fence(&self, node: &str) -> FenceOutcome {
        let Some(fencing) = &self.host_config().fencing else { return FenceOutcome::NotConfigured };
        match self.ask_device(fencing, FenceRequest::Reset(node), RESET_LIMIT).await {
            Err(why) => FenceOutcome::Bad(why),
            Ok(report) => match report.end {
                ProgramEnd::Exited(0) => FenceOutcome::Ok,
                ProgramEnd::Exited(BAD_HOST) if !is_agent(&fencing.device) => {
                    FenceOutcome::BadHost(report.complaint())
                }
                _ => FenceOutcome::Bad(report.complaint()),
            },
        }
    }

    /// Asks the device of the plan, if there is one, whether it works, and logs the answer.
    pub async fn check_fencing(&self) {
        let Some(fencing) = &self.host_config().fencing else { return };
        let device = &fencing.device;
        let tell = |level, text| (self.0.options.tell)(Note { level, group: None, epoch: None, text });
        tell(Level::Info, format!("Checking status of STONITH device [{device}]"));
        let why = match self.ask_device(fencing, FenceRequest::Check, CHECK_LIMIT).await {
            Ok(ProgramReport { end: ProgramEnd::Exited(0), .. }) => return,
            Ok(report) => report.complaint(),
            Err(why) => why,
        };
        tell(Level::Error, format!("STONITH device {device} not operational! ({why})"));
        tell(Level::Error, "STONITH status operation failed.".to_owned());
        tell(
            Level::Error,
            "This may mean that the STONITH device has failed! Nothing is taken over from a node that it cannot reset."
                .to_owned(),
        );
    }

    async fn ask_device(
        &self,
        fencing: &Fencing,
        request: FenceRequest<'_>,
        limit: Duration,
    ) -> Result<ProgramReport, String> {
        let Fencing { device, parameters } = fencing;
        let is_agent = is_agent(device);
        let name = if is_agent { device } else { "stonith" };
        let missing = || match is_agent {
            true => format!("the fence agent {name} is not installed"),
            false => "the program stonith of the package cluster-glue is not installed".to_owned(),
        };
        let program = self.0.options.roots.program(name).ok_or_else(missing)?;
        let words = match parameters {
            FencingParameters::Line(line) => line.clone(),
            FencingParameters::File(path) if is_agent => read(path).await?,
            FencingParameters::File(_) => String::new(),
        };
        let (args, input) = match (is_agent, parameters) {
            (true, _) => (Vec::new(), options(&words, request)),
            (false, FencingParameters::File(path)) => (arguments(device, path, request), String::new()),
            (false, FencingParameters::Line(_)) => {
                (arguments(device, "/dev/stdin", request), format!("{words}\n"))
            }
        };
        let job = ProgramJob {
            program,
            args,
            environment: self.0.environment.clone(),
            input: Some(input.into_bytes()),
            speaker: Speaker {
                tell: Arc::clone(&self.0.options.tell),
                group: None,
                epoch: None,
                label: format!("STONITH {device}"),
            },
            level: match request {
                FenceRequest::Reset(_) => Level::Info,
                FenceRequest::Check => Level::Debug,
            },
            deadline: Instant::now() + limit,
            cgroup: self.0.options.cgroup_path(),
            kin: None,
            resource: format!("STONITH {device}"),
            whose: match request {
                FenceRequest::Reset(node) => format!("STONITH reset {node}"),
                FenceRequest::Check => "STONITH check".to_owned(),
            },
            notes: self.0.options.notes.clone(),
            service: None,
        };
        Ok(job.run().await)
    }
}

fn is_agent(device: &str) -> bool {
    device.starts_with(AGENTS)
}

/// The arguments of `stonith` if a file holds the parameters.
fn arguments(device: &str, file: &str, request: FenceRequest<'_>) -> Vec<String> {
    let mut words = vec!["-t", device, "-F", file];
    match request {
        FenceRequest::Reset(node) => words.extend(["-T", "reset", node]),
        FenceRequest::Check => words.push("-S"),
    }
    words.into_iter().map(str::to_owned).collect()
}

/// The standard input of a fence agent: a line for each option. The node's name is added under the names that agents
/// know, unless the parameters say which plug is the node's.
fn options(words: &str, request: FenceRequest<'_>) -> String {
    let given: Vec<&str> = words.split_whitespace().filter(|word| word.contains('=')).collect();
    let has = |name: &str| given.iter().any(|word| word.split('=').next() == Some(name));
    let mut lines: Vec<String> = given.iter().map(|&word| word.to_owned()).collect();
    lines.push(match request {
        FenceRequest::Reset(_) => "action=reboot".to_owned(),
        FenceRequest::Check => "action=monitor".to_owned(),
    });
    if let FenceRequest::Reset(node) = request {
        lines.push(format!("nodename={node}"));
        if !has("port") && !has("plug") {
            lines.push(format!("plug={node}"));
        }
    }
    lines.join("\n") + "\n"
}

/// Reads the parameters from a file. It may lie on a disk that hangs, so the caller has a limit.
async fn read(path: &str) -> Result<String, String> {
    let (name, whose) = (path.to_owned(), path.to_owned());
    let read = call(whose, move || {
        use io::Read as _;
        let mut text = String::new();
        std::fs::File::open(Path::new(&name))?.take(FILE_BYTES_MAX).read_to_string(&mut text).map(|_| text)
    });
    let text = tokio::time::timeout(CHECK_LIMIT, read).await;
    let text = text.map_err(|_| "reading it takes too long".to_owned()).and_then(|done| match done {
        Ok(result) => result.map_err(|fault| fault.to_string()),
        Err(fault) => Err(fault.to_string()),
    });
    let lines = |text: String| {
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join(" ")
    };
    text.map(lines).map_err(|why| format!("{path}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stonith_program_is_told_no_secret_on_its_command_line() {
        let words = |request| arguments("external/ipmi", "/dev/stdin", request).join(" ");
        assert_eq!(
            words(FenceRequest::Reset("clustnode2")),
            "-t external/ipmi -F /dev/stdin -T reset clustnode2"
        );
        assert_eq!(words(FenceRequest::Check), "-t external/ipmi -F /dev/stdin -S");
    }

    #[test]
    fn a_fence_agent_is_told_which_node() {
        let text = options("ip=10.0.0.9 username=admin password=x", FenceRequest::Reset("clustnode2"));
        assert_eq!(
            text,
            "ip=10.0.0.9\nusername=admin\npassword=x\naction=reboot\nnodename=clustnode2\nplug=clustnode2\n"
        );
        assert_eq!(options("port=3", FenceRequest::Reset("b")), "port=3\naction=reboot\nnodename=b\n");
        assert_eq!(options("port=3", FenceRequest::Check), "port=3\naction=monitor\n");
    }
}
