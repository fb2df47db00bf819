//! Puts lists together that came in several frames: the whole list or nothing of it, within bounds.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use super::{
    body::WHOLE,
    frame::{Opened, PARTS_MAX},
};
use crate::model::time::{Duration, Instant};

/// Most bytes of incomplete lists that are kept of one member.
pub const PARTS_BYTES_MAX: usize = 1 << 20;

/// The incomplete lists of one generation of a member: of each kind the newest.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    lists: BTreeMap<&'static str, PartialList>,
}

#[derive(Clone, Debug)]
struct PartialList {
    /// The number of its first frame: the frames of a list have consecutive numbers.
    first: u64,
    since: Instant,
    lists: BTreeMap<usize, String>,
    parts: usize,
    bytes: usize,
}

/// Why a part is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartFault {
    /// Its kind has no parts, or its place does not fit its number or the parts that came before.
    Place,
    /// The lists of this member would be too long.
    TooMuch,
}

impl Parts {
    /// Forgets lists that were not completed in time.
    pub(super) fn expire(&mut self, now: Instant, patience: Duration) {
        self.lists.retain(|_, list| now.since(list.since) < patience);
    }

    /// The number of bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.lists.values().map(|list| list.bytes).sum()
    }

    /// Keeps a part. Returns the whole list if this part completes it.
    pub(super) fn take(&mut self, now: Instant, opened: &mut Opened) -> Result<Option<String>, PartFault> {
        let Some((index, parts)) = opened.part else { return Ok(Some(core::mem::take(&mut opened.list))) };
        let kind = WHOLE.into_iter().find(|kind| *kind == opened.kind).ok_or(PartFault::Place)?;
        let before = u64::try_from(index - 1).map_err(|_| PartFault::Place)?;
        let first = opened.number.checked_sub(before).ok_or(PartFault::Place)?;
        if self.lists.get(kind).is_some_and(|list| list.first > first) {
            return Ok(None); // a newer one is on its way
        }
        if self.lists.get(kind).is_some_and(|list| list.first < first) {
            self.lists.remove(kind);
        }
        let bytes = opened.list.len();
        if self.bytes() + bytes > PARTS_BYTES_MAX {
            self.lists.remove(kind);
            return Err(PartFault::TooMuch);
        }
        debug_assert!(parts <= PARTS_MAX, "the head was read with that bound");
        let new = || PartialList { first, since: now, lists: BTreeMap::new(), parts, bytes: 0 };
        let list = self.lists.entry(kind).or_insert_with(new);
        if list.parts != parts {
            return Err(PartFault::Place);
        }
        list.bytes += bytes;
        list.lists.insert(index, core::mem::take(&mut opened.list));
        if list.lists.len() < parts {
            return Ok(None);
        }
        let lists = self.lists.remove(kind).map(|list| list.lists).unwrap_or_default();
        Ok(Some(lists.into_values().collect::<Vec<_>>().join("\n")))
    }
}
