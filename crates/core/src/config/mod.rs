//! Reads the three files of `/etc/ha.d`: text in, a checked [`R1Plan`] and [`Keys`] out, and a [`Diag`] for each error
//! and remark. Reading goes on after an error, so that all errors are reported at once.
//!
//! There are two stages: first each file's lines *as written*, with their places ([`directives`] has the rows); then
//! what they mean together. Any bytes may come in: none of them panics. No text of `authkeys` goes into a diagnostic.

mod address;
pub mod authkeys;
mod changes;
pub mod diag;
pub mod directives;
mod ha_cf;
mod haresources;
pub mod import;
mod lines;
pub mod locum_key;
pub mod locum_toml;
mod slips;
mod value;

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::net::IpAddr;

pub use changes::Changes;
pub use diag::{Diag, Explained, FileName, FilePlace, Severity};

use crate::{
    model::{identity::NodeIndex, keys::Keys},
    r1::plan::{R1Limits, R1Plan},
};
use diag::DiagReport;

/// The texts of the files; `None` for a missing file.
#[derive(Clone, Copy, Debug, Default)]
pub struct HaFiles<'a> {
    pub ha_cf: Option<&'a [u8]>,
    pub authkeys: Option<&'a [u8]>,
    pub haresources: Option<&'a [u8]>,
}

/// The default UDP port of heartbeat.
const HEARTBEATS_PORT: u16 = 694;

/// Settings that do not come from the files.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// The port without `udpport`: that of the service `ha-cluster`, or 694.
    pub udp_port: u16,
    pub limits: R1Limits,
    /// Whether the node's name was given explicitly; otherwise it is this host's name.
    pub is_named: bool,
    /// Resolves a host's name where heartbeat does.
    pub resolve: Resolve,
}

/// Resolves a host name; the flag asks for IPv6 (`true`) or IPv4, if that matters.
pub type Resolve = fn(&str, Option<bool>) -> Option<IpAddr>;

impl Default for CheckOptions {
    fn default() -> Self {
        Self { udp_port: HEARTBEATS_PORT, limits: R1Limits::default(), is_named: false, resolve: |_, _| None }
    }
}

/// The result of checking the files.
#[derive(Clone, Debug)]
pub struct CheckedHaFiles {
    /// The plan, if `ha.cf` and `haresources` have no error.
    pub plan: Option<R1Plan>,
    /// The plan as far as it could be read, even with errors. Use it to examine the host, never to start.
    pub draft: Option<R1Plan>,
    /// The keys, if `authkeys` has no error.
    pub keys: Option<Keys>,
    /// Errors, warnings and remarks, by file and line.
    pub diags: Vec<Diag>,
    /// The explanation of each line, by file and line.
    pub explained: Vec<Explained>,
    /// The parameters of `ha.cf` as written, or their defaults, and those of `env`. Resource scripts see each as `HA_`
    /// and the name.
    pub parameters: BTreeMap<String, String>,
    /// The places of the parts of the plan.
    pub places: HaPlaces,
}

/// The places of the parts of a plan in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaPlaces {
    /// The place of each medium in `ha.cf`, by link.
    pub media: Vec<Vec<FilePlace>>,
    /// The place of each resource in `haresources`, by group.
    pub resources: Vec<Vec<FilePlace>>,
}

impl CheckedHaFiles {
    /// Whether there is an error: the daemon does not start with these files on this host.
    #[must_use]
    pub fn failed(&self) -> bool {
        failed(&self.diags)
    }
}

/// The name of this node: the first line of the file `nodeinfo` if there is one, or else the host's name; lower case.
#[must_use]
pub fn node_name(nodeinfo: Option<&[u8]>, host_name: &str) -> String {
    let first = nodeinfo.and_then(|text| text.split(|&byte| byte == b'\n').next());
    let first = first.and_then(|line| core::str::from_utf8(line).ok()).map(str::trim);
    first.filter(|name| !name.is_empty()).unwrap_or(host_name).to_lowercase()
}

/// Reads all three files as the node `node_name`.
#[must_use]
pub fn check(files: &HaFiles<'_>, node_name: &str, options: &CheckOptions) -> CheckedHaFiles {
    let me = node_name.to_lowercase();
    let mut cf = DiagReport::new(FileName::HaCf);
    let mut resources = DiagReport::new(FileName::Haresources);
    let mut keys_report = DiagReport::new(FileName::Authkeys);
    let settings = files.ha_cf.map(|text| ha_cf::read(text, &me, options, &mut cf));
    if settings.is_none() {
        let cure =
            "it names the nodes and the links; for a cluster of Locum alone `locum init` writes locum.toml";
        cf.add(cf.error("the file is missing").cure(cure));
    }
    let me = settings.as_ref().and_then(|settings| ha_cf::find_me(&me, settings, options, &mut cf));
    // A `node` line that could not be read leaves the nodes unknown: no other line is blamed for that.
    let nodes = settings.as_ref().filter(|settings| !settings.nodes_spoiled);
    let nodes = nodes.map(|settings| settings.nodes.as_slice()).unwrap_or_default();
    let groups = files.haresources.map(|text| haresources::read(text, nodes, &mut resources));
    if groups.is_none() {
        resources.add(resources.error("the file is missing").cure("it must be there, even if it is empty"));
    }
    let keys = files.authkeys.and_then(|text| authkeys::read(text, &mut keys_report));
    if files.authkeys.is_none() {
        let cure = "write `auth 1` and, below it, `1 sha1 SECRET`; chmod 600; the same on both nodes";
        keys_report.add(keys_report.error("the file is missing").cure(cure));
    }
    let parameters = settings.as_ref().map(|settings| settings.parameters.clone()).unwrap_or_default();
    let is_good = me.is_some() && !cf.failed() && !resources.failed();
    let mut places = HaPlaces::default();
    let draft = settings.zip(groups).map(|(settings, groups)| {
        places = HaPlaces { media: settings.media_places, resources: groups.places };
        R1Plan {
            cluster: settings.cluster,
            nodes: settings.nodes,
            me: NodeIndex(me.unwrap_or_default()),
            timing: settings.timing,
            auto_failback: settings.auto_failback,
            links: settings.links,
            pings: settings.pings,
            groups: groups.groups,
            framing: settings.framing,
            generation: settings.generation,
            logging: settings.logging,
            realtime: settings.realtime,
            limits: options.limits,
            fencing: settings.fencing,
            ipfail: settings.ipfail,
            clients: settings.clients,
            watchdog: settings.watchdog,
        }
    });
    let (diags, explained) = merged([cf, keys_report, resources]);
    let plan = draft.clone().filter(|_| is_good);
    CheckedHaFiles { plan, draft, keys, diags, explained, parameters, places }
}

/// The plan of all three files as the node `node_name`; `None` if any of them has an error.
#[must_use]
pub fn plan(files: &HaFiles<'_>, node_name: &str, options: &CheckOptions) -> (Option<R1Plan>, Vec<Diag>) {
    let checked = check(files, node_name, options);
    let plan = if checked.failed() { None } else { checked.plan };
    (plan, checked.diags)
}

/// Reads `authkeys` alone, as a running daemon reads it again.
#[must_use]
pub fn keys(text: &[u8]) -> (Option<Keys>, Vec<Diag>) {
    let mut report = DiagReport::new(FileName::Authkeys);
    let keys = authkeys::read(text, &mut report);
    (keys, report.diags)
}

/// Whether there is an error among the diagnostics.
#[must_use]
pub fn failed(diags: &[Diag]) -> bool {
    diags.iter().any(|diag| diag.severity == Severity::Error)
}

/// The diagnostics and explanations of all files, by file and line.
fn merged(reports: [DiagReport; 3]) -> (Vec<Diag>, Vec<Explained>) {
    let mut diags = Vec::new();
    let mut explained = Vec::new();
    for report in reports {
        diags.extend(report.diags);
        explained.extend(report.explained);
    }
    diags.sort_by_key(|diag| (diag.file, diag.place.line, diag.place.span.start));
    explained.sort_by_key(|line| (line.file, line.line));
    (diags, explained)
}
