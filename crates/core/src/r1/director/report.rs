//! The status of one node: the director's state as an [`R1Status`].

use super::*;
use crate::model::status::Waiting;

impl R1Director {
    /// The cluster as this node sees it at `now`.
    #[must_use]
    pub fn status(&self, now: Now) -> R1Status {
        let ago = |at: Instant| now.instant.since(at).as_secs_f64();
        R1Status {
            cluster: self.plan.cluster.clone(),
            dialect: "r1".into(),
            guard: if self.plan.fencing.is_some() { "fencing".into() } else { "none".into() },
            node: self.plan.nodes[self.plan.me.0].clone(),
            state: self.r1.state(),
            transition: self.r1.transition().map(Into::into),
            waiting: self.waiting(now.instant),
            holding: self.r1.mine().word().into(),
            generation: self.identity.generation,
            uptime: ago(self.started),
            nodes: self.node_status(ago),
            links: self.link_status(ago),
            pings: self
                .plan
                .pings
                .iter()
                .zip(&self.pings)
                .map(|(ping, watch)| status::R1PingStatus {
                    name: ping.name.clone(),
                    liveness: watch.state(),
                })
                .collect(),
            groups: self.group_status(ago),
            forecasts: self.forecasts(),
            troubles: self.troubles(now.instant),
            hints: self.hints(now.instant),
            frames: self.reception.frames.clone(),
            digest: self.digest(),
        }
    }

    fn waiting(&self, now: Instant) -> Option<Waiting> {
        let view = view(now, &self.plan, &self.identity, self.peer.as_ref(), &self.unreachable, &self.groups);
        let (why, until) = self.r1.waiting(&view)?;
        let waited = until
            .map(|until| crate::r1::ownership::REACH_WAIT.saturating_sub(until.since(now)).as_secs_f64());
        Some(Waiting { why, waited, at_most: until.map(|_| crate::r1::ownership::REACH_WAIT.as_secs_f64()) })
    }

    fn node_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::R1NodeStatus> {
        let deadtime = self.plan.timing.deadtime.as_secs_f64();
        let nodes = self.plan.nodes.iter().enumerate();
        nodes
            .map(|(index, name)| match &self.peer {
                Some(peer) if peer.node.0 == index => status::R1NodeStatus {
                    name: name.clone(),
                    liveness: peer.watch.state(),
                    left: peer.left,
                    program: peer.locum.map(|locum| if locum { "locum" } else { "heartbeat" }.into()),
                    heard: peer.locum.map(|_| ago(peer.watch.heard())),
                    generation: peer.received.generation(),
                    deadtime: peer.watch.dead_after().as_secs_f64(),
                    weight: self.labels[index].weight,
                    site: self.labels[index].site.clone(),
                },
                _ => status::R1NodeStatus {
                    name: name.clone(),
                    liveness: Liveness::Alive,
                    left: self.left.is_some(),
                    program: Some("locum".into()),
                    heard: None,
                    generation: Some(self.identity.generation),
                    deadtime,
                    weight: self.labels[index].weight,
                    site: self.labels[index].site.clone(),
                },
            })
            .collect()
    }

    fn link_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::R1LinkStatus> {
        let links = (0..).map(LinkIndex).zip(&self.plan.links).zip(&self.links);
        links
            .map(|((index, link), view)| status::R1LinkStatus {
                name: link.name.clone(),
                down: self.reception.down(index).map(Into::into),
                liveness: view.watch.state(),
                heard: (view.watch.heard() > self.started).then(|| ago(view.watch.heard())),
            })
            .collect()
    }

    fn group_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::R1GroupStatus> {
        let groups = self.plan.groups.iter().zip(&self.owner_history).enumerate();
        groups
            .map(|(index, (group, book))| {
                let index = GroupIndex(index);
                status::R1GroupStatus {
                    key: group.key.clone(),
                    resources: group.resources.iter().map(|resource| resource.text.clone()).collect(),
                    preferred: self.plan.nodes[group.node.0].clone(),
                    owner: book.owner.map(|node| self.plan.nodes[node.0].clone()),
                    phase: self.groups.phase(index),
                    since: book.since.map(&ago),
                    last_outage: book.last_outage.map(|outage| outage.as_secs_f64()),
                    failure: self.groups.failure(index).map(String::from),
                    taken_away: self.groups.taken_away(index),
                    contested: !self.r1.contested().and(self.set_of(index)).is_none(),
                }
            })
            .collect()
    }

    fn forecasts(&self) -> Vec<status::Forecast> {
        let me = self.plan.me;
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.watch.state().is_up() && !peer.left) else {
            return self.forecast(me, None, self.plan.timing.deadtime).into_iter().collect();
        };
        [
            self.forecast(me, Some(peer.node), self.plan.timing.deadtime),
            self.forecast(peer.node, Some(me), peer.watch.dead_after()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn forecast(
        &self,
        node: NodeIndex,
        taker: Option<NodeIndex>,
        after: Duration,
    ) -> Option<status::Forecast> {
        if self.left.is_some() {
            return None;
        }
        let owned =
            self.plan.groups.iter().zip(&self.owner_history).filter(|(_, book)| book.owner == Some(node));
        let starts: Vec<String> = owned
            .flat_map(|(group, _)| group.resources.iter().map(|resource| resource.text.clone()))
            .collect();
        let name = self.plan.nodes[node.0].clone();
        let reason = match taker {
            _ if starts.is_empty() => Some(format!("nothing moves: {name} runs nothing")),
            None if self.peer.is_none() => Some("no node takes over: the cluster has one node".to_string()),
            None => Some("no node takes over: the other node is not there".to_string()),
            Some(_) if self.r1.state() != R1State::Stable => {
                Some("this node has not settled yet".to_string())
            }
            Some(_) => None,
        };
        let taker = taker.filter(|_| reason.is_none()).map(|node| self.plan.nodes[node.0].clone());
        Some(status::Forecast { node: name, taker, starts, after: after.as_secs_f64(), reason })
    }

    /// The interval of a peer's beats, for alarms that last some beats.
    pub(super) fn alarm_beat(&self) -> Duration {
        self.plan.timing.keepalive
    }

    /// Alarms that split the cluster, with the cure. The flag says whether the alarm does so now, or would if the peer
    /// were not heard.
    fn alarms(&self, now: Instant) -> impl Iterator<Item = (bool, String)> + use<'_> {
        let name = self.peer.as_ref().map_or("the peer", |peer| peer.name.as_str());
        let me = &self.plan.nodes[self.plan.me.0];
        let is_alone = self.peer.as_ref().is_some_and(|peer| !peer.watch.state().is_up());
        self.reception.lasting(now).map(move |(alarm, from, text)| match alarm {
            RefusalAlarm::OurName => (
                true,
                format!(
                    "another machine, {from}, uses this node's name {me}: both run the same groups; stop locum there, and \
                     give it a name (`uname -n`) and a state directory of its own"
                ),
            ),
            RefusalAlarm::TwoMachines => (
                true,
                format!("two machines use the name {name}, one of them is {from}: stop locum on the wrong one"),
            ),
            RefusalAlarm::OldGeneration if !self.files.has_refused(now) => {
                (false, format!("replayed frames of {name} from {from} are refused"))
            }
            RefusalAlarm::OldGeneration => (
                true,
                format!(
                    "frames of {name} from {from} are refused because their generation is too old: its state \
                     directory is an older copy, or another machine uses its name; restart locum there"
                ),
            ),
            RefusalAlarm::OtherKey => (
                is_alone,
                format!(
                    "frames from {from} are refused: {text}; give both nodes the same authkeys, then `systemctl reload locum`"
                ),
            ),
            RefusalAlarm::Stranger => (is_alone, format!("frames from {from} are refused: {text}")),
        })
    }

    fn troubles(&self, now: Instant) -> Vec<String> {
        let mut troubles: Vec<String> =
            self.alarms(now).filter(|(parts, _)| *parts).map(|(_, text)| text).collect();
        troubles.extend(self.outlived());
        troubles.extend(self.disagreement());
        troubles.extend(self.one_way());
        if let Some(peer) = &self.peer {
            if peer.left {
                troubles.push(format!("{} has left the cluster: no node would take over", peer.name));
            } else if !peer.watch.state().is_up() {
                troubles.push(format!("{} is not heard: no node would take over", peer.name));
            }
        }
        if self.r1.is_fencing() {
            let name = self.peer.as_ref().map_or("the peer", |peer| peer.name.as_str());
            troubles.push(match self.r1.fencing_failure() {
                Some((times, why)) => format!(
                    "node {name}: could not be reset ({times} tries): {why}; its groups are not taken over until it \
                     is reset"
                ),
                None => format!("node {name}: being reset; its groups are not taken over until it is reset"),
            });
        }
        for ((index, link), view) in (0..).map(LinkIndex).zip(&self.plan.links).zip(&self.links) {
            match self.reception.down(index) {
                Some(why) => troubles.push(format!("link {} is down: {why}", link.name)),
                None if self.peer.is_some() && !view.watch.state().is_up() => {
                    troubles.push(format!("the peer is not heard over link {}", link.name));
                }
                None => {}
            }
        }
        for (ping, watch) in self.plan.pings.iter().zip(&self.pings) {
            if watch.state().is_down() {
                troubles.push(format!("ping node {} does not answer", ping.name));
            }
        }
        for (index, (group, book)) in self.plan.groups.iter().zip(&self.owner_history).enumerate() {
            let index = GroupIndex(index);
            if self.files.is_withheld(index) {
                troubles.push(self.withheld_text(index));
                continue;
            }
            if let Some(why) = self.groups.failure(index) {
                troubles.push(format!("group {} could not be started here: {why}", group.key));
            }
            if let Some(peer) =
                self.peer.as_ref().filter(|peer| book.owner.is_none() && peer.failed.contains(&index))
            {
                troubles.push(format!("group {} could not be started on {}", group.key, peer.name));
            }
            if matches!(self.groups.phase(index), GroupPhase::StopFailed(_)) {
                troubles.push(format!(
                    "group {}: stop failed here: an administrator must stop its resources",
                    group.key
                ));
            } else if book.owner.is_none() && self.left.is_none() {
                troubles.push(format!("group {}: runs on no node, as far as this node knows", group.key));
            }
        }
        if !self.r1.contested().is_none() {
            troubles.push("both nodes run the same groups (healed or one-way partition)".to_string());
        }
        troubles
    }

    fn hints(&self, now: Instant) -> Vec<String> {
        let mut hints: Vec<String> =
            self.alarms(now).filter(|(parts, _)| !parts).map(|(_, text)| text).collect();
        if self.reception.keys().signing().method == crate::model::keys::AuthMethod::Crc {
            hints.push(
                "authkeys signs with crc: anyone on the link can take the service; use sha1".to_string(),
            );
        }
        if self.plan.links.len() == 1 && self.peer.is_some() {
            hints.push(format!(
                "only one link ({}): if it fails, the nodes lose each other; add a second link over other cables",
                self.plan.links[0].name
            ));
        }
        hints
    }

    /// FNV-1a over what decisions depend on: states, not times or counters.
    fn digest(&self) -> String {
        let links = (0..).map(LinkIndex).zip(&self.links);
        let links: Vec<_> =
            links.map(|(index, link)| (self.reception.down(index), link.watch.state())).collect();
        let peer = self
            .peer
            .as_ref()
            .map(|p| (p.watch.state(), p.left, p.comm == Comm::Up, p.received.generation()));
        let phases: Vec<_> =
            (0..self.owner_history.len()).map(|index| self.groups.phase(GroupIndex(index))).collect();
        let text = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {links:?} {peer:?} {phases:?}",
            self.state,
            self.r1.state(),
            self.r1.mine(),
            self.r1.theirs(),
            self.r1.contested(),
            self.r1.transition(),
        );
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}
