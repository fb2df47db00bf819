//! Simulation of native clusters: nodes and witnesses with clocks that drift, slow and failing disks, lossy and one-way
//! links, failing and hanging agents, and machines that stand still. Gates and processes outlive the daemon, as in a
//! kernel.
//!
//! * [`world`] is the simulation. After every event it checks that no two machines could answer for one group, that no
//!   epoch fell, and that no ballot was used twice.
//! * In one seed of ten the daemons run the whole director, and their messages are sent as signed frames ([`director`]). In
//!   the others they run the bare node.
//! * [`scenario`] makes a scenario from a seed, plays it, and shortens a failing one.
//! * [`fault_schedule`] has fault schedules that are more hostile than chance.
//! * [`progress`] keeps how far a long run of seeds has come.
//! * [`rate`] measures a cluster to which nothing happens.

pub mod clock;
pub mod director;
pub mod fault_schedule;
pub mod faults;
pub mod progress;
pub mod rate;
pub mod scenario;
pub mod world;
