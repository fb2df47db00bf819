//! The errors of a rack.

use std::{io, path::Path};

/// The reason why a rack cannot be built, or does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// This machine, or the rights of this process, do not allow a rack.
    #[error("no rack of nodes can be built here: {what}\ntry: {cure}")]
    Missing {
        /// The missing feature, with the kernel's error text.
        what: String,
        /// A command that may help.
        cure: String,
    },
    /// Racks can be built, but this gate backend does not work on this kernel, or for this process.
    #[error("gate backend {backend} does not work here: {why}")]
    NoGate {
        backend: &'static str,
        /// The missing feature, in words.
        why: String,
    },
    /// The description of the rack, or a name used with it, makes no sense.
    #[error("{0}")]
    Description(String),
    /// The kernel refused an operation.
    #[error("{doing}: {error}")]
    Kernel {
        /// The operation, in words.
        doing: String,
        error: io::Error,
    },
}

impl Fault {
    pub(crate) fn missing(what: &str, error: &io::Error) -> Self {
        Self::Missing { what: format!("{what}: {error}"), cure: cure(error) }
    }
}

/// Adds the operation to an error of the kernel.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
    /// Treats the error as a sign that this machine allows no rack, unless its kind says otherwise.
    fn needed(self, what: &str) -> Result<T, Fault>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|error| Fault::Kernel { doing: what(), error })
    }

    fn needed(self, what: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::missing(what, &error))
    }
}

/// The command that most probably helps here. A switch of the distribution is named before the general cure.
fn cure(error: &io::Error) -> String {
    let program = std::env::args().collect::<Vec<_>>().join(" ");
    let setting =
        |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    if matches!(error.raw_os_error(), Some(libc_errno::EOPNOTSUPP)) {
        return "sudo modprobe --all bridge veth".into();
    }
    if error.raw_os_error() == Some(libc_errno::ENOSPC) {
        // The kernel's error if a number of namespaces is used up; the usual limit is thousands.
        let kinds = ["user", "mnt", "net", "uts", "ipc", "pid"];
        let limit = |kind: &&&str| setting(&format!("/proc/sys/user/max_{kind}_namespaces")) == "0";
        let kind = kinds.iter().find(limit).unwrap_or(&"user");
        return format!("sudo sysctl user.max_{kind}_namespaces=10000");
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return format!(
            "the same in a container started with `docker run --privileged`, or outside: {program}"
        );
    }
    if rustix::process::geteuid().is_root() {
        return "a machine or container that allows its root to make namespaces and mounts (CAP_SYS_ADMIN)"
            .into();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return "sudo sysctl kernel.unprivileged_userns_clone=1".into();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0".into();
    }
    if setting("/proc/sys/user/max_user_namespaces") == "0" {
        return "sudo sysctl user.max_user_namespaces=10000".into();
    }
    format!("sudo {program}")
}

mod libc_errno {
    pub(super) const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
    pub(super) const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
}
