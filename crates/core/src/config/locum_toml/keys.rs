//! Every key of `locum.toml`, one row each. The parser, its "did you mean" and the table in `docs/locum-toml.md` all read
//! these rows.

use alloc::{format, string::String};

/// One key of `locum.toml`.
#[derive(Clone, Copy, Debug)]
pub struct TomlKey {
    /// The table that it belongs to.
    pub table: TomlTable,
    pub name: &'static str,
    /// The form of its value, in words.
    pub takes: &'static str,
    /// The default; empty if the key is required, or if there is no default.
    pub default: &'static str,
    /// Its purpose, in words.
    pub meaning: &'static str,
    /// An example line with this key.
    pub example: &'static str,
}

/// The tables of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TomlTable {
    /// The top level, above all tables.
    Top,
    Node,
    Link,
    Witness,
    Group,
    /// In `[groups.NAME]`, or in `[defaults]` for all groups.
    GroupOrDefaults,
    /// In a resource's own table, beside the limits and the interval of its group.
    Resource,
    Local,
}

impl TomlTable {
    /// The header of the table, as on the page.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::Top => "above all tables",
            Self::Node => "[nodes.NAME]",
            Self::Link => "[links.NAME]",
            Self::Witness => "[witnesses.NAME]",
            Self::Group => "[groups.NAME]",
            Self::GroupOrDefaults => "[groups.NAME] or [defaults]",
            Self::Resource => "a resource's table",
            Self::Local => "[local]",
        }
    }
}

const fn key(
    table: TomlTable,
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    meaning: &'static str,
    example: &'static str,
) -> TomlKey {
    TomlKey { table, name, takes, default, meaning, example }
}

/// All keys, table by table.
#[rustfmt::skip]
pub static KEYS: &[TomlKey] = &[
    key(TomlTable::Top, "cluster", "a name", "", "the cluster's name: frames of clusters with other names are not heard", r#"cluster = "shop""#),
    key(TomlTable::Top, "pace", "a time, 100ms to 60s", "1s", "how soon a silent node loses its groups; every other time follows from it", r#"pace = "300ms""#),
    key(TomlTable::Top, "port", "a UDP port", "6940", "for all links that name none; clusters that share a machine need one each", "port = 6941"),
    key(TomlTable::Top, "key-file", "a file's name", "locum.key", "where the cluster's keys are: an absolute path, or one that begins in this file's directory", r#"key-file = "locum.key""#),
    key(TomlTable::Top, "voters", "names of nodes and witnesses, at most 7", "the nodes by name, at most 7; where their number is even, one witness more", "the members that vote on claims", r#"voters = ["alpha", "beta", "third"]"#),
    key(TomlTable::Top, "nodes", "a table for each node", "", "the nodes, named as `uname -n` prints it; 2 to 32", r#"nodes.alpha.links.front = "10.0.0.1""#),
    key(TomlTable::Top, "witnesses", "a table for each witness", "none", "machines that vote and run nothing; at most 7", r#"witnesses.third.address = "10.9.0.1""#),
    key(TomlTable::Top, "links", "a table for each link that needs one", "none", "more settings of a link", "links.front.port = 7001"),
    key(TomlTable::Top, "groups", "a table for each group", "none", "resources that move together; at most 4096", r#"groups.web.resources = ["10.0.0.100/24", "httpd"]"#),
    key(TomlTable::Top, "defaults", "a table", "none", "the defaults of all groups", r#"defaults.start-limit = "2min""#),
    key(TomlTable::Top, "local", "a table", "none", "settings of one machine; nodes may differ in them", "local.debug = 1"),

    key(TomlTable::Node, "links", "a table: for each link where the node is connected", "", "an address makes the link unicast (with `%eth1` behind it: on that interface), an interface broadcast, or multicast where its table names a group, a device `/dev/…` a serial line", r#"links = { front = "10.0.0.1", back = "10.1.0.1%eth1", wire = "/dev/ttyS0" }"#),

    key(TomlTable::Link, "port", "a UDP port", "that above all tables", "the UDP port of both sides", "port = 6941"),
    key(TomlTable::Link, "multicast", "a multicast address", "none", "the group, of a link that names interfaces", r#"multicast = "239.192.1.1""#),
    key(TomlTable::Link, "ttl", "1 to 255", "1", "how many routers a multicast frame may pass, and one more", "ttl = 2"),
    key(TomlTable::Link, "baud", "bits a second", "115200", "the rate of a serial line", "baud = 19200"),

    key(TomlTable::Witness, "address", "an address, or address and port", "", "the address of the witness", r#"address = "10.9.0.1:6940""#),
    key(TomlTable::Witness, "key", "64 hex digits", "the cluster's key", "the key that this cluster and this witness share: `locum witness` prints it", r#"key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff""#),

    key(TomlTable::Group, "resources", "resources", "", "started from left to right, stopped from right to left: words as in haresources, or tables", r#"resources = ["10.0.0.100/24", { unit = "nginx" }]"#),
    key(TomlTable::Group, "prefer", "names of nodes", "none", "the preferred nodes, best first", r#"prefer = ["alpha", "beta"]"#),
    key(TomlTable::Group, "nodes", "names of nodes", "all", "the nodes that may run it", r#"nodes = ["alpha", "beta"]"#),
    key(TomlTable::Group, "after", "names of groups", "none", "starts only when these run, anywhere in the cluster", r#"after = "database""#),
    key(TomlTable::Group, "together", "names of groups", "none", "always on the same node as these", r#"together = ["database"]"#),
    key(TomlTable::Group, "apart", "names of groups", "none", "never on the same node as these", r#"apart = "batch""#),
    key(TomlTable::Group, "spread", "a name", "none", "groups with the same word are spread over the nodes, as evenly as can be", r#"spread = "workers""#),
    key(TomlTable::Group, "i-know", "a sentence", "none", "your own words for why a mount, a volume or a raw device may stand under a guard that does not protect data", r#"i-know = "read only on both nodes""#),

    key(TomlTable::GroupOrDefaults, "guard", "none, lease", "lease; none where there is no third voter", "how sure a takeover must be", r#"guard = "lease""#),
    key(TomlTable::GroupOrDefaults, "failback", "stay, when-asked or a time", "stay", "what happens when a preferred node returns: nothing; `status` offers the move; or the group moves back when that node has been alive, and the group elsewhere, for this time", r#"failback = "5min""#),
    key(TomlTable::GroupOrDefaults, "restarts", "a number", "1", "how often a failed resource is started again in place before the group moves", "restarts = 0"),
    key(TomlTable::GroupOrDefaults, "restarts-within", "a time", "10min", "failures older than this do not count", r#"restarts-within = "1h""#),
    key(TomlTable::GroupOrDefaults, "moves", "a number, at least 1", "3", "how often failures may move the group before it is held", "moves = 2"),
    key(TomlTable::GroupOrDefaults, "moves-within", "a time", "1h", "moves older than this do not count", r#"moves-within = "1h""#),
    key(TomlTable::GroupOrDefaults, "hold-down", "a time", "10min", "how long a group that has moved too often then stays", r#"hold-down = "30min""#),
    key(TomlTable::GroupOrDefaults, "start-limit", "a time", "1min", "the time limit of a start", r#"start-limit = "2min""#),
    key(TomlTable::GroupOrDefaults, "stop-limit", "a time", "1min", "the time limit of a stop; then its processes are told to terminate", r#"stop-limit = "2min""#),
    key(TomlTable::GroupOrDefaults, "terminate-limit", "a time", "10s", "the time that its processes have to terminate; then they are killed", r#"terminate-limit = "30s""#),
    key(TomlTable::GroupOrDefaults, "monitor-limit", "a time", "30s", "the time limit of a monitor", r#"monitor-limit = "20s""#),
    key(TomlTable::GroupOrDefaults, "monitor-every", "a time, or never", "10 × pace, at least 5s and at most 60s", "the time between two monitors", r#"monitor-every = "15s""#),

    key(TomlTable::Resource, "address", "as in haresources: ip/bits/interface:label", "", "a service address", r#"address = "10.0.0.100/24/eth0""#),
    key(TomlTable::Resource, "unit", "a systemd unit", "", "a service of systemd", r#"unit = "nginx""#),
    key(TomlTable::Resource, "script", "a resource script", "", "a script in resource.d or /etc/init.d", r#"script = "httpd""#),
    key(TomlTable::Resource, "arguments", "words", "none", "of a script", r#"arguments = ["a", "b"]"#),
    key(TomlTable::Resource, "ocf", "provider:agent", "", "an OCF agent", r#"ocf = "heartbeat:apache""#),
    key(TomlTable::Resource, "parameters", "a table of texts, numbers and booleans", "none", "of an OCF agent", r#"parameters = { configfile = "/etc/httpd.conf", port = 80 }"#),
    key(TomlTable::Resource, "mount", "a device", "", "a file system", r#"mount = "/dev/vg/web""#),
    key(TomlTable::Resource, "on", "a directory", "", "where it is mounted", r#"on = "/srv/web""#),
    key(TomlTable::Resource, "type", "a file system's type", "found by mount", "of a mount", r#"type = "ext4""#),
    key(TomlTable::Resource, "options", "as in fstab", "none", "of a mount", r#"options = "noatime""#),

    key(TomlTable::Local, "realtime", "true, false", "true", "whether the heart asks for real-time scheduling", "realtime = false"),
    key(TomlTable::Local, "realtime-priority", "1 to 99", "1", "its real-time priority", "realtime-priority = 10"),
    key(TomlTable::Local, "watchdog", "a device", "none", "the device that resets this machine when the daemon hangs", r#"watchdog = "/dev/watchdog""#),
    key(TomlTable::Local, "log-file", "an absolute path", "none", "a file for messages", r#"log-file = "/var/log/locum.log""#),
    key(TomlTable::Local, "debug-file", "an absolute path", "none", "a file for messages of all levels", r#"debug-file = "/var/log/locum-debug.log""#),
    key(TomlTable::Local, "log-facility", "a syslog facility", "none", "messages go to syslog as this facility too", r#"log-facility = "local0""#),
    key(TomlTable::Local, "debug", "0 to 255", "0", "0 is quiet", "debug = 1"),
];

/// The tables of `docs/locum-toml.md`, one for each table of the file.
#[must_use]
pub fn page() -> String {
    let mut page = String::new();
    let mut last = None;
    for key in KEYS {
        if last != Some(key.table) {
            let title = match key.table {
                TomlTable::Top => "Above all tables".into(),
                TomlTable::Resource => "A resource's table".into(),
                table => format!("`{}`", table.header().replace(" or ", "` or `")),
            };
            page += &format!(
                "\n### {title}\n\n| key | takes | default | what it is for | example |\n|---|---|---|---|---|\n"
            );
            last = Some(key.table);
        }
        let TomlKey { name, takes, default, meaning, example, .. } = key;
        page += &format!("| `{name}` | {takes} | {default} | {meaning} | `{example}` |\n");
    }
    page + "\n"
}
