//! A name that one process of a network namespace has at a time: the abstract address of a listening socket. It lasts as
//! long as its holder, whatever becomes of it, and needs no directory. Anybody may take any name: who holds it counts.
//! Facts: unix(7).

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::option;

/// A name that this process has until the value is dropped.
#[derive(Debug)]
pub struct Place {
    _listener: UnixListener,
}

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, where it can be seen from here.
    pub pid: Option<u32>,
    /// Its user when it took the name; whoever it gave the socket to since then.
    pub uid: u32,
}

impl Place {
    /// Takes a name.
    ///
    /// # Errors
    /// `AddrInUse` when somebody has it, `InvalidInput` for one of more than 107 bytes, what the kernel says.
    pub fn take(name: &str) -> io::Result<Self> {
        Ok(Self { _listener: UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)? })
    }
}

/// Who has a name. Never waits: where the holder has let too many ask, nobody learns who it is.
///
/// # Errors
/// When nobody has it, or it cannot be known who.
pub fn holder(name: &str) -> io::Result<Holder> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    let [pid, uid, _]: [u32; 3] = option::get(&socket, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok(Holder { pid: Some(pid).filter(|pid| *pid != 0), uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_who_is_known() {
        let name = format!("locum-test/{}", std::process::id());
        assert_eq!(holder(&name).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let place = Place::take(&name).unwrap();
        assert_eq!(Place::take(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let me = Holder { pid: Some(std::process::id()), uid: rustix::process::geteuid().as_raw() };
        // However many ask, and are never answered.
        for _ in 0..100 {
            assert_eq!(holder(&name).unwrap(), me);
        }
        drop(place);
        Place::take(&name).unwrap();
    }
}
