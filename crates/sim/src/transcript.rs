//! The transcript of a story: how facts seen from outside are written in its expected part.
//!
//! ```text
//! > start clustnode1 clustnode2          every command but `settle`, as it stands
//! answer: done                           the answer to an order (done, refused, timed out)
//! clustnode1: + 172.23.2.14              an address is on a node now (`-`: is gone)
//! clustnode1: start httpd                a script ended an operation, and this changed something
//! clustnode1: start mysql failed         … it failed, or had to be killed at its limit (`killed`)
//! owner: 172.23.2.14 clustnode1          after `settle`, for each group: the node on which all of it runs
//!                                        (`partly`: some of it), `both`, or `none`
//! client: 172.23.2.14 clustnode1         and the node that answers the client through its neighbour cache, if
//!                                        only one node has the address (`none`: the client reaches none)
//! ```
//!
//! Facts are written after each `settle` and `wait`. Those of one node stand together, in the order of the story's
//! nodes. Within a node they are sorted by group, in the order of `haresources`, because groups move independently of
//! each other. Within a group they keep the order in which they happened. If a failure repeats at once, the repetitions
//! are left out. So are operations that change nothing (the stop of a stopped resource). Resources that go down with
//! their host's power are not written.

use std::{fmt::Write as _, net::IpAddr};

use crate::story::{Command, NodeRef, Story, StoryStep};

/// One fact seen from outside: a change of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The node whose resource changed.
    pub node: NodeRef,
    /// Index of the group in [`crate::story::Cluster::groups`].
    pub group: usize,
    pub change: ObservedChange,
}

/// A change of a resource, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedChange {
    /// The kernel has this address now.
    AddressUp(IpAddr),
    /// The kernel does not have this address any more.
    AddressDown(IpAddr),
    /// A resource (as written in `haresources`) was started.
    Start(String, ScriptOutcome),
    /// A resource (as written in `haresources`) was stopped.
    Stop(String, ScriptOutcome),
}

/// How an operation of a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptOutcome {
    Succeeded,
    /// The script returned a failure.
    Failed,
    /// The script was killed at its limit.
    Killed,
}

/// A node on which some of a group runs, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub node: NodeRef,
    /// Whether all of the group runs there.
    pub whole: bool,
}

/// Collects facts and writes the transcript of a story.
#[derive(Debug, Default)]
pub struct Transcript {
    text: String,
    facts: Vec<Fact>,
}

impl Transcript {
    /// Writes the command of the next step, unless it is `settle`.
    pub fn step(&mut self, step: &StoryStep) {
        if !matches!(step.command, Command::Settle { .. }) {
            self.line(&format!("> {}", step.text));
        }
    }

    /// Writes the answer to an order.
    pub fn answer(&mut self, word: &str) {
        self.line(&format!("answer: {word}"));
    }

    /// Collects facts, in the order in which they happened.
    pub fn see(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.facts.extend(facts);
    }

    /// Writes the collected facts, sorted by node and group.
    pub fn tell(&mut self, story: &Story) {
        let mut facts = std::mem::take(&mut self.facts);
        facts.sort_by_key(|fact| (fact.node, fact.group));
        facts.dedup();
        for Fact { node, change: sight, .. } in facts {
            let name = story.node_name(node);
            let said = match sight {
                ObservedChange::AddressUp(ip) => format!("+ {ip}"),
                ObservedChange::AddressDown(ip) => format!("- {ip}"),
                ObservedChange::Start(resource, end) => format!("start {resource}{}", ending(end)),
                ObservedChange::Stop(resource, end) => format!("stop {resource}{}", ending(end)),
            };
            self.line(&format!("{name}: {said}"));
        }
    }

    /// Writes which nodes have a group, after a settle.
    pub fn owner(&mut self, story: &Story, cluster: usize, group: usize, holders: &[Holder]) {
        let who = match holders {
            [] => "none".to_owned(),
            [one] if one.whole => story.node_name(one.node),
            [one] => format!("{} partly", story.node_name(one.node)),
            _ => "both".to_owned(),
        };
        let key = group_name(story, cluster, group);
        self.line(&format!("owner: {key} {who}"));
    }

    /// Writes which host answers the client at an address, after a settle.
    pub fn client(&mut self, address: IpAddr, host: Option<&str>) {
        self.line(&format!("client: {address} {}", host.unwrap_or("none")));
    }

    /// The whole text of the transcript.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn ending(end: ScriptOutcome) -> &'static str {
    match end {
        ScriptOutcome::Succeeded => "",
        ScriptOutcome::Failed => " failed",
        ScriptOutcome::Killed => " killed",
    }
}

fn group_name(story: &Story, cluster: usize, group: usize) -> String {
    let c = &story.clusters[cluster];
    let key = c.group_key(group);
    if c.name.is_empty() { key.to_owned() } else { format!("{}/{key}", c.name) }
}

/// The lines in which two transcripts differ: `-` was expected, `+` was seen.
#[must_use]
pub fn difference(expected: &str, seen: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), seen.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let same_end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    let context = same.saturating_sub(4);
    let mut put = |sign: &str, lines: &[&str]| {
        for line in lines {
            let _ = writeln!(text, "    {sign} {line}");
        }
    };
    put(" ", &old[context..same]);
    put("-", &old[same..old.len() - same_end]);
    put("+", &new[same..new.len() - same_end]);
    put(" ", &old[old.len() - same_end..(old.len() - same_end + 3).min(old.len())]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_shows_what_changed() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), "      a\n    - b\n    + x\n      c\n");
        assert_eq!(difference("a\n", "a\nb\n"), "      a\n    + b\n");
    }
}
