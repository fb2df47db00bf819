//! One trial: a process renews a gate, is frozen, thaws; a client asks the address all the time.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};

use locum_sys::{clock::boot_nanos, stamp};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use super::{
    CLIENT, FreezePoint,
    renewer::{Notes, Order},
};
use crate::{
    clock::{Moment, await_some, boot_of_stamp, pause},
    fault::{Doing, Fault},
    process::ProcessSignal,
    rack::Rack,
    watch::frames,
};

/// Longest wait for a condition, enough on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the client asks: near the deadline and after the thaw, and in the long silence between.
const OFTEN: Duration = Duration::from_millis(1);
const SELDOM: Duration = Duration::from_millis(20);
/// How long it asks often after the deadline, and after the thaw.
const NEAR: Duration = Duration::from_millis(150);
const AFTER: Duration = Duration::from_millis(400);

/// The result of one trial: the client's last answer, compared with the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateTrial {
    /// The moment at which the process was frozen.
    pub point: FreezePoint,
    /// How long after the deadline the last answer came; zero if it came before.
    pub late: Duration,
    /// How long before the deadline the last answer came; zero if it came after.
    pub early: Duration,
}

/// The plan of a trial, beside the order to the process.
pub(super) struct TrialPlan {
    pub(super) point: FreezePoint,
    pub(super) freeze: Duration,
    /// With [`FreezePoint::Anywhere`]: the time from the first answer to the freeze.
    pub(super) delay: Duration,
}

/// Plays one trial. `None` if the machine itself stood still for a lease before the trial froze the process.
pub(super) fn play(
    rack: &Rack,
    node: &str,
    order: &Order,
    plan: &TrialPlan,
    notes: &Path,
) -> Result<Option<GateTrial>, Fault> {
    let std::net::IpAddr::V4(address) = order.address else {
        return Err(Fault::Description("a trial's address is IPv4".into()));
    };
    let mut client = Client::open(rack, address)?;
    let mut process = rack.start(node, &order.program())?;
    let pid = process.id();
    // Before the gate stands, the address answers too.
    let renewed = || Notes::read(notes).ok().filter(|notes| notes.committed > 0);
    await_some(PATIENCE, renewed).ok_or_else(|| Fault::Description("the gate is not renewed".into()))?;
    client.last = None;
    let lost = || Notes::read(notes).is_ok_and(|notes| notes.late > 0);
    let opened = await_some(PATIENCE, || {
        client.ask_for(SELDOM);
        (client.last.is_some() || lost()).then_some(())
    });
    opened.ok_or_else(|| Fault::Description(format!("the gate of {address} does not open")))?;
    if plan.point == FreezePoint::Anywhere {
        pause(plan.delay);
        process.signal(ProcessSignal::Stop).doing(|| "freeze the renewing process".into())?;
    }
    let frozen = await_some(PATIENCE, || {
        client.ask_for(OFTEN);
        (is_stopped(pid) || lost()).then(Moment::now)
    });
    let frozen = frozen.ok_or_else(|| Fault::Description("the renewing process does not freeze".into()))?;
    let noted = Notes::read(notes).doing(|| "read the process's notes".into())?;
    if noted.late > 0 {
        return Ok(None);
    }
    let deadline = match plan.point {
        // The renewal in flight is not in the kernel: the one before it counts.
        FreezePoint::InFlight => noted.committed,
        FreezePoint::Anywhere => noted.prepared,
    };
    client.ask_for(Duration::from_nanos(deadline.saturating_sub(boot_nanos())) + NEAR);
    while !(frozen + plan.freeze).remaining().is_zero() {
        client.ask_once();
        pause(SELDOM);
    }
    client.hear();
    process.signal(ProcessSignal::Continue).doing(|| "thaw the renewing process".into())?;
    client.ask_for(AFTER);
    let late = await_some(PATIENCE, || Notes::read(notes).ok().filter(|notes| notes.late > 0));
    late.ok_or_else(|| {
        Fault::Description("the thawed process did not notice that its lease had ended".into())
    })?;
    client.ask_for(AFTER);
    let last = client.last.unwrap_or(0);
    Ok(Some(GateTrial {
        point: plan.point,
        late: Duration::from_nanos(last.saturating_sub(deadline)),
        early: Duration::from_nanos(deadline.saturating_sub(last)),
    }))
}

/// Sends echo requests to one address through the client's kernel.
struct Client {
    socket: OwnedFd,
    address: Ipv4Addr,
    sequence: u16,
    /// The boot time at which the last answer reached the client.
    last: Option<u64>,
}

impl Client {
    fn open(rack: &Rack, address: Ipv4Addr) -> Result<Self, Fault> {
        let socket = rack.inside(CLIENT, move || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (family, kind) = (AddressFamily::INET, SocketType::RAW);
            let socket = rustix::net::socket_with(family, kind, flags, Some(ipproto::ICMP))?;
            // A connected socket hears only this address.
            rustix::net::connect(&socket, &SocketAddrV4::new(address, 0))?;
            stamp::enable(&socket)?;
            std::io::Result::Ok(socket)
        })?;
        let socket = socket.doing(|| "open the client's socket".into())?;
        Ok(Self { socket, address, sequence: 0, last: None })
    }

    fn ask_for(&mut self, time: Duration) {
        let end = Moment::now() + time;
        loop {
            self.ask_once();
            pause(OFTEN);
            self.hear();
            if end.remaining().is_zero() {
                return;
            }
        }
    }

    fn ask_once(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        let question = frames::icmp_echo(1, self.sequence);
        // An error is expected while the address does not answer.
        let _ = rustix::net::send(&self.socket, &question, SendFlags::DONTWAIT);
    }

    fn hear(&mut self) {
        let mut buffer = [0; 256];
        loop {
            match stamp::receive(&self.socket, &mut buffer) {
                Ok(Some(got)) => {
                    let from = frames::echo_reply(&buffer[..got.length]);
                    if let (Some((source, _)), Some(arrived)) = (from, got.arrived)
                        && source == self.address
                    {
                        self.last = self.last.max(Some(boot_of_stamp(arrived)));
                    }
                }
                Ok(None) => return,
                // Such errors as "no such host" also arrive here.
                Err(_) => {}
            }
        }
    }
}

/// Reads the state in the process's `stat`, the third word, behind the name in brackets.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
