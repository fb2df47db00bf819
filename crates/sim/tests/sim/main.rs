//! The simulator's tests: every story of `tests/stories`, and stories by chance.

mod seeds;
mod stories;
