//! Tests only: a model checker of the claims in `locum-core`, with the same types that the daemon runs. [`world`]
//! models their surroundings and the possible events, [`scenario`] has the initial states and budgets of searches, and
//! [`search`] checks every state that can follow.

pub mod scenario;
pub mod search;
pub mod step;
pub mod world;
