//! The status page of a native cluster.

use std::fmt::{self, Write as _};

use locum_core::{
    group::Phase,
    native::status::{Group, Kind, Link, Member, OwnVote, Pin, PinKind, Way},
};

use super::{Safe, Span, filter_lines, gate_lines, interface_row, notes, section, word};
use crate::voice::report::NativeReport;

/// The whole page. Every text that comes from outside goes through [`Safe`].
pub(super) fn text(report: &NativeReport) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &NativeReport) -> fmt::Result {
    let cluster = &report.cluster;
    let kind = match cluster.kind {
        Kind::Node => "",
        Kind::Witness => ", a witness",
    };
    writeln!(
        page,
        "{} in cluster {}{kind}: pace {}, configuration {} (locum {}, up {})",
        Safe(&cluster.member),
        Safe(&cluster.cluster),
        Span(cluster.pace),
        Safe(&cluster.config),
        Safe(&report.daemon.version),
        Span(cluster.uptime)
    )?;
    section(page, "members", cluster.members.iter().map(member_row))?;
    section(page, "links", cluster.links.iter().map(|link| link_row(link, &cluster.members)))?;
    section(page, "groups", cluster.groups.iter().map(group_row))?;
    section(page, "service interfaces", report.service_interfaces.iter().map(interface_row))?;
    writeln!(page)?;
    let votes = &cluster.votes;
    let voters: Vec<String> = votes
        .voters
        .iter()
        .map(|voter| format!("{}{}", Safe(&voter.name), if voter.answers { "" } else { " (SILENT)" }))
        .collect();
    writeln!(page, "voters: {}; {} make a majority", voters.join(", "), votes.majority)?;
    if let Some(alone) = votes.alone {
        writeln!(page, "this node has counted alone for {}", Span(alone))?;
    }
    if let Some(own) = own_vote(&votes.own) {
        writeln!(page, "our vote: {own}")?;
    }
    gate_lines(page, &report.heart.gates)?;
    filter_lines(page, &report.heart.arp_filter)?;
    for pin in &cluster.pins {
        let whom = if pin.kind == PinKind::Maintenance { "all nodes" } else { "this node" };
        writeln!(page, "{whom}: {}", pinned(pin))?;
    }
    for (name, frames) in &cluster.foreign {
        writeln!(page, "note: {frames} frames of another cluster, {}", Safe(name))?;
    }
    notes(page, &report.daemon, &report.heart, &cluster.hints)?;
    for member in cluster.members.iter().filter(|member| member.differs) {
        for difference in &member.differences {
            let says = |text: &Option<String>| match text {
                Some(text) if text.is_empty() => "an empty list".to_owned(),
                Some(text) => Safe(text).to_string(),
                None => "nothing".to_owned(),
            };
            writeln!(
                page,
                "{} differs in {}: here {}, there {}",
                Safe(&member.name),
                Safe(&difference.name),
                says(&difference.ours),
                says(&difference.theirs)
            )?;
        }
    }
    for trouble in report.troubles() {
        writeln!(page, "NOT WELL: {}", Safe(&trouble))?;
    }
    Ok(())
}

fn member_row(member: &Member) -> [String; 3] {
    let mut facts = Vec::new();
    if member.is_me {
        facts.push("this one".to_owned());
    } else {
        facts.extend(member.heard.map(|heard| format!("heard {} ago", Span(heard))));
        if member.heard.is_some() && member.hears_us == Some(false) {
            facts.push("does not hear us".to_owned());
        }
        facts.extend(member.key.map(|key| format!("key {key}")));
    }
    if member.kind == Kind::Witness {
        facts.push("a witness".to_owned());
    }
    facts.extend(member.generation.map(|generation| format!("generation {generation}")));
    if member.standby {
        facts.push("standby".to_owned());
    }
    if !member.unable.is_empty() {
        let groups: Vec<String> = member.unable.iter().map(|group| Safe(group).to_string()).collect();
        facts.push(format!("cannot run {}", groups.join(" ")));
    }
    if !member.cut.is_empty() {
        let groups: Vec<String> = member.cut.iter().map(|group| Safe(group).to_string()).collect();
        facts.push(format!("no way to the clients of {}", groups.join(" ")));
    }
    facts.extend(member.refused.as_ref().map(|why| format!("REFUSED: {}", Safe(why))));
    let state = if member.is_me { "alive".to_owned() } else { word(member.liveness) };
    [Safe(&member.name).to_string(), state, facts.join(", ")]
}

/// A link, and the state of its path to each member.
fn link_row(link: &Link, members: &[Member]) -> [String; 3] {
    let (state, mut facts) = match &link.down {
        Some(why) => ("down".to_owned(), vec![Safe(why).to_string()]),
        None => ("open".to_owned(), Vec::new()),
    };
    for member in members {
        for path in member.links.iter().filter(|path| path.link == link.name) {
            let way = match path.way {
                Way::Both => "both ways",
                Way::Untested => "not tested",
                Way::OnlyHere => "HEARS US NOT",
                Way::OnlyThere => "IS NOT HEARD",
                Way::Neither => "NOTHING GOES THROUGH",
            };
            facts.push(format!("{} {way}", Safe(&member.name)));
        }
    }
    [Safe(&link.name).to_string(), state, facts.join(", ")]
}

fn group_row(group: &Group) -> [String; 3] {
    let owner = match &group.owner {
        Some(owner) => format!("on {}", Safe(owner)),
        None => "nowhere".to_owned(),
    };
    let mut facts = Vec::new();
    facts.extend(group.epoch.as_ref().map(|epoch| format!("epoch {}", Safe(epoch))));
    facts.extend(phase(group));
    facts.extend(group.waiting.as_ref().map(|waiting| Safe(&waiting.to_string()).to_string()));
    facts.push(format!("guard {}", Safe(&group.guard)));
    facts.extend(group.lease_left.map(|left| format!("lease {left:.1} s")));
    facts.extend(group.gate_left.map(|left| format!("gate open {left:.1} s")));
    facts.extend(group.pins.iter().map(pinned));
    for earlier in &group.unproved {
        facts.push(format!("{} is not proved to have stopped", Safe(&earlier.node)));
    }
    if group.taken_away > 0 {
        facts.push(format!("address put back {} times", group.taken_away));
    }
    if group.restarts > 0 {
        facts.push(format!("restarted {} times", group.restarts));
    }
    facts.extend(group.failure.as_ref().map(|why| format!("failed here: {}", Safe(why))));
    if group.unable {
        facts.push("not to be run here".to_owned());
    }
    [Safe(&group.name).to_string(), owner, facts.join(", ")]
}

/// The operation in progress on this node; `None` for a group that does not run here.
fn phase(group: &Group) -> Option<String> {
    let member = |index: usize| group.resources.get(index).map_or_else(String::new, |r| Safe(r).to_string());
    match group.phase {
        Phase::Stopped => None,
        Phase::Running => Some("runs here".to_owned()),
        Phase::Starting(index) => Some(format!("starting {} here", member(index))),
        Phase::Stopping(index) => Some(format!("stopping {} here", member(index))),
        Phase::Stuck(index) => Some(format!("{} CANNOT BE STOPPED here", member(index))),
    }
}

fn pinned(pin: &Pin) -> String {
    let age = pin.age.map(|age| format!("for {} now", Span(age)));
    let by = pin.by.as_ref().map(|by| format!(" at {}", Safe(by))).unwrap_or_default();
    let user = pin.user.map(|user| format!("asked for{by} by user {user}"));
    let facts: Vec<String> = age.into_iter().chain(user).collect();
    match facts.is_empty() {
        true => Safe(&pin.text).to_string(),
        false => format!("{} ({})", Safe(&pin.text), facts.join(", ")),
    }
}

fn own_vote(vote: &OwnVote) -> Option<String> {
    match vote {
        OwnVote::None | OwnVote::Votes => None,
        OwnVote::Blank => Some("none yet: there is no ledger, it is copied from the others".to_owned()),
        OwnVote::Mute { left } => {
            Some(format!("none for {left:.1} s: leases of the last life may still run"))
        }
        OwnVote::Broken => Some("NONE: the ledger could not be written".to_owned()),
    }
}
