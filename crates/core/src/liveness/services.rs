//! Whether clients can reach a service address from here, as far as this machine's interfaces tell. A plug that is pulled
//! for a moment, or does not sit well, moves nothing: a change counts only when it has lasted for a while. Other nodes
//! are told of a fault at once and of its end late. So no node hands a group to one that has lost its own carrier at the
//! same moment, as when a switch dies, or to the first one that has it back.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::model::{
    event::Carrier,
    identity::{GroupIndex, ResourceId},
    time::{Duration, Instant},
};

/// What is known of the interface of one address.
#[derive(Debug)]
struct Service {
    /// Why it carries nothing, as reported last.
    reported: Option<String>,
    /// Since when it has been reported so.
    since: Instant,
    /// Whether it counts as unreachable.
    is_unreachable: bool,
}

/// The service addresses of the plan that were reported. All others count as reachable.
#[derive(Debug)]
pub(crate) struct Services {
    services: BTreeMap<ResourceId, Service>,
    pause: Duration,
    begins: Instant,
}

impl Services {
    /// `pause`: how long a change must last. Before `begins` a change counts at once, because nothing is owned yet.
    pub(crate) const fn new(pause: Duration, begins: Instant) -> Self {
        Self { services: BTreeMap::new(), pause, begins }
    }

    pub(crate) fn report(&mut self, now: Instant, resource: ResourceId, state: Carrier) {
        let told = match state {
            Carrier::Up => None,
            Carrier::Down(why) | Carrier::Barred(why) => Some(why),
        };
        let new = || Service { reported: None, since: now, is_unreachable: false };
        let service = self.services.entry(resource).or_insert_with(new);
        if service.reported.is_some() != told.is_some() {
            service.since = if now < self.begins { Instant::ZERO } else { now };
        }
        service.reported = told;
    }

    /// The changes that count from now on: addresses that are unreachable, with the reason, and those that are reachable
    /// again.
    pub(crate) fn elapse(&mut self, now: Instant) -> Vec<(ResourceId, Option<String>)> {
        let pause = self.pause;
        let due =
            self.services.iter_mut().filter(|(_, service)| service.due(pause).is_some_and(|at| at <= now));
        let news = due.map(|(resource, service)| {
            service.is_unreachable = service.reported.is_some();
            (*resource, service.reported.clone())
        });
        news.collect()
    }

    /// When [`Self::elapse`] returns the next change.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.services.values().filter_map(|service| service.due(self.pause)).min()
    }

    /// The groups with an address that is unreachable, even for a moment, or has not been reachable again for long
    /// enough; in order.
    pub(crate) fn unreachable(&self) -> Vec<GroupIndex> {
        self.groups(|service| service.is_unreachable || service.reported.is_some())
    }

    /// The groups that have been unreachable for long enough to do something about it, in order.
    pub(crate) fn unreachable_for_long(&self) -> Vec<GroupIndex> {
        self.groups(|service| service.is_unreachable && service.reported.is_some())
    }

    fn groups(&self, are: impl Fn(&Service) -> bool) -> Vec<GroupIndex> {
        let of = self.services.iter().filter(|(_, service)| are(service));
        let mut groups: Vec<GroupIndex> = of.map(|(resource, _)| resource.group).collect();
        groups.dedup();
        groups
    }
}

impl Service {
    /// When the last report begins to count, if it does not yet.
    fn due(&self, pause: Duration) -> Option<Instant> {
        (self.reported.is_some() != self.is_unreachable).then(|| self.since + pause)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn what_does_not_last_changes_nothing() {
        let mut services = Services::new(Duration::from_secs(1), at(2000));
        let resource = |group, member| ResourceId { group: GroupIndex(group), member };
        let down = || Carrier::Down("eth0 has no carrier".into());
        services.report(at(2000), resource(3, 0), down());
        services.report(at(2500), resource(3, 0), Carrier::Up);
        assert_eq!((services.deadline(), services.elapse(at(9000))), (None, vec![]));
        assert_eq!(services.unreachable(), []);
        services.report(at(9000), resource(3, 0), down());
        // Another reason does not begin the time anew.
        services.report(at(9500), resource(3, 0), Carrier::Down("there is no interface eth0".into()));
        services.report(at(9500), resource(3, 1), down());
        assert_eq!(services.deadline(), Some(at(10_000)));
        assert_eq!(services.elapse(at(9999)), vec![]);
        assert_eq!((services.unreachable(), services.unreachable_for_long()), (vec![GroupIndex(3)], vec![]));
        assert_eq!(
            services.elapse(at(10_000)),
            [(resource(3, 0), Some("there is no interface eth0".into()))]
        );
        assert_eq!(services.elapse(at(10_500)).len(), 1);
        assert_eq!((services.unreachable(), services.deadline()), (vec![GroupIndex(3)], None));
        assert_eq!(services.unreachable_for_long(), [GroupIndex(3)]);
        services.report(at(11_000), resource(3, 0), Carrier::Up);
        services.report(at(11_000), resource(3, 1), Carrier::Up);
        assert_eq!((services.unreachable(), services.unreachable_for_long()), (vec![GroupIndex(3)], vec![]));
        assert_eq!(services.elapse(at(12_000)).len(), 2);
        assert_eq!(services.unreachable(), []);
    }

    #[test]
    fn at_the_beginning_it_counts_at_once() {
        let mut services = Services::new(Duration::from_secs(1), at(2000));
        let resource = ResourceId { group: GroupIndex(0), member: 0 };
        services.report(at(1900), resource, Carrier::Down("eth0 is down".into()));
        assert_eq!(services.elapse(at(1900)).len(), 1);
    }
}
