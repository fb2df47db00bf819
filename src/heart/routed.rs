//! The path to or from a witness: one UDP socket that is bound to no interface. A node asks a witness wherever the
//! routes lead, and hears the answers there. A witness sends only to the addresses from which the core heard a node.

use std::{io, net::SocketAddr};

use locum_core::model::event::Carrier;
use locum_sys::{
    poll::{Interest, Poller},
    udp::UdpReceiver,
};

use super::{holders::Holders, stats::LinkStats, udp::taken};

/// The socket and its state.
pub(super) struct RoutedLink {
    to: Option<SocketAddr>,
    from: SocketAddr,
    socket: Option<UdpReceiver>,
    trouble: Option<String>,
    /// The port that another process holds.
    taken: Option<u16>,
}

impl RoutedLink {
    pub(super) fn new(to: Option<SocketAddr>, from: SocketAddr) -> Self {
        Self { to, from, socket: None, trouble: None, taken: None }
    }

    /// Opens the socket, if it is not open. `token` is its number in the poller.
    pub(super) fn check(&mut self, holders: &Holders, poller: &Poller, token: u64) -> Carrier {
        self.taken = None;
        if self.socket.is_none() {
            let opened = UdpReceiver::anywhere(self.from).and_then(|socket| {
                poller.add(&socket, token, Interest::Read)?;
                Ok(socket)
            });
            match opened {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    let port = self.from.port();
                    self.taken = (error.kind() == io::ErrorKind::AddrInUse).then_some(port);
                    let error = taken(error, port, holders);
                    return Carrier::Down(format!("no socket at {}: {error}", self.from));
                }
            }
        }
        // The obstacle of the last frame may have gone: the next frame shows it.
        self.trouble.clone().map_or(Carrier::Up, Carrier::Down)
    }

    /// The address from which frames to the witness leave now.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.source(self.to?).ok()
    }

    /// Sends a frame to the other side, or to this address. Returns the link's state if that has changed it.
    pub(super) fn send(
        &mut self,
        to: Option<SocketAddr>,
        bytes: &[u8],
        stats: &mut LinkStats,
    ) -> Option<Carrier> {
        let fixed = self.to;
        let to = to.or(fixed)?;
        let Some(socket) = &self.socket else {
            stats.errors_out += 1;
            return None;
        };
        let trouble = match socket.send(bytes, to) {
            Ok(()) => {
                stats.frames_out += 1;
                stats.bytes_out += bytes.len() as u64;
                None
            }
            Err(error) => {
                stats.errors_out += 1;
                // A full queue is loss like any other. If one of many destinations cannot be reached, that is not the
                // socket's fault.
                let is_loss = error.kind() == io::ErrorKind::WouldBlock || fixed.is_none();
                (!is_loss).then(|| format!("cannot send to {to}: {error}"))
            }
        };
        if trouble == self.trouble {
            return None;
        }
        self.trouble = trouble;
        Some(self.trouble.clone().map_or(Carrier::Up, Carrier::Down))
    }

    /// The port that another process holds, so that the socket could not be opened.
    pub(super) fn taken(&self) -> Option<u16> {
        self.taken
    }

    pub(super) fn receiver(&self) -> Option<&UdpReceiver> {
        self.socket.as_ref()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.socket.as_ref().map_or(0, |socket| u64::from(socket.dropped().unwrap_or(0)))
    }
}
