//! The machines that answer for an address when a client's interface asks by ARP.

use std::{net::Ipv4Addr, time::Duration};

use locum_lab::{Rack, clock::Moment};
use locum_sys::{netlink::Netlink, tap::Tap};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(150);
const TRIES: usize = 4;

/// A client's interface that asks by ARP.
pub(crate) struct Asker {
    tap: Tap,
    mac: [u8; 6],
    own: Ipv4Addr,
}

impl Asker {
    pub(crate) fn new(rack: &Rack, client: &str, interface: &'static str, own: Ipv4Addr) -> Self {
        let tap = rack.inside(client, move || Tap::open(interface)).unwrap().unwrap();
        Self { tap, mac: mac(rack, client, interface), own }
    }

    /// The hardware addresses that answer for `ip`.
    pub(crate) fn answers(&self, ip: Ipv4Addr) -> Vec<[u8; 6]> {
        let head = [&[0xff; 6][..], &self.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        let question = [&head[..], &self.mac, &self.own.octets(), &[0; 6], &ip.octets()].concat();
        let mut buffer = [0; 2048];
        while self.tap.receive(&mut buffer).unwrap().is_some() {}
        let mut answered = Vec::new();
        for _ in 0..TRIES {
            self.tap.send(&question).unwrap();
            let end = Moment::now() + PATIENCE;
            while Moment::now() < end {
                let Some(got) = self.tap.receive(&mut buffer).unwrap() else {
                    locum_lab::clock::pause(Duration::from_millis(1));
                    continue;
                };
                let frame = &buffer[..got.length];
                let is_answer = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
                if is_answer && frame[28..32] == ip.octets() && frame[..6] == self.mac {
                    answered.extend(frame[22..28].first_chunk::<6>());
                }
            }
        }
        answered.sort_unstable();
        answered.dedup();
        answered
    }
}

/// The hardware address of a node's interface.
pub(crate) fn mac(rack: &Rack, node: &str, interface: &'static str) -> [u8; 6] {
    let found = rack.inside(node, move || Netlink::open()?.interface(interface)).unwrap();
    found.unwrap().mac.unwrap()
}
