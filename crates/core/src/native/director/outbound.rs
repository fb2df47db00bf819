//! Outgoing messages: each is written once per framing and key, and sent over every link that leads to its receivers.

use super::*;
use crate::native::{status::LinkDirections, wire::Frame};

/// The bytes that a link needs for a frame: the framing, and for a witness its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FrameEncoding {
    Netstring,
    Classic,
    /// To this witness: with its own key if it has one, and with the address from which we send to it.
    For(WitnessIndex),
}

impl NativeDirector {
    pub(super) fn say(&mut self, to: Receivers, message: &NativeMessage) {
        let mut reach = Reach::default();
        if let NativeMessage::Beat(_) = message {
            reach.hears = self.links.beat(self.now.instant);
            self.tell_links();
            self.remember_all(REMEMBER_EVERY);
        }
        let set = self.node.member().settings().voters.number;
        for frame in self.wire.write(set, to, message, &reach) {
            self.transmit(to, &frame);
        }
    }

    /// Logs each change of the links once.
    fn tell_links(&mut self) {
        while let Some(links::LinkReport { link, way, members }) = self.links.next_change() {
            let names: Vec<&str> = members.iter().map(|member| self.name(*member)).collect();
            let (link, names) = (self.link_name(link), names.join(", "));
            let (level, text) = match way {
                LinkDirections::Untested => continue,
                LinkDirections::Both => {
                    (Level::Info, format!("{link} carries frames both ways to {names} again"))
                }
                LinkDirections::OnlyHere => {
                    (Level::Warning, format!("{link} carries frames one way only: from {names}, not to it"))
                }
                LinkDirections::OnlyThere => {
                    (Level::Warning, format!("{link} carries frames one way only: to {names}, not from it"))
                }
                LinkDirections::Neither => {
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

    fn transmit(&mut self, to: Receivers, frame: &Frame) {
        self.reception.frames.sent += 1;
        let mut made: BTreeMap<FrameEncoding, Arc<[u8]>> = BTreeMap::new();
        for (link, address) in self.routes(to) {
            let form = self.encoding(link);
            let bytes = Arc::clone(made.entry(form).or_insert_with(|| {
                let framing =
                    if form == FrameEncoding::Classic { Framing::Classic } else { Framing::Netstring };
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
    fn routes(&self, to: Receivers) -> Vec<(LinkIndex, Option<SocketAddr>)> {
        let all = (0..self.peers.len()).map(MemberIndex::at);
        let members: Vec<MemberIndex> = match to {
            Receivers::All => all.collect(),
            Receivers::One(member) => alloc::vec![member],
        };
        let mut ways = Vec::new();
        for member in members {
            for path in self.links.paths(member) {
                let is_own =
                    self.links.witness(path.out).map(plan::NativeMember::Witness) == Some(self.plan.me);
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

    fn encoding(&self, link: LinkIndex) -> FrameEncoding {
        match self.links.witness(link) {
            Some(witness) => FrameEncoding::For(witness),
            None if matches!(self.plan.links[link.0].medium, plan::NativeMedium::Serial { .. }) => {
                FrameEncoding::Classic
            }
            None => FrameEncoding::Netstring,
        }
    }
}
