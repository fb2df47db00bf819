//! Captures of two real heartbeat 3.0.6 nodes, for tests; described in `tests/captures/README.md`. [`pair`]: two
//! directors that talk to each other; [`beside`]: one director beside a heartbeat that a test plays.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its data has failed")]

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use locum_core::{
    config::{self, CheckedHaFiles, HaFiles},
    model::keys::Keys,
};

pub(crate) mod beside;
pub(crate) mod pair;

/// One capture of frames, and the facts about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capture {
    /// The file's name without `.pcap`.
    pub(crate) name: &'static str,
    /// The configuration directories of clustnode1 and clustnode2.
    pub(crate) configs: [&'static str; 2],
    pub(crate) frames: usize,
    /// How many of the frames clustnode1 must refuse.
    pub(crate) refused: usize,
    /// Whether frames have an authenticator inside (`msgfmt classic`).
    pub(crate) inner_auth: bool,
}

const fn capture(name: &'static str, config: &'static str, frames: usize) -> Capture {
    Capture { name, configs: [config, config], frames, refused: 0, inner_auth: true }
}

/// All captures of UDP frames.
pub(crate) const CAPTURES: &[Capture] = &[
    capture("01-first-node-start", "crc", 51),
    capture("02-second-node-joins", "crc", 101),
    capture("03-steady", "crc", 55),
    capture("04-standby-and-takeover", "crc", 130),
    capture("05-poweroff-takeover", "crc", 8),
    capture("05b-kill9-takeover", "loss", 40),
    capture("06-return-and-failback", "crc", 64),
    capture("07-graceful-stop", "crc", 40),
    capture("08-link-cut-and-heal", "crc", 249),
    capture("09-packet-loss", "loss", 418),
    capture("10-md5-two-bcast-links", "md5", 376),
    capture("11-sha1-mcast", "sha", 171),
    Capture { inner_auth: false, ..capture("12-netstring-md5", "ns", 294) },
    capture("14-ucast-sha1-nofailback", "uc", 521),
    Capture { configs: ["bad1", "bad2"], refused: 52, ..capture("15-bad-auth", "bad1", 106) },
    Capture { configs: ["key1", "key2"], ..capture("16-auth-index-differs", "key1", 113) },
    capture("17-legacy-failback", "leg", 198),
    capture("18-stonith-null", "ston", 195),
    capture("19-ping-ipfail", "png", 444),
    capture("20-admin-messages", "png", 81),
];

/// The path of a file of the captures.
pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../tests/captures", name].iter().collect()
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn read_text(name: &str) -> String {
    String::from_utf8(read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The result of checking the three files of a configuration for a node.
pub(crate) fn configuration(config: &str, node: &str) -> CheckedHaFiles {
    let [ha_cf, authkeys, haresources] =
        ["ha.cf", "authkeys", "haresources"].map(|file| read(&format!("configs/{config}/{file}")));
    let files = HaFiles { ha_cf: Some(&ha_cf), authkeys: Some(&authkeys), haresources: Some(&haresources) };
    config::check(&files, node, &config::CheckOptions::default())
}

/// The keys of a node.
pub(crate) fn keys(config: &str) -> Keys {
    let checked = configuration(config, "clustnode1");
    checked.keys.unwrap_or_else(|| panic!("{config}: {:?}", checked.diags))
}

/// One IPv4 packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Seconds and microseconds since 1970.
    pub(crate) at: Duration,
    /// The interface, if the capture has it.
    pub(crate) interface: u32,
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    /// Payload of UDP or ICMP echo.
    pub(crate) payload: Vec<u8>,
}

/// The packets of a capture: microsecond pcap files, little endian, with Ethernet or Linux "cooked" packets, as
/// described in draft-ietf-opsawg-pcap. Any other file ends the test.
pub(crate) fn pcap(name: &str) -> Vec<Packet> {
    let bytes = read(&format!("{name}.pcap"));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xa1b2_c3d4, "{name}: no pcap file of this machine's byte order");
    let link_type = word(20);
    let mut packets = vec![];
    let mut at = 24;
    while at < bytes.len() {
        let time = Duration::from_secs(word(at).into()) + Duration::from_micros(word(at + 4).into());
        let frame = &bytes[at + 16..at + 16 + word(at + 8) as usize];
        at += 16 + frame.len();
        // The header's length, the ethertype in it and the interface's index.
        let (header, ethertype, interface) = match link_type {
            1 => (14, &frame[12..14], 0),
            276 => (20, &frame[0..2], u32::from_be_bytes(frame[4..8].try_into().unwrap())),
            other => panic!("{name}: link type {other}"),
        };
        assert_eq!(ethertype, [0x08, 0x00], "{name}: not IPv4");
        let ip = &frame[header..];
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        assert!(ip[9] == 17 || ip[9] == 1, "{name}: neither UDP nor ICMP");
        // UDP and ICMP echo both have a header of 8 bytes.
        let payload = ip[usize::from(ip[0] & 15) * 4 + 8..total].to_vec();
        packets.push(Packet { at: time, interface, from: address(12), to: address(16), payload });
    }
    packets
}
