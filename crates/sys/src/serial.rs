//! Serial lines, set up as heartbeat does (`docs/wire.md`, the section on media). They never block. A pseudo terminal
//! works, too.
//!
//! Heartbeat also sends a break when it opens a line. Locum does not: the kernel would block the caller for a quarter
//! of a second, and no reader needs it.

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

/// The speeds that `baud` accepts, in bits a second.
pub const BAUDS: [u32; 7] = [9600, 19200, 38400, 57600, 115_200, 230_400, 460_800];

/// An open serial line. Readable and writable for epoll. It is writable if little is waiting to be sent: a caller that
/// writes one frame each time never has much more than that frame in the kernel.
pub struct SerialLine {
    tty: OwnedFd,
}

impl SerialLine {
    /// Opens a device exclusively: raw, 8 data bits stripped to 7 on input, hardware flow control, modem lines ignored.
    /// Discards everything that was waiting in it.
    ///
    /// # Errors
    /// The kernel's error: `NotFound`, not a terminal (ENOTTY), other end gone (EIO); `ResourceBusy` when another
    /// process has it; `InvalidInput` for a speed that the device does not know.
    pub fn open(device: &Path, baud: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tty = open(device, flags, Mode::empty())?;
        let mut settings = tcgetattr(&tty)?;
        flock(&tty, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"))?;
        if !is_pseudo_terminal(&tty)? {
            // Keeps out programs that do not know the lock. A pseudo terminal would stay closed to everybody after this
            // process was killed, as long as its other end is open.
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

    /// Reads the bytes that have arrived into `buffer`; `None` if there are none.
    ///
    /// # Errors
    /// The kernel's error; `BrokenPipe` when the other end of a pseudo terminal, or the device, is gone.
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

    /// Writes as many bytes as there is room for, maybe none, and returns how many.
    ///
    /// # Errors
    /// The kernel's error; `BrokenPipe` when the other end of a pseudo terminal, or the device, is gone.
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

    /// The number of written bytes that have not left the machine yet. Always 0 on a pseudo terminal.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn unsent(&self) -> io::Result<usize> {
        // SAFETY: TIOCOUTQ writes one int and nothing else.
        let count = unsafe { ioctl(&self.tty, Getter::<{ libc::TIOCOUTQ as _ }, libc::c_int>::new()) }?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Discards written bytes that have not left yet.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn discard(&self) -> io::Result<()> {
        Ok(tcflush(&self.tty, QueueSelector::OFlush)?)
    }
}

impl AsFd for SerialLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}

/// The slave ends of Unix98 pseudo terminals have the majors 136 to 143 (the kernel's list of devices).
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
            drop(SerialLine::open(&path, baud).unwrap());
        }
        let line = SerialLine::open(&path, 19200).unwrap();
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
        let line = SerialLine::open(&path, 9600).unwrap();
        assert_eq!(SerialLine::open(&path, 9600).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
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
        assert_eq!(SerialLine::open(file.path(), 9600).err().unwrap().raw_os_error(), Some(libc::ENOTTY));
        let missing = file.path().with_extension("missing");
        assert_eq!(SerialLine::open(&missing, 9600).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
