//! The holder: the first process of a node. The node lives as long as its holder.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use locum_sys::{mount, namespace};

/// The hidden command by which a rack starts `program lab-node`.
pub const COMMAND: &str = "lab-node";

/// The text that the holder writes when the node is ready.
pub(crate) const READY: &[u8] = b"ready\n";

/// Holds a node: mounts its process table, reaps its orphans, and ends when the rack ends or closes its standard input.
/// As the first process of a pid namespace it takes all the node's other processes with it.
///
/// # Errors
/// If not started by a rack; or the kernel refuses the process table.
pub fn hold() -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::other("lab-node is started by a rack, never by hand"));
    }
    namespace::die_with_parent()?;
    namespace::reap_children();
    mount::processes(Path::new("/proc"))?;
    let mut output = io::stdout();
    output.write_all(READY)?;
    output.flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}
