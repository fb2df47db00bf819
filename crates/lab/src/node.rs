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
    namespace::{self, NewNamespaces},
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
const LOOPBACK_IFINDEX: u32 = 1;

/// The files and programs of a node, as the rack's hub sees them.
pub(crate) struct NodeFiles {
    pub(crate) root: PathBuf,
    pub(crate) name: String,
    /// The program that runs as its holder.
    pub(crate) program: PathBuf,
    /// Serial devices: the name in the node, and the path on this side.
    pub(crate) devices: Vec<(String, PathBuf)>,
    /// Directories that are laid over `/usr` and `/etc`.
    pub(crate) layers: Vec<PathBuf>,
    /// The directory that is shown at [`MACHINE_ROOT`].
    pub(crate) machine_root: Option<PathBuf>,
}

impl NodeFiles {
    /// The directory that becomes the node's `/run`; lost with the power.
    pub(crate) fn volatile(&self) -> PathBuf {
        self.root.join(&self.name).join("run")
    }

    /// The directory that becomes `/run/disk`; it survives a loss of power.
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
    pub(crate) fn switch_on(files: NodeFiles) -> Result<Self, Fault> {
        let name = files.name.clone();
        let room = Room::open(move || enter(&files)).doing(|| format!("start a thread for {name}"))??;
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

    /// The process ids in the node, without the holder's, as the calling process sees them.
    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let Some(holder) = self.holder.as_ref().map(Child::id) else { return Ok(Vec::new()) };
        // The pid namespace in which a process lives; a process that has just ended lives in none.
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
        // The kernel reaps the holder after all other processes of the node. Processes started from outside are reaped
        // when their parents look, which may be later; so it is not waited for here.
        let _ = thread::Builder::new().name("burial".into()).spawn(move || holder.wait());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the calling thread's surroundings those of the node.
fn enter(files: &NodeFiles) -> Result<(), Fault> {
    let all = NewNamespaces { network: true, mounts: true, host_name: true, processes: true, ipc: true };
    namespace::enter_new(all).needed("namespaces for a node")?;
    namespace::set_host_name(&files.name).needed("a host name for a node")?;
    furnish(files).needed("mounts for a node")?;
    plain_network();
    let mut netlink = Netlink::open().doing(|| "ask the node's kernel".into())?;
    netlink.change_links(&[LinkChange::Up(LOOPBACK_IFINDEX)]).doing(|| "set up the loopback".into())
}

/// Gives the node directories of its own in place of the host's directories that a cluster writes to.
fn furnish(files: &NodeFiles) -> io::Result<()> {
    let (volatile, disk) = (files.volatile(), files.disk());
    let directory = |path: PathBuf| fs::create_dir_all(&path).map(|()| path);
    directory(volatile.join("bin"))?;
    bring(&files.program, &volatile.join("bin/locum"))?;
    for (name, device) in &files.devices {
        fs::write(volatile.join(name), "")?;
        mount::bind(device, &volatile.join(name))?;
    }
    if let Some(root) = &files.machine_root {
        // Below the directory that becomes the node's `/run`.
        let name = Path::new(MACHINE_ROOT).strip_prefix("/run").expect("it lies there");
        mount::bind(root, &directory(volatile.join(name))?)?;
    }
    lay_over(&files.layers)?;
    let own = [("/etc/ha.d", "ha.d"), ("/var/lib", "lib"), ("/var/log", "log")];
    for (theirs, ours) in own {
        let ours = directory(disk.join(ours))?;
        // Only an existing directory can be covered, and a missing one needs no cover.
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

/// The place of a node's own bpf file system, if the kernel supports one.
pub(crate) fn bpffs() -> &'static Path {
    let customary = Path::new(gate::BPFFS);
    if customary.is_dir() { customary } else { Path::new("/run/bpf") }
}

/// Gives the node a bpf file system of its own, and covers the host's. Gates of two nodes have the same names, and pins
/// in the host's would stay when the rack has gone. A user namespace may not mount one at all (before Linux 6.9, and
/// later without a token): its nodes have none, and use `nft`.
fn mount_bpffs() -> io::Result<()> {
    // systemd mounts one on every machine. More than a few would be an odd setup, and each pass covers one.
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

/// Shows the program in the node. If a bind mount is refused (the program may lie in another mount namespace), a copy
/// is made.
fn bring(program: &Path, target: &Path) -> io::Result<()> {
    fs::write(target, "")?;
    mount::bind(program, target).or_else(|_| {
        fs::copy(program, target)?;
        fs::set_permissions(target, std::os::unix::fs::PermissionsExt::from_mode(0o755))
    })
}

/// Sets the network settings that new namespaces inherit from the host: a node must not depend on them. Settings that
/// this kernel does not have are skipped.
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
