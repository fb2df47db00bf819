//! A name that only one process of a network namespace can have at a time: the abstract address of a listening socket.
//! It lasts exactly as long as its holder, and needs no directory. Any user may take any name, so callers must check
//! who holds it. Facts: unix(7).

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::option;

/// A name that this process holds until the value is dropped.
#[derive(Debug)]
pub struct ExclusiveName {
    _listener: UnixListener,
}

/// The process that holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHolder {
    /// The holder's process number, if it is visible from here.
    pub pid: Option<u32>,
    /// The user of the holder when it took the name, even if it has passed on the socket since then.
    pub uid: u32,
}

impl ExclusiveName {
    /// Takes the name, if it is free.
    ///
    /// # Errors
    /// `AddrInUse` if another process holds it, `InvalidInput` for more than 107 bytes, else the kernel's error.
    pub fn take(name: &str) -> io::Result<Self> {
        Ok(Self { _listener: UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)? })
    }
}

/// Finds out who holds a name. Never waits: if the holder's queue of connections is full, this is an error.
///
/// # Errors
/// If no process holds it, or its holder cannot be determined.
pub fn holder(name: &str) -> io::Result<NameHolder> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    let [pid, uid, _]: [u32; 3] = option::get(&socket, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok(NameHolder { pid: Some(pid).filter(|pid| *pid != 0), uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_who_is_known() {
        let name = format!("locum-test/{}", std::process::id());
        assert_eq!(holder(&name).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let held = ExclusiveName::take(&name).unwrap();
        assert_eq!(ExclusiveName::take(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let me = NameHolder { pid: Some(std::process::id()), uid: rustix::process::geteuid().as_raw() };
        // The queue may be full of askers that are never answered.
        for _ in 0..100 {
            assert_eq!(holder(&name).unwrap(), me);
        }
        drop(held);
        ExclusiveName::take(&name).unwrap();
    }
}
