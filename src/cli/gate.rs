//! `locum gate`: lists the gates in the kernel, and removes those that a daemon left.
//!
//! A gate outlives its daemon and stays shut. On a host where Locum will not run again, the addresses behind it would
//! stay silent for ever. `--remove` deletes the gates and the addresses that they shut, because another node may answer
//! for these by now. It refuses while a daemon runs, which would put them back.
//!
//! Exit code: 0 done, 1 not done (a daemon runs, a gate is open, or there is no such gate), 4 no permission.

use std::{io, net::IpAddr, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use locum_sys::{
    clock,
    gate::{
        self, GateProbe, ListedGate, ListedPacketFilter,
        arp_filter::{self, ListedArpFilter},
    },
    netlink::{InterfaceAddress, Netlink, interface_name},
};
use serde_json::{Value, json};

use super::{CommonOptions, resources::lock_out_locum, status::TerminalSafe};

/// Exit code when only root may do this.
const NO_PERMISSION: u8 = 4;

/// The options of `locum gate`.
#[derive(Clone, Debug, Args)]
pub struct GateCommandOptions {
    /// List all gates and the backends that work here (the default)
    #[arg(long, conflicts_with = "remove")]
    list: bool,
    /// Remove all gates or the chosen ones, and before them the addresses that Locum put behind them
    #[arg(long)]
    remove: bool,
    /// Remove only the gates and keep the addresses: these answer at once, even if another node answers for them, too
    #[arg(long, requires = "remove")]
    keep_addresses: bool,
    /// Only gates of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only the gate of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl GateCommandOptions {
    fn chooses(&self, gate: &ListedGate) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| gate.name.is_of(cluster))
            && self.group.as_ref().is_none_or(|group| gate.name.is_group(group))
    }
}

/// Lists the gates, or removes them.
///
/// # Errors
/// If a daemon runs here, there is no such gate, or the kernel refuses.
pub fn run(common: &CommonOptions, options: &GateCommandOptions) -> anyhow::Result<ExitCode> {
    let result = if options.remove { remove(common, options) } else { list(options) };
    result.or_else(|error| {
        let refused = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if refused != Some(io::ErrorKind::PermissionDenied) {
            return Err(error);
        }
        errln!("locum: {error:#}: run as root to list or remove gates");
        Ok(ExitCode::from(NO_PERMISSION))
    })
}

fn list(options: &GateCommandOptions) -> anyhow::Result<ExitCode> {
    let gates = chosen(options)?;
    let filters = filters(options)?;
    let probe = gate::probe();
    if options.json {
        outln!(
            "{:#}",
            json!({
                "gates": gates.iter().map(to_json).collect::<Vec<_>>(),
                "arp_filters": filters.iter().map(filter_json).collect::<Vec<_>>(),
                "backends": backends_json(&probe),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    for gate in &gates {
        outln!("{}", line(gate));
    }
    if gates.is_empty() {
        outln!("no gates here");
    }
    for filter in idle_packet_filters(options)? {
        outln!(
            "cluster {}: packet filter on {}, without any gate: it drops no packets",
            TerminalSafe(&filter.name.cluster()),
            interfaces(&filter.interfaces).join(" ")
        );
    }
    for filter in &filters {
        outln!("{}", filter_line(filter));
    }
    for (name, missing) in [("bpf", probe.bpf.map(drop)), ("nft", probe.nft)] {
        outln!("backend {name}: {}", missing.err().unwrap_or_else(|| "works".into()));
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(common: &CommonOptions, options: &GateCommandOptions) -> anyhow::Result<ExitCode> {
    // Heartbeat may run here in Locum's place, and its administrator may want the gates removed: so only Locum must not
    // run.
    let _alone = lock_out_locum(common, "renews its gates", "stop it first, with `locum stop`")?;
    let gates = chosen(options)?;
    let named = options.cluster.is_some() || options.group.is_some();
    let idle = idle_packet_filters(options)?;
    let filters = filters(options)?;
    anyhow::ensure!(
        !(named && gates.is_empty() && idle.is_empty() && (filters.is_empty() || options.group.is_some())),
        "there is no such gate: run `locum gate` to list all"
    );
    if !options.keep_addresses {
        gates.iter().try_for_each(shut)?;
    }
    let mut netlink = Netlink::open()?;
    let (mut removed, mut taken, mut left) = (Vec::new(), Vec::new(), Vec::new());
    // The addresses first: an address answers as soon as its gate is gone.
    if !options.keep_addresses {
        let all = netlink.addresses()?;
        for address in gates.iter().flat_map(|gate| standing(gate, &all)) {
            let there = format!("{}/{} on {}", address.ip, address.prefix, interface(address.interface));
            if !address.marked {
                if !options.json {
                    outln!("kept: {there}: not added by Locum; it answers now, without the gate");
                }
                left.push(there);
                continue;
            }
            take(address, &mut netlink)?;
            if !options.json {
                outln!("removed: {there}");
            }
            taken.push(there);
        }
    }
    let by_cluster = |one: &ListedGate, other: &ListedGate| {
        one.backend == other.backend && one.name.cluster() == other.name.cluster()
    };
    for gates in gates.chunk_by(by_cluster) {
        let names: Vec<_> = gates.iter().map(|gate| gate.name.clone()).collect();
        for (gate, became) in gates.iter().zip(gate::remove_all(&gates[0].backend, &names)) {
            became?;
            if !options.json {
                outln!("removed: {}", line(gate));
            }
            removed.push(gate);
        }
    }
    for filter in idle {
        if gate::remove_packet_filter(&filter)? && !options.json {
            outln!("removed: packet filter of cluster {}", TerminalSafe(&filter.name.cluster()));
        }
    }
    // The filters after the gates: without its filter an address without a gate would answer, on other interfaces as
    // well.
    for filter in filters {
        remove_filter(&filter, &removed, options)?;
    }
    if options.json {
        outln!(
            "{:#}",
            json!({
                "removed": removed.iter().map(|gate| to_json(gate)).collect::<Vec<_>>(),
                "addresses": taken,
                "left": left,
            })
        );
    } else if removed.is_empty() {
        outln!("no gates here");
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses an open gate: a daemon renews it, or did so a moment ago, and clients are served through it.
fn shut(gate: &ListedGate) -> anyhow::Result<()> {
    let Some(millis) = open_millis(gate).filter(|millis| *millis > 0) else { return Ok(()) };
    anyhow::bail!(
        "the gate of group {} is still open for {millis} ms: a daemon renews it (with another --run?) or has just \
         ended. Nothing was removed: stop that daemon and try again",
        TerminalSafe(&gate.name.group())
    )
}

/// The addresses that the gate shuts, on the interfaces on which it does so.
fn standing<'a>(
    gate: &ListedGate,
    all: &'a [InterfaceAddress],
) -> impl Iterator<Item = &'a InterfaceAddress> {
    all.iter().filter(|address| {
        gate.interfaces.contains(&address.interface) && gate.addresses.contains(&address.ip)
    })
}

/// Deletes an address. An address that has gone meanwhile is not an error.
fn take(address: &InterfaceAddress, netlink: &mut Netlink) -> io::Result<()> {
    netlink.delete_address(address).or_else(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => Ok(()),
        _ => Err(error),
    })
}

fn chosen(options: &GateCommandOptions) -> anyhow::Result<Vec<ListedGate>> {
    let bpffs = gate::find_bpffs().context("the mount table cannot be read")?;
    let mut gates = gate::list(bpffs)?;
    gates.retain(|gate| options.chooses(gate));
    Ok(gates)
}

/// The packet filters of clusters without any gate. Empty when the options name a group.
fn idle_packet_filters(options: &GateCommandOptions) -> anyhow::Result<Vec<ListedPacketFilter>> {
    if options.group.is_some() {
        return Ok(Vec::new());
    }
    let mut filters = gate::packet_filters(gate::find_bpffs()?)?;
    filters.retain(|filter| {
        filter.gates == 0 && options.cluster.as_ref().is_none_or(|cluster| filter.name.is_of(cluster))
    });
    Ok(filters)
}

/// The ARP filters of the chosen clusters.
fn filters(options: &GateCommandOptions) -> anyhow::Result<Vec<ListedArpFilter>> {
    let mut filters = arp_filter::list()?;
    filters.retain(|filter| options.cluster.as_ref().is_none_or(|cluster| filter.name.is_of(cluster)));
    Ok(filters)
}

/// Removes the whole filter when its cluster has no gate left; otherwise only the addresses of the removed gates.
fn remove_filter(
    filter: &ListedArpFilter,
    removed: &[&ListedGate],
    options: &GateCommandOptions,
) -> anyhow::Result<()> {
    let cluster = filter.name.cluster();
    let is_its = |gate: &ListedGate| gate.name.cluster() == cluster;
    let mut left = gate::list(gate::find_bpffs()?)?.into_iter();
    if left.any(|gate| is_its(&gate)) {
        let addresses: Vec<IpAddr> =
            removed.iter().filter(|gate| is_its(gate)).flat_map(|gate| &gate.addresses).copied().collect();
        return Ok(arp_filter::remove_addresses(filter, &addresses)?);
    }
    arp_filter::remove(filter)?;
    if !options.json {
        outln!("removed: {}", filter_line(filter));
    }
    Ok(())
}

fn filter_line(filter: &ListedArpFilter) -> String {
    format!(
        "cluster {}: ARP filter by {}, {} addresses: each is answered for only on its own interface",
        TerminalSafe(&filter.name.cluster()),
        filter.backend,
        filter.own_interfaces.len()
    )
}

fn filter_json(filter: &ListedArpFilter) -> Value {
    let homes = filter
        .own_interfaces
        .iter()
        .map(|(ip, home)| json!({ "address": ip, "interface": home.map(interface) }));
    json!({
        "cluster": filter.name.cluster(),
        "backend": filter.backend.to_string(),
        "addresses": homes.collect::<Vec<_>>(),
    })
}

fn line(gate: &ListedGate) -> String {
    let state = match open_millis(gate) {
        Some(millis) => format!("open for {millis} ms"),
        None => "shut".into(),
    };
    let addresses: Vec<_> = gate.addresses.iter().map(IpAddr::to_string).collect();
    let (cluster, group) = (gate.name.cluster(), gate.name.group());
    format!(
        "cluster {}, group {}: {state}, by {}: {} on {}",
        TerminalSafe(&cluster),
        TerminalSafe(&group),
        gate.backend,
        addresses.join(" "),
        interfaces(&gate.interfaces).join(" "),
    )
}

fn interfaces(numbers: &[u32]) -> Vec<String> {
    numbers.iter().copied().map(interface).collect()
}

fn interface(number: u32) -> String {
    interface_name(number).unwrap_or_else(|_| format!("interface {number}"))
}

fn open_millis(gate: &ListedGate) -> Option<u64> {
    gate.deadline.map(|deadline| deadline.saturating_sub(clock::boot_nanos()) / 1_000_000)
}

fn to_json(gate: &ListedGate) -> Value {
    json!({
        "cluster": gate.name.cluster(),
        "group": gate.name.group(),
        "backend": gate.backend.to_string(),
        "open_ms": open_millis(gate),
        "addresses": gate.addresses,
        "interfaces": interfaces(&gate.interfaces),
    })
}

/// For each backend `null` if it works, else what is missing.
fn backends_json(probe: &GateProbe) -> Value {
    json!({ "bpf": probe.bpf.as_ref().err(), "nft": probe.nft.as_ref().err() })
}
