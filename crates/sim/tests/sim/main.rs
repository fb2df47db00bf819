//! Tests of the simulator: every story of `tests/stories`, random scenarios, and hostile neighbours.

mod hostile;
mod native;
mod native_groups;
mod native_minorities;
mod seeds;
mod stories;
mod vocabulary;
