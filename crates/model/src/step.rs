//! One step of one member: the member before, an event, the member after and its actions. Thousands of states share the
//! same step, so its result is cached; and equal members are kept once.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use locum_core::{
    claims::{ClaimBeat, ClaimMember, ClaimNotice, Envelope, Proof},
    model::{claim::DurableState, identity::MemberIndex, time::Instant},
};

use crate::world::{GROUP, Packet};

/// A value whose hash is computed once. States share the parts that do not differ.
#[derive(Debug)]
pub struct Hashed<T> {
    hash: u64,
    pub value: T,
}

impl<T: Hash> Hashed<T> {
    /// Computes the hash of a value, and shares both.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { hash: hash_of(&value), value })
    }
}

impl<T> Hashed<T> {
    /// The hash that was computed once.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: PartialEq> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Hashed<T> {}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An event of a member.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    /// The member has just started.
    Started,
    Heard(Arc<Hashed<Packet>>),
    /// The member is to claim; the flag says whether durably.
    Claim(bool),
    /// The member is to give the group back.
    Release {
        /// Whether the group's resources have been stopped.
        stopped: bool,
    },
    /// Something is proved of an earlier owner.
    Prove(Proof),
    /// Whether something of the group may run here.
    Running(bool),
    /// A write ends; the flag says whether it succeeded.
    Written(bool),
    /// The member is to send its beat.
    Beat,
    Tick,
}

/// The result of a step.
#[derive(Debug)]
pub struct Effect {
    pub member: Arc<Hashed<ClaimMember>>,
    pub out: Vec<Envelope>,
    /// The notices for the layer above.
    pub notices: Vec<ClaimNotice>,
    /// The data that the member wants written, if it may write now.
    pub write: Option<Arc<Hashed<DurableState>>>,
    /// The beat, if it was to send one.
    pub beat: Option<ClaimBeat>,
}

/// Counts the searches of this process. The cache belongs to one search, because the next may plant another breakage.
static SEARCHES: AtomicU64 = AtomicU64::new(0);

/// Begins a new search: forgets all cached steps.
pub fn forget() {
    SEARCHES.fetch_add(1, Ordering::Relaxed);
}

/// Most steps that are cached; beyond it the cache is emptied.
const REMEMBERED: usize = 2_000_000;

#[derive(Default)]
struct Memory {
    search: u64,
    steps: HashMap<u64, Arc<Effect>>,
    members: HashMap<u64, Arc<Hashed<ClaimMember>>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The step of a member by an event. `may_write`: no other write is under way.
#[must_use]
pub fn step(member: &Arc<Hashed<ClaimMember>>, now: Instant, event: &Event, may_write: bool) -> Arc<Effect> {
    let key = hash_of(&(member, now, event, may_write));
    MEMORY.with_borrow_mut(|memory| {
        let search = SEARCHES.load(Ordering::Relaxed);
        if memory.search != search || memory.steps.len() > REMEMBERED {
            *memory = Memory { search, ..Memory::default() };
        }
        if let Some(effect) = memory.steps.get(&key) {
            return effect.clone();
        }
        let mut effect = work_out(member, now, event, may_write);
        let known = memory.members.entry(effect.member.hash).or_insert_with(|| effect.member.clone());
        effect.member = known.clone();
        let effect = Arc::new(effect);
        memory.steps.insert(key, effect.clone());
        effect
    })
}

fn work_out(member: &Hashed<ClaimMember>, now: Instant, event: &Event, may_write: bool) -> Effect {
    let mut member = member.value.clone();
    let mut beat = None;
    match event {
        Event::Started => {}
        Event::Heard(packet) => {
            let Packet { from, run_number: life, set, ref message, .. } = packet.value;
            member.heard(now, MemberIndex(from), life, set, message.clone());
        }
        Event::Claim(durable) => member.claim(now, GROUP, *durable),
        Event::Release { stopped } => {
            if *stopped {
                member.set_running(GROUP, false);
            }
            member.release(now, GROUP, None);
        }
        Event::Prove(proof) => member.prove(now, GROUP, *proof),
        Event::Running(runs) => member.set_running(GROUP, *runs),
        Event::Written(ok) => member.written(now, *ok),
        Event::Beat => beat = Some(member.beat(now)),
        Event::Tick => member.tick(now),
    }
    let write = if may_write { member.write().map(Hashed::new) } else { None };
    let out = member.take_out();
    let notices = std::iter::from_fn(|| member.poll()).collect();
    Effect { member: Hashed::new(member), out, notices, write, beat }
}
