//! The simulator's tests: every story of `tests/stories`, stories by chance, and hostile neighbours.

mod hostile;
mod native;
mod native_groups;
mod native_minorities;
mod seeds;
mod stories;
mod vocabulary;
