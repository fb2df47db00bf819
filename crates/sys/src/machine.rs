//! Control of the machine as a whole.

use std::io;

use rustix::system::{RebootCommand, reboot};

/// Reboots at once: nothing is stopped and files are not written back. That is intended: the caller cannot wait for
/// anything that may hang. In its own PID namespace the kernel ends that namespace instead (reboot(2)).
///
/// # Errors
/// The kernel's error; `PermissionDenied` without the right to reboot. Does not return otherwise.
pub fn reboot_now() -> io::Result<()> {
    Ok(reboot(RebootCommand::Restart)?)
}
