//! Serial lines as heartbeat sets them (`docs/wire.md`, the section on media), never blocking. A pseudo terminal works as
//! one.
//!
//! Heartbeat also sends a break when it opens a line; we do not, because the kernel holds the caller for a quarter of a
//! second meanwhile, and no reader needs it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, major, open},
    ioctl::{Getter, ioctl},
    termios::{
        ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, SpecialCodeIndex,
        ioctl_tiocexcl, tcflush, tcgetattr, tcsetattr,
    },
};

/// The speeds that `baud` may name, in bits a second.
pub const BAUDS: [u32; 7] = [9600, 19200, 38400, 57600, 115_200, 230_400, 460_800];

/// An open line. Readable and writable for epoll; writable means that little is waiting to be sent, so whoever
/// writes one frame each time it is writable never has more than about that frame in the kernel.
pub struct Line {
    tty: OwnedFd,
}

impl Line {
    /// Opens a device and takes it for this process alone: raw, 8 data bits stripped to 7 on input, hardware flow
    /// control, modem lines ignored. What was waiting in it is thrown away.
    ///
    /// # Errors
    /// What the kernel says: `NotFound`, not a terminal (ENOTTY), other end gone (EIO); `ResourceBusy` when another
    /// process has it; `InvalidInput` for a speed that the device does not know.
    pub fn open(device: &Path, baud: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tty = open(device, flags, Mode::empty())?;
        let mut settings = tcgetattr(&tty)?;
        flock(&tty, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"))?;
        if !is_pseudo_terminal(&tty)? {
            // Keeps out programs that do not know the lock. A pseudo terminal would stay closed to everybody after
            // we were killed, for as long as its other end is open.
            ioctl_tiocexcl(&tty)?;
        }
        settings.control_modes &= !(ControlModes::PARENB | ControlModes::CSTOPB | ControlModes::CSIZE);
        settings.control_modes |=
            ControlModes::CS8 | ControlModes::CREAD | ControlModes::CLOCAL | ControlModes::CRTSCTS;
        settings.input_modes =
            InputModes::INPCK | InputModes::ISTRIP | InputModes::IGNCR | InputModes::BRKINT;
        settings.output_modes = OutputModes::empty();
        settings.local_modes = LocalModes::empty();
        settings.special_codes[SpecialCodeIndex::VMIN] = 1;
        settings.special_codes[SpecialCodeIndex::VTIME] = 1;
        settings.set_speed(baud)?;
        tcsetattr(&tty, OptionalActions::Now, &settings)?;
        tcflush(&tty, QueueSelector::IOFlush)?;
        Ok(Self { tty })
    }

    /// Reads what is there into `buffer`; `None` when nothing is waiting.
    ///
    /// # Errors
    /// What the kernel says; `BrokenPipe` when the other end of a pseudo terminal, or the device, is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.tty, buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other end is gone"))
            }
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes as much as there is room for, maybe nothing, and says how much.
    ///
    /// # Errors
    /// What the kernel says; `BrokenPipe` when the other end of a pseudo terminal, or the device, is gone.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::io::write(&self.tty, bytes) {
            Ok(length) => Ok(length),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(rustix::io::Errno::IO) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other end is gone"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes written that have not yet left the machine. Always 0 on a pseudo terminal.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unsent(&self) -> io::Result<usize> {
        // SAFETY: TIOCOUTQ writes one int and nothing else.
        let count = unsafe { ioctl(&self.tty, Getter::<{ libc::TIOCOUTQ as _ }, libc::c_int>::new()) }?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Throws away what has been written and has not left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn discard(&self) -> io::Result<()> {
        Ok(tcflush(&self.tty, QueueSelector::OFlush)?)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}

/// Unix98 slaves have the majors 136 to 143 (the kernel's list of devices).
fn is_pseudo_terminal(tty: &OwnedFd) -> io::Result<bool> {
    Ok((136..=143).contains(&major(fstat(tty)?.st_rdev)))
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn pseudo_terminal() -> (OwnedFd, std::path::PathBuf) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        (master, name.into())
    }

    #[test]
    fn bytes_pass_as_they_are() {
        let (master, path) = pseudo_terminal();
        for baud in BAUDS {
            drop(Line::open(&path, baud).unwrap());
        }
        let line = Line::open(&path, 19200).unwrap();
        assert_eq!(line.read(&mut [0; 10]).unwrap(), None);
        assert_eq!(line.write(b">>>\nt=status\n<<<\n").unwrap(), 17);
        let mut buffer = [0; 100];
        let length = rustix::io::read(&master, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b">>>\nt=status\n<<<\n", "no newline is translated");
        rustix::io::write(&master, b"<<<\r\n\x03\xc1").unwrap();
        let deadline = crate::testing::patience();
        let mut read = Vec::new();
        while read.len() < 6 {
            assert!(deadline(), "{read:?}");
            let length = line.read(&mut buffer).unwrap().unwrap_or(0);
            read.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(read, b"<<<\n\x03A", "no carriage return, no signal, seven bits");
    }

    #[test]
    fn one_user_and_honest_ends() {
        let (master, path) = pseudo_terminal();
        let line = Line::open(&path, 9600).unwrap();
        assert_eq!(Line::open(&path, 9600).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
        let mut written = 0;
        while line.write(&[b'x'; 512]).unwrap() > 0 {
            written += 1;
            assert!(written < 100_000, "nobody reads, and still it takes more");
        }
        line.unsent().unwrap();
        line.discard().unwrap();
        drop(master);
        assert_eq!(line.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(line.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Line::open(file.path(), 9600).err().unwrap().raw_os_error(), Some(libc::ENOTTY));
        let missing = file.path().with_extension("missing");
        assert_eq!(Line::open(&missing, 9600).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
