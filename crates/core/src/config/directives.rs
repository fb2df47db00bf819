//! Every directive of `ha.cf`, one row each: its name, form, default and meaning, and whether Locum acts on it. The
//! parser, `locum check` and the table in `docs/ha.cf.md` all read these rows.
//! Facts: `docs/heartbeat.md`, section 2; `docs/wire.md`, section 8.

use alloc::{
    format,
    string::{String, ToString},
};

use DirectiveStatus::{Accepted, Honoured, Old, Refused};

/// One directive of `ha.cf`.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// As written in `ha.cf`; case-sensitive.
    pub name: &'static str,
    pub(super) id: Id,
    /// The form of its value.
    pub form: ValueForm,
    /// The value that holds without the directive; empty if there is no default.
    pub default: &'static str,
    /// Its purpose, in words.
    pub meaning: &'static str,
    /// How Locum treats it.
    pub status: DirectiveStatus,
}

impl Directive {
    /// The row of the directive with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name == name)
    }
}

/// How Locum treats a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectiveStatus {
    /// It works as in heartbeat.
    Honoured,
    /// It works as in heartbeat, but has a newer name.
    Old {
        /// The newer name to use.
        modern: &'static str,
    },
    /// It is checked and has no effect, and none is missing; the reason in words.
    Accepted(&'static str),
    /// Only the value that switches it off is accepted; the reason in words.
    Refused(&'static str),
}

/// The form of a directive's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// A time of at least `min_ms` milliseconds.
    Time { min_ms: u64 },
    /// A whole number from `min` to `max`.
    Whole {
        min: u32,
        max: u32,
        /// What the number counts; empty for plain numbers.
        unit: &'static str,
    },
    /// true, on, yes, y, 1 or false, off, no, n, 0 in any case.
    Boolean,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// The absolute path of a file.
    Path,
    /// One or more words, each handled alone.
    Each(&'static str),
    /// Words that belong together, separated by blanks and commas.
    Fields {
        /// Names of the words, for texts.
        usage: &'static str,
        /// Smallest number of words.
        min: usize,
    },
    /// Words that belong together, separated by blanks only, because a comma may be part of them.
    Line {
        /// Names of the words, for texts.
        usage: &'static str,
        /// Smallest number of words.
        min: usize,
    },
}

impl ValueForm {
    /// A short text that says what to write after the name.
    #[must_use]
    pub fn usage(&self) -> String {
        match self {
            Self::Time { .. } => "time".into(),
            Self::Whole { unit: "", .. } => "number".into(),
            Self::Whole { unit, .. } => (*unit).into(),
            Self::Boolean => "on, off".into(),
            Self::Choice(words) => words.join(", "),
            Self::Path => "path".into(),
            Self::Each(what) => (*what).into(),
            Self::Fields { usage, .. } | Self::Line { usage, .. } => (*usage).into(),
        }
    }

    /// The smallest and largest value as text; empty if there are none.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self {
            Self::Time { min_ms: 0 } => "up to 7 days".into(),
            Self::Time { min_ms } => format!("{min_ms} ms to 7 days"),
            Self::Whole { min, max: u32::MAX, .. } => format!("from {min}"),
            Self::Whole { min, max, .. } => format!("{min} to {max}"),
            Self::Boolean | Self::Choice(_) | Self::Path | Self::Each(_) => String::new(),
            Self::Fields { .. } | Self::Line { .. } => String::new(),
        }
    }
}

/// The table of `docs/ha.cf.md` in Markdown; a test compares the page with it.
#[must_use]
pub fn table() -> String {
    let mut table =
        "| directive | takes | bounds | default | meaning | in Locum |\n|---|---|---|---|---|---|\n"
            .to_string();
    for row in ROWS {
        let status = match row.status {
            Honoured => "honoured".into(),
            Old { modern } => format!("honoured; today written `{modern}`"),
            Accepted(why) => format!("accepted, no effect: {why}"),
            Refused(why) => format!("only off: {why}"),
        };
        let cells = [
            format!("`{}`", row.name),
            row.form.usage(),
            row.form.bounds(),
            row.default.into(),
            row.meaning.into(),
            status,
        ];
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

/// Bit rates of serial lines.
pub(super) const BAUDS: &[&str] = &["9600", "19200", "38400", "57600", "115200", "230400", "460800"];

/// Facilities of syslog, and `none`, which switches it off.
pub(super) const FACILITIES: &[&str] = &[
    "none", "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user",
    "uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

const PACEMAKER: &str = "it belongs to Pacemaker mode, which Locum does not have";
const FIXED_MEMORY: &str = "memory is locked as it is used";

const TIME: ValueForm = ValueForm::Time { min_ms: 0 };
const BEAT_TIME: ValueForm = ValueForm::Time { min_ms: 1 };

/// One variant for each directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
pub(super) enum Id {
    Node, Cluster,
    Keepalive, Deadtime, Warntime, Initdead, Deadping, Hopfudge,
    Udpport, Baud, Serial, Bcast, Mcast, Mcast6, Ucast, Ucast6,
    Ping, PingGroup,
    AutoFailback, NiceFailback,
    Logfacility, Logfile, Debugfile, Debug, LogBadpack, Syslogmsgfmt,
    Realtime, Rtprio,
    Hbgenmethod, Uuidfrom, MaxRexmitDelay, Msgfmt,
    Autojoin, Crm, Env,
    Stonith, StonithHost, Respawn, Failfast, Watchdog,
    /// All directives that are checked for their form and have no further effect.
    Carried,
}

/// Makes a row; the arguments are in the order of the fields.
const fn row(
    name: &'static str,
    id: Id,
    form: ValueForm,
    default: &'static str,
    meaning: &'static str,
    status: DirectiveStatus,
) -> Directive {
    Directive { name, id, form, default, meaning, status }
}

/// All directives; related ones are together.
#[rustfmt::skip]
pub static ROWS: &[Directive] = &[
    row("node", Id::Node, ValueForm::Each("names"), "", "the members of the cluster, named as `uname -n`; at most two", Honoured),
    row("cluster", Id::Cluster, ValueForm::Each("name"), "linux-ha", "the name of the cluster, for people", Honoured),
    row("keepalive", Id::Keepalive, BEAT_TIME, "1", "the time between two beats", Honoured),
    row("deadtime", Id::Deadtime, BEAT_TIME, "30", "silence after which a node counts as dead; above two keepalives", Honoured),
    row("warntime", Id::Warntime, BEAT_TIME, "half of deadtime", "silence after which a node is late: a warning", Honoured),
    row("initdead", Id::Initdead, BEAT_TIME, "deadtime if above 10 s; twice that from 6 s; else 12 s", "the deadtime before the links came up for the first time; not below deadtime", Honoured),
    row("deadping", Id::Deadping, BEAT_TIME, "deadtime", "the deadtime of ping nodes; above two keepalives", Honoured),
    row("hopfudge", Id::Hopfudge, ValueForm::Whole { min: 0, max: 255, unit: "" }, "1", "added to the number of nodes it gives the field `ttl` of frames", Honoured),
    row("udpport", Id::Udpport, ValueForm::Whole { min: 1, max: 65535, unit: "port" }, "694", "the UDP port of the media below it", Honoured),
    row("baud", Id::Baud, ValueForm::Choice(BAUDS), "19200", "the bit rate of the serial lines below it; once only", Honoured),
    row("serial", Id::Serial, ValueForm::Each("devices"), "", "medium: null-modem lines", Honoured),
    row("bcast", Id::Bcast, ValueForm::Each("interfaces"), "", "medium: UDP broadcast", Honoured),
    row("udp", Id::Bcast, ValueForm::Each("interfaces"), "", "medium: UDP broadcast", Old { modern: "bcast" }),
    row("mcast", Id::Mcast, ValueForm::Fields { usage: "interface group port ttl loop", min: 5 }, "", "medium: UDP multicast; ttl 0 to 4, loop 0 or 1", Honoured),
    row("mcast6", Id::Mcast6, ValueForm::Fields { usage: "interface group port hops loop", min: 5 }, "", "medium: UDP multicast over IPv6; hops 0 to 4, loop 0 or 1", Honoured),
    row("ucast", Id::Ucast, ValueForm::Fields { usage: "interface address", min: 2 }, "", "medium: UDP to one peer; a line with this node's own address is harmless", Honoured),
    row("ucast6", Id::Ucast6, ValueForm::Fields { usage: "interface address", min: 2 }, "", "medium: UDP to one peer over IPv6", Honoured),
    row("ping", Id::Ping, ValueForm::Each("addresses"), "", "pseudo nodes that answer to ICMP echo, named by the address", Honoured),
    row("ping6", Id::Ping, ValueForm::Each("addresses"), "", "the same over IPv6", Honoured),
    row("ping_group", Id::PingGroup, ValueForm::Fields { usage: "name addresses", min: 2 }, "", "one pseudo node, alive while any of the addresses answers", Honoured),
    row("auto_failback", Id::AutoFailback, ValueForm::Choice(&["on", "off", "legacy"]), "legacy", "whether groups return to their preferred node; between nodes of Locum `legacy` is `on`", Honoured),
    row("nice_failback", Id::NiceFailback, ValueForm::Boolean, "", "on: groups do not return; off: `auto_failback legacy`", Old { modern: "auto_failback" }),
    row("logfile", Id::Logfile, ValueForm::Path, "", "where normal messages go, beside the journal", Honoured),
    row("debugfile", Id::Debugfile, ValueForm::Path, "", "where all messages go", Honoured),
    row("logfacility", Id::Logfacility, ValueForm::Choice(FACILITIES), "none", "the syslog facility of messages", Honoured),
    row("debug", Id::Debug, ValueForm::Whole { min: 0, max: 255, unit: "" }, "0", "above 0: debugging messages, too", Honoured),
    row("log_badpack", Id::LogBadpack, ValueForm::Boolean, "on", "whether frames with a wrong key are logged", Honoured),
    row("use_logd", Id::Carried, ValueForm::Boolean, "off", "log through a logging daemon", Accepted("there is no logging daemon; messages go to the journal and to the files named here")),
    row("conn_logd_time", Id::Carried, TIME, "60", "how often to look for the logging daemon", Accepted("there is no logging daemon")),
    row("syslogmsgfmt", Id::Syslogmsgfmt, ValueForm::Boolean, "on", "lines of `logfile` and `debugfile` in syslog's style; off: the process first, then the date with its year", Honoured),
    row("realtime", Id::Realtime, ValueForm::Boolean, "on", "whether the heart asks for real-time scheduling", Honoured),
    row("rtprio", Id::Rtprio, ValueForm::Whole { min: 1, max: 99, unit: "priority" }, "1", "its real-time priority", Honoured),
    row("hbgenmethod", Id::Hbgenmethod, ValueForm::Choice(&["file", "time"]), "file", "where the generation comes from: counted in a file, or the clock", Honoured),
    row("uuidfrom", Id::Uuidfrom, ValueForm::Choice(&["file", "nodename"]), "file", "where the node's UUID comes from; `nodename` is read as `file`", Honoured),
    row("max_rexmit_delay", Id::MaxRexmitDelay, ValueForm::Whole { min: 1, max: 60000, unit: "milliseconds" }, "250", "longest delay before a missing frame is asked for, and the time between repeats", Honoured),
    row("msgfmt", Id::Msgfmt, ValueForm::Choice(&["classic", "netstring"]), "classic", "classic: UDP frames carry one more authenticator inside", Honoured),
    row("autojoin", Id::Autojoin, ValueForm::Choice(&["none", "other", "any"]), "none", "nodes that are not configured may join", Refused("an unknown node could take the groups")),
    row("crm", Id::Crm, ValueForm::Each("boolean"), "off", "Pacemaker mode", Refused(PACEMAKER)),
    row("pacemaker", Id::Crm, ValueForm::Each("boolean"), "off", "Pacemaker mode", Refused(PACEMAKER)),
    row("crm_daemon_dir", Id::Carried, ValueForm::Path, "", "Pacemaker mode: its programs", Accepted(PACEMAKER)),
    row("crmd_spawns_pengine", Id::Carried, ValueForm::Boolean, "", "Pacemaker mode", Accepted(PACEMAKER)),
    row("record_config_changes", Id::Carried, ValueForm::Boolean, "", "Pacemaker mode", Accepted(PACEMAKER)),
    row("record_pengine_inputs", Id::Carried, ValueForm::Boolean, "", "Pacemaker mode", Accepted(PACEMAKER)),
    row("enable_config_writes", Id::Carried, ValueForm::Boolean, "", "Pacemaker mode", Accepted(PACEMAKER)),
    row("watchdog", Id::Watchdog, ValueForm::Path, "", "the device that resets this machine when the daemon hangs; its time is a little more than deadtime", Honoured),
    row("stonith", Id::Stonith, ValueForm::Line { usage: "type configfile", min: 2 }, "", "the device that resets a silent peer before its groups are taken over", Honoured),
    row("stonith_host", Id::StonithHost, ValueForm::Line { usage: "host type parameters", min: 2 }, "", "the device by which that host (or `*`) resets a silent peer", Honoured),
    row("respawn", Id::Respawn, ValueForm::Line { usage: "user command", min: 2 }, "", "a program that runs while this node takes part, and is started again when it ends, unless with exit code 100; `ipfail` is built in", Honoured),
    row("failfast", Id::Failfast, ValueForm::Line { usage: "user command", min: 2 }, "", "the same; when it dies, the machine is rebooted", Honoured),
    row("apiauth", Id::Carried, ValueForm::Line { usage: "client uid=users gid=groups", min: 1 }, "", "who may sign on to heartbeat's API", Accepted("Locum has no such API, and the control socket has its own access rules")),
    row("env", Id::Env, ValueForm::Line { usage: "NAME=VALUE", min: 1 }, "", "scripts see VALUE as HA_NAME", Honoured),
    row("memreserve", Id::Carried, ValueForm::Whole { min: 0, max: u32::MAX, unit: "KiB" }, "6500", "memory taken at start", Accepted(FIXED_MEMORY)),
    row("coredumps", Id::Carried, ValueForm::Boolean, "on", "whether a crash leaves a core file", Accepted("the service manager decides this")),
    row("coreroot", Id::Carried, ValueForm::Path, "", "where core files go", Accepted("the service manager decides this")),
    row("compression", Id::Carried, ValueForm::Choice(&["zlib", "bz2"]), "zlib", "how large messages are packed", Accepted("messages of this mode are never large")),
    row("compression_threshold", Id::Carried, ValueForm::Whole { min: 0, max: u32::MAX, unit: "KiB" }, "2", "above which size messages are packed", Accepted("messages of this mode are never large")),
    row("traditional_compression", Id::Carried, ValueForm::Boolean, "off", "pack whole messages", Accepted("messages of this mode are never large")),
    row("use_apphbd", Id::Carried, ValueForm::Boolean, "off", "register with the application heartbeat daemon", Accepted("there is no such daemon; systemd's watchdog has its place")),
    row("quorum_server", Id::Carried, ValueForm::Each("host"), "", "the host that breaks ties", Accepted("no server is asked: this mode has no quorum, and a partition has two owners")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        for (place, row) in ROWS.iter().enumerate() {
            assert!(!row.name.is_empty() && !row.meaning.is_empty(), "{}", row.name);
            assert!(
                row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()),
                "{}",
                row.name
            );
            assert!(ROWS[..place].iter().all(|earlier| earlier.name != row.name), "{} twice", row.name);
            assert!(core::ptr::eq(Directive::named(row.name).unwrap(), row));
            assert!(!row.form.usage().is_empty(), "{}", row.name);
            if let Old { modern } = row.status {
                assert_eq!(Directive::named(modern).map(|row| row.status), Some(Honoured), "{modern}");
            }
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let table = table();
        assert_eq!(table.lines().count(), ROWS.len() + 2);
        assert!(table.lines().all(|line| line.matches('|').count() == 7), "{table}");
    }
}
