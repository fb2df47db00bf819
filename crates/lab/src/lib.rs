//! **The lab**: a rack of nodes on one machine, for the demo, the tests and `locum lab`. It starts daemons only as
//! processes and judges them from outside.
//!
//! * [`Description`] says what a [`Rack`] is made of: nodes, networks, serial lines;
//! * [`Rack`] builds it from network, mount, UTS and pid namespaces without names, and has the hands that pull cables,
//!   impair them, and cut a node's power. Nothing of it is on the host, during and after, whoever kills what;
//! * [`Program`] and [`Process`] are what runs in the nodes;
//! * [`Sight`] and [`Record`] watch a service: its answers to the client, who holds its address, who answers for it;
//! * [`timeline`] reckons outages and overlaps from that;
//! * [`pair`] is a pair of nodes for any of the peers;
//! * [`mod@bench`] does the same to Locum and to its peers, and compares;
//! * [`gate`] freezes the process that renews a gate, and looks whether the address falls silent in time;
//! * [`native`] does what ends ownership to a native cluster with a witness, and looks for two owners;
//! * [`machines`] boots Debian machines under a real systemd, and runs a native cluster on them;
//! * [`mod@scale`] measures clusters of many groups;
//! * [`mixed`] puts Locum and the real heartbeat into one cluster, and audits it after every step.
//!
//! Whoever uses it calls [`enter`] at the start of the process, while it has one thread, and gives its program the
//! hidden commands [`holder::COMMAND`], which calls [`holder::hold`], and [`gate::COMMAND`], which calls [`gate::renew`].

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
pub use description::{Description, Kind, Line, Network, Port};
pub use fault::Fault;
pub use line::LineCounters;
pub use process::{Outcome, Process, Program, Sign};
pub use rack::{Rack, enter};
pub use relay::{Counters, Impairment, Way};
pub use watch::{ECHO_EVERY, Hold, LOOK_EVERY, Look, PAGE_EVERY, Page, Record, Sight};
