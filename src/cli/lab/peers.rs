//! The daemons that are measured: how each is configured, started and told to move.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::ValueEnum;
use locum_lab::{Process, Program, Rack, Sign, clock::Moment};

use super::bench::{NODES, SERVICE};
use crate::cli::demo_httpd;

const HEARTBEAT: [&str; 2] = ["/usr/libexec/heartbeat/heartbeat", "/usr/lib/heartbeat/heartbeat"];
const HEARTBEAT_STANDBY: &str = "/usr/share/heartbeat/hb_standby";
const KEEPALIVED: [&str; 2] = ["/usr/sbin/keepalived", "/usr/local/sbin/keepalived"];
/// Where a heartbeat has its configuration, and a Locum its own by default.
const HA_D: &str = "/etc/ha.d";

/// A daemon that can own an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// This program
    Locum,
    /// Linux-HA heartbeat 3, with haresources
    Heartbeat,
    /// keepalived, VRRP version 3
    Keepalived,
}

impl Peer {
    /// The name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locum => "locum",
            Self::Heartbeat => "heartbeat",
            Self::Keepalived => "keepalived",
        }
    }

    /// Whether it can be started here; if not, the reason.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn installed(self) -> Result<(), String> {
        match self {
            Self::Locum => Ok(()),
            Self::Heartbeat | Self::Keepalived if self.program().is_none() => {
                Err("not installed here, so it is left out".into())
            }
            // It changes to a user of its own, which a user namespace with one user does not have.
            Self::Heartbeat if !is_host_root() => {
                Err("runs only where the lab is run by root; left out".into())
            }
            Self::Heartbeat | Self::Keepalived => Ok(()),
        }
    }

    fn program(self) -> Option<&'static str> {
        let places: &[&str] = match self {
            Self::Locum => return Some("locum"),
            Self::Heartbeat => &HEARTBEAT,
            Self::Keepalived => &KEEPALIVED,
        };
        places.iter().copied().find(|place| Path::new(place).exists())
    }

    /// After which silence it takes over, as configured.
    #[must_use]
    pub fn detection(self, interval: Duration) -> Duration {
        match self {
            Self::Locum | Self::Heartbeat => interval * 5,
            // Three adverts and the skew of the backup's priority (RFC 5798, section 6.1).
            Self::Keepalived => interval * 3 + interval * u32::from(256 - BACKUP) / 256,
        }
    }
}

/// VRRP priorities: of the preferred node, of the other, and of the preferred one when it is to give way.
const MASTER: u16 = 150;
const BACKUP: u16 = 100;
const GIVEN_WAY: u16 = 50;

/// Root outside any user namespace has all users.
fn is_host_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).is_some_and(|count| count != "1")
}

/// Two nodes with one peer's daemons.
pub struct Cluster {
    /// The machines.
    pub rack: Rack,
    peer: Peer,
    interval: Duration,
    daemons: BTreeMap<&'static str, Process>,
}

impl Cluster {
    /// Writes the configuration of both nodes and starts both daemons.
    ///
    /// # Errors
    /// The kernel refuses, or a program cannot be started.
    pub fn build(rack: Rack, peer: Peer, interval: Duration) -> anyhow::Result<Self> {
        let mut cluster = Self { rack, peer, interval, daemons: BTreeMap::new() };
        for node in NODES {
            cluster.configure(node).with_context(|| format!("configure {node}"))?;
        }
        for node in NODES {
            cluster.start(node)?;
        }
        Ok(cluster)
    }

    /// Starts a node's daemon.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, node: &'static str) -> anyhow::Result<()> {
        let program = self.peer.program().context("it is not installed")?;
        let words: &[&str] = match self.peer {
            Peer::Locum => &["locum", "--config", "/run/disk/ha.d", "--state", "/run/disk/state", "run"],
            Peer::Heartbeat => {
                // What its init script makes at boot.
                self.shell(node, "mkdir -p /run/heartbeat/rsctmp /run/lock /var/lib/heartbeat/cores/root")?;
                &[program, "-f"]
            }
            Peer::Keepalived => {
                // VRRP moves an address and no service: the web server runs on both nodes all the time.
                self.shell(node, &format!("/run/bin/locum {} start", demo_httpd::COMMAND))?;
                &[
                    program,
                    "-n",
                    "-l",
                    "-P",
                    "-f",
                    "/run/disk/keepalived.conf",
                    "-p",
                    "/run/k.pid",
                    "-r",
                    "/run/v.pid",
                ]
            }
        };
        let daemon = self.rack.start(node, &Program::new(words).output("/run/disk/daemon.log"))?;
        self.daemons.insert(node, daemon);
        Ok(())
    }

    /// Cuts a node's power.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn power_off(&mut self, node: &'static str) -> anyhow::Result<Moment> {
        let moment = self.rack.power_off(node)?;
        self.daemons.remove(node);
        Ok(moment)
    }

    /// Gives it back, and starts the daemon.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn power_on(&mut self, node: &'static str) -> anyhow::Result<Moment> {
        let moment = Moment::now();
        self.rack.power_on(node)?;
        self.start(node)?;
        Ok(moment)
    }

    /// Has a person give the service of a node to the other one. What is returned is kept until it has moved.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn move_away(&mut self, node: &'static str) -> anyhow::Result<Option<Process>> {
        let order = match self.peer {
            Peer::Locum => Program::new(&["locum", "standby"]),
            Peer::Heartbeat => Program::new(&[HEARTBEAT_STANDBY, "all"]),
            Peer::Keepalived => {
                let file = self.rack.disk(node).join("keepalived.conf");
                fs::write(file, self.keepalived_conf(GIVEN_WAY)).context("write its new priority")?;
                self.daemon(node)?.signal(Sign::HangUp)?;
                return Ok(None);
            }
        };
        Ok(Some(self.rack.start(node, &order.output("/run/disk/order.log"))?))
    }

    /// Kills all processes of a node's daemon, and nothing else.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill_daemon(&mut self, node: &'static str) -> anyhow::Result<Moment> {
        let moment = self.signal(node, Sign::Kill, "KILL")?;
        self.daemons.remove(node);
        Ok(moment)
    }

    /// Freezes or thaws all processes of a node's daemon.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn freeze_daemon(&mut self, node: &'static str, frozen: bool) -> anyhow::Result<Moment> {
        if frozen { self.signal(node, Sign::Stop, "STOP") } else { self.signal(node, Sign::Continue, "CONT") }
    }

    /// The last lines of all daemons' logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for (node, log) in NODES.into_iter().flat_map(|node| [(node, "daemon.log"), (node, "log/ha-log")]) {
            let text = fs::read_to_string(self.rack.disk(node).join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(8)..] {
                words.push_str(&format!("  {node} {log}: {line}\n"));
            }
        }
        words
    }

    fn signal(&mut self, node: &'static str, sign: Sign, name: &str) -> anyhow::Result<Moment> {
        if self.peer == Peer::Locum {
            // One process; its neighbours of the same name are the holder and the web server.
            let moment = Moment::now();
            self.daemon(node)?.signal(sign)?;
            return Ok(moment);
        }
        let ours = self.peer.name();
        let processes = self.rack.inside(node, move || processes_named(ours))?;
        if processes.is_empty() {
            bail!("no process {ours} on {node}");
        }
        let moment = Moment::now();
        self.shell(node, &format!("kill -{name} {}", processes.join(" ")))?;
        Ok(moment)
    }

    fn daemon(&mut self, node: &str) -> anyhow::Result<&mut Process> {
        self.daemons.get_mut(node).with_context(|| format!("no daemon on {node}"))
    }

    fn shell(&self, node: &str, line: &str) -> anyhow::Result<()> {
        let outcome =
            self.rack.run(node, &Program::new(&["/bin/sh", "-c", line]), Duration::from_secs(10))?;
        if outcome.code != Some(0) {
            bail!("{line}: {}", outcome.text);
        }
        Ok(())
    }

    fn configure(&self, node: &str) -> anyhow::Result<()> {
        let disk = self.rack.disk(node);
        match self.peer {
            Peer::Locum => self.write_ha_d(&disk.join("ha.d"))?,
            Peer::Heartbeat => {
                copy(Path::new(HA_D), &disk.join("ha.d")).context("copy heartbeat's own scripts")?;
                self.write_ha_d(&disk.join("ha.d"))?;
            }
            Peer::Keepalived => {
                let priority = if node == NODES[0] { MASTER } else { BACKUP };
                fs::write(disk.join("keepalived.conf"), self.keepalived_conf(priority))?;
            }
        }
        Ok(())
    }

    fn write_ha_d(&self, directory: &Path) -> std::io::Result<()> {
        let keepalive = self.interval.as_millis();
        let ha_cf = format!(
            "logfile /var/log/ha-log\nkeepalive {keepalive}ms\ndeadtime {}ms\nwarntime {}ms\ninitdead 10\n\
             bcast eth0 eth1\nauto_failback on\nnode {} {}\n",
            keepalive * 5,
            keepalive * 3,
            NODES[0],
            NODES[1]
        );
        let httpd = format!("#!/bin/sh\nexec /run/bin/locum {} \"$1\"\n", demo_httpd::COMMAND);
        let with_mode = |name: &str, text: &str, mode: u32| {
            fs::write(directory.join(name), text)?;
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode))
        };
        with_mode("ha.cf", &ha_cf, 0o644)?;
        with_mode("authkeys", "auth 1\n1 sha1 bench\n", 0o600)?;
        // Its IPaddr needs `ifconfig`, which is on few machines of today; IPaddr2 is the same with `ip`.
        let agent = if self.peer == Peer::Heartbeat { "IPaddr2::" } else { "" };
        with_mode("haresources", &format!("{} {agent}{SERVICE}/24/eth0 httpd\n", NODES[0]), 0o644)?;
        fs::create_dir_all(directory.join("resource.d"))?;
        with_mode("resource.d/httpd", &httpd, 0o755)
    }

    fn keepalived_conf(&self, priority: u16) -> String {
        format!(
            "global_defs {{\n  vrrp_version 3\n}}\nvrrp_instance service {{\n  state BACKUP\n  interface eth0\n  \
             virtual_router_id 14\n  priority {priority}\n  advert_int {}\n  virtual_ipaddress {{\n    {SERVICE}/24\n  \
             }}\n}}\n",
            self.interval.as_secs_f64()
        )
    }
}

/// The node's processes whose name begins so; called in the node.
fn processes_named(name: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ours = |number: &String| {
        let command = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        number.bytes().all(|byte| byte.is_ascii_digit()) && command.starts_with(name)
    };
    numbers.filter(ours).collect()
}

/// A directory with all that is in it; links are followed.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else if source.exists() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
