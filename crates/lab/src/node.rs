//! A node that is switched on: a holder process, and a room in its namespaces.

use std::{
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use locum_sys::{
    gate, mount,
    namespace::{self, Fresh},
    netlink::{LinkChange, Netlink},
};

use crate::{
    description::MACHINE_ROOT,
    fault::{Doing, Fault},
    holder,
    process::{Process, Program},
    room::Room,
};

/// The kernel numbers a network namespace's own loopback first.
const LOOPBACK: u32 = 1;

/// Where a node's files are, seen from the rack's hub.
pub(crate) struct Place {
    /// The rack's directory.
    pub(crate) root: PathBuf,
    /// The node's name.
    pub(crate) name: String,
    /// The program that holds it.
    pub(crate) program: PathBuf,
    /// Serial devices: what they are called in the node, and where they are.
    pub(crate) devices: Vec<(String, PathBuf)>,
    /// What is laid over `/usr` and `/etc`.
    pub(crate) layers: Vec<PathBuf>,
    /// What is shown at [`MACHINE_ROOT`].
    pub(crate) machine_root: Option<PathBuf>,
}

impl Place {
    /// Becomes the node's `/run`; lost with the power.
    pub(crate) fn volatile(&self) -> PathBuf {
        self.root.join(&self.name).join("run")
    }

    /// Becomes `/run/disk`: survives a loss of power.
    pub(crate) fn disk(&self) -> PathBuf {
        self.root.join(&self.name).join("disk")
    }
}

pub(crate) struct Node {
    holder: Option<Child>,
    room: Option<Room>,
    pub(crate) network: OwnedFd,
}

impl Node {
    /// Switches a node on. Called in the rack's hub.
    pub(crate) fn switch_on(place: Place) -> Result<Self, Fault> {
        let name = place.name.clone();
        let room = Room::open(move || enter(&place)).doing(|| format!("start a thread for {name}"))??;
        let (network, holder) = room.run(|| (namespace::network(), start_holder()));
        let (network, mut holder) =
            (network.needed("its network namespace")?, holder.needed("a holder process")?);
        let mut word = Vec::new();
        if let Some(output) = holder.stdout.as_mut() {
            let _ = output.take(holder::READY.len() as u64).read_to_end(&mut word);
        }
        if word != holder::READY {
            let mut reason = String::new();
            if let Some(mut errors) = holder.stderr.take() {
                let _ = errors.read_to_string(&mut reason);
            }
            let _ = holder.wait();
            return Err(Fault::missing(
                "a process table of a node's own",
                &io::Error::other(reason.trim().to_owned()),
            ));
        }
        Ok(Self { holder: Some(holder), room: Some(room), network })
    }

    /// Does `job` in the node's network, mount and UTS namespace. It must not start threads.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.room.as_ref().expect("a node has its room until it is dropped").run(job)
    }

    /// Starts a program in the node.
    pub(crate) fn start(&self, program: &Program) -> io::Result<Process> {
        let program = program.clone();
        self.run(move || program.spawn()).map(Process::new)
    }

    /// The numbers of its processes, without the holder's, as the calling process sees them.
    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let Some(holder) = self.holder.as_ref().map(Child::id) else { return Ok(Vec::new()) };
        // Which pid namespace a process lives in. One that has just ended lives in none.
        let home = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let node = home(holder)?;
        let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pids = names.filter_map(|name| name.parse().ok());
        Ok(pids.filter(|&pid| pid != holder && home(pid).is_ok_and(|home| home == node)).collect())
    }

    /// Kills every process of the node at once.
    pub(crate) fn kill(&mut self) {
        let Some(mut holder) = self.holder.take() else { return };
        let _ = holder.kill();
        // The kernel buries the holder when all others are buried, and those started from outside are buried when
        // the one who started them looks: that may be later, so it is not waited for here.
        let _ = thread::Builder::new().name("burial".into()).spawn(move || holder.wait());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the calling thread's surroundings those of the node.
fn enter(place: &Place) -> Result<(), Fault> {
    let all = Fresh { network: true, mounts: true, host_name: true, processes: true, ipc: true };
    namespace::leave(all).needed("namespaces for a node")?;
    namespace::set_host_name(&place.name).needed("a host name for a node")?;
    furnish(place).needed("mounts for a node")?;
    plain_network();
    let mut netlink = Netlink::open().doing(|| "ask the node's kernel".into())?;
    netlink.change_links(&[LinkChange::Up(LOOPBACK)]).doing(|| "set up the loopback".into())
}

/// Gives the node directories of its own in place of those of the host that a cluster writes to.
fn furnish(place: &Place) -> io::Result<()> {
    let (volatile, disk) = (place.volatile(), place.disk());
    let directory = |path: PathBuf| fs::create_dir_all(&path).map(|()| path);
    directory(volatile.join("bin"))?;
    bring(&place.program, &volatile.join("bin/locum"))?;
    for (name, device) in &place.devices {
        fs::write(volatile.join(name), "")?;
        mount::bind(device, &volatile.join(name))?;
    }
    if let Some(root) = &place.machine_root {
        // Below the directory that becomes the node's `/run`.
        let name = Path::new(MACHINE_ROOT).strip_prefix("/run").expect("it lies there");
        mount::bind(root, &directory(volatile.join(name))?)?;
    }
    lay_over(&place.layers)?;
    let own = [("/etc/ha.d", "ha.d"), ("/var/lib", "lib"), ("/var/log", "log")];
    for (theirs, ours) in own {
        let ours = directory(disk.join(ours))?;
        // Only what exists can be covered, and what does not exist needs no cover.
        if Path::new(theirs).is_dir() {
            mount::bind(&ours, Path::new(theirs))?;
        }
    }
    mount::bind(&disk, &directory(volatile.join("disk"))?)?;
    mount::bind(&directory(volatile.join("tmp"))?, Path::new("/tmp"))?;
    mount::bind(&volatile, Path::new("/run"))?;
    mount_bpffs()?;
    std::env::set_current_dir("/")
}

/// Where a node has a bpf file system of its own, if the kernel has such a thing.
pub(crate) fn bpffs() -> &'static Path {
    let customary = Path::new(gate::BPFFS);
    if customary.is_dir() { customary } else { Path::new("/run/bpf") }
}

/// Gives the node a bpf file system of its own: gates of two nodes have the same names, and what is pinned in the host's
/// stays when the rack has gone. The host's are covered. A user namespace may not mount one at all (before Linux 6.9, and
/// without a token after it): its nodes see none, and use `nft`.
fn mount_bpffs() -> io::Result<()> {
    // systemd mounts one on every machine. More than a few would be somebody's odd setup, and each pass covers one.
    const COVERED_MAX: usize = 64;
    let own = bpffs();
    let is_mounted = fs::create_dir_all(own).and_then(|()| mount::bpf(own)).is_ok();
    for _ in 0..COVERED_MAX {
        match gate::find_bpffs()? {
            Some(place) if !(is_mounted && place == own) => mount::memory(&place)?,
            _ => return Ok(()),
        }
    }
    Err(io::Error::other(format!("more than {COVERED_MAX} bpf file systems are mounted")))
}

fn lay_over(layers: &[PathBuf]) -> io::Result<()> {
    for target in ["/usr", "/etc"].map(Path::new) {
        let name = target.strip_prefix("/").expect("begins with it");
        let mut directories: Vec<_> = layers.iter().map(|layer| layer.join(name)).collect();
        directories.retain(|directory| directory.is_dir());
        if !directories.is_empty() {
            directories.push(target.into());
            mount::layers(&directories, target)?;
        }
    }
    Ok(())
}

/// Shows the program in the node; where a bind mount is refused (the program may lie in another mount namespace), a
/// copy does.
fn bring(program: &Path, target: &Path) -> io::Result<()> {
    fs::write(target, "")?;
    mount::bind(program, target).or_else(|_| {
        fs::copy(program, target)?;
        fs::set_permissions(target, std::os::unix::fs::PermissionsExt::from_mode(0o755))
    })
}

/// The host's network settings are inherited by new namespaces; a node must not depend on them. A setting that this
/// kernel does not have cannot disturb.
fn plain_network() {
    for (name, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv4/icmp_echo_ignore_all", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/arp_ignore", "0"),
        ("ipv4/conf/default/arp_ignore", "0"),
        ("ipv4/conf/all/arp_announce", "0"),
        ("ipv4/conf/default/arp_announce", "0"),
        ("ipv4/conf/all/arp_accept", "0"),
        ("ipv4/conf/default/arp_accept", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ] {
        let _ = fs::write(Path::new("/proc/sys/net").join(name), value);
    }
}

/// The first child of a thread with a fresh pid namespace is that namespace's first process.
fn start_holder() -> io::Result<Child> {
    Command::new("/run/bin/locum")
        .arg(holder::COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}
