//! Socket options for which no crate has a function.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads an option whose value is plain bytes of known size. If the kernel writes fewer, the rest is zero.
pub(crate) fn get<T: FromBytes + IntoBytes>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    let mut value = T::new_zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: value is writable for length bytes, any content of it is valid (FromBytes), and the kernel keeps no
    // pointer.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option whose value is plain bytes.
pub(crate) fn set<T: IntoBytes + Immutable>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let bytes = value.as_bytes();
    // SAFETY: bytes are readable for the length given, and the kernel keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            bytes.as_ptr().cast(),
            bytes.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
