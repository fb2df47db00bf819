//! Watches the gates in each node's kernel every two milliseconds, whichever program put them there.

use std::{
    collections::BTreeMap,
    io::PipeReader,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use locum_sys::{clock, gate, namespace};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Beat, Record, lock};
use crate::{clock::Moment, timeline::Span};

/// How often each node's gates are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One look at the gate of a service. It was read between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The gate was not read before this moment.
    pub from: Moment,
    /// The gate was not read after this moment.
    pub to: Moment,
    /// When the gate shuts by itself; `None` if it is shut, or there is none.
    pub open_until: Option<Moment>,
}

/// Access to a node's gates: its network, and its bpf file system, if it has one.
pub(crate) struct GatePost {
    pub(crate) network: OwnedFd,
    pub(crate) bpffs: Option<OwnedFd>,
}

pub(super) fn watch(
    post: &GatePost,
    node: &str,
    services: &[Ipv4Addr],
    record: &Mutex<Record>,
    stop: &PipeReader,
) {
    if namespace::enter_network(&post.network).is_err() {
        return;
    }
    // The file system is mounted where this thread does not see it.
    let bpffs =
        post.bpffs.as_ref().map(|place| PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd())));
    let mut beat = Beat::new(LOOK_EVERY);
    while pause(stop, beat.next.remaining()) {
        if !beat.due() {
            continue;
        }
        let from = Moment::now();
        // A gate that comes or goes at this moment may be incomplete; then the next look shows it.
        let Ok(gates) = gate::list(bpffs.clone()) else { continue };
        let ahead = clock::boot_nanos().saturating_sub(clock::monotonic_nanos());
        let to = Moment::now();
        let mut until: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for gate in gates {
            for address in gate.addresses {
                let latest = until.entry(address).or_default();
                *latest = (*latest).max(gate.deadline.unwrap_or_default());
            }
        }
        let mut record = lock(record);
        for &service in services {
            let deadline = until.get(&service.into()).filter(|&&deadline| deadline > 0);
            let moment = |deadline: &u64| Moment::at(Duration::from_nanos(deadline.saturating_sub(ahead)));
            let look = Look { from, to, open_until: deadline.map(moment) };
            record.looks.entry((node.to_owned(), service)).or_default().push(look);
        }
    }
}

/// False when the watch is to end.
fn pause(stop: impl AsFd, limit: Duration) -> bool {
    let mut ready = [PollFd::new(&stop, PollFlags::IN)];
    let _ = poll(&mut ready, Timespec::try_from(limit).ok().as_ref());
    ready[0].revents().is_empty()
}

/// The spans in which the gate was certainly open. If it was shut between two looks, it counts until the look before.
/// If it shut by itself, it counts until its deadline.
pub(super) fn while_open(looks: &[Look]) -> Vec<Span> {
    let mut spans = Vec::new();
    // Since when it is open, until when, and when that was seen last.
    let mut open: Option<(Moment, Moment, Moment)> = None;
    for &Look { from, to, open_until } in looks {
        open = match (open, open_until) {
            (Some((since, until, _)), Some(next)) if until > from => Some((since, next, from)),
            (Some((since, until, seen)), next) => {
                let shut_itself = until <= to;
                spans.push(Span::new(since, if shut_itself { until } else { seen }));
                next.map(|next| (to, next, from))
            }
            (None, next) => next.map(|next| (to, next, from)),
        };
    }
    spans.extend(open.map(|(since, until, seen)| Span::new(since, until.min(seen))));
    spans.retain(|span| span.from < span.to);
    spans
}

/// The longest time between two looks that touches the window. Times before the first look and after the last one count
/// as unseen.
pub(super) fn longest_unseen(looks: &[Look], window: Span) -> Duration {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return window.length() };
    let ends = [Span::new(window.from, first.to), Span::new(last.from, window.to)];
    let gaps = looks.windows(2).map(|pair| Span::new(pair[0].from, pair[1].to)).chain(ends);
    gaps.filter(|gap| gap.meet(window).is_some()).map(Span::length).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn look(from: u64, to: u64, until: Option<u64>) -> Look {
        Look { from: ms(from), to: ms(to), open_until: until.map(ms) }
    }

    fn spans(looks: &[Look]) -> Vec<(Moment, Moment)> {
        while_open(looks).into_iter().map(|span| (span.from, span.to)).collect()
    }

    #[test]
    fn a_gate_that_shuts_by_itself_was_open_until_its_deadline() {
        let looks =
            [look(0, 1, None), look(10, 11, Some(100)), look(20, 21, Some(120)), look(200, 201, None)];
        assert_eq!(spans(&looks), [(ms(11), ms(120))]);
        // There was no look for a while, and the gate was opened again meanwhile.
        let looks = [look(0, 1, Some(30)), look(50, 51, Some(90)), look(60, 61, Some(90))];
        assert_eq!(spans(&looks), [(ms(1), ms(30)), (ms(51), ms(60))]);
    }

    #[test]
    fn a_gate_that_somebody_shuts_counts_until_the_last_look() {
        let looks = [look(0, 1, Some(100)), look(10, 11, Some(100)), look(20, 21, None), look(30, 31, None)];
        assert_eq!(spans(&looks), [(ms(1), ms(10))]);
        assert_eq!(spans(&[look(0, 1, None)]), []);
        assert_eq!(spans(&looks[..1]), [], "seen once is no time");
    }

    #[test]
    fn the_longest_time_without_a_look_is_known() {
        let looks = [look(0, 1, None), look(10, 11, None), look(40, 45, None), look(50, 51, None)];
        assert_eq!(longest_unseen(&looks, Span::new(ms(0), ms(50))), Duration::from_millis(35));
        assert_eq!(longest_unseen(&looks, Span::new(ms(46), ms(50))), Duration::from_millis(11));
        assert_eq!(longest_unseen(&looks, Span::new(ms(0), ms(150))), Duration::from_millis(100));
        assert_eq!(longest_unseen(&[], Span::new(ms(0), ms(50))), Duration::from_millis(50));
    }
}
