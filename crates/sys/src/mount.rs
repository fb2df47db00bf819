//! Mounts in the calling thread's mount namespace.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, MountPropagationFlags};

/// Makes the thread's mounts private: later mounts are not seen in the namespace it came from.
///
/// # Errors
/// `EPERM` outside an own mount namespace.
pub fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", flags).map_err(Into::into)
}

/// Mounts a file system in memory at `target`, writable for its owner only.
///
/// # Errors
/// The kernel's error; `ENOENT` without the directory.
pub fn memory(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("locum", target, "tmpfs", flags, c"mode=755").map_err(Into::into)
}

/// Mounts `source` (a file or a directory, with the mounts below it) also at `target` (of the same kind).
///
/// # Errors
/// The kernel's error.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind_recursive(source, target).map_err(Into::into)
}

/// Mounts several directories at `target` as if they were one read-only directory. A name that is in several of them is
/// taken from the first.
///
/// # Errors
/// `InvalidInput` for a path with a zero byte; else the kernel's error (`ENODEV`: it has no overlay file system).
pub fn layers(directories: &[PathBuf], target: &Path) -> io::Result<()> {
    let mut options = b"lowerdir=".to_vec();
    for (position, directory) in directories.iter().enumerate() {
        if position > 0 {
            options.push(b':');
        }
        for &byte in directory.as_os_str().as_bytes() {
            if b"\\:,".contains(&byte) {
                options.push(b'\\');
            }
            options.push(byte);
        }
    }
    let options = CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::mount::mount("locum", target, "overlay", MountFlags::NODEV, options.as_c_str())
        .map_err(Into::into)
}

/// Mounts the process table of the calling process's own pid namespace at `target`.
///
/// # Errors
/// `EPERM` if the host's own `/proc` is partly covered, as in a container.
pub fn processes(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", target, "proc", flags, None).map_err(Into::into)
}

/// Mounts a bpf file system at `target`, accessible to its owner only.
///
/// # Errors
/// The kernel's error.
pub fn bpf(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("bpf", target, "bpf", flags, c"mode=700").map_err(Into::into)
}

/// Mounts a new set of pseudo terminals at `target`, with its own `ptmx` that everybody may open.
///
/// # Errors
/// The kernel's error.
pub fn terminals(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("devpts", target, "devpts", flags, c"newinstance,ptmxmode=0666,mode=0600")
        .map_err(Into::into)
}
