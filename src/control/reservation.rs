//! Makes sure that only one daemon at a time stands for a node in a network namespace, whatever directories it was
//! given. Two daemons of one node would take each other's addresses and services for leftovers.
//!
//! It takes names that the kernel takes back from a dead process. An ordinary user can take such a name too, but keeps
//! no daemon from starting: only root's processes and those of our own user count.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use locum_sys::exclusive_name;
use thiserror::Error;

use super::ports;
use crate::{host_config::HostConfig, observe::socket};

/// The names that this process has taken. They are given back at its end.
#[derive(Debug, Default)]
pub struct Reservation(Mutex<BTreeMap<String, exclusive_name::ExclusiveName>>);

/// Another daemon has the name. Prints the cure.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{me} of this configuration already runs here, in {}: this daemon does not start{}", .who, cure(.run_dir.as_deref()))]
pub struct Taken {
    /// The node or witness for which this daemon stands.
    me: String,
    /// The other daemon, in words.
    who: String,
    /// The other daemon's run directory, if it is known.
    run_dir: Option<String>,
}

fn cure(run_dir: Option<&str>) -> String {
    let Some(run_dir) = run_dir else { return "; stop that daemon first".to_owned() };
    format!(". `locum --run {run_dir} status` shows it, `locum --run {run_dir} stop` stops it")
}

impl Reservation {
    /// Takes the names that no other process of this network namespace may have. Returns warnings for the
    /// administrator.
    ///
    /// # Errors
    /// When another daemon has one of them.
    pub fn take(&self, host_config: &HostConfig) -> Result<Vec<String>, Taken> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut doubts = Vec::new();
        for name in host_config.reserved_names.iter().map(|parts| name(parts)) {
            if held.contains_key(&name) {
                continue;
            }
            let refused = match exclusive_name::ExclusiveName::take(&name) {
                Ok(taken) => {
                    held.insert(name, taken);
                    continue;
                }
                Err(error) if error.kind() != ErrorKind::AddrInUse => error.to_string(),
                Err(error) => match exclusive_name::holder(&name) {
                    // The other process may have ended just now.
                    Err(_)
                        if exclusive_name::ExclusiveName::take(&name)
                            .map(|taken| held.insert(name, taken))
                            .is_ok() =>
                    {
                        continue;
                    }
                    Ok(exclusive_name::NameHolder { pid, uid })
                        if uid == 0 || uid == rustix::process::geteuid().as_raw() =>
                    {
                        let who = match pid {
                            Some(pid) => ports::named(pid, uid),
                            None => {
                                format!("a process of {} that cannot be seen from here", ports::user(uid))
                            }
                        };
                        let run_dir = pid.and_then(run_dir);
                        return Err(Taken { me: host_config.me.clone(), who, run_dir });
                    }
                    Ok(exclusive_name::NameHolder { pid, uid }) => {
                        let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                        format!("user {}{pid} holds the name that a daemon takes", ports::user(uid))
                    }
                    Err(_) => error.to_string(),
                },
            };
            doubts.push(refused);
        }
        doubts.sort();
        doubts.dedup();
        let doubts = doubts.into_iter();
        Ok(doubts
            .map(|why| {
                format!("a second daemon of {} on this machine would not be detected: {why}", host_config.me)
            })
            .collect())
    }
}

/// The name for these parts, short enough for the kernel. It must stay the same from version to version.
fn name(parts: &[String]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("locum/{digest:016x}")
}

/// The directory that this daemon holds, with its control socket: there people find it.
fn run_dir(pid: u32) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let open = fs::read_dir(process.join("fd")).ok()?.flatten();
    let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let holds = |path: &PathBuf| {
        path.strip_prefix("/").is_ok_and(|path| process.join("root").join(path).join(socket::NAME).exists())
    };
    open.find(holds).map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_run_together() {
        let name = |parts: &[&str]| name(&parts.iter().map(|&part| part.to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&["a", "b"]), name(&["a", "b"]));
        assert_ne!(name(&["a", "b"]), name(&["ab", ""]));
        assert!(name(&["a"]).len() < 108);
    }
}
