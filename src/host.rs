//! Checks whether a plan fits this host: its links, the programs of its resources, the interfaces of its addresses, and
//! what starts at boot that must not. A missing link is a warning, since the daemon starts without it. A resource that
//! cannot run here is an error.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use locum_core::{
    config::{CheckedHaFiles, Diag, Explained, FileName, FilePlace, Severity, locum_toml},
    model::{
        identity::NodeIndex,
        logging::Logging,
        note::Escaped,
        resource::{Address, Agent, Resource},
    },
    native::{
        self,
        plan::{LinkEnd, NativeMember},
    },
    r1::plan::{Fencing, R1Medium, R1Plan},
};
use locum_sys::{
    netlink::{
        Interface, InterfaceAddress, Netlink, choose_interface, interface_to, ipv6_is_off, same_network,
    },
    rights::Capability,
    user::User,
};

use crate::{
    control::agents::{AGENTS, Parameters, ResourceProgram, Roots, find, is_program},
    host_config::HostConfig,
    rights,
};

mod boot;

use boot::Boot;

/// The parts of this host that the checks look at.
pub(crate) struct Host {
    /// `None` when the kernel does not answer.
    network: Option<HostNetwork>,
    roots: Roots,
    etc: PathBuf,
    prefer_scripts: bool,
    /// A heartbeat runs here, and has put the addresses that it serves.
    heartbeat_runs: bool,
}

/// The parts of a configuration that do not fit this host, for the log of a daemon that starts. It starts all the same,
/// because missing parts may come later.
#[must_use]
pub(crate) fn misfits(dir: &Path, prefer_scripts: bool, mut checked: CheckedHaFiles) -> Vec<Diag> {
    Host::here(dir, prefer_scripts).check(&mut checked);
    checked.diags.retain(|diag| diag.severity != Severity::Info);
    checked.diags
}

/// The parts of a native configuration that do not fit this host.
#[must_use]
pub(crate) fn native_misfits(dir: &Path, mut checked: locum_toml::CheckedLocumToml) -> Vec<Diag> {
    Host::here(dir, false).check_native(&mut checked);
    checked.diags.retain(|diag| diag.severity != Severity::Info);
    checked.diags
}

/// Interfaces and their addresses.
struct HostNetwork {
    interfaces: Vec<Interface>,
    addresses: Vec<InterfaceAddress>,
    /// The number of the interface over which this host would reach an address.
    route: fn(IpAddr) -> Option<u32>,
    /// Whether the interface of that name refuses IPv6 addresses.
    ipv6_is_off: fn(&str) -> bool,
    /// The gateways of this host's default routes.
    gateways: Vec<IpAddr>,
}

impl Host {
    /// This host, with that configuration directory. `prefer_scripts` is as for the daemon.
    pub(crate) fn here(config: &Path, prefer_scripts: bool) -> Self {
        let network = || {
            let mut netlink = Netlink::open()?;
            Ok(HostNetwork {
                interfaces: netlink.interfaces()?,
                addresses: netlink.addresses()?,
                route: interface_to,
                ipv6_is_off,
                gateways: gateways(),
            })
        };
        let network: std::io::Result<HostNetwork> = network();
        Self {
            network: network.ok(),
            roots: Roots::system(config),
            etc: "/etc".into(),
            prefer_scripts,
            heartbeat_runs: false,
        }
    }

    /// Sets whether a heartbeat runs here.
    pub(crate) fn beside_heartbeat(self, heartbeat_runs: bool) -> Self {
        Self { heartbeat_runs, ..self }
    }

    /// Reports the rights that the daemon needs and this process does not have.
    fn rights(host_config: &HostConfig, found: &mut HostFindings) {
        for lack in rights::lacks_here(host_config) {
            let severity =
                if lack.right == Capability::NetAdmin { Severity::Error } else { Severity::Warning };
            let message = format!("CAP_{} is missing: {}", lack.right.name(), lack.harm());
            found.diags.push(Diag::new(severity, found.file, message).cure(lack.cure()).about_host());
        }
    }

    /// Adds the faults of this host to those of the files.
    pub(crate) fn check(&self, checked: &mut CheckedHaFiles) {
        let Some(plan) = checked.draft.take() else { return };
        let mut found = HostFindings::of(FileName::Haresources);
        self.links(&plan, &checked.places.media, &mut found);
        for (group, places) in plan.groups.iter().zip(&checked.places.resources) {
            for (resource, place) in group.resources.iter().zip(places) {
                self.resource(resource, place, &mut found);
            }
        }
        found.diags.extend(event_scripts(&self.roots.config));
        // A draft may name no node at all.
        if plan.nodes.get(plan.me.0).is_some() {
            Self::rights(&HostConfig::from(&plan), &mut found);
        }
        self.companions(&plan, &mut found);
        found.diags.extend(log_files(FileName::HaCf, &plan.logging));
        checked.draft = Some(plan);
        found.go_to(&mut checked.diags, &mut checked.explained);
    }

    /// Adds the faults of this host to those of a native configuration.
    pub(crate) fn check_native(&self, checked: &mut locum_toml::CheckedLocumToml) {
        let Some(plan) = &checked.draft else { return };
        let mut found = HostFindings::of(FileName::LocumToml);
        if let Some(NativeMember::Node(NodeIndex(node))) = checked.me {
            let ends = plan.links.iter().zip(&checked.places.ends);
            for (link, places) in ends {
                if let (Some(end), Some(place)) = (&link.ends[node], &places[node]) {
                    self.check_link_end(end, &link.medium, place, &mut found);
                }
            }
            for (group, places) in plan.groups.iter().zip(&checked.places.resources) {
                let runs_here = group.candidates.contains(&NodeIndex(node));
                for (resource, place) in group.resources.iter().zip(places).filter(|_| runs_here) {
                    self.resource(&resource.runs, place, &mut found);
                }
            }
        }
        // Without it the draft does not say which member it is of, and may have none.
        if checked.me.is_some() {
            Self::rights(&HostConfig::from(plan), &mut found);
        }
        if let Some(diag) =
            plan.local.watchdog.as_deref().and_then(|device| watchdog(FileName::LocumToml, device))
        {
            found.diags.push(diag);
        }
        found.diags.extend(log_files(FileName::LocumToml, &plan.local.logging));
        found.go_to(&mut checked.diags, &mut checked.explained);
    }

    /// Checks this node's end of a link.
    fn check_link_end(
        &self,
        end: &LinkEnd,
        medium: &native::plan::NativeMedium,
        place: &FilePlace,
        found: &mut HostFindings,
    ) {
        let is_v4 = !matches!(medium, native::plan::NativeMedium::Multicast { group, .. } if group.is_ipv6());
        let (text, fault) = match end {
            LinkEnd::Device(path) => (path.clone(), serial_fault(path)),
            LinkEnd::Interface(name) => (name.clone(), self.interface_fault(name, is_v4)),
            LinkEnd::Address { ip, interface } => {
                (ip.to_string(), self.own_address_fault(*ip, interface.as_deref()))
            }
        };
        if let Some(fault) = fault {
            let cure = "the daemon starts without the link, and uses it when it is there";
            let diag = Diag::new(Severity::Warning, found.file, fault).cure(cure);
            found.diags.push(diag.at(place).offending(&text).about_host());
        }
    }

    /// Why an address of this node cannot be its end of a link.
    fn own_address_fault(&self, ip: IpAddr, interface: Option<&str>) -> Option<String> {
        let network = self.network.as_ref()?;
        let carries = |interface: &Interface| network.of(interface).any(|address| address.ip == ip);
        let Some(carrier) =
            network.interfaces.iter().find(|it| carries(it) && interface.is_none_or(|name| it.name == name))
        else {
            return Some(match interface {
                Some(name) => {
                    format!("the interface {} does not have the address {ip}", Escaped(name.as_bytes()))
                }
                None => format!("this host does not have the address {ip}"),
            });
        };
        carrier.trouble().map(|fault| format!("the interface {} {fault}", Escaped(carrier.name.as_bytes())))
    }

    fn links(&self, plan: &R1Plan, places: &[Vec<FilePlace>], found: &mut HostFindings) {
        for (link, places) in plan.links.iter().zip(places) {
            for (medium, place) in link.media.iter().zip(places) {
                let fault = match medium {
                    R1Medium::Serial { device, .. } => serial_fault(device),
                    R1Medium::Broadcast { interface, .. } => self.interface_fault(interface, true),
                    R1Medium::Multicast { interface, group, .. } => {
                        self.interface_fault(interface, group.is_ipv4())
                    }
                    R1Medium::Unicast { interface, peer, .. } => {
                        self.interface_fault(interface, peer.is_ipv4())
                    }
                };
                if let Some(fault) = fault {
                    let cure = "the daemon starts without the link, and uses it when it is there";
                    let diag = Diag::new(Severity::Warning, FileName::HaCf, fault).cure(cure);
                    found.diags.push(diag.at(place).offending(&link.name).about_host());
                }
            }
        }
    }

    /// Why an interface cannot carry frames of that family.
    fn interface_fault(&self, name: &str, is_v4: bool) -> Option<String> {
        let network = self.network.as_ref()?;
        let shown = Escaped(name.as_bytes());
        let Some(interface) = network.interfaces.iter().find(|interface| interface.name == name) else {
            return Some(format!("there is no interface {shown} here, only {}", network.names()));
        };
        let has_address = network.of(interface).any(|address| address.ip.is_ipv4() == is_v4);
        let no_address = || format!("has no IPv{} address", if is_v4 { 4 } else { 6 });
        let fault = interface.trouble().map(str::to_owned).or_else(|| (!has_address).then(no_address));
        fault.map(|fault| format!("the interface {shown} {fault}"))
    }

    /// Checks the fencing device's program, the clients and the watchdog.
    fn companions(&self, plan: &R1Plan, found: &mut HostFindings) {
        let mut say = |severity, message: String, cure: &str| {
            found.diags.push(Diag::new(severity, FileName::HaCf, message).cure(cure).about_host());
        };
        if let Some(Fencing { device, .. }) = &plan.fencing {
            let program = if device.starts_with(AGENTS) { device } else { "stonith" };
            if self.roots.program(program).is_none() {
                let message = format!(
                    "the program {program} is not installed: without it a silent peer cannot be reset, so its \
                     groups are never taken over"
                );
                let cure = "install the package of fence agents, or cluster-glue for `stonith`";
                say(Severity::Error, message, cure);
            }
        }
        for client in &plan.clients {
            let program = client.command.first().map(String::as_str).unwrap_or_default();
            let shown = Escaped(program.as_bytes());
            if !is_program(Path::new(program)) {
                let message = format!("the client {shown} is not a program on this host");
                say(
                    Severity::Warning,
                    message,
                    "the daemon starts without it, and tries again; install it or remove the line",
                );
            }
            if let Err(fault) = User::named(&client.user) {
                let message =
                    format!("the client {shown} cannot run as {}: {fault}", Escaped(client.user.as_bytes()));
                say(
                    Severity::Warning,
                    message,
                    "the daemon starts without the client; name a user of this host",
                );
            }
        }
        found.diags.extend(plan.watchdog.as_deref().and_then(|device| watchdog(FileName::HaCf, device)));
    }

    fn resource(&self, resource: &Resource, place: &FilePlace, found: &mut HostFindings) {
        let mut at = Spot { resource, place, findings: found };
        match find(&self.roots, resource, self.prefer_scripts) {
            Ok(server) => {
                let is_plain = matches!(server, ResourceProgram::Native { .. });
                if !is_plain {
                    at.explain(format!("served by {server}"));
                }
                if let Some(warning) = server.warning() {
                    at.say(Severity::Warning, warning, None);
                }
                if let ResourceProgram::Unit { name, file } = &server
                    && ends_at_once(&self.roots.units, name, file)
                {
                    let message = format!(
                        "{name} ends as soon as it is started (Type=oneshot): it then counts as stopped, which is a \
                         failure"
                    );
                    let cure = format!(
                        "keep it active: type `systemctl edit {name}`, and write RemainAfterExit=yes below [Service]"
                    );
                    at.say(Severity::Warning, message, Some(cure));
                }
                if let ResourceProgram::Ocf { parameters: Parameters::File(file), .. } = &server {
                    readable_parameters(file, &mut at);
                }
            }
            Err(fault) => at.say(Severity::Error, fault.to_string(), fault.cure()),
        }
        if let (Agent::Address(address), Some(network)) = (&resource.agent, &self.network)
            && network.stands_already(address, self.heartbeat_runs, &mut at)
        {
            return;
        }
        if let (Agent::Address(address), Some(network)) = (&resource.agent, &self.network)
            && network.gateways.contains(&address.ip)
        {
            let message = format!(
                "{} is the gateway of this host's default route, so the address would take its own gateway's place",
                address.ip
            );
            let cure = "choose a free address, unless these nodes are to be that gateway".to_owned();
            at.say(Severity::Warning, message, Some(cure));
        }
        // A script chooses the interface itself.
        let is_ours = !self.prefer_scripts;
        if is_ours
            && let (Agent::Address(address) | Agent::SendArp(address), Some(network)) =
                (&resource.agent, &self.network)
        {
            network.address(address, &mut at);
        }
        let boot = match &resource.agent {
            Agent::Script => boot::of_script(&self.roots, &self.etc, &resource.script),
            Agent::Filesystem { directory, .. } => boot::of_mount(&self.etc, directory),
            _ => None,
        };
        if let Some(Boot { by, cure }) = boot {
            let message = format!("it also starts at boot, by {by}: then both nodes run it");
            at.say(Severity::Warning, message, Some(cure));
        }
    }
}

/// Reports log files that cannot be written: the lines would be lost.
fn log_files(file: FileName, logging: &Logging) -> Vec<Diag> {
    let files = [&logging.logfile, &logging.debugfile].into_iter().flatten();
    let fault = |path: &String| {
        let path = Path::new(path);
        let directory = path.parent()?;
        let (what, cure) = match directory.metadata() {
            Err(error) => (format!("its directory cannot be used: {error}"), "make it: mkdir -p"),
            Ok(found) if !found.is_dir() => {
                ("its directory is not a directory".to_owned(), "remove the file:")
            }
            Ok(_) if path.is_dir() => ("it is a directory".to_owned(), "name a file below"),
            Ok(_) => {
                let place = if path.exists() { path } else { directory };
                let error = rustix::fs::access(place, rustix::fs::Access::WRITE_OK).err()?;
                (std::io::Error::from(error).to_string(), "let the daemon write")
            }
        };
        let shown = Escaped(path.as_os_str().as_bytes());
        let message = format!("the log file {shown} cannot be written: {what}");
        let cure = format!("{cure} {}", Escaped(directory.as_os_str().as_bytes()));
        Some(Diag::new(Severity::Warning, file, message).cure(cure).about_host())
    };
    files.filter_map(fault).collect()
}

/// Whether a unit is a program that runs once and leaves nothing running.
fn ends_at_once(places: &[PathBuf], name: &str, file: &Path) -> bool {
    let mut texts = vec![file.to_path_buf()];
    for place in places {
        let more = fs::read_dir(place.join(format!("{name}.d"))).into_iter().flatten().flatten();
        texts.extend(
            more.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "conf")),
        );
    }
    let (mut oneshot, mut remains) = (false, false);
    for text in texts.iter().filter_map(|path| fs::read_to_string(path).ok()) {
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
            match key.trim_end() {
                "Type" => oneshot = value.trim() == "oneshot",
                "RemainAfterExit" => {
                    remains = ["1", "yes", "true", "on"].contains(&value.trim().to_lowercase().as_str());
                }
                _ => {}
            }
        }
    }
    oneshot && !remains
}

/// The gateways of this host's default routes. Facts: proc_net(5), the kernel's `ipv6_route`.
fn gateways() -> Vec<IpAddr> {
    let [v4, v6] = ["route", "ipv6_route"]
        .map(|table| fs::read_to_string(Path::new("/proc/self/net").join(table)).unwrap_or_default());
    gateways_in(&v4, &v6)
}

fn gateways_in(v4: &str, v6: &str) -> Vec<IpAddr> {
    let v4 = v4.lines().filter_map(|line| {
        // Iface Destination Gateway Flags RefCnt Use Metric Mask …, in the byte order of this machine
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let gateway = Ipv4Addr::from(number(2)?.to_ne_bytes());
        (number(1)? == 0 && number(7)? == 0 && !gateway.is_unspecified()).then_some(IpAddr::V4(gateway))
    });
    let v6 = v6.lines().filter_map(|line| {
        // destination, its bits, source, its bits, gateway …
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let gateway = Ipv6Addr::from(u128::from_str_radix(words.get(4)?, 16).ok()?);
        (*words.get(1)? == "00" && !gateway.is_unspecified()).then_some(IpAddr::V6(gateway))
    });
    v4.chain(v6).collect()
}

/// Heartbeat's own event scripts whose work Locum does itself: their names, and the FNV-1a digest of each in Debian's
/// heartbeat 3.0.6.
const SHIPPED: [(&str, u64); 5] = [
    ("status", 0x3cfe_bcc2_bb13_f0b6),
    ("ip-request", 0x62b3_00a0_2dc2_9a39),
    ("ip-request-resp", 0xfb57_f77f_ff8e_2cdc),
    ("hb_takeover", 0x6c92_f69e_c39e_fed4),
    ("ask_resources", 0x0251_4ed8_d737_a1f8),
];

/// Warns of changes in heartbeat's own event scripts: Locum would not run them.
fn event_scripts(config: &Path) -> Option<Diag> {
    let changed = |(name, digest): &(&str, u64)| {
        fs::read(config.join("rc.d").join(name)).is_ok_and(|text| fnv(&text) != *digest)
    };
    let names: Vec<&str> = SHIPPED.iter().filter(|row| changed(row)).map(|(name, _)| *name).collect();
    if names.is_empty() {
        return None;
    }
    let message = format!(
        "rc.d: the scripts {} differ from those of heartbeat 3.0.6, and are never run: Locum does their work itself",
        names.join(" ")
    );
    let cure = "move your additions into a resource script, or into a script for a message of your own";
    Some(Diag::new(Severity::Warning, FileName::HaCf, message).cure(cure).about_host())
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl HostNetwork {
    fn of(&self, interface: &Interface) -> impl Iterator<Item = &InterfaceAddress> {
        self.addresses.iter().filter(|address| address.interface == interface.index)
    }

    fn names(&self) -> String {
        self.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// An interface to name in the example line: preferably one that could carry the address.
    fn example(&self, is_v4: bool) -> &str {
        let serves =
            |it: &&Interface| !it.loopback && it.works() && self.of(it).any(|a| a.ip.is_ipv4() == is_v4);
        let found = self.interfaces.iter().find(serves);
        let found = found.or_else(|| self.interfaces.iter().find(|interface| !interface.loopback));
        found.map_or("eth0", |interface| interface.name.as_str())
    }

    /// Reports a service address that stands here without Locum. Returns whether it is the host's own.
    fn stands_already(&self, address: &Address, heartbeat_runs: bool, at: &mut Spot<'_>) -> bool {
        let carrier_of = |there: &InterfaceAddress| {
            // Real servers behind a balancer keep it on the loopback.
            self.interfaces.iter().find(|it| it.index == there.interface && !it.loopback)
        };
        let standing = self.addresses.iter().filter(|there| there.ip == address.ip && !there.marked);
        let Some((there, carrier)) = standing.filter_map(|there| Some((there, carrier_of(there)?))).next()
        else {
            return false;
        };
        let InterfaceAddress { ip, prefix, .. } = there;
        let name = carrier.name.as_str();
        // heartbeat, and an administrator by hand, puts an address beside another one of its network, or gives it a
        // label.
        let has_label = there.label.as_deref().is_some_and(|label| label != name);
        let is_beside = self.addresses.iter().any(|other| {
            other.interface == there.interface
                && other.ip != *ip
                && !other.marked
                && other.network_contains(*ip)
        });
        let is_own = if ip.is_ipv4() { !there.secondary && !has_label } else { !is_beside };
        let shown = Escaped(name.as_bytes());
        if is_own {
            let message = format!(
                "{ip} is this host's own address ({ip}/{prefix} on {shown}), so it cannot move with a service"
            );
            let cure = format!(
                "choose an address that is not a machine's own; if it was put by hand: `ip address del \
                 {ip}/{prefix} dev {shown}`"
            );
            at.say(Severity::Error, message, Some(cure));
        } else if !heartbeat_runs {
            let message = format!(
                "{ip} exists on {shown} already, and Locum did not put it there: Locum does not start it until it \
                 is removed"
            );
            let cure = format!("remove it: `ip address del {ip}/{prefix} dev {shown}`");
            at.say(Severity::Warning, message, Some(cure));
        }
        is_own
    }

    fn outside(&self, address: &Address, bits: u8, example: &str, at: &mut Spot<'_>) {
        let ip = address.ip;
        let message = format!("no interface of this host is in the network of {ip}");
        let Some(carrier) = self.by_route(address) else {
            return at.say(
                Severity::Error,
                message,
                Some(format!("name an interface: write `{ip}/{bits}/{example}`")),
            );
        };
        let name = &carrier.name;
        at.explain(format!("goes as {ip}/{bits} to {name}"));
        let message =
            format!("{message}: it goes to {name}, to which the route leads, as with heartbeat's IPaddr");
        at.say(Severity::Warning, message, Some(format!("name it: write `{ip}/{bits}/{name}`")));
    }

    /// The interface to which the route leads, for an address that is in no network of this host.
    fn by_route(&self, address: &Address) -> Option<&Interface> {
        let index = address.by_route.then(|| (self.route)(address.ip)).flatten()?;
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Finds the interface that carries a service address, and the mask.
    fn address(&self, address: &Address, at: &mut Spot<'_>) {
        let ip = address.ip;
        let example = self.example(ip.is_ipv4());
        let bits = address.prefix.unwrap_or(if ip.is_ipv4() { 24 } else { 64 });
        let Some(name) = &address.interface else {
            let network = choose_interface(&self.addresses, ip);
            let carrier = network
                .and_then(|it| self.interfaces.iter().find(|interface| interface.index == it.interface));
            match network.zip(carrier) {
                Some((network, carrier)) => {
                    let prefix = address.prefix.unwrap_or(network.prefix);
                    at.explain(format!("goes as {ip}/{prefix} to {}", carrier.name));
                }
                None => self.outside(address, bits, example, at),
            }
            return;
        };
        let shown = Escaped(name.as_bytes());
        let Some(interface) = self.interfaces.iter().find(|interface| interface.name == *name) else {
            let message = format!("there is no interface {shown} here to carry {ip}, only {}", self.names());
            return at.say(Severity::Error, message, Some(format!("write `{ip}/{bits}/{example}`")));
        };
        if ip.is_ipv6() && (self.ipv6_is_off)(name) {
            let cure = format!(
                "switch it on: `sysctl -w net.ipv6.conf.{shown}.disable_ipv6=0`, or name another interface"
            );
            return at.say(
                Severity::Error,
                format!("IPv6 is off on {shown}, which is to carry {ip}"),
                Some(cure),
            );
        }
        let connected = self.of(interface).find(|it| it.ip != ip && same_network(it.ip, ip, it.prefix));
        match address.prefix.or(connected.map(|it| it.prefix)) {
            Some(prefix) => at.explain(format!("goes as {ip}/{prefix} to {shown}")),
            None if matches!(at.resource.agent, Agent::SendArp(_)) => {}
            None => at.say(
                Severity::Error,
                format!("{ip} is in no network of {shown}, so its mask is not known"),
                Some(format!("write `{ip}/{bits}/{shown}`")),
            ),
        }
    }
}

/// Warns if others can read the parameters of an OCF agent, which may hold a password.
fn readable_parameters(file: &Path, at: &mut Spot<'_>) {
    if fs::metadata(file).is_ok_and(|data| data.mode() & 0o004 != 0) {
        let message = format!("other users can read the parameters in {}", file.display());
        at.say(Severity::Warning, message, Some(format!("chmod 600 {}", file.display())));
    }
}

/// Reports a watchdog device that does not exist.
fn watchdog(file: FileName, device: &str) -> Option<Diag> {
    let message = || format!("the watchdog {} does not exist", Escaped(device.as_bytes()));
    let cure = "the daemon starts without it; load its driver, or the module softdog";
    let diag = || Diag::new(Severity::Warning, file, message()).cure(cure).about_host();
    (!Path::new(device).exists()).then(diag)
}

fn serial_fault(device: &str) -> Option<String> {
    let shown = Escaped(device.as_bytes());
    match fs::metadata(device) {
        Ok(data) if data.file_type().is_char_device() => None,
        Ok(_) => Some(format!("{shown} is not a serial line")),
        Err(error) => Some(format!("the serial line {shown} does not exist: {error}")),
    }
}

/// The findings about the resources and links of one file.
struct HostFindings {
    /// The file that holds the resources.
    file: FileName,
    diags: Vec<Diag>,
    explained: Vec<Explained>,
}

impl HostFindings {
    const fn of(file: FileName) -> Self {
        Self { file, diags: Vec::new(), explained: Vec::new() }
    }

    /// Adds the findings to earlier ones.
    fn go_to(mut self, diags: &mut Vec<Diag>, explained: &mut Vec<Explained>) {
        diags.append(&mut self.diags);
        diags.sort_by_key(|diag| (diag.file, diag.place.line, diag.place.span.start));
        explained.append(&mut self.explained);
        explained.sort_by_key(|line| (line.file, line.line));
    }
}

/// A resource, its place in the file, and the list for findings about it.
struct Spot<'a> {
    resource: &'a Resource,
    place: &'a FilePlace,
    findings: &'a mut HostFindings,
}

impl Spot<'_> {
    fn say(&mut self, severity: Severity, message: String, cure: Option<String>) {
        let mut diag = Diag::new(severity, self.findings.file, message).at(self.place);
        diag.cure = cure;
        self.findings.diags.push(diag.offending(&self.resource.text).about_host());
    }

    fn explain(&mut self, text: String) {
        let text = format!("{}: {text}", Escaped(self.resource.text.as_bytes()));
        self.findings.explained.push(Explained { file: self.findings.file, line: self.place.line, text });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use locum_core::config::{CheckOptions, HaFiles, check};

    use super::*;

    fn interface(index: u32, name: &str, up: bool, carrier: bool) -> Interface {
        let (name, loopback) = (name.to_owned(), name == "lo");
        Interface { index, name, mac: None, up, carrier, loopback, resolves: true }
    }

    fn address(interface: u32, ip: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress::new(interface, ip.parse().unwrap(), prefix)
    }

    #[test]
    fn changed_event_scripts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rc.d")).unwrap();
        assert_eq!(event_scripts(dir.path()), None);
        fs::write(dir.path().join("rc.d/backup"), "of an administrator").unwrap();
        assert_eq!(event_scripts(dir.path()), None);
        for name in ["status", "hb_takeover"] {
            fs::write(dir.path().join("rc.d").join(name), "changed").unwrap();
        }
        let text = event_scripts(dir.path()).unwrap().to_string();
        assert!(text.contains("the scripts status hb_takeover differ from those of heartbeat"), "{text}");
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8, "a published value");
    }

    fn diag_texts(ha_cf: &str, haresources: &str) -> (Vec<String>, Vec<String>) {
        diag_texts_with(false, ha_cf, haresources)
    }

    fn diag_texts_with(prefer_scripts: bool, ha_cf: &str, haresources: &str) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, mode: u32| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("ha.d/resource.d/httpd", 0o755);
        put("ha.d/resource.d/IPaddr", 0o755);
        put("ha.d/old", 0o755);
        put("ha.d/conf/OCF/apache/web", 0o644);
        put("ocf/resource.d/heartbeat/apache", 0o755);
        put("units/nfs.service", 0o644);
        put("units/multi-user.target.wants/nfs.service", 0o644);
        let mut roots = Roots::system(&dir.path().join("ha.d"));
        roots.init = vec![dir.path().join("init.d")];
        roots.old = vec![];
        roots.units = vec![dir.path().join("units")];
        roots.ocf = dir.path().join("ocf");
        let interfaces = vec![
            interface(1, "lo", true, true),
            interface(2, "eth0", true, true),
            interface(3, "eth1", false, false),
            interface(4, "eth2", true, false),
            interface(5, "eth3", true, true),
        ];
        let addresses = vec![
            address(1, "127.0.0.1", 8),
            address(2, "10.0.0.2", 16),
            address(2, "fe80::2", 64),
            address(3, "10.0.9.2", 24),
            InterfaceAddress { secondary: true, ..address(2, "10.0.3.1", 16) },
            InterfaceAddress { label: Some("eth1:0".into()), ..address(3, "10.0.8.2", 24) },
            address(5, "2001:db8::2", 64),
            address(5, "2001:db8::50", 64),
            address(4, "2001:db8:7::2", 64),
            InterfaceAddress { marked: true, ..address(4, "10.3.0.1", 24) },
        ];
        let route = |ip: IpAddr| (ip.to_string().starts_with("198.51.100.")).then_some(2);
        let gateways = vec!["10.0.0.254".parse().unwrap()];
        let network =
            Some(HostNetwork { interfaces, addresses, route, ipv6_is_off: |name| name == "eth2", gateways });
        let etc = dir.path().to_path_buf();
        let host = Host { network, roots, etc, prefer_scripts, heartbeat_runs: false };
        let files = HaFiles {
            ha_cf: Some(ha_cf.as_bytes()),
            authkeys: Some(b"auth 1\n1 sha1 k\n"),
            haresources: Some(haresources.as_bytes()),
        };
        let mut checked = check(&files, "web1", &CheckOptions::default());
        assert!(checked.plan.is_some(), "{:?}", checked.diags);
        checked.diags.clear();
        checked.explained.clear();
        host.check(&mut checked);
        assert!(checked.diags.iter().all(|diag| diag.host));
        let here = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
        let diags = checked.diags.iter().map(|diag| here(diag.to_string()));
        let explained = checked.explained.iter().map(|line| here(format!("{}: {}", line.line, line.text)));
        (diags.collect(), explained.collect())
    }

    const NODES: &str = "node web1 web2\nbcast eth0\n";

    #[test]
    fn the_kernels_routes_are_read_as_it_writes_them() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 3 eth0\n{zero} 00 {zero} 00 {zero} x\n"
        );
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        if cfg!(target_endian = "little") {
            assert_eq!(gateways_in(v4, &v6), expected);
        }
    }

    #[test]
    fn a_service_address_that_is_the_gateway_is_warned_of() {
        let (diags, _) = diag_texts(NODES, "web1 10.0.0.254/24\n");
        assert!(
            diags.iter().any(|diag| diag.contains("10.0.0.254 is the gateway of this host's default route")),
            "{diags:?}"
        );
        let (diags, _) = diag_texts(NODES, "web1 10.0.0.253/24\n");
        assert!(diags.iter().all(|diag| !diag.contains("gateway")), "{diags:?}");
    }

    #[test]
    fn a_log_file_that_cannot_be_written_is_warned_of() {
        let (diags, _) = diag_texts(
            &format!("{NODES}logfile /nowhere/at/all/log\ndebugfile /etc\n"),
            "web1 10.0.0.253/24\n",
        );
        let said = |text: &str| diags.iter().any(|diag| diag.contains(text));
        assert!(
            said("the log file /nowhere/at/all/log cannot be written: its directory cannot be used"),
            "{diags:?}"
        );
        assert!(said("the log file /etc cannot be written: it is a directory"), "{diags:?}");
    }

    #[test]
    fn a_unit_that_does_not_stay_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("once.service");
        let more = dir.path().join("once.service.d");
        fs::create_dir(&more).unwrap();
        let ends = || ends_at_once(&[dir.path().to_owned()], "once.service", &file);
        for (text, expected) in [
            ("[Service]\nExecStart=/bin/true\n", false),
            ("[Service]\nType=oneshot\nExecStart=/bin/true\n", true),
            ("[Service]\nType = oneshot\nRemainAfterExit=yes\n", false),
            ("[Service]\n#Type=oneshot\n", false),
            ("[Service]\nType=oneshot\n", true),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(ends(), expected, "{text}");
        }
        fs::write(more.join("stay.conf"), "[Service]\nRemainAfterExit=true\n").unwrap();
        assert!(!ends());
    }

    #[test]
    fn links_that_do_not_work_are_warned_of() {
        let (diags, _) = diag_texts(
            "node web1 web2\nbcast eth0 eth1 eth2 eth3 eth9\nucast6 eth0 fe80::1\nserial /dev/nosuchtty /etc /dev/null\n",
            "web1 httpd\n",
        );
        let cure = "(the daemon starts without the link, and uses it when it is there)";
        assert_eq!(
            diags,
            [
                format!("ha.cf:2:12: warning: the interface eth1 is down {cure}"),
                format!("ha.cf:2:17: warning: the interface eth2 has no carrier {cure}"),
                format!("ha.cf:2:22: warning: the interface eth3 has no IPv4 address {cure}"),
                format!(
                    "ha.cf:2:27: warning: there is no interface eth9 here, only lo, eth0, eth1, eth2, eth3 {cure}"
                ),
                format!(
                    "ha.cf:4:8: warning: the serial line /dev/nosuchtty does not exist: No such file or directory (os \
                     error 2) {cure}"
                ),
                format!("ha.cf:4:23: warning: /etc is not a serial line {cure}"),
            ]
        );
    }

    #[test]
    fn an_interface_without_ipv6_carries_no_ipv6_address() {
        let faults = |resource: &str| {
            let (diags, _) = diag_texts(NODES, &format!("web1 {resource}\n"));
            diags.into_iter().filter(|diag| diag.contains("IPv6")).collect::<Vec<_>>()
        };
        assert_eq!(
            faults("IPv6addr::2001:db8:7::9/64/eth2"),
            [
                "haresources:1:6: error: IPv6 is off on eth2, which is to carry 2001:db8:7::9 (switch it on: `sysctl -w \
              net.ipv6.conf.eth2.disable_ipv6=0`, or name another interface)"
            ]
        );
        assert_eq!(faults("IPv6addr::2001:db8::9/64/eth3"), [""; 0]);
        assert_eq!(faults("10.3.0.9/24/eth2"), [""; 0]);
    }

    #[test]
    fn an_address_of_the_host_itself_is_no_service() {
        let stands = |prefer_scripts: bool, resource: &str, severity: &str, text: &str| {
            let (diags, _) = diag_texts_with(prefer_scripts, NODES, &format!("web1 {resource}\n"));
            let ip = resource.split('/').next().unwrap_or_default();
            let line = format!(" {severity}: {ip} {text}");
            assert_eq!(diags.iter().filter(|diag| diag.contains(&line)).count(), 1, "{resource}: {diags:#?}");
        };
        for scripts in [false, true] {
            for own in ["10.0.0.2", "10.0.0.2/16/eth0", "10.0.0.2/16/eth1", "2001:db8:7::2/64/eth2"] {
                stands(scripts, own, "error", "is this host's own address");
            }
            for other in ["10.0.3.1", "10.0.8.2/24/eth1", "2001:db8::50/64/eth3"] {
                stands(scripts, other, "warning", "exists on");
            }
        }
        let (diags, _) = diag_texts(NODES, "web1 10.3.0.1/24/eth2\n");
        assert!(!diags.iter().any(|line| line.contains("10.3.0.1 ")), "Locum put it there: {diags:#?}");
    }

    #[test]
    fn addresses_find_their_interface() {
        let (diags, explained) = diag_texts(
            NODES,
            "web1 10.0.1.1 10.0.9.9 10.0.1.2/24 IPv6addr::fe80::9 10.0.1.3/24/eth1\nweb2 192.0.2.1 192.0.2.2/28 \
             192.0.2.3/24/eth9 IPaddr2::192.0.2.4/24/eth0:web SendArp::192.0.2.5/eth3\n",
        );
        assert_eq!(
            explained,
            [
                "1: 10.0.1.1: goes as 10.0.1.1/16 to eth0",
                "1: 10.0.9.9: goes as 10.0.9.9/24 to eth1",
                "1: 10.0.1.2/24: goes as 10.0.1.2/24 to eth0",
                "1: IPv6addr::fe80::9: goes as fe80::9/64 to eth0",
                "1: 10.0.1.3/24/eth1: goes as 10.0.1.3/24 to eth1",
                "2: IPaddr2::192.0.2.4/24/eth0:web: goes as 192.0.2.4/24 to eth0",
            ]
        );
        assert_eq!(
            diags,
            [
                "haresources:2:6: error: no interface of this host is in the network of 192.0.2.1 (name an \
                 interface: write `192.0.2.1/24/eth0`)",
                "haresources:2:16: error: no interface of this host is in the network of 192.0.2.2 (name an \
                 interface: write `192.0.2.2/28/eth0`)",
                "haresources:2:29: error: there is no interface eth9 here to carry 192.0.2.3, only lo, eth0, eth1, eth2, \
                 eth3 (write `192.0.2.3/24/eth0`)",
            ]
        );
    }

    /// The case is heartbeat's, measured.
    #[test]
    fn an_address_outside_every_network_goes_where_the_route_leads() {
        let resources =
            include_str!("../crates/core/tests/cases/15-ipaddr-outside-every-network/haresources");
        let (diags, explained) =
            diag_texts(NODES, &format!("{resources}web2 IPaddr2::198.51.100.9/28 198.51.100.10\n"));
        assert_eq!(
            explained,
            [
                "1: 198.51.100.7/32: goes as 198.51.100.7/32 to eth0",
                "2: IPaddr::198.51.100.8/28: goes as 198.51.100.8/28 to eth0",
            ]
        );
        let to = "it goes to eth0, to which the route leads, as with heartbeat's IPaddr";
        let none = "no interface of this host is in the network of";
        assert_eq!(
            diags,
            [
                format!(
                    "haresources:1:6: warning: {none} 198.51.100.7: {to} (name it: write `198.51.100.7/32/eth0`)"
                ),
                format!(
                    "haresources:2:6: warning: {none} 198.51.100.8: {to} (name it: write `198.51.100.8/28/eth0`)"
                ),
                format!(
                    "haresources:3:6: error: {none} 198.51.100.9 (name an interface: write `198.51.100.9/28/eth0`)"
                ),
                format!(
                    "haresources:3:31: error: {none} 198.51.100.10 (name an interface: write `198.51.100.10/24/eth0`)"
                ),
            ]
        );
    }

    #[test]
    fn preferred_scripts_take_the_place_of_the_stand_ins() {
        let (diags, explained) = diag_texts_with(true, NODES, "web1 192.0.2.1 IPaddr2::10.0.1.1 Delay::1\n");
        assert_eq!(explained, ["1: 192.0.2.1: served by script ha.d/resource.d/IPaddr"]);
        assert_eq!(diags.len(), 1, "{diags:?}");
        assert!(diags[0].starts_with("haresources:1:16: error: there is no script"), "{diags:?}");
    }

    #[test]
    fn the_program_of_a_resource_is_explained() {
        let (diags, explained) = diag_texts(NODES, "web1 httpd old nfs OCF::apache::web nothing Delay::1\n");
        assert_eq!(
            explained,
            [
                "1: httpd: served by script ha.d/resource.d/httpd",
                "1: old: served by script ha.d/old",
                "1: nfs: served by systemd unit nfs.service (units/nfs.service)",
                "1: OCF::apache::web: served by OCF agent ocf/resource.d/heartbeat/apache, parameters from \
                 ha.d/conf/OCF/apache/web",
            ]
        );
        let starts = [
            "haresources:1:12: warning: ha.d/old was found in an outdated directory",
            "haresources:1:16: warning: it also starts at boot, by systemd (units/multi-user.target.wants/nfs.service): \
             then both nodes run it (systemctl disable nfs.service)",
            "haresources:1:20: warning: other users can read the parameters in ha.d/conf/OCF/apache/web (chmod 600 \
             ha.d/conf/OCF/apache/web)",
            "haresources:1:37: error: there is no script or systemd unit `nothing`; looked in ",
        ];
        assert_eq!(diags.len(), starts.len(), "{diags:#?}");
        for (diag, start) in diags.iter().zip(starts) {
            assert!(diag.starts_with(start), "{diag}");
        }
        let cure =
            "(correct the name, or put an executable script `nothing` that knows start, stop and status into";
        assert!(diags[3].contains(cure), "{}", diags[3]);
    }
}
