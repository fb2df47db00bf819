//! For this crate's tests: a network namespace of one's own. No test touches the host's network.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::UnshareFlags;

use crate::netlink::{Interface, LinkChange, Netlink, VethEnd};

/// Runs `body` in a thread that has a new network namespace. Where that is not permitted it says so and does nothing.
pub(crate) fn in_namespace(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // SAFETY: only this thread's network namespace changes; it shares no file descriptor table with itself.
            match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
                Ok(()) => body(),
                Err(error) => eprintln!("SKIPPED: no network namespace of our own here: {error}"),
            }
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Makes a veth pair, both ends up, and returns them.
pub(crate) fn veth_pair(a: &str, b: &str) -> io::Result<[Interface; 2]> {
    let mut netlink = Netlink::open()?;
    let end = |name, last| VethEnd { name, mac: [2, 0, 0, 0, 0, last], network: None };
    netlink.create_veth(end(a, 1), end(b, 2))?;
    set_up(a, true)?;
    set_up(b, true)?;
    Ok([netlink.interface(a)?, netlink.interface(b)?])
}

/// Moves an interface into a namespace of its own and lets `body` work there; sockets that it returns stay there and
/// keep the namespace alive.
pub(crate) fn elsewhere<T: Send>(interface: &Interface, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let (here, there) = (mpsc::channel::<()>(), mpsc::channel::<OwnedFd>());
        let run = scope.spawn(move || {
            // SAFETY: as above.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            there.0.send(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()).unwrap();
            here.1.recv().unwrap();
            set_up(&interface.name, true).unwrap();
            body()
        });
        let namespace = there.1.recv().unwrap();
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.attributes = vec![LinkAttribute::NetNsFd(namespace.as_raw_fd())];
        Netlink::open().unwrap().request(RouteNetlinkMessage::SetLink(message), 0).unwrap();
        here.0.send(()).unwrap();
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sets an interface up or down.
pub(crate) fn set_up(name: &str, up: bool) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.interface(name)?.index;
    netlink.change_links(&[if up { LinkChange::Up(index) } else { LinkChange::Down(index) }])
}

/// Returns a function that says for five seconds, waiting a little each time, that it is not too late yet.
#[expect(clippy::disallowed_methods, reason = "a test that waits for the kernel reads the clock")]
pub(crate) fn patience() -> impl Fn() -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    move || {
        thread::sleep(Duration::from_millis(1));
        Instant::now() < end
    }
}
