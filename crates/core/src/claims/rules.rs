//! The rules that the claims rest on: each a named predicate, with its sentence from `docs/claims.md`.
//!
//! The tests leave out one rule at a time ([`Breakage`]), here and nowhere else, and the model finds each that is left out.
//! What stands here is short on purpose: read beside the algorithm it says all that safety needs.

use crate::model::{
    breakage::{self, Breakage},
    claim::{Ballot, Claim, EarlierOwner},
    identity::MemberIndex,
    time::{Duration, Instant},
};

/// Whether a test leaves this rule out.
fn is_left_out(rule: Breakage) -> bool {
    breakage::is(rule)
}

// ---- ballots: none is used twice --------------------------------------------------------

/// No ballot twice: a round is promised or proposed only if it lies below a ceiling that is on disk.
pub(super) fn round_is_covered(round: u64, ceiling: u64) -> bool {
    round <= ceiling || is_left_out(Breakage::NoCeiling)
}

/// No ballot twice: a new run of the daemon begins above the ceiling of the one before.
pub(super) fn rounds_begin_above(ceiling: u64) -> u64 {
    if is_left_out(Breakage::NoCeiling) { 0 } else { ceiling }
}

/// The ceiling is the promise of every group after a restart: up to it anything may have been promised.
pub(super) fn promised_to_all(ceiling: u64) -> Ballot {
    if ceiling == 0 || is_left_out(Breakage::NoCeiling) {
        Ballot::ZERO
    } else {
        Ballot { round: ceiling, node: MemberIndex::NOBODY }
    }
}

/// By how many rounds a member without its file begins above what others tell it: nobody may have heard the last ballots
/// that its lost file knew of.
pub(super) fn rounds_above_a_copy() -> u64 {
    const UNHEARD_ROUNDS: u64 = 1 << 32;
    if is_left_out(Breakage::HeardRoundsOnly) { 0 } else { UNHEARD_ROUNDS }
}

// ---- voters: none goes back on its word -------------------------------------------------

/// A voter abstains after its restart, for the longest lease and the margin: until then leases may run that it does not
/// remember. The moment from which on it votes.
pub(super) fn votes_from(start: Instant, longest_lease: Duration, margin: Duration) -> Instant {
    if is_left_out(Breakage::NoAbstention) { start } else { start + longest_lease + margin }
}

/// A voter whose file is gone, or belongs to another voter set, abstains until it has copied from the others.
pub(super) fn remembers(set_of_file: Option<u32>, set: u32) -> bool {
    matches!(set_of_file, Some(of_file) if of_file == set) || is_left_out(Breakage::BlankVotes)
}

/// Votes of another set do not count.
pub(super) fn votes_count(set: u32, ours: u32) -> bool {
    set == ours || is_left_out(Breakage::VotesAcrossSets)
}

/// A running grant is respected: until it ends, a voter promises nothing to another node than its owner.
pub(super) fn grant_blocks(
    claim: Option<&Claim>,
    released: bool,
    until: Instant,
    now: Instant,
    node: MemberIndex,
) -> bool {
    is_of_another(claim, node) && until > now && !released && !is_left_out(Breakage::RunningGrantIgnored)
}

/// A promise to the owner itself keeps the grant of its old ballot.
pub(super) fn promise_keeps_grant(claim: Option<&Claim>, node: MemberIndex) -> bool {
    is_of_another(claim, node) || !is_left_out(Breakage::PromiseEndsOwnGrant)
}

fn is_of_another(claim: Option<&Claim>, node: MemberIndex) -> bool {
    claim.is_some_and(|claim| claim.owner() != node)
}

/// Nothing below a promise is accepted.
pub(super) fn may_accept(ballot: Ballot, promised: Ballot) -> bool {
    ballot >= promised || is_left_out(Breakage::AcceptBelowPromise)
}

/// A durable claim is on disk before its accept is answered.
pub(super) fn must_be_on_disk(claim: &Claim) -> bool {
    claim.durable && !is_left_out(Breakage::DurableInMemory)
}

/// A durable accept counts from the beginning of its write: it blocks rivals at once, and is reported.
pub(super) fn accept_counts_before_disk() -> bool {
    !is_left_out(Breakage::AcceptedAtSync)
}

/// A new accept ends the release of what was accepted before.
pub(super) fn accept_ends_release() -> bool {
    !is_left_out(Breakage::ReleaseStays)
}

/// A release belongs to its ballot, at the voter: it ends no newer claim.
pub(super) fn release_ends(accepted: &Claim, released: &Claim) -> bool {
    accepted.ballot <= released.ballot
        || (is_left_out(Breakage::ReleaseEndsAnyBallot) && accepted.owner() == released.owner())
}

// ---- owners: none counts more than it was granted ---------------------------------------

/// The owner's lease is shorter than the voters', by a margin for clocks that drift.
pub(super) fn owner_lease(length: Duration, margin: Duration) -> Duration {
    let margin = if is_left_out(Breakage::NoMargin) { Duration::ZERO } else { margin };
    length.saturating_sub(margin)
}

/// The owner's lease counts from the asking, the voters' from when they were asked.
pub(super) fn lease_begins(asked: Instant, answered: Instant) -> Instant {
    if is_left_out(Breakage::LeaseFromAnswer) { answered } else { asked }
}

/// An accept counts for its version only.
pub(super) fn accept_is_of(accepted: u32, proposed: u32) -> bool {
    accepted == proposed || is_left_out(Breakage::AnyVersionCounts)
}

/// An echo counts once, for the newest beat that a majority granted.
pub(super) fn echo_is_newer(beat: u64, granted: u64) -> bool {
    beat > granted || is_left_out(Breakage::EchoExtendsLaterClaims)
}

/// An echo extends what was in its beat's list. `listed_since`: the first beat that stood for the claim, too.
pub(super) fn echo_extends(listed_since: Option<u64>, beat: u64) -> bool {
    listed_since.is_some_and(|since| since <= beat) || is_left_out(Breakage::EchoExtendsLaterClaims)
}

/// An echo belongs to the run of the daemon that sent its beat.
pub(super) fn echo_is_of(generation: u64, ours: u64) -> bool {
    generation == ours || is_left_out(Breakage::EchoOfAnyGeneration)
}

/// An owner that learns of a confirmed claim of another under a higher ballot has lost the group.
pub(super) fn is_overtaken(held: Ballot, by: &Claim, me: MemberIndex) -> bool {
    held < by.ballot && by.is_confirmed() && by.owner() != me && !is_left_out(Breakage::HigherClaimIgnored)
}

// ---- earlier owners: none is forgotten --------------------------------------------------

/// The earlier owners of earlier owners are accounted for, too, and not those of the newest claim alone.
pub(super) fn accounts_for(ballot: Ballot, newest: Ballot) -> bool {
    ballot == newest || !is_left_out(Breakage::NewestClaimOnly)
}

/// A release belongs to its ballot, at the holder: it proves nothing of a later one.
pub(super) fn release_proves(released: Ballot, entry: &EarlierOwner) -> bool {
    released.node == entry.node && (released >= entry.ballot || is_left_out(Breakage::ReleaseProvesAnyBallot))
}

/// A fence proves that what it was begun against has ended, and nothing of a later run of that node.
pub(super) fn fence_proves(node: MemberIndex, generation: u64, entry: &EarlierOwner) -> bool {
    node == entry.node && (generation >= entry.generation || is_left_out(Breakage::FenceProvesAnyGeneration))
}

/// A claim that was outbid is not changed before it is made again: no version of it may come to mean two things.
pub(super) fn may_strike(is_outbid: bool) -> bool {
    !is_outbid || is_left_out(Breakage::ClearWhileOutbid)
}
