//! A Debian machine in a node of the rack: systemd, journald and dbus run, on the node's network and disk.
//!
//! systemd-nspawn boots it from a root that `scripts/machines` makes once. Changes by the machine are kept on the
//! node's disk, so that they survive a loss of power; [`Rack::power_off`] kills the machine with the node.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::{
    clock::{Moment, await_some, pause},
    description::MACHINE_ROOT,
    fault::Fault,
    process::{Process, Program, ProgramOutcome},
    rack::Rack,
};

/// A machine boots in about a second. On a busy host it takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// The machine's changes, on the node's disk.
const UPPER: &str = "machine/upper";

/// The prefix of a machine's control group, and its places, in whichever layout the host has them.
const GROUP: &str = "locum-lab-";
const CGROUP_MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// A younger empty group may belong to a machine that is about to boot.
const YOUNG: Duration = Duration::from_secs(60);

/// Boots the machine, in a mount namespace of its own: an overlay of the shared root and the node's disk; control
/// groups of version 2 alone, as on a current Debian, whatever layout the host has; one control group for the machine.
const BOOT: &str = r#"set -e
root=$1 group=$2 name=$3 library=$4
mount --make-rprivate /
mkdir -p /run/disk/machine/upper /run/disk/machine/work /run/machine
mount -t overlay overlay -o lowerdir="$root",upperdir=/run/disk/machine/upper,workdir=/run/disk/machine/work /run/machine
echo "$name" >/run/machine/etc/hostname
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$group"
echo $$ >"/sys/fs/cgroup/$group/cgroup.procs"
exec systemd-nspawn --quiet --directory=/run/machine --machine="$name" --boot --register=no --keep-unit \
    --network-namespace-path=/proc/self/ns/net --capability=all --system-call-filter=bpf --console=pipe \
    --bind-ro=/run/bin/locum:/usr/sbin/locum
"#;

/// A running machine. Dropping it cuts its power.
pub struct Machine {
    node: String,
    supervisor: Process,
    init: Init,
    group: String,
}

/// The process ids of a machine's first process.
#[derive(Clone, Copy, Debug, Default)]
struct Init {
    on_host: u32,
    in_node: u32,
}

impl Machine {
    /// Boots a node's machine and waits until its first boot transaction has ended.
    ///
    /// # Errors
    /// [`Fault::Missing`] where the host has no systemd-nspawn; else the reason why it did not boot.
    pub fn boot(rack: &Rack, node: &str) -> Result<Self, Fault> {
        let group = format!("{GROUP}{}-{node}", std::process::id());
        sweep_group(&group);
        let words = ["unshare", "--mount", "sh", "-c", BOOT, "boot", MACHINE_ROOT, &group, node];
        let supervisor = rack.start(node, &Program::new(&words).output("/run/disk/machine.log"))?;
        let mut machine = Self { node: node.into(), supervisor, init: Init::default(), group };
        let log = || fs::read_to_string(rack.disk(node).join("machine.log")).unwrap_or_default();
        let failed = |what: &str| Fault::Description(format!("{node}: {what}: {}", log().trim()));
        let child = await_some(BOOT_LIMIT, || match machine.supervisor.ended() {
            Some(_) => Some(None),
            None => first_process(machine.supervisor.id()).map(Some),
        });
        match child.flatten() {
            Some(init) => machine.init = init,
            None if log().contains("systemd-nspawn: not found") => {
                return Err(absent("systemd-nspawn", "apt-get install systemd-container"));
            }
            None => return Err(failed("it did not boot")),
        }
        let end = Moment::now() + BOOT_LIMIT;
        while !end.remaining().is_zero() {
            // The bus is not there from the first moment on.
            let state = machine.run(rack, &["systemctl", "is-system-running", "--wait"], BOOT_LIMIT)?;
            if ["running", "degraded"].contains(&state.text.trim()) {
                return Ok(machine);
            }
            pause(Duration::from_millis(100));
        }
        Err(failed("it did not finish booting"))
    }

    /// Runs a program in the machine to its end; at the limit it is killed.
    ///
    /// # Errors
    /// If the node has no power, or the program cannot be started.
    pub fn run(&self, rack: &Rack, words: &[&str], limit: Duration) -> Result<ProgramOutcome, Fault> {
        rack.run(&self.node, &self.inside(words), limit)
    }

    /// Starts a program in the machine without waiting for it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn start(&self, rack: &Rack, words: &[&str]) -> Result<Process, Fault> {
        rack.start(&self.node, &self.inside(words))
    }

    fn inside(&self, words: &[&str]) -> Program {
        let init = self.init.in_node.to_string();
        let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        Program::new(&[&["nsenter", "--target", &init, "--all", "--", "env", path], words].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // If only the supervisor were killed, the machine would run on. While the supervisor lives, the process id is
        // the machine's.
        let init = first_process(self.supervisor.id()).map(|init| init.on_host.cast_signed());
        if let (None, Some(init)) = (self.supervisor.ended(), init.and_then(Pid::from_raw)) {
            let _ = rustix::process::kill_process(init, Signal::KILL);
            let _ = self.supervisor.wait(BOOT_LIMIT);
        }
        sweep_group(&self.group);
    }
}

/// Writes a file of a node's machine before it boots.
///
/// # Errors
/// The kernel's error.
pub fn write(rack: &Rack, node: &str, path: &str, text: &str, mode: u32) -> io::Result<()> {
    let target = upper(rack, node).join(path.trim_start_matches('/'));
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&target, text)?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode))
}

fn upper(rack: &Rack, node: &str) -> PathBuf {
    rack.disk(node).join(UPPER)
}

pub(super) fn absent(what: &str, cure: &str) -> Fault {
    Fault::Missing { what: format!("{what} is missing"), cure: cure.into() }
}

/// The supervisor's child, once it is a machine's first process.
fn first_process(supervisor: u32) -> Option<Init> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        let is_init = status
            .lines()
            .any(|line| line.strip_prefix("Name:").is_some_and(|name| name.trim() == "systemd"));
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        // The process ids as seen from the host, from the node, and from the machine itself.
        match numbers[..] {
            [on_host, .., in_node, 1] if is_init => Some(Init { on_host, in_node }),
            _ => None,
        }
    })
}

/// Removes the control groups of machines of earlier runs that were killed. A group with a process in it stays.
pub(super) fn sweep_leftovers() {
    CGROUP_MOUNTS.iter().for_each(|place| sweep_below(Path::new(place), YOUNG));
}

fn sweep_below(place: &Path, young: Duration) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(GROUP));
        // A group that was just made gets its first process in a moment.
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|made| made.elapsed().ok());
        let events = || fs::read_to_string(entry.path().join("cgroup.events")).unwrap_or_default();
        if is_ours && age.is_some_and(|age| age >= young) && events().contains("populated 0") {
            remove_groups(&entry.path());
        }
    }
}

/// Removes a machine's control groups as soon as no process is in them.
fn sweep_group(name: &str) {
    let places = CGROUP_MOUNTS.map(|base| Path::new(base).join(name));
    await_some(Duration::from_secs(5), || {
        places.iter().for_each(|place| remove_groups(place));
        places.iter().all(|place| !place.exists()).then_some(())
    });
}

fn remove_groups(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(place);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn empty_groups_of_killed_runs_are_removed_and_no_others() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree =
            mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let Some(base) = tree.map(|tree| Path::new(tree).join(format!("sweep-test-{}", std::process::id())))
        else {
            return eprintln!("skipped: no control groups of version 2");
        };
        if fs::create_dir(&base).is_err() {
            return eprintln!("skipped: no control group can be made here");
        }
        let at = |name: &str| base.join(name);
        for name in
            ["locum-lab-1-web1/init.scope", "locum-lab-2-web1/init.scope", "locum-lab-2-web1/empty", "other"]
        {
            fs::create_dir_all(at(name)).unwrap();
        }
        let mut living = Command::new("sleep").arg("60").spawn().unwrap();
        let entered = fs::write(at("locum-lab-2-web1/init.scope/cgroup.procs"), living.id().to_string());
        sweep_below(&base, Duration::from_secs(3600));
        let young = at("locum-lab-1-web1").exists();
        sweep_below(&base, Duration::ZERO);
        let left = ["locum-lab-1-web1", "locum-lab-2-web1/empty", "other"].map(|name| at(name).exists());
        living.kill().unwrap();
        living.wait().unwrap();
        await_some(Duration::from_secs(10), || {
            remove_groups(&base);
            (!base.exists()).then_some(())
        });
        entered.unwrap();
        assert_eq!((young, left), (true, [false, true, true]));
    }
}
