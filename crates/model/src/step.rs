//! One step of one member: what it is before, what is done to it, what it is after and what it wants. The same step is
//! met in thousands of worlds, so it is remembered; and members that are equal are kept once.

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
    claims::{Beat, Envelope, Member, Notice, Proof},
    model::{claim::Durable, identity::MemberIndex, time::Instant},
};

use crate::world::{GROUP, Packet};

/// A value whose hash is computed once. Worlds share what did not change between them.
#[derive(Debug)]
pub struct Hashed<T> {
    hash: u64,
    /// The value.
    pub value: T,
}

impl<T: Hash> Hashed<T> {
    /// Of this value.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { hash: hash_of(&value), value })
    }
}

impl<T> Hashed<T> {
    /// The hash.
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

/// What is done to a member.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    /// It was born just now.
    Born,
    /// A frame arrives.
    Heard(Arc<Hashed<Packet>>),
    /// It is to claim, durably or not.
    Claim(bool),
    /// It is to give back.
    Release {
        /// What ran is stopped.
        stopped: bool,
    },
    /// Something is proved of an earlier owner.
    Prove(Proof),
    /// Whether something of the group may run here.
    Running(bool),
    /// A write ends.
    Written(bool),
    /// It is to say its beat.
    Beat,
    /// Time has passed.
    Tick,
}

/// What comes of it.
#[derive(Debug)]
pub struct Effect {
    /// The member after.
    pub member: Arc<Hashed<Member>>,
    /// What it says.
    pub out: Vec<Envelope>,
    /// What the layer above hears.
    pub notices: Vec<Notice>,
    /// What it wants written, if it may write.
    pub write: Option<Arc<Hashed<Durable>>>,
    /// The beat, if it was to say one.
    pub beat: Option<Beat>,
}

/// Counts the searches of this process: what is remembered is of one search, because the next may plant another breakage.
static SEARCHES: AtomicU64 = AtomicU64::new(0);

/// A search begins: steps are worked out anew.
pub fn forget() {
    SEARCHES.fetch_add(1, Ordering::Relaxed);
}

/// So many steps are remembered at most; then all are forgotten.
const REMEMBERED: usize = 2_000_000;

#[derive(Default)]
struct Memory {
    search: u64,
    steps: HashMap<u64, Arc<Effect>>,
    members: HashMap<u64, Arc<Hashed<Member>>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Does it. `may_write`: nothing else is being written.
#[must_use]
pub fn step(member: &Arc<Hashed<Member>>, now: Instant, event: &Event, may_write: bool) -> Arc<Effect> {
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

fn work_out(member: &Hashed<Member>, now: Instant, event: &Event, may_write: bool) -> Effect {
    let mut member = member.value.clone();
    let mut beat = None;
    match event {
        Event::Born => {}
        Event::Heard(packet) => {
            let Packet { from, life, set, ref message, .. } = packet.value;
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
