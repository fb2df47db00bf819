//! The processes that hold ports which links want. The heart asks the control plane, which can find them, and goes on
//! trying meanwhile.

use std::collections::BTreeMap;

/// The control plane is asked about a port at most this often.
const ASK_EVERY_NANOS: u64 = 5_000_000_000;

/// What is known of ports that another process holds.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<u16, KnownHolder>);

#[derive(Debug)]
struct KnownHolder {
    asked: u64,
    name: Option<String>,
}

impl Holders {
    /// Whether to ask now which process holds this port.
    pub(super) fn asks(&mut self, port: u16, now: u64) -> bool {
        match self.0.get_mut(&port) {
            Some(holder) if now.saturating_sub(holder.asked) < ASK_EVERY_NANOS => false,
            Some(holder) => {
                holder.asked = now;
                true
            }
            None => {
                self.0.insert(port, KnownHolder { asked: now, name: None });
                true
            }
        }
    }

    /// Notes the answer. Returns whether it is new.
    pub(super) fn learn(&mut self, port: u16, name: Option<String>) -> bool {
        let Some(holder) = self.0.get_mut(&port) else { return false };
        let is_news = holder.name != name;
        holder.name = name;
        is_news
    }

    /// The process that holds the port, in words.
    pub(super) fn name(&self, port: u16) -> Option<&str> {
        self.0.get(&port)?.name.as_deref()
    }
}
