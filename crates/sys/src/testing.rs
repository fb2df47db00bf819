//! For this crate's tests: an own network namespace for each. No test touches the host's network.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use crate::{
    namespace::{self, NewNamespaces},
    netlink::{Interface, LinkChange, Netlink, VethEnd},
};

const NEW_NETWORK: NewNamespaces =
    NewNamespaces { network: true, mounts: false, host_name: false, processes: false, ipc: false };

/// Runs `body` in a thread with a new network namespace. If that is not permitted it prints so and does nothing.
pub(crate) fn in_namespace(body: impl FnOnce() + Send) {
    aside(|| match namespace::enter_new(NEW_NETWORK) {
        Ok(()) => body(),
        // Bypasses the harness, which hides the output of a passed test.
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no network namespace of our own here: {error}");
        }
    });
}

/// A second network namespace, for the other end of a cable.
pub(crate) fn other_network() -> OwnedFd {
    aside(|| {
        namespace::enter_new(NEW_NETWORK).unwrap();
        namespace::network().unwrap()
    })
}

/// Runs `body` in another network namespace. Sockets that it returns stay there and keep the namespace alive.
pub(crate) fn inside<T: Send>(network: &OwnedFd, body: impl FnOnce() -> T + Send) -> T {
    aside(|| {
        namespace::enter_network(network).unwrap();
        body()
    })
}

/// Runs `body` in its own thread, whose namespaces may be changed.
pub(crate) fn aside<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Makes a veth pair, both ends up and in this namespace, and returns them.
pub(crate) fn veth_pair(a: &str, b: &str) -> io::Result<[Interface; 2]> {
    Netlink::open()?.create_veth(end(a, None), end(b, None))?;
    set_up(a, true)?;
    set_up(b, true)?;
    let mut netlink = Netlink::open()?;
    Ok([netlink.interface(a)?, netlink.interface(b)?])
}

/// Makes a veth pair, both ends up, the second in another namespace, and returns them.
pub(crate) fn veth_across(a: &str, b: &str, network: &OwnedFd) -> io::Result<[Interface; 2]> {
    Netlink::open()?.create_veth(end(a, None), end(b, Some(network.as_fd())))?;
    set_up(a, true)?;
    inside(network, || set_up(b, true))?;
    let there = inside(network, || Netlink::open()?.interface(b))?;
    Ok([Netlink::open()?.interface(a)?, there])
}

fn end<'a>(name: &'a str, network: Option<BorrowedFd<'a>>) -> VethEnd<'a> {
    // An own hardware address that differs by name.
    let last = name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    VethEnd { name, mac: [2, 0, 0, 0, 0, last], network }
}

/// Sets an interface up or down.
pub(crate) fn set_up(name: &str, up: bool) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.interface(name)?.index;
    netlink.change_links(&[if up { LinkChange::Up(index) } else { LinkChange::Down(index) }])
}

/// Returns a function that is true for a minute, and waits a little in each call.
#[expect(clippy::disallowed_methods, reason = "a test that waits for the kernel reads the clock")]
pub(crate) fn patience() -> impl Fn() -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    move || {
        thread::sleep(Duration::from_millis(1));
        Instant::now() < end
    }
}
