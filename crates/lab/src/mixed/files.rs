//! The configuration of a mixed cluster, and the files that either daemon reads.

use std::{fmt, fs, io, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::{
    daemon::{Daemon, LOG},
    description::Description,
};

pub(super) const NODES: [&str; 2] = ["clustnode1", "clustnode2"];
pub(super) const CLIENT: &str = "client";
/// The client's segment, and the interface to it on every node.
pub(super) const LAN: &str = "lan";
pub(super) const LAN_INTERFACE: &str = "eth0";
/// The cable between the nodes, and its interface.
pub(super) const CABLE: &str = "cable";
pub(super) const CABLE_INTERFACE: &str = "eth1";
/// The null modem between the nodes, and its device below `/run`.
pub(super) const MODEM: &str = "modem";
const MODEM_DEVICE: &str = "ttyHA";
/// The address and the script of the group that each node prefers.
pub(super) const GROUPS: [(Ipv4Addr, &str); 2] =
    [(Ipv4Addr::new(172, 23, 2, 14), "service1"), (Ipv4Addr::new(172, 23, 2, 15), "service2")];
/// The directory below a node's `/run` in which a running service has its file.
pub(super) const SERVICES: &str = "services";

/// The nodes' own addresses, which the cluster never moves.
const LAN_ADDRESSES: [&str; 2] = ["172.23.2.12", "172.23.2.13"];
/// The first of [`LAN_ADDRESSES`].
pub(super) const STEADY: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 12);
const CABLE_ADDRESSES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// Heartbeat looks at its frames when one of its timers fires, every 500 ms at the latest.
pub(super) const KEEPALIVE: Duration = Duration::from_millis(200);
pub(super) const DEADTIME: Duration = Duration::from_secs(2);
/// How much a node's keepalive and deadtime grow with each renewal of its files.
const RELOAD_STEP: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// The least value without a warning of heartbeat.
pub(super) const INITDEAD: Duration = Duration::from_secs(10);
/// How many beats of a slow node may be lost before its deadtime.
const PATIENCE: u32 = 3;

/// A line of `ha.cf` that carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// `bcast`, on the client's segment.
    BcastLan,
    /// `bcast`, on the cable.
    Bcast,
    /// `mcast`, on the cable.
    Mcast,
    /// `ucast`, on the cable, with the addresses of both.
    Ucast,
    Serial,
}

impl Medium {
    /// The network or line of the rack that carries it.
    pub(super) fn carrier(self) -> Carrier {
        match self {
            Self::BcastLan => Carrier::Network(LAN),
            Self::Bcast | Self::Mcast | Self::Ucast => Carrier::Network(CABLE),
            Self::Serial => Carrier::Line,
        }
    }

    fn lines(self) -> String {
        match self {
            Self::BcastLan => format!("bcast {LAN_INTERFACE}"),
            Self::Bcast => format!("bcast {CABLE_INTERFACE}"),
            Self::Mcast => format!("mcast {CABLE_INTERFACE} 225.0.0.42 694 1 0"),
            Self::Ucast => {
                let line = |address| format!("ucast {CABLE_INTERFACE} {address}");
                CABLE_ADDRESSES.map(line).join("\n")
            }
            Self::Serial => format!("baud 115200\nserial /run/{MODEM_DEVICE}"),
        }
    }
}

/// The carrier of a medium in the rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Network(&'static str),
    Line,
}

/// The configuration of a cluster, the same for both nodes.
#[derive(Clone, Copy, Debug)]
pub struct MixedSettings {
    /// The media of the links, in the order of `ha.cf`.
    pub media: &'static [Medium],
    /// The method of the key, and its secret (none for `crc`).
    pub key: &'static str,
    /// `on`, `off` or `legacy`.
    pub auto_failback: &'static str,
    /// Further lines of `ha.cf`.
    pub more: &'static str,
    /// If set, the second node beats at this interval, and its deadtime is three times as long. Else both nodes beat
    /// alike.
    pub second_beats: Option<Duration>,
    /// How long a service takes to start, and to stop.
    pub slow: Duration,
    /// If set, frames can be lost at random, and this percentage is lost from the start.
    pub loss: Option<u32>,
    /// The program's command that is a web server. If set, the first group has one, and a client asks it.
    pub web_server: Option<&'static str>,
}

impl fmt::Display for MixedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let media: Vec<_> = self.media.iter().map(|medium| medium.lines().replace('\n', ", ")).collect();
        write!(
            f,
            "{}; auto_failback {}; {}; services take {} s; {} % lost",
            media.join(", "),
            self.auto_failback,
            self.key,
            self.slow.as_secs(),
            self.loss.unwrap_or(0),
        )
    }
}

impl MixedSettings {
    /// Broadcast over the segment and over the cable, as in the article.
    pub const USUAL: Self = Self {
        media: &[Medium::BcastLan, Medium::Bcast],
        key: "sha1 together",
        auto_failback: "on",
        more: "",
        second_beats: None,
        slow: Duration::ZERO,
        loss: None,
        web_server: None,
    };

    fn ha_cf(&self, node: usize, reloads: u32) -> String {
        let ms = |length: Duration| format!("{}ms", length.as_millis());
        let (keepalive, deadtime) = match self.second_beats {
            Some(keepalive) if node == 1 => (keepalive, keepalive * PATIENCE),
            _ => (KEEPALIVE + RELOAD_STEP[0] * reloads, DEADTIME + RELOAD_STEP[1] * reloads),
        };
        let mut lines = vec![
            format!("logfile {LOG}"),
            format!("keepalive {}", ms(keepalive)),
            format!("warntime {}", ms(deadtime / 2)),
            format!("deadtime {}", ms(deadtime)),
            format!("initdead {}", ms(INITDEAD)),
            "udpport 694".into(),
        ];
        lines.extend(self.media.iter().map(|medium| medium.lines()));
        lines.push(format!("auto_failback {}", self.auto_failback));
        lines.extend((!self.more.is_empty()).then(|| self.more.into()));
        lines.extend(NODES.iter().map(|node| format!("node {node}")));
        lines.join("\n") + "\n"
    }
}

/// The rack of a mixed cluster.
pub(super) fn description(
    program: &Path,
    layer: Option<&Path>,
    settings: &MixedSettings,
    seed: u64,
) -> Description {
    let mut description =
        NODES.iter().fold(Description::new(program).node(CLIENT), |rack, node| rack.node(node));
    let with_mask = |addresses: [&str; 2]| addresses.map(|address| format!("{address}/24"));
    let (lan, cable) = (with_mask(LAN_ADDRESSES), with_mask(CABLE_ADDRESSES));
    let ports = [
        (CLIENT, LAN_INTERFACE, "172.23.2.100/24"),
        (NODES[0], LAN_INTERFACE, &lan[0]),
        (NODES[1], LAN_INTERFACE, &lan[1]),
    ];
    let ends = [0, 1].map(|node| (NODES[node], CABLE_INTERFACE, cable[node].as_str()));
    description = description.segment(LAN, &ports).crossover(CABLE, ends);
    let [first, second] = NODES.map(|node| (node, MODEM_DEVICE));
    description = description.line(MODEM, first, second);
    description.layers.extend(layer.map(Path::to_owned));
    if settings.loss.is_some() { description.relayed(seed) } else { description }
}

/// Writes the files of a node.
pub(super) fn write(
    disk: &Path,
    node: usize,
    daemon: Daemon,
    layer: Option<&Path>,
    settings: &MixedSettings,
) -> io::Result<()> {
    let directory = disk.join("ha.d");
    daemon.unpack(&directory, layer)?;
    fs::write(directory.join("ha.cf"), settings.ha_cf(node, 0))?;
    write_key(disk, settings.key)?;
    let mut haresources = String::new();
    // Each node runs at most one web server.
    let serves =
        [settings.web_server.map_or(":".into(), |word| format!("/run/bin/locum {word}")), ":".into()];
    for (node, ((address, service), serve)) in NODES.iter().zip(GROUPS.into_iter().zip(serves)) {
        haresources += &format!("{node} {address} {service}\n");
        let script = directory.join("resource.d").join(service);
        let text = SCRIPT.replace("SECONDS", &settings.slow.as_secs_f64().to_string());
        fs::write(&script, text.replace("SERVE", &serve))?;
        fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(directory.join("haresources"), haresources)
}

/// Writes `ha.cf` with other times, which depend on the number of `renewals`.
pub(super) fn write_other_times(
    disk: &Path,
    node: usize,
    reloads: u32,
    settings: &MixedSettings,
) -> io::Result<()> {
    fs::write(disk.join("ha.d/ha.cf"), settings.ha_cf(node, reloads))
}

/// Writes `authkeys` with this key.
pub(super) fn write_key(disk: &Path, key: &str) -> io::Result<()> {
    let path = disk.join("ha.d/authkeys");
    fs::write(&path, format!("auth 1\n1 {key}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// A service that is a file and keeps a journal; where `SERVE` is set, it also runs a web server.
const SCRIPT: &str = r#"#!/bin/sh
# start|stop|status: runs while its file is there, which the power takes with it.
name=${0##*/}
mark=/run/services/$name
verb=$1
# From the beginning of a start to the end of a stop the service may be at work.
note() { echo "$(date +%s.%N) $verb $name" >> /run/disk/journal; }
case $1 in
status)
    if [ -e $mark ]; then echo "$name is running"; else echo "$name is stopped"; fi
    exit 0 ;;
start) [ -e $mark ] || { note; sleep SECONDS; SERVE start && mkdir -p /run/services && : > $mark; } ;;
stop) [ ! -e $mark ] || { sleep SECONDS; SERVE stop && rm -f $mark && note; } ;;
*) exit 2 ;;
esac
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_come_after_the_port_and_the_nodes_last() {
        let settings = MixedSettings { media: &[Medium::Ucast, Medium::Serial], ..MixedSettings::USUAL };
        let text = settings.ha_cf(0, 0);
        let at = |line: &str| text.lines().position(|one| one == line).unwrap_or_else(|| panic!("{line}"));
        assert!(at("udpport 694") < at("ucast eth1 10.0.0.1"));
        assert!(at("ucast eth1 10.0.0.2") < at("baud 115200") && at("baud 115200") < at("serial /run/ttyHA"));
        assert!(at("auto_failback on") < at("node clustnode2"));
    }
}
