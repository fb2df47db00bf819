//! The name of a gate, escaped for paths in a bpf file system and for names of tables.

use std::fmt;

/// The most bytes of an escaped part. Names of tables and names in bpffs have at most 255 bytes in all.
const PART_BYTES_MAX: usize = 96;
/// Hexadecimal digits of the digest at the end of a shortened part.
const DIGEST_DIGITS: usize = 16;

/// In the group's place: the packet filter of all groups of a cluster. No group's name is escaped to this.
const FILTER: &str = "_judge";
/// In the group's place: the ARP filter of a cluster.
const ARP_FILTER: &str = "_elsewhere";

/// A gate's name: the cluster's name and the group's. Any text is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateName {
    cluster: String,
    group: String,
}

impl GateName {
    /// Names the gate of a group of a cluster.
    #[must_use]
    pub fn new(cluster: &str, group: &str) -> Self {
        Self { cluster: escape(cluster), group: escape(group) }
    }

    /// From escaped parts as they are in the kernel; `None` if they do not name a gate of Locum.
    pub(super) fn from_parts(cluster: &str, group: &str) -> Option<Self> {
        let ours = |part: &str| unescape(part).is_some() || shortened(part);
        (ours(cluster) && ours(group)).then(|| Self { cluster: cluster.into(), group: group.into() })
    }

    /// The packet filter of a cluster, from the cluster's escaped name; `None` if that is not one of Locum's.
    pub(super) fn packet_filter_of(cluster: &str) -> Option<Self> {
        Self::from_parts(cluster, "_").map(|name| name.packet_filter())
    }

    /// The packet filter of the same cluster.
    pub(super) fn packet_filter(&self) -> Self {
        Self { cluster: self.cluster.clone(), group: FILTER.into() }
    }

    /// The ARP filter of the same cluster.
    pub(super) fn arp_filter(&self) -> Self {
        Self { cluster: self.cluster.clone(), group: ARP_FILTER.into() }
    }

    /// The ARP filter from its table's name; `None` if the table is not one of Locum's.
    pub(super) fn arp_filter_from_path(path: &str) -> Option<Self> {
        let (cluster, group) = path.strip_prefix(super::ROOT)?.strip_prefix('/')?.split_once('/')?;
        (group == ARP_FILTER).then(|| Self::packet_filter_of(cluster)).flatten().map(|name| name.arp_filter())
    }

    /// Another group of the same cluster, from its escaped name; `None` if that is not one of Locum's.
    pub(super) fn sibling(&self, group: &str) -> Option<Self> {
        Self::from_parts(&self.cluster, group)
    }

    /// From a path of the form `locum/CLUSTER/GROUP`.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let (cluster, group) = path.strip_prefix(super::ROOT)?.strip_prefix('/')?.split_once('/')?;
        Self::from_parts(cluster, group)
    }

    /// The packet filter of a cluster, from a path of the form `locum/CLUSTER/_judge`.
    pub(super) fn packet_filter_from_path(path: &str) -> Option<Self> {
        let (cluster, group) = path.strip_prefix(super::ROOT)?.strip_prefix('/')?.split_once('/')?;
        (group == FILTER).then(|| Self::packet_filter_of(cluster)).flatten()
    }

    /// The group's name as it is in the kernel, escaped.
    pub(super) fn escaped_group(&self) -> &str {
        &self.group
    }

    /// The path `locum/CLUSTER/GROUP` with escaped parts: at most 199 bytes of letters, digits, `-`, `_` and `/`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}/{}", super::ROOT, self.cluster, self.group)
    }

    /// The cluster's name. A shortened one is returned as it is in the kernel.
    #[must_use]
    pub fn cluster(&self) -> String {
        unescape(&self.cluster).unwrap_or_else(|| self.cluster.clone())
    }

    /// The group's name. A shortened one is returned as it is in the kernel.
    #[must_use]
    pub fn group(&self) -> String {
        unescape(&self.group).unwrap_or_else(|| self.group.clone())
    }

    /// Whether this is the gate of that cluster.
    #[must_use]
    pub fn is_of(&self, cluster: &str) -> bool {
        self.cluster == escape(cluster) || self.cluster == cluster
    }

    /// Whether this is the gate of a group of that name.
    #[must_use]
    pub fn is_group(&self, group: &str) -> bool {
        self.group == escape(group) || self.group == group
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Letters, digits and `-` stay as they are. Every other byte becomes `_` and two hexadecimal digits, because bpffs
/// refuses the dot and nft cannot name other characters. An empty text becomes `_`. Different names never get the same
/// result: a name that is too long ends in `__`, which nothing else makes, and a digest of the whole name.
fn escape(text: &str) -> String {
    if text.is_empty() {
        return "_".into();
    }
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("_{byte:02x}"));
        }
    }
    if escaped.len() > PART_BYTES_MAX {
        escaped.truncate(PART_BYTES_MAX - DIGEST_DIGITS - 2);
        escaped.push_str(&format!("__{:016x}", digest(text)));
    }
    escaped
}

/// `None` if [`escape`] did not make it, or had to shorten the name.
fn unescape(escaped: &str) -> Option<String> {
    if escaped == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match first {
            b'_' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                &after[2..]
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == escaped).then_some(text)
}

fn shortened(part: &str) -> bool {
    let digest = part.rsplit_once("__").map(|(_, digest)| digest);
    part.len() <= PART_BYTES_MAX
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && digest.is_some_and(|d| d.len() == DIGEST_DIGITS && d.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// FNV-1a, 64 bits. A stronger hash is not needed: the names come from one cluster's own file.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_come_back() {
        for text in
            ["web", "172.23.2.14", "IPaddr::10.0.0.1/24/eth0", "", "_", "__", "..", "a b\n", "größe", "_2e"]
        {
            let name = GateName::new(text, text);
            let path = name.path();
            assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b)), "{path}");
            assert_eq!(path.matches('/').count(), 2, "{path}");
            assert_eq!((name.cluster().as_str(), name.group().as_str()), (text, text));
            assert_eq!(GateName::from_path(&path), Some(name));
        }
        assert_eq!(GateName::new("prod", "172.23.2.14").path(), "locum/prod/172_2e23_2e2_2e14");
    }

    #[test]
    fn long_names_stay_different_and_short() {
        let long = |last: &str| GateName::new("c", &("/".repeat(500) + last));
        let (a, b) = (long("a"), long("b"));
        assert_ne!(a, b);
        assert!(a.path().len() < 200);
        assert_eq!(GateName::from_path(&a.path()), Some(a.clone()));
        assert!(a.is_group(&("/".repeat(500) + "a")) && a.is_group(&a.group()) && !a.is_group("a"));
    }

    #[test]
    fn what_is_not_ours_is_not_taken_for_it() {
        for path in [
            "",
            "locum",
            "locum/a",
            "other/a/b",
            "locum/a/_",
            "locum/a/_zz",
            "locum/a/_judge",
            "locum/a/_elsewhere",
            "locum/a/b.c",
        ] {
            let taken = GateName::from_path(path);
            assert_eq!(taken.is_some(), path == "locum/a/_", "{path}: {taken:?}");
        }
    }
}
