//! Tests only: a model checker over the claims of `locum-core`, the very types that the daemon runs. [`world`] is what lies
//! around them and what can happen to it, [`scenario`] is where searches begin and how much may happen in them, [`search`]
//! looks at every world that can come of it.

pub mod scenario;
pub mod search;
pub mod step;
pub mod world;
