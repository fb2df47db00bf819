//! The process that is frozen: it renews one gate, and notes its renewals in a file.

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use locum_sys::{
    clock,
    gate::{Backend, Gate, GateName, GateSettings, Renewal},
    netlink::Netlink,
};
use rustix::process::{Signal, getpid, kill_process};

use crate::process::Program;

/// The hidden command by which a trial starts `program gate-renewer`.
pub const COMMAND: &str = "gate-renewer";

/// The options of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) backend: Backend,
    pub(crate) interface: String,
    pub(crate) address: IpAddr,
    pub(crate) lease: Duration,
    pub(crate) every: Duration,
    /// The number of the renewal in which it freezes itself, between preparation and commit; 0: never.
    pub(crate) freezes_in: u32,
    /// Whether it goes on with fresh renewals after a freeze, as no daemon should: the control.
    pub(crate) goes_on: bool,
    /// The file in which it keeps its notes.
    pub(crate) notes: PathBuf,
}

/// The notes of the process, in nanoseconds of boot time; 0 if not noted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notes {
    /// The deadline that it began to prepare last.
    pub(super) prepared: u64,
    /// The deadline that it committed last.
    pub(super) committed: u64,
    /// When it found that a deadline had passed before its commit returned.
    pub(super) late: u64,
}

impl Notes {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let number = |place| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, place).map(|()| u64::from_ne_bytes(bytes))
        };
        Ok(Self { prepared: number(0)?, committed: number(8)?, late: number(16)? })
    }
}

const PREPARED: u64 = 0;
const COMMITTED: u64 = 8;
const LATE: u64 = 16;

impl Order {
    /// The command line that starts it in a node.
    pub(crate) fn program(&self) -> Program {
        let millis = |time: Duration| time.as_millis().to_string();
        let backend = match &self.backend {
            Backend::Bpf { bpffs } => bpffs.display().to_string(),
            Backend::Nft => "nft".into(),
        };
        let words = [
            "locum",
            COMMAND,
            &backend,
            &self.interface,
            &self.address.to_string(),
            &millis(self.lease),
            &millis(self.every),
            &self.freezes_in.to_string(),
            &self.goes_on.to_string(),
            &self.notes.display().to_string(),
        ];
        Program::new(&words)
    }

    fn parse(words: &[String]) -> Option<Self> {
        let [backend, interface, address, lease, every, freezes_in, goes_on, notes] = words else {
            return None;
        };
        let millis = |text: &str| text.parse().map(Duration::from_millis).ok();
        Some(Self {
            backend: match backend.as_str() {
                "nft" => Backend::Nft,
                bpffs => Backend::Bpf { bpffs: bpffs.into() },
            },
            interface: interface.clone(),
            address: address.parse().ok()?,
            lease: millis(lease)?,
            every: millis(every)?,
            freezes_in: freezes_in.parse().ok()?,
            goes_on: goes_on.parse().ok()?,
            notes: notes.into(),
        })
    }

    pub(super) fn settings(&self) -> io::Result<GateSettings> {
        Ok(GateSettings {
            name: GateName::new("lab", &self.address.to_string()),
            addresses: vec![self.address],
            interfaces: vec![Netlink::open()?.interface(&self.interface)?.index],
            rivals: None,
            proofs: Vec::new(),
        })
    }
}

/// Renews a gate, each time by a beat that was due at its time, until a renewal is late. Then it has lost the lease,
/// and waits to be killed.
///
/// # Errors
/// If not started by a trial; else the kernel's error.
pub fn renew(words: &[String]) -> io::Result<()> {
    let by_hand = || io::Error::other(format!("{COMMAND} is started by `locum lab gate`, never by hand"));
    let order = Order::parse(words).ok_or_else(by_hand)?;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let notes = File::create(&order.notes)?;
    let note = |place, value: u64| notes.write_all_at(&value.to_ne_bytes(), place);
    [PREPARED, COMMITTED, LATE].into_iter().try_for_each(|place| note(place, 0))?;
    let mut gate = Gate::install(&order.backend, order.settings()?)?;
    let mut sent = clock::boot_nanos();
    for count in 1.. {
        let renewal = Renewal { deadline: sent + nanos(order.lease), sent };
        note(PREPARED, renewal.deadline)?;
        let prepared = gate.prepare(renewal);
        if count == order.freezes_in {
            kill_process(getpid(), Signal::STOP)?;
        }
        prepared.commit()?;
        note(COMMITTED, renewal.deadline)?;
        let now = clock::boot_nanos();
        sent += nanos(order.every);
        if now >= renewal.deadline {
            note(LATE, now)?;
            if !order.goes_on {
                break;
            }
            sent = now;
        }
        clock::sleep_until(clock::monotonic_nanos() + sent.saturating_sub(now));
    }
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back() {
        for backend in [Backend::Nft, Backend::Bpf { bpffs: "/run/bpf".into() }] {
            let order = Order {
                backend,
                interface: "eth0".into(),
                address: "10.0.0.1".parse().unwrap(),
                lease: Duration::from_millis(300),
                every: Duration::from_millis(20),
                freezes_in: 7,
                goes_on: false,
                notes: "/run/notes".into(),
            };
            let words = order.program().words().to_vec();
            assert_eq!(Order::parse(&words[2..]), Some(order));
        }
        assert_eq!(Order::parse(&[]), None);
    }
}
