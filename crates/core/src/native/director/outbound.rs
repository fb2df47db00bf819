//! Outgoing messages: each is written once per framing and key, and sent over every link that leads to its receivers.

use super::*;
use crate::native::{status::Way, wire::Frame};

/// The bytes that a link needs for a frame: the framing, and for a witness its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Netstring,
    Classic,
    /// To this witness: with its own key if it has one, and with the address from which we send to it.
    For(WitnessIndex),
}

impl Director {
    pub(super) fn say(&mut self, to: To, word: &Word) {
        let mut reach = Reach::default();
        if let Word::Beat(_) = word {
            reach.hears = self.links.beat(self.now.instant);
            self.tell_links();
            self.remember_all(REMEMBER_EVERY);
        }
        let set = self.node.member().settings().voters.number;
        for frame in self.wire.write(set, to, word, &reach) {
            self.transmit(to, &frame);
        }
    }

    /// Logs each change of the links once.
    fn tell_links(&mut self) {
        while let Some(links::News { link, way, members }) = self.links.news() {
            let names: Vec<&str> = members.iter().map(|member| self.name(*member)).collect();
            let (link, names) = (self.link_name(link), names.join(", "));
            let (level, text) = match way {
                Way::Untested => continue,
                Way::Both => (Level::Info, format!("{link} carries frames both ways to {names} again")),
                Way::OnlyHere => {
                    (Level::Warning, format!("{link} carries frames one way only: from {names}, not to it"))
                }
                Way::OnlyThere => {
                    (Level::Warning, format!("{link} carries frames one way only: to {names}, not from it"))
                }
                Way::Neither => {
                    let text = "which hear each other on other links";
                    (
                        Level::Warning,
                        format!("{link} carries nothing between {names} and this member, {text}"),
                    )
                }
            };
            self.note(level, text);
        }
    }

    fn transmit(&mut self, to: To, frame: &Frame) {
        self.reception.frames.sent += 1;
        let mut made: BTreeMap<Form, Arc<[u8]>> = BTreeMap::new();
        for (link, address) in self.ways(to) {
            let form = self.form(link);
            let bytes = Arc::clone(made.entry(form).or_insert_with(|| {
                let framing = if form == Form::Classic { Framing::Classic } else { Framing::Netstring };
                let mut bytes = Vec::with_capacity(400);
                frame.emit_from(framing, self.keys(link), self.own_addresses[link.0], &mut bytes);
                Arc::from(bytes)
            }));
            self.out.push_back(match address {
                Some(to) => Action::SendTo { link, to, bytes },
                None => Action::Send { link, bytes },
            });
        }
    }

    /// The links that lead to a member, or to all, each once; on our own witness's link with the members' addresses.
    fn ways(&self, to: To) -> Vec<(LinkIndex, Option<SocketAddr>)> {
        let all = (0..self.peers.len()).map(MemberIndex::at);
        let members: Vec<MemberIndex> = match to {
            To::All => all.collect(),
            To::One(member) => alloc::vec![member],
        };
        let mut ways = Vec::new();
        for member in members {
            for path in self.links.paths(member) {
                let is_own = self.links.witness(path.out).map(plan::Member::Witness) == Some(self.plan.me);
                match is_own.then(|| self.links.home(member)) {
                    // Its address is not known before it was heard.
                    Some(None) => {}
                    Some(home) => ways.push((path.out, home)),
                    None => ways.push((path.out, None)),
                }
            }
        }
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    fn form(&self, link: LinkIndex) -> Form {
        match self.links.witness(link) {
            Some(witness) => Form::For(witness),
            None if matches!(self.plan.links[link.0].medium, plan::Medium::Serial { .. }) => Form::Classic,
            None => Form::Netstring,
        }
    }
}
