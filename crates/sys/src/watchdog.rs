//! A hardware watchdog. Once opened, it resets the machine unless it is written to in time (the kernel's
//! `Documentation/watchdog/watchdog-api.rst`). A pipe or file can replace it for tests: it is written to in the same
//! way.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, open},
    ioctl::{Updater, ioctl, opcode},
};

/// `WDIOC_SETTIMEOUT`: passes the wanted seconds, returns the device's.
const WDIOC_SETTIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<libc::c_int>(b'W', 6);
/// Any byte except the one of [`MAGIC_CLOSE`].
const ALIVE: &[u8] = b"\0";
/// After this byte, closing does not reset the machine ("magic close"), unless the driver is set to ignore it.
const MAGIC_CLOSE: &[u8] = b"V";

/// An armed watchdog. If it is dropped without [`Watchdog::disarm`], it goes on counting and resets the machine.
#[derive(Debug)]
pub struct Watchdog {
    device: OwnedFd,
}

impl Watchdog {
    /// Opens the device, which arms it.
    ///
    /// # Errors
    /// The kernel's error: `NotFound`, `ResourceBusy` if another process has it, ENXIO for a pipe without a reader.
    pub fn open(device: &Path) -> io::Result<Self> {
        // Neither created nor waited for.
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(Self { device: open(device, flags, Mode::empty())? })
    }

    /// Sets the time without [`Watchdog::feed`] after which the device resets the machine, in seconds. Returns the
    /// seconds that the device chose.
    ///
    /// # Errors
    /// The kernel's error; ENOTTY if it is not a watchdog. The device's own time then holds.
    pub fn set_timeout(&self, seconds: u32) -> io::Result<u32> {
        let mut taken = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int and nothing else.
        unsafe { ioctl(&self.device, Updater::<WDIOC_SETTIMEOUT, libc::c_int>::new(&mut taken)) }?;
        Ok(u32::try_from(taken).unwrap_or(0))
    }

    /// Restarts the device's time. Never waits.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn feed(&self) -> io::Result<()> {
        rustix::io::write(&self.device, ALIVE)?;
        Ok(())
    }

    /// Closes the device so that it does not reset the machine.
    ///
    /// # Errors
    /// The kernel's error; the machine may then be reset.
    pub fn disarm(self) -> io::Result<()> {
        rustix::io::write(&self.device, MAGIC_CLOSE)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_and_takes_leave() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watchdog = Watchdog::open(file.path()).unwrap();
        assert_eq!(watchdog.set_timeout(3).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        watchdog.feed().unwrap();
        watchdog.feed().unwrap();
        watchdog.disarm().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0\0V");
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let path = tempfile::tempdir().unwrap().path().join("watchdog");
        assert_eq!(Watchdog::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }
}
