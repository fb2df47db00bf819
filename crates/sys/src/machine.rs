//! The machine as a whole.

use std::io;

use rustix::system::{RebootCommand, reboot};

/// Reboots at once: nothing is stopped, files are not written back. That is meant: whoever asks for it cannot wait for
/// anything that may hang. In a PID namespace of its own, the kernel ends that namespace instead (reboot(2)).
///
/// # Errors
/// What the kernel says; without the right to it, `PermissionDenied`. Does not return otherwise.
pub fn reboot_now() -> io::Result<()> {
    Ok(reboot(RebootCommand::Restart)?)
}
