//! The earlier owners that a new claim must account for.

use alloc::{collections::BTreeMap, vec::Vec};

use super::rules;
use crate::model::{
    claim::{Ballot, Claim, EarlierOwner, VoterReport},
    identity::MemberIndex,
};

/// The `unproved` of a claim of `proposer`, from what a majority of voters reported.
///
/// Below the highest *confirmed* claim everything is accounted for: its owner took it over from a majority's reports.
/// From there on nothing is: a minority may have accepted later claims, and their owners may or may not have started
/// under them. If one claim is reported in several versions, the newest counts, and one voter that knows of its release
/// is enough. The proposer itself has swept what it left.
#[must_use]
pub fn union<'a>(
    reports: impl Iterator<Item = &'a VoterReport> + Clone,
    proposer: MemberIndex,
) -> Vec<EarlierOwner> {
    let confirmed = reports
        .clone()
        .filter_map(|report| report.accepted.as_ref())
        .filter(|claim| claim.is_confirmed())
        .map(|claim| claim.ballot)
        .max()
        .unwrap_or(Ballot::ZERO);
    let mut claims: BTreeMap<Ballot, (&Claim, bool)> = BTreeMap::new();
    for report in reports {
        let Some(claim) = report.accepted.as_ref().filter(|claim| claim.ballot >= confirmed) else {
            continue;
        };
        let (newest, released) = claims.entry(claim.ballot).or_insert((claim, false));
        *released |= report.released;
        if claim.version > newest.version {
            *newest = claim;
        }
    }
    let newest = claims.keys().next_back().copied().unwrap_or(Ballot::ZERO);
    claims.retain(|ballot, _| rules::accounts_for(*ballot, newest));
    let mut entries: BTreeMap<(MemberIndex, u64), Ballot> = BTreeMap::new();
    let mut add = |entry: EarlierOwner| {
        if entry.node != proposer {
            let highest = entries.entry((entry.node, entry.generation)).or_insert(entry.ballot);
            *highest = entry.ballot.max(*highest);
        }
    };
    for (ballot, (claim, released)) in claims {
        let earlier = claim.unproved.iter().filter(|entry| rules::accounts_for(entry.ballot, newest));
        earlier.copied().for_each(&mut add);
        if !released {
            add(EarlierOwner { node: claim.owner(), generation: claim.generation, ballot });
        }
    }
    entries
        .into_iter()
        .map(|((node, generation), ballot)| EarlierOwner { node, generation, ballot })
        .collect()
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    const fn ballot(round: u64, node: u8) -> Ballot {
        Ballot { round, node: MemberIndex(node) }
    }

    fn claim(round: u64, node: u8, version: u32, unproved: &[(u8, u64)]) -> Claim {
        let unproved = unproved
            .iter()
            .map(|&(node, round)| EarlierOwner {
                node: MemberIndex(node),
                generation: 1,
                ballot: ballot(round, node),
            })
            .collect();
        Claim { ballot: ballot(round, node), generation: 1, version, durable: true, unproved }
    }

    fn of(reports: &[(Claim, bool)], proposer: u8) -> Vec<(u8, u64)> {
        let reports: Vec<VoterReport> = reports
            .iter()
            .map(|(claim, released)| VoterReport { accepted: Some(claim.clone()), released: *released })
            .collect();
        let entries = union(reports.iter(), MemberIndex(proposer));
        entries.into_iter().map(|entry| (entry.node.0, entry.ballot.round)).collect()
    }

    #[test]
    fn nothing_reported_is_nothing_to_account_for() {
        assert_eq!(union([VoterReport::default()].iter(), MemberIndex(0)), vec![]);
    }

    #[test]
    fn unconfirmed_claims_of_minorities_are_all_accounted_for() {
        let reports = [(claim(7, 1, 0, &[]), false), (claim(5, 2, 1, &[]), false)];
        assert_eq!(of(&reports, 0), [(1, 7), (2, 5)]);
    }

    #[test]
    fn below_the_confirmed_one_all_is_accounted_for() {
        let reports = [(claim(7, 1, 1, &[(3, 2)]), false), (claim(5, 2, 0, &[]), false)];
        assert_eq!(of(&reports, 0), [(1, 7), (3, 2)]);
    }

    #[test]
    fn one_voter_that_knows_of_a_release_is_enough_but_its_entries_stay() {
        let reports = [(claim(7, 1, 1, &[(3, 2)]), false), (claim(7, 1, 1, &[(3, 2)]), true)];
        assert_eq!(of(&reports, 0), [(3, 2)]);
    }

    #[test]
    fn the_newest_version_counts_and_the_proposer_has_swept() {
        let reports = [(claim(7, 1, 1, &[(0, 1), (3, 2)]), false), (claim(7, 1, 2, &[(0, 1)]), false)];
        assert_eq!(of(&reports, 0), [(1, 7)]);
    }
}
