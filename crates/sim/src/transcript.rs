//! What is seen from outside, and how it is written down: the expected part of a story.
//!
//! ```text
//! > start clustnode1 clustnode2          every command but `settle`, as it stands
//! answer: done                           what a person who ordered something was told (done, refused, timed out)
//! clustnode1: + 172.23.2.14              an address came to be on a node (`-`: is gone)
//! clustnode1: start httpd                a script ended what it was asked to do, and this changed something
//! clustnode1: start mysql failed         … it failed, or had to be killed at its limit (`killed`)
//! owner: 172.23.2.14 clustnode1          after `settle`, for each group: who has all of it running (`partly`:
//!                                        some of it), `both`, or `none`
//! client: 172.23.2.14 clustnode1         and which node answers the client that asks its neighbour cache, where
//!                                        one node alone has the address (`none`: it reaches none)
//! ```
//!
//! Facts are written after each `settle` and `wait`: those of one node together, in the order of the story's
//! nodes; within a node by group, in the order of `haresources`, because groups move independently of each other;
//! within a group in the order in which they happened. Repetitions of a failure at once after it are left out, as
//! are operations that change nothing (the stop of what does not run). What goes down with its host's power is not
//! written: nobody is left to see it.

use std::{fmt::Write as _, net::IpAddr};

use crate::story::{Command, NodeRef, Step, Story};

/// One thing seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whose daemon's resource.
    pub node: NodeRef,
    /// Index into [`crate::story::Cluster::groups`].
    pub group: usize,
    /// What was seen.
    pub sight: Sight,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The kernel has this address now.
    AddressUp(IpAddr),
    /// It has it no more.
    AddressDown(IpAddr),
    /// A resource (as written in `haresources`) was started.
    Start(String, End),
    /// It was stopped.
    Stop(String, End),
}

/// How an operation of a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It worked.
    Well,
    /// It said no.
    Failed,
    /// It had to be killed.
    Killed,
}

/// Who has a group running, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeRef,
    /// Whether all of the group runs there.
    pub whole: bool,
}

/// Writes a story down as it happens.
#[derive(Debug, Default)]
pub struct Transcript {
    text: String,
    facts: Vec<Fact>,
}

impl Transcript {
    /// The command that comes now.
    pub fn step(&mut self, step: &Step) {
        if !matches!(step.command, Command::Settle { .. }) {
            self.line(&format!("> {}", step.text));
        }
    }

    /// The answer to an order.
    pub fn answer(&mut self, word: &str) {
        self.line(&format!("answer: {word}"));
    }

    /// What was seen since the last call, in the order in which it happened.
    pub fn see(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.facts.extend(facts);
    }

    /// Writes what was seen.
    pub fn tell(&mut self, story: &Story) {
        let mut facts = std::mem::take(&mut self.facts);
        facts.sort_by_key(|fact| (fact.node, fact.group));
        facts.dedup();
        for Fact { node, sight, .. } in facts {
            let name = story.node_name(node);
            let said = match sight {
                Sight::AddressUp(ip) => format!("+ {ip}"),
                Sight::AddressDown(ip) => format!("- {ip}"),
                Sight::Start(resource, end) => format!("start {resource}{}", ending(end)),
                Sight::Stop(resource, end) => format!("stop {resource}{}", ending(end)),
            };
            self.line(&format!("{name}: {said}"));
        }
    }

    /// Who has a group, after a settle.
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

    /// Who answers the client at an address, after a settle.
    pub fn client(&mut self, address: IpAddr, host: Option<&str>) {
        self.line(&format!("client: {address} {}", host.unwrap_or("none")));
    }

    /// All that was written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn ending(end: End) -> &'static str {
    match end {
        End::Well => "",
        End::Failed => " failed",
        End::Killed => " killed",
    }
}

fn group_name(story: &Story, cluster: usize, group: usize) -> String {
    let c = &story.clusters[cluster];
    let key = c.group_key(group);
    if c.name.is_empty() { key.to_owned() } else { format!("{}/{key}", c.name) }
}

/// Expected and seen side by side where they differ: `-` was expected, `+` was seen.
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
