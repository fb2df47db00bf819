//! The status page of a native cluster.

use std::fmt::{self, Write as _};

use locum_core::{
    group::GroupPhase,
    native::status::{
        LinkDirections, LinkStatus, MemberKind, MemberStatus, NativeGroupStatus, OwnVote, Pin, PinKind,
    },
};

use super::{SecondsText, TerminalSafe, filter_lines, gate_lines, interface_row, notes, section, word};
use crate::observe::report::NativeStatusReport;

/// The whole page. Every text that comes from outside goes through [`TerminalSafe`].
pub(super) fn text(report: &NativeStatusReport) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &NativeStatusReport) -> fmt::Result {
    let cluster = &report.cluster;
    let kind = match cluster.kind {
        MemberKind::Node => "",
        MemberKind::Witness => ", a witness",
    };
    writeln!(
        page,
        "{} in cluster {}{kind}: pace {}, configuration {} (locum {}, up {})",
        TerminalSafe(&cluster.member),
        TerminalSafe(&cluster.cluster),
        SecondsText(cluster.pace),
        TerminalSafe(&cluster.config),
        TerminalSafe(&report.daemon.version),
        SecondsText(cluster.uptime)
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
        .map(|voter| format!("{}{}", TerminalSafe(&voter.name), if voter.answers { "" } else { " (SILENT)" }))
        .collect();
    writeln!(page, "voters: {}; {} make a majority", voters.join(", "), votes.majority)?;
    if let Some(alone) = votes.single_vote {
        writeln!(
            page,
            "single-vote mode for {}: this node counts its own vote as a majority",
            SecondsText(alone)
        )?;
    }
    if let Some(own) = own_vote(&votes.own) {
        writeln!(page, "vote of this node: {own}")?;
    }
    gate_lines(page, &report.heart.gates)?;
    filter_lines(page, &report.heart.arp_filter)?;
    for pin in &cluster.pins {
        let whom = if pin.kind == PinKind::Maintenance { "all nodes" } else { "this node" };
        writeln!(page, "{whom}: {}", pinned(pin))?;
    }
    for (name, frames) in &cluster.foreign {
        writeln!(page, "note: {frames} frames of another cluster received: {}", TerminalSafe(name))?;
    }
    notes(page, &report.daemon, &report.heart, &cluster.hints)?;
    for member in cluster.members.iter().filter(|member| member.differs) {
        for difference in &member.differences {
            let says = |text: &Option<String>| match text {
                Some(text) if text.is_empty() => "empty list".to_owned(),
                Some(text) => TerminalSafe(text).to_string(),
                None => "nothing".to_owned(),
            };
            writeln!(
                page,
                "configuration of {} differs in {}: here {}, there {}",
                TerminalSafe(&member.name),
                TerminalSafe(&difference.name),
                says(&difference.ours),
                says(&difference.theirs)
            )?;
        }
    }
    for trouble in report.troubles() {
        writeln!(page, "PROBLEM: {}", TerminalSafe(&trouble))?;
    }
    Ok(())
}

fn member_row(member: &MemberStatus) -> [String; 3] {
    let mut facts = Vec::new();
    if member.is_me {
        facts.push("this node".to_owned());
    } else {
        facts.extend(member.heard.map(|heard| format!("heard {} ago", SecondsText(heard))));
        if member.heard.is_some() && member.hears_us == Some(false) {
            facts.push("cannot hear this node".to_owned());
        }
        facts.extend(member.key.map(|key| format!("key {key}")));
    }
    if member.kind == MemberKind::Witness {
        facts.push("a witness".to_owned());
    }
    facts.extend(member.generation.map(|generation| format!("generation {generation}")));
    if member.standby {
        facts.push("standby".to_owned());
    }
    if !member.unable.is_empty() {
        let groups: Vec<String> = member.unable.iter().map(|group| TerminalSafe(group).to_string()).collect();
        facts.push(format!("cannot run {}", groups.join(" ")));
    }
    if !member.unreachable.is_empty() {
        let groups: Vec<String> =
            member.unreachable.iter().map(|group| TerminalSafe(group).to_string()).collect();
        facts.push(format!("clients cannot reach {} there", groups.join(" ")));
    }
    facts.extend(member.refused.as_ref().map(|why| format!("REFUSED: {}", TerminalSafe(why))));
    let state = if member.is_me { "alive".to_owned() } else { word(member.liveness) };
    [TerminalSafe(&member.name).to_string(), state, facts.join(", ")]
}

/// A link, and the state of its path to each member.
fn link_row(link: &LinkStatus, members: &[MemberStatus]) -> [String; 3] {
    let (state, mut facts) = match &link.down {
        Some(why) => ("down".to_owned(), vec![TerminalSafe(why).to_string()]),
        None => ("open".to_owned(), Vec::new()),
    };
    for member in members {
        for path in member.links.iter().filter(|path| path.link == link.name) {
            let way = match path.way {
                LinkDirections::Both => "both ways",
                LinkDirections::Untested => "not tested",
                LinkDirections::OnlyHere => "cannot hear this node",
                LinkDirections::OnlyThere => "not heard here",
                LinkDirections::Neither => "no traffic in either direction",
            };
            facts.push(format!("{} {way}", TerminalSafe(&member.name)));
        }
    }
    [TerminalSafe(&link.name).to_string(), state, facts.join(", ")]
}

fn group_row(group: &NativeGroupStatus) -> [String; 3] {
    let owner = match &group.owner {
        Some(owner) => format!("on {}", TerminalSafe(owner)),
        None => "nowhere".to_owned(),
    };
    let mut facts = Vec::new();
    facts.extend(group.epoch.as_ref().map(|epoch| format!("epoch {}", TerminalSafe(epoch))));
    facts.extend(phase(group));
    facts.extend(group.waiting.as_ref().map(|waiting| TerminalSafe(&waiting.to_string()).to_string()));
    facts.push(format!("guard {}", TerminalSafe(&group.guard)));
    facts.extend(group.lease_left.map(|left| format!("lease {left:.1} s")));
    facts.extend(group.gate_left.map(|left| format!("gate open {left:.1} s")));
    facts.extend(group.pins.iter().map(pinned));
    for earlier in &group.unproved {
        facts.push(format!("{} not proved to have stopped", TerminalSafe(&earlier.node)));
    }
    if group.taken_away > 0 {
        facts.push(format!("address restored {} times", group.taken_away));
    }
    if group.restarts > 0 {
        facts.push(format!("restarted {} times", group.restarts));
    }
    facts.extend(group.failure.as_ref().map(|why| format!("failed here: {}", TerminalSafe(why))));
    if group.unable {
        facts.push("cannot run here".to_owned());
    }
    [TerminalSafe(&group.name).to_string(), owner, facts.join(", ")]
}

/// The operation in progress on this node; `None` for a group that does not run here.
fn phase(group: &NativeGroupStatus) -> Option<String> {
    let member =
        |index: usize| group.resources.get(index).map_or_else(String::new, |r| TerminalSafe(r).to_string());
    match group.phase {
        GroupPhase::Stopped => None,
        GroupPhase::Running => Some("runs here".to_owned()),
        GroupPhase::Starting(index) => Some(format!("starting {} here", member(index))),
        GroupPhase::Stopping(index) => Some(format!("stopping {} here", member(index))),
        GroupPhase::StopFailed(index) => Some(format!("{} STOP FAILED here", member(index))),
    }
}

fn pinned(pin: &Pin) -> String {
    let age = pin.age.map(|age| format!("for {}", SecondsText(age)));
    let by = pin.by.as_ref().map(|by| format!(" on {}", TerminalSafe(by))).unwrap_or_default();
    let user = pin.user.map(|user| format!("requested{by} by user {user}"));
    let facts: Vec<String> = age.into_iter().chain(user).collect();
    match facts.is_empty() {
        true => TerminalSafe(&pin.text).to_string(),
        false => format!("{} ({})", TerminalSafe(&pin.text), facts.join(", ")),
    }
}

fn own_vote(vote: &OwnVote) -> Option<String> {
    match vote {
        OwnVote::None | OwnVote::Votes => None,
        OwnVote::Blank => {
            Some("none yet: no ledger here; it is being copied from the other voters".to_owned())
        }
        OwnVote::Mute { left } => {
            Some(format!("abstains for {left:.1} s: leases granted before the restart may still run"))
        }
        OwnVote::Broken => {
            Some("NONE: the ledger could not be written; free disk space or repair the disk".to_owned())
        }
    }
}
