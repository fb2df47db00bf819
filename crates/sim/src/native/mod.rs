//! A world for native clusters: nodes and witnesses with clocks that drift, disks that take time and fail, links that
//! lose, double and cut one way, agents that fail and hang, machines that stand still. Gates and processes outlive the
//! daemon, as in a kernel.
//!
//! * [`world`] is that world; after everything that happens it looks whether two machines could answer for one group,
//!   whether an epoch fell, whether a ballot was used twice.
//! * In one seed of ten its daemons run the whole director, and all that they say goes through bytes and keys ([`mind`]);
//!   in the others they run the bare node.
//! * [`tale`] makes a story from a seed, plays it, and makes one that fails shorter.
//! * [`plot`] has the steps of tales that are more hostile than chance.
//! * [`progress`] is how far a long run of seeds has come.
//! * [`rate`] is a cluster to which nothing happens, to be measured.

pub mod clock;
pub mod faults;
pub mod mind;
pub mod plot;
pub mod progress;
pub mod rate;
pub mod tale;
pub mod world;
