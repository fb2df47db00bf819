//! Prepares a story: the description of its rack, and the files of its nodes.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use locum_lab::{Description, Network, NetworkKind, Port, Rack};
use locum_sim::story::{Cable, Command, Conduct, Manner, NodeRef, Operation, Story, address_of, script_of};

use super::{LOCUM, journal};

/// The host that uses the service.
pub(super) const CLIENT: &str = "client";
/// The host that records frames, where a story replays them.
pub(super) const RECORDER: &str = "recorder";
/// The network of the client, and the name of every host's interface there.
pub(super) const LAN: &str = "lan";
pub(super) const LAN_INTERFACE: &str = "eth0";

/// The directory name of a cluster. The first cluster has no name in a story, but needs a directory.
pub(super) fn cluster_name(story: &Story, cluster: usize) -> &str {
    match story.clusters[cluster].name.as_str() {
        "" => "first",
        name => name,
    }
}

/// The rack's network for a link.
pub(super) fn network(link: &locum_sim::story::Link) -> &str {
    if link.cable == Cable::Lan { LAN } else { &link.name }
}

/// Whether a story replays frames.
pub(super) fn replays(story: &Story) -> bool {
    story.steps.iter().any(|step| matches!(step.command, Command::Replay { .. }))
}

/// The rack of a story.
pub(super) fn description(story: &Story) -> Result<Description, String> {
    let hosts = story.hosts();
    let mut rack = Description::new(Path::new(LOCUM)).node(CLIENT);
    rack.nodes.extend(hosts.iter().cloned());
    let port = |node: &str, interface: &str, address: String| Port {
        node: node.to_owned(),
        interface: interface.to_owned(),
        addresses: address.parse().map(|ip| (ip, 24)).into_iter().collect(),
    };
    let mut lan = vec![port(CLIENT, LAN_INTERFACE, "172.23.2.100".to_owned())];
    lan.extend(
        hosts.iter().enumerate().map(|(at, host)| port(host, LAN_INTERFACE, format!("172.23.2.{}", at + 1))),
    );
    let mut networks = vec![(LAN.to_owned(), NetworkKind::Segment, lan)];
    for link in story.links() {
        let who: Vec<&String> = hosts.iter().filter(|host| has_link(story, host, &link.name)).collect();
        match link.cable {
            Cable::Lan if link.name != LAN_INTERFACE => {
                return Err(format!(
                    "the link to the client's segment is {LAN_INTERFACE}, not {}",
                    link.name
                ));
            }
            Cable::Lan => {}
            Cable::Crossover => {
                let at = |host: &str| hosts.iter().position(|h| h == host).unwrap_or(0);
                let address = |host: &str| story.address(at(host), &link).to_string();
                let mut ports: Vec<Port> =
                    who.iter().map(|host| port(host, &link.name, address(host))).collect();
                let mut kind = if ports.len() == 2 { NetworkKind::Crossover } else { NetworkKind::Segment };
                if replays(story) {
                    // The recorder is attached to the cable.
                    let of_first = address(&hosts[0]);
                    let net = of_first.rsplit_once('.').map_or("", |(net, _)| net);
                    ports.push(port(RECORDER, &link.name, format!("{net}.200")));
                    kind = NetworkKind::Segment;
                }
                networks.push((link.name.clone(), kind, ports));
            }
            Cable::Serial => match who.as_slice() {
                [a, b] => rack = rack.line(&link.name, (a, &link.name), (b, &link.name)),
                _ => return Err(format!("{} is a serial line and needs two ends", link.name)),
            },
        }
    }
    if replays(story) {
        rack = rack.node(RECORDER);
    }
    let relayed = story
        .steps
        .iter()
        .any(|step| matches!(step.command, Command::Lose { .. } | Command::Cut { from: Some(_), .. }));
    rack.networks =
        networks.into_iter().map(|(name, kind, ports)| Network { name, kind, relayed, ports }).collect();
    Ok(rack)
}

/// Whether a cluster with a node on this host has the link.
pub(super) fn has_link(story: &Story, host: &str, link: &str) -> bool {
    let mut clusters = story.clusters.iter().filter(|c| c.nodes.iter().any(|node| node == host));
    clusters.any(|c| c.links.iter().any(|l| l.name == link))
}

/// The directory of a daemon's files on its host's disk, as this process sees it. The host sees it as
/// `/run/disk/CLUSTER`.
pub(super) fn place(rack: &Rack, story: &Story, node: NodeRef) -> PathBuf {
    rack.disk(&story.clusters[node.cluster].nodes[node.node]).join(cluster_name(story, node.cluster))
}

/// Writes the files of a daemon: the configuration, the scripts, and how they behave.
pub(super) fn write_files(rack: &Rack, story: &Story, node: NodeRef) -> io::Result<()> {
    let cluster = &story.clusters[node.cluster];
    let place = place(rack, story, node);
    let config = place.join("ha.d");
    fs::create_dir_all(config.join("resource.d"))?;
    fs::create_dir_all(place.join("conduct"))?;
    write_ha_cf(&place, story, node)?;
    fs::write(config.join("haresources"), cluster.haresources())?;
    write_keys(&place, &cluster.keys)?;
    let resources = cluster.groups.iter().flat_map(|words| &words[1..]);
    for resource in resources.filter(|text| address_of(text).is_none()) {
        let script = script_of(resource);
        let path = config.join("resource.d").join(script);
        fs::write(&path, journal::script(cluster_name(story, node.cluster)))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        for operation in [Operation::Start, Operation::Stop] {
            let manner = cluster.manner(script, &cluster.nodes[node.node], operation);
            write_conduct(&place, script, operation, manner)?;
        }
    }
    Ok(())
}

/// Writes the `ha.cf` of a node into its directory.
pub(super) fn write_ha_cf(place: &Path, story: &Story, node: NodeRef) -> io::Result<()> {
    fs::write(place.join("ha.d/ha.cf"), story.ha_cf(node.cluster, |name| format!("/run/{name}")))
}

/// Writes `authkeys` as a careful administrator does: whole, and never readable by others.
pub(super) fn write_keys(place: &Path, text: &str) -> io::Result<()> {
    let (new, old) = (place.join("ha.d/authkeys.new"), place.join("ha.d/authkeys"));
    let mut file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, old)
}

/// Makes a script behave like this from now on.
pub(super) fn conduct(place: &Path, conduct: &Conduct) -> io::Result<()> {
    write_conduct(place, &conduct.script, conduct.operation, conduct.manner)
}

fn write_conduct(place: &Path, script: &str, operation: Operation, manner: Manner) -> io::Result<()> {
    let usual = Manner::USUAL;
    let (word, time) = match manner {
        Manner::Works => ("works", usual),
        Manner::Takes(time) => ("works", time),
        Manner::Fails => ("fails", usual),
        Manner::Hangs => ("hangs", usual),
    };
    let verb = if operation == Operation::Start { "start" } else { "stop" };
    let path = place.join("conduct").join(format!("{script}.{verb}"));
    let new = path.with_extension("new");
    fs::write(&new, format!("{word} {}\n", time.as_secs_f64()))?;
    fs::rename(new, path)
}
