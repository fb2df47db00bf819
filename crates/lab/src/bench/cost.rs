//! Measures the CPU time and memory of daemons while nothing happens.

use std::{fs, time::Duration};

use crate::pair::{
    PairSetup, Peer,
    cluster::{CLIENT, FIRST, LAN, PairCluster, SECOND},
};
use crate::{
    clock::{Moment, pause},
    fault::{Doing, Fault},
    watch::WatchSpec,
};

/// CPU time and memory of the daemon of one node.
#[derive(Clone, Debug)]
pub struct PeerCost {
    pub peer: &'static str,
    /// The node's name; the first node owns the service.
    pub node: &'static str,
    /// Number of the daemon's processes.
    pub processes: usize,
    /// The daemon's share of one processor, where 1 is all of it.
    pub processor: f64,
    /// Resident memory in bytes, the sum over its processes.
    pub resident: u64,
    /// Proportional memory in bytes: each page divided by the number of its users.
    pub proportional: u64,
}

/// Measures the cost of a peer's daemons over some time.
///
/// # Errors
/// As [`run`](super::run).
pub fn cost(peer: Peer, setup: &PairSetup, time: Duration) -> Result<[PeerCost; 2], Fault> {
    let mut cluster = PairCluster::started(peer, setup)?;
    // No probes: they would keep the nodes busy.
    cluster.rack.watch(WatchSpec { client: CLIENT.into(), network: LAN.into(), ..WatchSpec::default() })?;
    let daemons = [cluster.daemon(FIRST)?, cluster.daemon(SECOND)?];
    let used = || -> Result<[Duration; 2], Fault> { Ok([used(&daemons[0])?, used(&daemons[1])?]) };
    let (from, before) = (Moment::now(), used()?);
    pause(time);
    let (time, after) = (Moment::now().since(from), used()?);
    let of = |node: usize| -> Result<PeerCost, Fault> {
        let (resident, proportional) = memory(&daemons[node])?;
        Ok(PeerCost {
            peer: peer.name(),
            node: [FIRST, SECOND][node],
            processes: daemons[node].len(),
            processor: (after[node] - before[node]).as_secs_f64() / time.as_secs_f64(),
            resident,
            proportional,
        })
    };
    Ok([of(0)?, of(1)?])
}

/// The processor time of all threads, whose file gives it in nanoseconds.
fn used(processes: &[u32]) -> Result<Duration, Fault> {
    let mut total = 0;
    for process in processes {
        let doing = || format!("read the times of process {process}");
        for task in fs::read_dir(format!("/proc/{process}/task")).doing(doing)? {
            let path = task.doing(doing)?.path().join("schedstat");
            let text = fs::read_to_string(path).doing(doing)?;
            total += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(Duration::from_nanos(total))
}

/// Resident and proportional memory in bytes.
fn memory(processes: &[u32]) -> Result<(u64, u64), Fault> {
    let (mut resident, mut proportional) = (0, 0);
    for process in processes {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
        let kibibytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        };
        resident += kibibytes("Rss:").unwrap_or_default() * 1024;
        proportional += kibibytes("Pss:").unwrap_or_default() * 1024;
    }
    Ok((resident, proportional))
}
