//! Mounts in the calling thread's mount namespace.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, MountPropagationFlags};

/// Cuts the thread's mounts off from those of its origin: what is mounted from now on is seen by nobody else.
///
/// # Errors
/// `EPERM` outside a mount namespace of one's own.
pub fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", flags).map_err(Into::into)
}

/// A file system in memory at `target`, owner-writable only.
///
/// # Errors
/// What the kernel says; `ENOENT` without the directory.
pub fn memory(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("locum", target, "tmpfs", flags, c"mode=755").map_err(Into::into)
}

/// Shows `source` (a file or a directory, with what is mounted below it) at `target` (of the same kind) too.
///
/// # Errors
/// What the kernel says.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind_recursive(source, target).map_err(Into::into)
}

/// Shows several directories at `target` as if they were one, which nobody can write to: a name that is in several of
/// them is the first one's.
///
/// # Errors
/// `InvalidInput` for a path with a zero byte; else what the kernel says (`ENODEV`: it has no overlay file system).
pub fn layers(directories: &[PathBuf], target: &Path) -> io::Result<()> {
    let mut options = b"lowerdir=".to_vec();
    for (place, directory) in directories.iter().enumerate() {
        if place > 0 {
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

/// The process table of the calling process's own pid namespace at `target`.
///
/// # Errors
/// `EPERM` where the host's own `/proc` is partly covered, as in a container.
pub fn processes(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", target, "proc", flags, None).map_err(Into::into)
}

/// A bpf file system at `target`, for its owner alone.
///
/// # Errors
/// What the kernel says.
pub fn bpf(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("bpf", target, "bpf", flags, c"mode=700").map_err(Into::into)
}

/// A fresh set of pseudo terminals at `target`, with its own `ptmx` that everybody may open.
///
/// # Errors
/// What the kernel says.
pub fn terminals(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("devpts", target, "devpts", flags, c"newinstance,ptmxmode=0666,mode=0600")
        .map_err(Into::into)
}
