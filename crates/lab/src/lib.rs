//! **The lab**: a rack of nodes on one machine, for the demo, the tests and `locum lab`. It starts daemons only as
//! processes, and checks them from outside.
//!
//! * [`Description`] describes a [`Rack`]: its nodes, networks and serial lines;
//! * [`Rack`] builds it from network, mount, UTS and pid namespaces without names. It can pull cables, impair them, and
//!   cut a node's power. Nothing of it is ever visible on the host, even if a process is killed;
//! * [`Program`] and [`Process`] run in the nodes;
//! * [`WatchSpec`] and [`Record`] watch a service: its answers to the client, the nodes that hold its address, and the
//!   nodes that answer for it;
//! * [`timeline`] computes outages and overlaps from that;
//! * [`pair`] is a pair of nodes for any of the peers;
//! * [`mod@bench`] plays the same faults with Locum and its peers, and compares them;
//! * [`gate`] freezes the process that renews a gate, and checks that the address falls silent in time;
//! * [`native`] plays faults that end ownership in a native cluster with a witness, and checks for two owners;
//! * [`machines`] boots Debian machines under a real systemd, and runs a native cluster on them;
//! * [`mod@scale`] measures clusters of many groups;
//! * [`mixed`] puts Locum and the real heartbeat into one cluster, and audits it after every step.
//!
//! A program that uses the lab calls [`enter`] at the start of the process, while it has one thread. It must offer the
//! hidden commands [`holder::COMMAND`], which calls [`holder::hold`], and [`gate::COMMAND`], which calls
//! [`gate::renew`].

pub mod bench;
pub mod clock;
mod daemon;
mod description;
mod dice;
mod fault;
pub mod gate;
pub mod holder;
mod line;
pub mod machines;
pub mod mixed;
pub mod native;
mod node;
pub mod pair;
mod process;
mod rack;
mod relay;
mod room;
pub mod scale;
pub mod timeline;
mod watch;

pub use daemon::Daemon;
pub use description::{Description, Line, Network, NetworkKind, Port};
pub use fault::Fault;
pub use line::LineCounters;
pub use process::{Process, ProcessSignal, Program, ProgramOutcome};
pub use rack::{Rack, enter};
pub use relay::{Counters, Impairment, RelayDirection};
pub use watch::{ECHO_EVERY, Hold, LOOK_EVERY, Look, PAGE_EVERY, Page, Record, WatchSpec};
