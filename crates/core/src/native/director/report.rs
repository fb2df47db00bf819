//! The director's state as a [`NativeStatus`], for `locum status`.

use super::*;
use crate::{
    claims::VoterStanding,
    model::{claim::Ballot, settings, status::Waiting},
    native::{
        gossip,
        plan::Failback,
        status::{
            EarlierStatus, FileDifference, LinkStatus, MemberKind, MemberStatus, NativeGroupStatus,
            NativeStatus, OwnVote, PathStatus, Pin, PinKind, VoterStatus, Votes,
        },
    },
};

impl NativeDirector {
    /// The cluster as this member sees it at `now`.
    #[must_use]
    pub fn status(&self, now: Now) -> NativeStatus {
        let at = now.instant.max(self.now.instant);
        let members = (0..self.peers.len()).map(MemberIndex::at);
        let links = (0..self.links.count()).map(LinkIndex);
        let mut status = NativeStatus {
            cluster: self.plan.cluster.clone(),
            dialect: "native".into(),
            member: self.my_name().into(),
            kind: self.kind(self.node.me()),
            generation: self.generation,
            uptime: at.since(self.started).as_secs_f64(),
            pace: self.plan.timing.lease.as_secs_f64(),
            config: format!("{:016x}", self.node.config()),
            members: members.map(|member| self.member_status(member, at)).collect(),
            links: links
                .filter(|link| self.links.is_ours(*link))
                .map(|link| LinkStatus {
                    name: self.short_name(link),
                    down: self.reception.down(link).map(Into::into),
                })
                .collect(),
            groups: (0..self.plan.groups.len())
                .map(|group| self.group_status(GroupIndex(group), at))
                .collect(),
            votes: self.votes(at),
            pins: self.pins(at),
            troubles: Vec::new(),
            hints: Vec::new(),
            frames: self.reception.frames.clone(),
            foreign: self.foreign.iter().map(|(name, frames)| (name.clone(), *frames)).collect(),
        };
        let (parts, known) = self.alarms(at, &status);
        let (troubles, hints) = complaints(&status);
        status.troubles = [parts, troubles].concat();
        status.hints = [known, hints].concat();
        status
    }

    /// What the refused frames mean, with the cure: troubles if they separate this member from others now, else hints.
    fn alarms(&self, now: Instant, status: &NativeStatus) -> (Vec<String>, Vec<String>) {
        let misses =
            |member: &MemberStatus| !member.is_me && (member.liveness.is_down() || member.heard.is_none());
        let misses_somebody = status.members.iter().any(misses);
        let me = self.my_name();
        let (mut parts, mut known) = (Vec::new(), Vec::new());
        for (alarm, from, text) in self.reception.lasting(now) {
            let (does, text) = match alarm {
                RefusalAlarm::OurName => (
                    true,
                    format!(
                        "another machine, {from}, sends under this member's name {me}: stop locum there, and give it a name and a \
                         state directory of its own"
                    ),
                ),
                RefusalAlarm::OldGeneration | RefusalAlarm::TwoMachines => (
                    misses_somebody,
                    format!(
                        "frames from {from} are refused as those of an earlier run of their sender: its clock and \
                         its state directory went back in time, or another machine uses its name; set its clock, \
                         then restart locum there"
                    ),
                ),
                RefusalAlarm::OtherKey => (
                    misses_somebody,
                    format!(
                        "frames from {from} are refused: {text}; give all members the same locum.key, then `systemctl reload \
                         locum`"
                    ),
                ),
                RefusalAlarm::Stranger => {
                    (misses_somebody, format!("frames from {from} are refused: {text}"))
                }
            };
            if does { &mut parts } else { &mut known }.push(text);
        }
        (parts, known)
    }

    fn kind(&self, member: MemberIndex) -> MemberKind {
        if self.plan.node(member).is_some() { MemberKind::Node } else { MemberKind::Witness }
    }

    fn short_name(&self, link: LinkIndex) -> String {
        match self.links.witness(link) {
            Some(witness) => format!("witness {}", self.plan.witnesses[witness.0].name),
            None => self.plan.links[link.0].name.clone(),
        }
    }

    fn group_names(&self, groups: &[GroupIndex]) -> Vec<String> {
        groups.iter().map(|group| self.plan.groups[group.0].name.clone()).collect()
    }

    fn member_status(&self, member: MemberIndex, now: Instant) -> MemberStatus {
        let known = &self.peers[member.index()];
        let view = self.node.peer(member);
        let versions = known.versions.map(|(_, versions)| (versions.lowest, versions.highest));
        let refused = view.filter(|view| view.refused).map(|_| "its pace differs from ours");
        let refused = refused.or(known.refused.then_some("it has no protocol in common with us"));
        let path = |path: &links::LinkPath| PathStatus {
            link: self.short_name(path.out),
            way: path.way(),
            heard: path.heard().map(|at| now.since(at).as_secs_f64()),
        };
        let difference = |difference: &settings::SettingDifference| FileDifference {
            name: difference.name.clone(),
            ours: difference.ours.clone(),
            theirs: difference.theirs.clone(),
        };
        let is_me = member == self.node.me();
        let heard =
            view.filter(|view| view.generation > 0).map(|view| now.since(view.watch.heard()).as_secs_f64());
        let generation =
            if is_me { Some(self.generation) } else { self.wire.heard(member).map(|heard| heard.generation) };
        let claims = self.node.member();
        let hears_us = match claims.echoes(member) {
            true => Some(claims.is_heard_by(now, member)),
            false => self.links.is_heard_by(now, member),
        };
        // A silent member does not say whom it hears.
        let liveness = self.node.liveness(member);
        let hears_us = hears_us.filter(|_| !liveness.is_down());
        let own = self.node.ownership();
        let unable: Vec<GroupIndex> = match view {
            Some(view) => view.unable.iter().copied().collect(),
            None => own.unable(now).collect(),
        };
        let cut = view.map_or_else(
            || self.node.unreachable_groups(),
            |view| view.unreachable.iter().copied().collect(),
        );
        MemberStatus {
            name: self.name(member).into(),
            kind: self.kind(member),
            is_me,
            liveness,
            heard,
            hears_us,
            generation,
            standby: view.map_or(is_me && own.is_standby(), |view| view.standby),
            links: self.links.paths(member).iter().map(path).collect(),
            key: known.key,
            protocols: versions,
            refused: refused.map(Into::into),
            differs: view.is_some_and(|view| view.differs),
            differences: view.iter().flat_map(|view| view.differences).map(difference).collect(),
            unable: self.group_names(&unable),
            unreachable: self.group_names(&cut),
        }
    }

    fn ballot(&self, ballot: Ballot) -> String {
        format!("{}.{}", ballot.round, ballot.node.0)
    }

    fn group_status(&self, group: GroupIndex, now: Instant) -> NativeGroupStatus {
        let plan = &self.plan.groups[group.0];
        let groups = self.node.groups();
        let owner = self.node.owner(now, group);
        let held = self.node.held(now, group);
        let until = held.map(|held| held.until).or_else(|| self.node.granted_until(now, group));
        let left = |until: Instant| until.since(now).as_secs_f64();
        let node_name = |node: &NodeIndex| self.plan.nodes[node.0].name.clone();
        let earlier = |entry: &crate::model::claim::EarlierOwner| EarlierStatus {
            node: self.name(entry.node).into(),
            generation: entry.generation,
            ballot: self.ballot(entry.ballot),
        };
        NativeGroupStatus {
            name: plan.name.clone(),
            resources: plan.resources.iter().map(|resource| resource.runs.text.clone()).collect(),
            guard: plan.guard.name().into(),
            candidates: plan.candidates.iter().map(node_name).collect(),
            owner: owner.map(|owner| self.name(owner.member).into()),
            blocked: self.node.blocked_reason(now, group),
            disputed: self.node.disputed(now, group),
            ballot: owner.map(|owner| self.ballot(owner.ballot)),
            epoch: held.map(|held| self.ballot(held.epoch)),
            waiting: self.node.ownership().waiting(group).map(|(why, since, until)| Waiting {
                why: why.into(),
                waited: Some(now.since(since).as_secs_f64()),
                at_most: until.map(|until| until.since(since).as_secs_f64()),
            }),
            phase: groups.phase(group),
            lease_left: until.map(left),
            gate_left: self.node.gate(group).map(|gate| gate.until).filter(|until| *until > now).map(left),
            pins: self.group_pins(group, owner.map(|owner| owner.member), now),
            unproved: held.iter().flat_map(|held| &held.claim.unproved).map(earlier).collect(),
            failure: groups.failure(group).map(String::from),
            unable: groups.is_stop_failed(group) || self.node.ownership().is_unable(now, group),
            taken_away: groups.taken_away(group),
            restarts: groups.restarts(group, now),
        }
    }

    /// The pins that keep a group where it is.
    fn group_pins(&self, group: GroupIndex, owner: Option<MemberIndex>, now: Instant) -> Vec<Pin> {
        let own = self.node.gossip().pinned(Some(self.node.id(group)));
        let frozen = "frozen: no node starts, stops or moves it";
        let held = self.node.held_down(now, group).map(|held| Pin {
            kind: PinKind::HeldDown,
            age: Some(held.age.as_secs_f64()),
            user: None,
            by: None,
            text: format!(
                "held for {} s more: failures have moved it too often",
                held.until.since(now).as_secs().saturating_add(1)
            ),
        });
        let own = own.map(|pinned| self.asked_for(PinKind::Frozen, pinned, frozen, now));
        own.into_iter().chain(held).chain(self.preference(group, owner)).collect()
    }

    /// The pins of this node as a whole, and of all nodes.
    fn pins(&self, now: Instant) -> Vec<Pin> {
        let maintenance = "maintenance: no node starts, stops or moves any group";
        let all = self.node.gossip().pinned(None);
        let all = all.map(|pinned| self.asked_for(PinKind::Maintenance, pinned, maintenance, now));
        let standby = self.standby.map(|standby| Pin {
            kind: PinKind::Standby,
            age: Some(now.since(standby.since).as_secs_f64()),
            user: Some(standby.user),
            by: Some(self.my_name().into()),
            text: "standby: this node takes no groups".into(),
        });
        all.into_iter().chain(standby).collect()
    }

    fn asked_for(&self, kind: PinKind, pinned: &gossip::GossipPin, text: &str, now: Instant) -> Pin {
        Pin {
            kind,
            age: Some(pinned.age(now).as_secs_f64()),
            user: Some(pinned.user),
            by: Some(self.name(pinned.by()).into()),
            text: text.into(),
        }
    }

    /// The preferred node that lives, if the group is on another one and stays there.
    fn preference(&self, group: GroupIndex, owner: Option<MemberIndex>) -> Option<Pin> {
        let plan = &self.plan.groups[group.0];
        let owner = self.plan.node(owner?)?;
        let lives = |node: &NodeIndex| self.node.liveness((*node).into()).is_up();
        let better = plan.prefer.iter().take_while(|node| **node != owner).find(|node| lives(node))?;
        let name = &self.plan.nodes[better.0].name;
        let text = match plan.failback {
            Failback::Stay => format!("prefers {name}; failback = \"stay\" keeps it where it is"),
            Failback::WhenAsked => {
                format!("prefers {name}; `locum move {} {name}` moves it there", plan.name)
            }
            Failback::After(_) => return None,
        };
        Some(Pin { kind: PinKind::Preference, age: None, user: None, by: None, text })
    }

    fn votes(&self, now: Instant) -> Votes {
        let member = self.node.member();
        let voters = &member.settings().voters;
        let voter = |voter: &MemberIndex| VoterStatus {
            name: self.name(*voter).into(),
            answers: member.is_heard_by(now, *voter),
        };
        Votes {
            set: voters.number,
            voters: voters.members.iter().map(voter).collect(),
            majority: voters.majority(),
            heard: member.is_heard(now),
            own: match member.standing(now) {
                None => OwnVote::None,
                Some(VoterStanding::Blank) => OwnVote::Blank,
                Some(VoterStanding::Mute(until)) => OwnVote::Mute { left: until.since(now).as_secs_f64() },
                Some(VoterStanding::Voting) => OwnVote::Votes,
                Some(VoterStanding::Broken) => OwnVote::Broken,
            },
            single_vote: member.single_vote_since().map(|since| now.since(since).as_secs_f64()),
            ceiling: member.ledger().synced().ceiling,
        }
    }
}

/// What is wrong and what is worth knowing, in words: troubles and hints.
fn complaints(status: &NativeStatus) -> (Vec<String>, Vec<String>) {
    let (mut troubles, mut hints) = (Vec::new(), Vec::new());
    for (group, disputed) in status.groups.iter().filter_map(|group| Some((group, group.disputed.as_ref()?)))
    {
        let what = if group.owner.is_none() { "is not started here" } else { "is not taken over" };
        troubles.push(format!("{} {what}: {disputed}", group.name));
    }
    if !status.votes.heard {
        let silent = status.votes.voters.iter().filter(|voter| !voter.answers);
        let silent: Vec<&str> = silent.map(|voter| voter.name.as_str()).collect();
        troubles.push(format!("no majority of the voters answers: no answer from {}", silent.join(", ")));
    }
    if status.votes.single_vote.is_some() {
        troubles.push(
            "this node is in single-vote mode: in a partition the other node is, too, and both run every group".into(),
        );
    }
    match status.votes.own {
        OwnVote::Broken => troubles.push(
            "the ledger cannot be written: this member does not vote; check the disk of the state directory, then \
             restart locum".into(),
        ),
        OwnVote::Blank => {
            troubles.push("there is no ledger yet: this member does not vote before it has copied one from the others".into());
        }
        OwnVote::None | OwnVote::Mute { .. } | OwnVote::Votes => {}
    }
    for link in &status.links {
        troubles.extend(link.down.iter().map(|why| format!("link {} is down: {why}", link.name)));
    }
    for member in status.members.iter().filter(|member| !member.is_me) {
        let name = &member.name;
        if let Some(why) = &member.refused {
            troubles.push(format!("{name} is refused: {why}"));
        }
        if member.liveness.is_down() {
            troubles.push(format!("{name} is silent"));
        }
        for path in &member.links {
            troubles.extend(
                path.way.trouble().map(|trouble| format!("link {} and {name}: {trouble}", path.link)),
            );
        }
        if member.differs {
            let settings = match member.differences.len() {
                1 => String::from("1 setting"),
                many => format!("{many} settings"),
            };
            hints.push(format!("the file of {name} differs from ours in {settings}"));
        }
    }
    for group in &status.groups {
        let name = &group.name;
        if group.owner.is_none() {
            let why = group.blocked.iter().map(|why| format!(": {why}")).collect::<String>();
            troubles.push(format!("{name} has no owner{why}"));
        }
        if let Some(why) = &group.failure {
            troubles.push(format!("{name} could not be run here: {why}"));
        }
        if !group.unproved.is_empty() {
            let nodes: Vec<&str> = group.unproved.iter().map(|entry| entry.node.as_str()).collect();
            hints.push(format!("{name}: not yet proved to have stopped it: {}", nodes.join(", ")));
        }
        hints.extend(group.pins.iter().map(|pin| format!("{name}: {}", pin.text)));
    }
    hints.extend(status.pins.iter().map(|pin| pin.text.clone()));
    (troubles, hints)
}
