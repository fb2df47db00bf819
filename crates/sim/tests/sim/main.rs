//! The simulator's tests: every story of `tests/stories`, stories by chance, and hostile neighbours.

mod hostile;
mod native;
mod seeds;
mod stories;
mod vocabulary;
