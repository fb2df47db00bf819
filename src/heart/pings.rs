//! Ping nodes: ICMP echo whose payload is a frame, and the answers.

use std::{collections::VecDeque, net::IpAddr, os::fd::BorrowedFd};

use locum_core::{model::identity::PingIndex, r1::plan::PingNode};
use locum_sys::icmp::Pinger;

/// How many questions may be open; an answer to an older one comes too late.
const OPEN_MAX: usize = 512;

/// The sockets, and the questions without an answer.
pub(super) struct Pings {
    nodes: Vec<PingNode>,
    ipv4: Option<Pinger>,
    ipv6: Option<Pinger>,
    sequence: u16,
    open: VecDeque<PingQuestion>,
    /// How many questions the kernel refused.
    pub(super) failures: u64,
}

struct PingQuestion {
    sequence: u16,
    ping: PingIndex,
    to: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingFamily {
    V4,
    V6,
}

impl Pings {
    /// Opens the sockets that are needed. Also returns, in words, what could not be opened.
    pub(super) fn new(nodes: &[PingNode]) -> (Self, Option<String>) {
        let identifier = (std::process::id() & 0xffff) as u16;
        let mut fault = None;
        let mut open = |ipv6: bool| {
            let needed = nodes.iter().flat_map(|ping| &ping.members).any(|ip| ip.is_ipv6() == ipv6);
            let opened = needed.then(|| Pinger::open(ipv6, identifier)).transpose();
            opened.unwrap_or_else(|error| {
                fault = Some(format!("ping nodes cannot be asked: {error}"));
                None
            })
        };
        let (ipv4, ipv6) = (open(false), open(true));
        (Self { nodes: nodes.to_vec(), ipv4, ipv6, sequence: 0, open: VecDeque::new(), failures: 0 }, fault)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (PingFamily, BorrowedFd<'_>)> {
        use std::os::fd::AsFd as _;
        let v4 = self.ipv4.iter().map(|pinger| (PingFamily::V4, pinger.as_fd()));
        v4.chain(self.ipv6.iter().map(|pinger| (PingFamily::V6, pinger.as_fd())))
    }

    /// Asks every address of a ping node.
    pub(super) fn ask(&mut self, ping: PingIndex, bytes: &[u8]) {
        let Some(node) = self.nodes.get(ping.0) else { return };
        for &to in &node.members {
            let Some(pinger) = (if to.is_ipv6() { &self.ipv6 } else { &self.ipv4 }) else { continue };
            self.sequence = self.sequence.wrapping_add(1);
            if pinger.ask(to, self.sequence, bytes).is_err() {
                self.failures += 1;
                continue;
            }
            if self.open.len() == OPEN_MAX {
                self.open.pop_front();
            }
            self.open.push_back(PingQuestion { sequence: self.sequence, ping, to });
        }
    }

    /// The next answer, read into `buffer`: its payload and the ping node that gave it. Answers to questions that are
    /// not open are skipped. `None` when nothing waits.
    pub(super) fn receive<'a>(
        &mut self,
        family: PingFamily,
        buffer: &'a mut [u8],
    ) -> Option<(Option<PingIndex>, &'a [u8])> {
        let pinger = match family {
            PingFamily::V4 => self.ipv4.as_ref(),
            PingFamily::V6 => self.ipv6.as_ref(),
        };
        let reply = pinger?.receive(buffer).ok()??;
        let asked =
            |question: &PingQuestion| question.sequence == reply.sequence && question.to == reply.from;
        let ping = self.open.iter().position(asked).and_then(|index| self.open.remove(index)).map(|q| q.ping);
        Some((ping, reply.payload))
    }
}
