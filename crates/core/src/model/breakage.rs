//! Planted breakages: each makes one rule go wrong, to show that the tests which watch that rule can fail. The
//! switches exist only with the feature `breakage`; without it [`is`] is constantly false and costs nothing.

/// A rule that can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Breakage {
    /// Frames are parsed whatever their authenticator says.
    NoAuthentication = 1,
    /// An address is taken without an announcement.
    NoAnnouncement,
    /// A leaving node says that it has released its groups, and does not stop them.
    NoStopOnLeave,
    /// The loss of one link is read as the death of the node.
    LinkLossIsDeath,
    /// Groups are stopped left to right.
    StopOrderReversed,
    /// Members of a group are started right to left.
    StartOrderReversed,
    /// Frames of an older generation are accepted.
    OldGenerationAccepted,
    /// The taker starts the groups before the giver has said that it stopped them.
    StartBeforeDone,
    /// After a healed partition no node yields.
    NoYieldAfterHeal,
    /// After a healed partition the owner from before the split yields, too.
    BothYieldAfterHeal,
    /// A failed start does not stop what was started before it.
    NoStopAfterFailedStart,
    /// A node that leaves gracefully does not say so.
    NoShutdownNotice,
    /// Groups are not returned to their preferred node.
    NoFailback,
    /// Groups are returned although `auto_failback` is off.
    FailbackAlways,
    /// Only the key that we sign with is accepted.
    NoKeyRollOver,
    /// Missing frames are never asked for.
    NoRetransmission,
    /// Frames with our own name count as signs of life of the peer.
    OwnFramesAreNews,
    /// The peer's `dt` is believed whatever it says.
    DeadtimeUnbounded,
    /// Leftovers are not swept before the first beat.
    NoSweep,
    /// The one that stays owner after a heal does not announce its addresses again.
    NoAnnouncementAfterHeal,
    /// The groups of a silent peer are taken over before it is fenced.
    TakeoverUnfenced,
    /// A node that reaches fewer ping nodes gives its groups away without waiting, although the peer may have lost its
    /// own at the same moment.
    NoWaitBeforeYield,
    /// The numbers of a request for frames are hexadecimal, as all others on the wire.
    NumbersConfused,
    /// Received frames are never acknowledged.
    NoAcknowledgement,
    /// The newest frame is asked for again, which no sender has in its history.
    NewestAskedAgain,
    /// The peer is judged by our own deadtime.
    PeerDeadtimeIgnored,
    /// The set that the peer says it holds is not turned to our point of view.
    HoldingNotMirrored,
    /// Each start of the daemon has a lower generation than the one before it.
    GenerationFalls,
    /// A node that starts and asks which node holds what gets no answer.
    NoAnswerToStarting,
    /// A hand-over that the peer offers is never agreed to.
    NoAgreement,
    /// Serial lines carry the framing of UDP.
    NetstringOnSerial,
    /// A node that asks for the list of nodes gets no answer.
    NoNodeList,
    /// Claims: only the owner of the newest reported claim is accounted for, not the owners that it had to account for
    /// itself.
    NewestClaimOnly,
    /// Claims: a voter votes at once after its restart.
    NoAbstention,
    /// Claims: a voter promises although another owner's grant still runs.
    RunningGrantIgnored,
    /// Claims: a group is released before it was stopped.
    ReleaseBeforeStop,
    /// Claims: for a holder, a release proves that its owner runs nothing, whatever ballot it belongs to.
    ReleaseProvesAnyBallot,
    /// Claims: for a voter, a release ends whatever claim of that owner it holds.
    ReleaseEndsAnyBallot,
    /// Claims: a fence proves that its target runs nothing, whatever generation of it the fence was begun against.
    FenceProvesAnyGeneration,
    /// Claims: an accept that must be durable counts from the end of its write.
    AcceptedAtSync,
    /// Claims: durable claims are kept in memory only.
    DurableInMemory,
    /// Claims: an owner's new promise ends the grant of its old one.
    PromiseEndsOwnGrant,
    /// Claims: an echo extends claims that were added after the beat it echoes.
    EchoExtendsLaterClaims,
    /// Claims: no ceiling is kept, so a restarted member begins with rounds that it has used before.
    NoCeiling,
    /// Claims: a member that has lost its file goes on above the rounds that others have heard.
    HeardRoundsOnly,
    /// Claims: votes of another voter set count.
    VotesAcrossSets,
    /// Claims: a voter whose file is gone votes at once.
    BlankVotes,
    /// A peer that reloads in place is taken for one that has lost what it held.
    ReloadIsLoss,
    /// Claims: an owner counts its lease from the answer of a majority, not from its own request.
    LeaseFromAnswer,
    /// Claims: an owner counts the whole lease, without a margin for clocks that drift.
    NoMargin,
    /// Claims: a voter accepts a ballot below its promise.
    AcceptBelowPromise,
    /// Claims: an accept counts for any version that is being written at its ballot.
    AnyVersionCounts,
    /// Claims: proved earlier owners are cleared from a claim even if it is to be made again under a higher ballot.
    ClearWhileOutbid,
    /// Claims: a new accept does not end the release of the claim that was accepted before.
    ReleaseStays,
    /// Claims: an echo counts whatever generation sent its beat.
    EchoOfAnyGeneration,
    /// Groups: the answer of a monitor changes nothing.
    MonitorIgnored,
    /// Groups: a resource that fails is started again in place, however often it fails.
    RestartForever,
    /// Groups: a resource that does not stop when it is asked is given up at once.
    LadderOfOneRung,
    /// Claims: an owner that learns of another owner under a higher ballot goes on under its own.
    HigherClaimIgnored,
    /// Groups that stay together: each is started as soon as it is owned, and not only when all are.
    FamilyStartsInParts,
    /// Groups that stay together: each is given away as soon as it has stopped, and not only when all have.
    FamilyGivenInParts,
    /// Claims: a ballot is proposed before the gate knows the proofs that would end it.
    ProposalNotExpected,
    /// Groups: a resource without an agent here is started again in place all the same.
    MissingIsTriedAgain,
    /// Groups: the stop of a resource without an agent here fails, although it was never started here.
    MissingCannotBeStopped,
    /// Groups: a failed group is attempted again at once, as often as it is wanted.
    NoPauseAfterFailure,
    /// Native: a planned stop shuts the gate before anything is stopped.
    GateShutBeforeStop,
    /// Native: a group is handed over to a node that has not said that it could claim it.
    TakerNotAsked,
    /// Native: the node that starts first claims first, whatever the group prefers.
    FirstComeFirstServed,
    /// R1: a node that was started while the peer stood still takes the peer's claims for no older than its own.
    OlderRunIgnored,
    /// Groups: a start that lasts is waited for, although the group is not wanted any more.
    LongStartAwaited,
}

impl Breakage {
    /// The breakages that only a real peer shows, for the mixed suite.
    pub const BESIDE_A_REAL_PEER: [Self; 10] = [
        Self::NumbersConfused,
        Self::NoAcknowledgement,
        Self::NewestAskedAgain,
        Self::PeerDeadtimeIgnored,
        Self::HoldingNotMirrored,
        Self::GenerationFalls,
        Self::NoAnswerToStarting,
        Self::NoAgreement,
        Self::NetstringOnSerial,
        Self::NoNodeList,
    ];
}

/// Whether this rule is broken on purpose right now.
#[must_use]
#[cfg(not(feature = "breakage"))]
pub const fn is(_: Breakage) -> bool {
    false
}

#[cfg(feature = "breakage")]
mod planted {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Breakage;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Whether this rule is broken on purpose right now.
    #[must_use]
    pub fn is(breakage: Breakage) -> bool {
        PLANTED.load(Ordering::Relaxed) == breakage as u8
    }

    /// Breaks one rule in the whole process, or none.
    pub fn plant(breakage: Option<Breakage>) {
        PLANTED.store(breakage.map_or(0, |b| b as u8), Ordering::Relaxed);
    }
}

#[cfg(feature = "breakage")]
pub use planted::{is, plant};
