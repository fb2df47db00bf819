//! Messages of scripts: those that a local script writes to the FIFO, and those that a script in `rc.d` may handle
//! (behaviour reference, sections 6 and 8; wire reference, section 9).

use super::*;
use crate::framing::frame::TYPE_MAX;

/// Most bytes of a script's message, names and values together.
const SCRIPT_BYTES_MAX: usize = 1024;
/// The variable that gives scripts this node's own status, besides the message's fields.
const OWN_STATUS: &str = "OSTATUS";
/// Fields that the sender fills in, whatever a script says.
const HEAD: &[&str] = &["t", "src", "srcuuid", "destuuid", "seq", "hg", "ts", "ld", "ttl", "auth", "locum"];
/// Messages of ipfail, whose work this node does itself.
const IPFAIL: &[&str] = &["num_ping_nodes", "you_are_dead", "abort_giveup"];
/// Messages in which a node speaks about itself. The daemon sends them itself, and does itself the work of heartbeat's
/// scripts of these names.
const NATIVE: &[&str] = &[
    "status",
    "reqnodes",
    "repnodes",
    "starting",
    "resource",
    "ask_resources",
    "hb_takeover",
    "ip-request",
    "ip-request-resp",
    "shutdone",
    "stonith",
    "addnode",
    "delnode",
    "setweight",
    "setsite",
];

impl R1Director {
    /// Handles a message that a local script wrote. Orders are carried out here. Messages that only the daemon may send
    /// are refused. Any other message is completed, numbered, signed and sent.
    pub(super) fn script(&mut self, fields: &[(String, String)]) {
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let result = match field("t") {
            Some("ask_resources") if field("info") == Some("me") => self.script_standby(field("rsc_hold")),
            Some("hb_takeover") => self.script_takeover(field("rsc_hold")),
            Some(kind) => self.send_script(kind, fields),
            None => Err("it has no type `t`".to_string()),
        };
        if let Err(why) = result {
            let kind = Escaped(field("t").unwrap_or_default().as_bytes());
            self.note(Level::Warning, format!("message [{kind}] of a local script refused: {why}"));
        }
    }

    /// `hb_standby` from a script, which waits for no answer.
    fn script_standby(&mut self, set: Option<&str>) -> Result<(), String> {
        let set = match set {
            Some("failback") => Holding::Foreign,
            Some(word) => {
                Holding::from_word(word).ok_or("`rsc_hold` is not all, local, foreign or failback")?
            }
            None => Holding::All,
        };
        self.with_r1(|r1, view| r1.wish_standby(view, set));
        Ok(())
    }

    /// `hb_takeover` from a script. The word `failback` does nothing, as in heartbeat.
    fn script_takeover(&mut self, set: Option<&str>) -> Result<(), String> {
        let set = set.unwrap_or("all");
        let set = Holding::from_word(set).ok_or("`rsc_hold` is not all, local or foreign")?;
        self.with_r1(|r1, view| r1.wish_takeover(view, set));
        Ok(())
    }

    fn send_script(&mut self, kind: &str, fields: &[(String, String)]) -> Result<(), String> {
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(kind) || kind.len() >= TYPE_MAX {
            return Err(format!("a type has fewer than {TYPE_MAX} printable characters"));
        }
        if matches!(kind, "addnode" | "delnode") {
            return Err("nodes are configured in ha.cf; a message cannot add or remove one".to_string());
        }
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let label = match (kind, field("node"), field("weight"), field("site")) {
            ("setweight", Some(node), Some(weight), _) => {
                let weight = weight.parse().map_err(|_| "`weight` is not a number")?;
                Some(Body::SetWeight { node: node.into(), weight })
            }
            ("setsite", Some(node), _, Some(site)) if site.bytes().all(|b| matches!(b, b' '..=b'~')) => {
                Some(Body::SetSite { node: node.into(), site: site.into() })
            }
            ("setweight" | "setsite", ..) => {
                return Err("it needs `node` and the value to set".into());
            }
            _ => None,
        };
        if let Some(body) = label {
            if !self.label(&body) {
                return Err("there is no such node".to_string());
            }
            self.say(body, None);
            return Ok(());
        }
        if NATIVE.contains(&kind)
            || IPFAIL.contains(&kind)
            || kind.starts_with("NS_")
            || kind.starts_with("hbapi-")
        {
            return Err("only the daemon itself sends this message".to_string());
        }
        let own: Vec<(String, String)> = fields
            .iter()
            .filter(|(name, _)| !HEAD.contains(&name.as_str()) && name != "dest")
            .cloned()
            .collect();
        let is_value = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !own.iter().all(|(name, value)| is_plain(name) && !name.contains(['=', '(']) && is_value(value)) {
            return Err("a field is empty or holds control characters".to_string());
        }
        if own.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > SCRIPT_BYTES_MAX {
            return Err(format!("it has more than {SCRIPT_BYTES_MAX} bytes"));
        }
        let dest = field("dest").map(str::to_lowercase);
        if dest.as_ref().is_some_and(|dest| !self.plan.nodes.contains(dest)) {
            return Err("`dest` is not a node of this cluster".to_string());
        }
        let inner = self.plan.framing.inner_auth;
        let me = &self.plan.nodes[self.plan.me.0];
        let mut message = R1Message::of_script(kind, &own, me, inner);
        let peer_uuid =
            self.peer.as_ref().filter(|peer| Some(&peer.name) == dest.as_ref()).and_then(|p| p.uuid);
        (message.dest, message.dest_uuid) = (dest, peer_uuid);
        self.send(message);
        Ok(())
    }

    /// Reports a message, the peer's or our own, for which a script in `rc.d` may exist. Messages that this node
    /// handles itself are not reported.
    pub(super) fn event_script(&mut self, message: &R1Message) {
        let Body::Other { kind } = &message.body else { return };
        let is_name = kind.bytes().all(|b| b.is_ascii_graphic() && b != b'/') && !kind.starts_with('.');
        if !is_name || NATIVE.contains(&kind.as_str()) || kind.starts_with("NS_") {
            return;
        }
        let mut fields = environment(&message.texts());
        // Our own value, whatever the message has under that name.
        fields.retain(|(name, _)| name != OWN_STATUS);
        fields.push((OWN_STATUS.into(), self.state.word().into()));
        self.out.push_back(Action::EventScript { kind: kind.clone(), fields, epoch: None });
    }

    /// Refuses to add or remove nodes: no frame adds, removes or renames a node (invariant 3).
    pub(super) fn refuse_nodes(&mut self, message: &R1Message, nodes: &str) {
        let (kind, nodes) = (message.body.kind(), Escaped(nodes.as_bytes()));
        let text = format!(
            "{} asks for {kind} {nodes}: refused, because nodes are configured in ha.cf; a real heartbeat that \
             accepts it has other nodes than this node now",
            message.src
        );
        self.note(Level::Warning, text);
    }

    /// Keeps the weight or site that an administrator set for a node. Returns false for an unknown node.
    pub(super) fn label(&mut self, body: &Body) -> bool {
        let (Body::SetWeight { node, .. } | Body::SetSite { node, .. }) = body else { return false };
        let Some(index) = self.plan.nodes.iter().position(|known| *known == node.to_lowercase()) else {
            let node = Escaped(node.as_bytes());
            self.note(Level::Warning, format!("{} for node [{node}], which is not in ha.cf", body.kind()));
            return false;
        };
        let text = match body {
            Body::SetWeight { weight, .. } => {
                self.labels[index].weight = *weight;
                format!(
                    "node {}: weight set to {weight} (shown in the status, no effect)",
                    self.plan.nodes[index]
                )
            }
            Body::SetSite { site, .. } => {
                self.labels[index].site.clone_from(site);
                let site = Escaped(site.as_bytes());
                format!(
                    "node {}: site set to {site} (shown in the status, no effect)",
                    self.plan.nodes[index]
                )
            }
            _ => return false,
        };
        self.note(Level::Info, text);
        true
    }
}

/// What a script may see of a message: fields with names of letters, digits and `_`, and values without control
/// characters. Of two fields with one name the first counts.
fn environment(fields: &[(String, Vec<u8>)]) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in fields {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let Ok(value) = core::str::from_utf8(value) else { continue };
        if is_name && !value.chars().any(char::is_control) && seen.iter().all(|(known, _)| known != name) {
            seen.push((name.clone(), value.into()));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_has_plain_names_and_values() {
        let field = |name: &str, value: &[u8]| (name.to_string(), value.to_vec());
        let fields = [
            field("t", b"backup"),
            field("t", b"twice"),
            field("LD_PRELOAD", b"/tmp/x.so"),
            field("a-b", b"dash"),
            field("a=b", b"equals"),
            field("", b"nothing"),
            field("x\ny", b"newline in the name"),
            field("line", b"one\ntwo"),
            field("escape", b"\x1b[2J"),
            field("nul", b"a\0b"),
            field("c1", "\u{9b}2J".as_bytes()),
            field("bytes", b"\xff\xfe"),
            field("word_1", b"$(reboot) `x` ; \"'"),
        ];
        let seen = environment(&fields);
        let seen: Vec<(&str, &str)> =
            seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // `LD_PRELOAD` arrives as `HA_LD_PRELOAD`, which no linker knows.
        let expected = [("t", "backup"), ("LD_PRELOAD", "/tmp/x.so"), ("word_1", "$(reboot) `x` ; \"'")];
        assert_eq!(seen, expected);
    }
}
