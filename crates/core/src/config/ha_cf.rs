//! Reads `ha.cf` in two stages: first the directives as written, each with its place; then what they mean together.
//! Facts: `docs/heartbeat.md`, section 2; `docs/wire.md`, sections 7 and 8.

mod value_form;

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::IpAddr;

use self::value_form::{HaCfValue, check_form};
use super::{
    CheckOptions, Resolve,
    address::{ConfigFault, interface},
    diag::{DiagReport, FilePlace, shown},
    directives::{Directive, DirectiveStatus, Id, ROWS, ValueForm},
    haresources::is_same_host,
    lines::{FileLine, FileWord, is_blank, is_blank_or_comma, lines},
    slips::meant,
    value::{Shown, boolean},
};
use crate::{
    model::{identity::LINKS_MAX, logging::Logging, time::Duration},
    r1::plan::{
        AutoFailback, Client, Fencing, FencingParameters, FramingPlan, GenerationSource, PINGS_MAX, PingNode,
        R1Link, R1Medium, R1Timing,
    },
};

/// Most media, as in heartbeat.
const MEDIA_MAX: usize = 64;
/// Node names are shorter than this.
const NODE_NAME_BYTES: usize = 100;
/// The longest `dt` that a node of Locum accepts.
const DT_MAX: Duration = Duration::from_secs(3600);

/// The content of the file, checked as far as possible without the other files. If the report has an error, the values
/// must not be used.
pub(super) struct HaCfSettings {
    pub(super) cluster: String,
    pub(super) nodes: Vec<String>,
    /// A line with node names could not be used; the report says so.
    pub(super) nodes_spoiled: bool,
    pub(super) node_places: Vec<FilePlace>,
    pub(super) timing: R1Timing,
    pub(super) auto_failback: AutoFailback,
    pub(super) links: Vec<R1Link>,
    /// The place of each medium, by link.
    pub(super) media_places: Vec<Vec<FilePlace>>,
    pub(super) pings: Vec<PingNode>,
    pub(super) framing: FramingPlan,
    pub(super) generation: GenerationSource,
    pub(super) logging: Logging,
    pub(super) realtime: Option<u8>,
    pub(super) fencing: Option<Fencing>,
    pub(super) ipfail: bool,
    pub(super) clients: Vec<Client>,
    pub(super) watchdog: Option<String>,
    /// For resource scripts; see [`super::CheckedHaFiles::parameters`].
    pub(super) parameters: BTreeMap<String, String>,
}

/// Reads the file. `me` is this node's name, for the explanations.
pub(super) fn read(text: &[u8], me: &str, options: &CheckOptions, report: &mut DiagReport) -> HaCfSettings {
    let mut draft = HaCfDraft::new(me, options);
    let entries = entries(text, &mut draft.spoiled, report);
    for entry in &entries {
        draft.entry(entry, report);
    }
    draft.settle(report)
}

/// One directive line as written.
struct HaCfEntry {
    row: &'static Directive,
    directive: FileWord,
    values: Vec<FileWord>,
}

/// The first stage: turns lines into directives with values, or errors. Directives with errors go to `spoiled`.
fn entries(text: &[u8], spoiled: &mut Vec<&'static Directive>, report: &mut DiagReport) -> Vec<HaCfEntry> {
    let mut old_words: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in lines(text, report) {
        let Some(entry) = entry(line.uncommented(), spoiled, report) else { continue };
        if let DirectiveStatus::Old { modern } = entry.row.status
            && !old_words.contains(&entry.row.name)
        {
            old_words.push(entry.row.name);
            let cure = match entry.row.id {
                Id::NiceFailback => format!("write `{modern} off` for on, `{modern} legacy` for off"),
                _ => format!("write `{modern}`"),
            };
            let message = format!("`{}` is an old name", entry.row.name);
            report.add(report.warning(message).word(&entry.directive).cure(cure));
        }
        found.push(entry);
    }
    found
}

fn entry(
    line: FileLine<'_>,
    spoiled: &mut Vec<&'static Directive>,
    report: &mut DiagReport,
) -> Option<HaCfEntry> {
    let first = line.parts(is_blank).into_iter().next()?;
    let directive = line.word(first.clone(), report).map_err(|diag| report.add(diag)).ok()?;
    let Some(row) = Directive::named(&directive.text) else {
        let message = format!("`{}` is not a directive", shown(&directive.text));
        report.add(report.error(message).word(&directive).cure(nearest(&directive.text)));
        return None;
    };
    let is_separator = if matches!(row.form, ValueForm::Line { .. }) { is_blank } else { is_blank_or_comma };
    let mut values = Vec::new();
    for part in line.parts(is_separator).into_iter().filter(|part| part.start >= first.end) {
        match line.word(part, report) {
            Ok(word) => values.push(word),
            Err(diag) => {
                report.add(diag);
                spoiled.push(row);
                return None;
            }
        }
    }
    let least = match row.form {
        ValueForm::Fields { min, .. } | ValueForm::Line { min, .. } => min,
        _ => 1,
    };
    if values.len() < least {
        let message = if values.is_empty() { "has no value" } else { "has too few values" };
        let cure = format!("write `{} {}`", row.name, usage_example(row));
        report.add(report.error(format!("`{}` {message}", row.name)).at(&line.whole()).cure(cure));
        spoiled.push(row);
        return None;
    }
    Some(HaCfEntry { row, directive, values })
}

fn usage_example(row: &Directive) -> String {
    match row.form {
        ValueForm::Choice(words) => words.first().copied().unwrap_or_default().into(),
        ValueForm::Boolean => "on".into(),
        ValueForm::Time { .. } | ValueForm::Whole { .. }
            if !row.default.is_empty() && !row.default.contains(' ') =>
        {
            row.default.into()
        }
        ValueForm::Time { .. } => "10".into(),
        _ => row.form.usage(),
    }
}

/// The cure for an unknown directive.
fn nearest(name: &str) -> String {
    match meant(name, ROWS.iter().map(|row| row.name)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "remove the line, or see the list of directives in docs/ha.cf.md".into(),
    }
}

/// A value and its place in the file, if it was given.
type Placed<T> = Option<(T, FilePlace)>;

/// The second stage. It is filled line by line, because the order of lines counts.
struct HaCfDraft<'a> {
    me: &'a str,
    cluster: Placed<String>,
    nodes: Vec<(String, FilePlace)>,
    times: [Placed<Duration>; 5],
    hopfudge: Placed<u32>,
    port: Placed<u16>,
    default_port: u16,
    resolve: Resolve,
    baud: Placed<u32>,
    media: Vec<(R1Medium, FilePlace)>,
    links: Vec<R1Link>,
    media_places: Vec<Vec<FilePlace>>,
    pings: Vec<PingNode>,
    /// Place of the first ping node.
    ping_place: Option<FilePlace>,
    auto_failback: Placed<AutoFailback>,
    logging: [Placed<String>; 3],
    debug: Placed<u32>,
    bad_packets: Placed<bool>,
    syslog_format: Placed<bool>,
    realtime: Placed<bool>,
    rtprio: Placed<u32>,
    generation: Placed<GenerationSource>,
    rexmit_delay: Placed<u32>,
    inner_auth: Placed<bool>,
    fencing: Placed<Fencing>,
    ipfail: Placed<()>,
    clients: Vec<Client>,
    watchdog: Placed<String>,
    parameters: BTreeMap<String, String>,
    /// Directives of which a line could not be used. The error was reported once; nothing that follows from it is
    /// reported.
    spoiled: Vec<&'static Directive>,
}

/// Programs that connect to heartbeat's programming interface and end at once without it.
const API_CLIENTS: [&str; 9] =
    ["ccm", "dopd", "cib", "crmd", "attrd", "lrmd", "stonithd", "mgmtd", "hbagent"];

/// Indexes into [`HaCfDraft::times`] and [`HaCfDraft::logging`].
const KEEPALIVE: usize = 0;
const DEADTIME: usize = 1;
const WARNTIME: usize = 2;
const INITDEAD: usize = 3;
const DEADPING: usize = 4;
const TIMES: [(Id, &str); 5] = [
    (Id::Keepalive, "keepalive"),
    (Id::Deadtime, "deadtime"),
    (Id::Warntime, "warntime"),
    (Id::Initdead, "initdead"),
    (Id::Deadping, "deadping"),
];
const FAILBACK: [Id; 2] = [Id::AutoFailback, Id::NiceFailback];
const LOGFILE: usize = 0;
const DEBUGFILE: usize = 1;
const FACILITY: usize = 2;

/// Stores the last value; an earlier one causes a warning.
fn say<T>(said: &mut Placed<T>, value: T, word: &FileWord, report: &mut DiagReport) {
    if let Some((_, earlier)) = said {
        let message = format!("line {} already sets this; the last one counts", earlier.line);
        report.add(report.warning(message).word(word).cure("leave one of them"));
    }
    *said = Some((value, word.place.clone()));
}

fn value<T: Clone>(said: &Placed<T>, default: T) -> T {
    said.as_ref().map_or(default, |(value, _)| value.clone())
}

impl<'a> HaCfDraft<'a> {
    fn new(me: &'a str, options: &CheckOptions) -> Self {
        Self {
            me,
            cluster: None,
            nodes: Vec::new(),
            times: [const { None }; 5],
            hopfudge: None,
            port: None,
            default_port: options.udp_port,
            resolve: options.resolve,
            ping_place: None,
            baud: None,
            media: Vec::new(),
            links: Vec::new(),
            media_places: Vec::new(),
            pings: Vec::new(),
            auto_failback: None,
            logging: [const { None }; 3],
            debug: None,
            bad_packets: None,
            syslog_format: None,
            realtime: None,
            rtprio: None,
            generation: None,
            rexmit_delay: None,
            inner_auth: None,
            fencing: None,
            ipfail: None,
            clients: Vec::new(),
            watchdog: None,
            parameters: literal_defaults(),
            spoiled: Vec::new(),
        }
    }

    /// Handles one line: checks the form of its values, applies them in order and explains them.
    fn entry(&mut self, entry: &HaCfEntry, report: &mut DiagReport) {
        let HaCfEntry { row, directive, values } = entry;
        let mut values = values.as_slice();
        if matches!(row.form, ValueForm::Fields { .. } | ValueForm::Line { .. }) {
            values = &values[..1]; // the values belong together; the first stands for all
        }
        for word in values {
            let result = self.value(entry, word, report);
            match result {
                Ok(meaning) => {
                    if is_scalar(&row.form) {
                        self.parameters.insert(row.name.into(), word.text.clone());
                    }
                    report.explain(directive.place.line, meaning);
                }
                Err(LineFault { fault: (message, cure), field }) => {
                    let mut diag = report.error(message).word(field.as_ref().unwrap_or(word));
                    diag.cure = cure;
                    report.add(diag);
                    self.spoiled.push(row);
                }
            }
        }
    }

    /// Applies one value. Returns its explanation.
    fn value(
        &mut self,
        entry: &HaCfEntry,
        word: &FileWord,
        report: &mut DiagReport,
    ) -> Result<String, LineFault> {
        let row = entry.row;
        let text = word.text.as_str();
        let form = check_form(row, text)?;
        let form_number = form.number();
        let small = u16::try_from(form_number).unwrap_or(u16::MAX);
        Ok(match row.id {
            Id::Node => self.node(word, report)?,
            Id::Cluster => {
                say(&mut self.cluster, text.into(), word, report);
                format!("the cluster's name is {}", shown(text))
            }
            Id::Keepalive => self.time(KEEPALIVE, "a beat is sent every", &form, word, report),
            Id::Deadtime => self.time(DEADTIME, "a node counts as dead when silent for", &form, word, report),
            Id::Warntime => self.time(WARNTIME, "a node is late when silent for", &form, word, report),
            Id::Initdead => self.time(
                INITDEAD,
                "before a node was ever heard it counts as dead after",
                &form,
                word,
                report,
            ),
            Id::Deadping => {
                self.time(DEADPING, "a ping node counts as dead when silent for", &form, word, report)
            }
            Id::Hopfudge => {
                say(&mut self.hopfudge, form_number, word, report);
                format!("frames carry the number of nodes plus {form_number} as `ttl`")
            }
            Id::Udpport => {
                let differs = |medium: &R1Medium| udpport(medium).is_some_and(|port| port != small);
                if let Some((_, place)) = self.media.iter().find(|(medium, _)| differs(medium)) {
                    let message =
                        format!("the medium in line {} is set up before this port is known", place.line);
                    report.add(report.warning(message).word(word).cure("move `udpport` above all media"));
                }
                say(&mut self.port, small, word, report);
                format!("UDP port {small}, for the media below")
            }
            Id::Baud => {
                if let Some((_, earlier)) = &self.baud {
                    let message = format!("line {} already sets `baud`", earlier.line);
                    return Err((message, Some("leave one: all serial lines have one rate".into())).into());
                }
                if let Some((_, place)) =
                    self.media.iter().find(|(m, _)| matches!(m, R1Medium::Serial { .. }))
                {
                    let message =
                        format!("the serial line in line {} is set up before this rate is known", place.line);
                    report.add(report.warning(message).word(word).cure("move `baud` above all serial lines"));
                }
                let rate = text.parse().unwrap_or(19200);
                self.baud = Some((rate, word.place.clone()));
                format!("{rate} bits a second, for the serial lines below")
            }
            Id::Serial => {
                if !text.starts_with('/') {
                    let cure = format!("write its path, such as `/dev/{}`", shown(text));
                    return Err((format!("`{}` is not a device", shown(text)), Some(cure)).into());
                }
                let medium = R1Medium::Serial { device: text.into(), baud: value(&self.baud, 19200) };
                self.medium(text, medium, &word.place, report)?
            }
            Id::Bcast => {
                interface(text)?;
                let medium = R1Medium::Broadcast { interface: text.into(), port: self.port() };
                self.medium(text, medium, &word.place, report)?
            }
            Id::Mcast | Id::Mcast6 => {
                let medium = multicast(row.id, entry)?;
                self.medium(text, medium, &word.place, report)?
            }
            Id::Ucast | Id::Ucast6 => {
                let medium = self.unicast(row.id, entry, report)?;
                self.medium(text, medium, &word.place, report)?
            }
            Id::Ping => {
                let ip = self.ip_address(word, Some(row.name == "ping6"), report)?;
                self.ping_place.get_or_insert(word.place.clone());
                // Written as a peer with heartbeat writes it in its frames.
                let name = text.parse().map_or_else(|_| text.into(), |ip: IpAddr| ip.to_string());
                self.ping(PingNode { name, members: [ip].into(), is_group: false })?
            }
            Id::PingGroup => {
                let members = entry.values[1..].iter().map(|member| self.ip_address(member, None, report));
                let members = members.collect::<Result<Vec<_>, _>>()?;
                self.ping_place.get_or_insert(word.place.clone());
                self.ping(PingNode { name: text.into(), members, is_group: true })?
            }
            Id::AutoFailback => {
                let choice = match boolean(text) {
                    Some(true) => AutoFailback::On,
                    Some(false) => AutoFailback::Off,
                    None => AutoFailback::Legacy,
                };
                self.failback(choice, word, report)
            }
            Id::NiceFailback => {
                let choice = if form.truth() { AutoFailback::Off } else { AutoFailback::Legacy };
                self.failback(choice, word, report)
            }
            Id::Logfile => self.log(LOGFILE, "messages go to", word, report),
            Id::Debugfile => self.log(DEBUGFILE, "messages of all levels go to", word, report),
            Id::Logfacility if text.eq_ignore_ascii_case("none") => {
                self.logging[FACILITY] = None;
                "messages do not go to syslog".into()
            }
            Id::Logfacility => self.log(FACILITY, "messages go to syslog as", word, report),
            Id::Debug => {
                say(&mut self.debug, form_number, word, report);
                if form_number == 0 {
                    "debugging messages are off".into()
                } else {
                    "debugging messages are on".into()
                }
            }
            Id::LogBadpack => {
                say(&mut self.bad_packets, form.truth(), word, report);
                format!("frames with a wrong key are {}logged", if form.truth() { "" } else { "not " })
            }
            Id::Syslogmsgfmt => {
                say(&mut self.syslog_format, form.truth(), word, report);
                let style =
                    if form.truth() { "in syslog's style" } else { "with the process first, then the date" };
                format!("lines of the log files are written {style}")
            }
            Id::Realtime => {
                say(&mut self.realtime, form.truth(), word, report);
                format!("the heart asks for {}real-time scheduling", if form.truth() { "" } else { "no " })
            }
            Id::Rtprio => {
                say(&mut self.rtprio, form_number, word, report);
                format!("the heart's real-time priority is {form_number}")
            }
            Id::Hbgenmethod => {
                let is_time = text.eq_ignore_ascii_case("time");
                let source = if is_time { GenerationSource::Time } else { GenerationSource::File };
                say(&mut self.generation, source, word, report);
                if is_time {
                    "the generation is the time of the start".into()
                } else {
                    "the generation is counted in a file".into()
                }
            }
            Id::Uuidfrom => {
                if text.eq_ignore_ascii_case("nodename") {
                    let message =
                        "`uuidfrom nodename` is not portable: the UUID comes from the file all the same";
                    report.add(
                        report
                            .warning(message)
                            .word(word)
                            .cure("write `uuidfrom file`, or leave the line out"),
                    );
                }
                "the node's UUID is kept in the file hb_uuid".into()
            }
            Id::MaxRexmitDelay => {
                say(&mut self.rexmit_delay, form_number, word, report);
                format!("a missing frame is asked for within {form_number} ms, and again as often")
            }
            Id::Msgfmt => {
                let classic = text.eq_ignore_ascii_case("classic");
                if !classic {
                    let message = "with `msgfmt netstring` a peer that runs heartbeat can hang in a takeover";
                    report
                        .add(report.warning(message).word(word).cure("leave the line out with such a peer"));
                }
                say(&mut self.inner_auth, classic, word, report);
                format!("UDP frames carry {} authenticator", if classic { "a second, inner" } else { "one" })
            }
            Id::Autojoin => match text.eq_ignore_ascii_case("none") {
                true => "no node may join that is not configured".into(),
                false => {
                    return Err(refusal(row, "write `autojoin none`, and a `node` line for each node").into());
                }
            },
            Id::Crm => match boolean(text) {
                Some(false) => "there is no Pacemaker above this cluster".into(),
                _ => {
                    return Err(
                        refusal(row, "leave the line out and write the groups into haresources").into()
                    );
                }
            },
            Id::Env => self.env(word)?,
            Id::Stonith | Id::StonithHost => self.fencing(entry, report)?,
            Id::Respawn | Id::Failfast => self.client(entry, report)?,
            Id::Watchdog => {
                say(&mut self.watchdog, text.into(), word, report);
                format!("{} resets this machine when the daemon hangs", shown(text))
            }
            Id::Carried => carried(entry),
        })
    }

    fn node(&mut self, word: &FileWord, report: &mut DiagReport) -> Result<String, ConfigFault> {
        let name = word.text.to_lowercase();
        if name.len() >= NODE_NAME_BYTES {
            let cure = format!("a node's name has less than {NODE_NAME_BYTES} bytes");
            return Err(("this is too long for a node".into(), Some(cure)));
        }
        if let Some((_, earlier)) = self.nodes.iter().find(|(known, _)| *known == name) {
            let message = format!("the node {} is already in line {}", shown(&name), earlier.line);
            report.add(report.warning(message).word(word).cure("leave one of them"));
        } else {
            self.nodes.push((name.clone(), word.place.clone()));
        }
        let this = if name == self.me { " (this one)" } else { "" };
        Ok(format!("{} is a node of the cluster{this}", shown(&name)))
    }

    fn time(
        &mut self,
        which: usize,
        what: &str,
        form: &HaCfValue,
        word: &FileWord,
        report: &mut DiagReport,
    ) -> String {
        let time = form.time();
        say(&mut self.times[which], time, word, report);
        format!("{what} {}", Shown(time))
    }

    fn failback(&mut self, choice: AutoFailback, word: &FileWord, report: &mut DiagReport) -> String {
        say(&mut self.auto_failback, choice, word, report);
        failback_meaning(choice).into()
    }

    fn log(&mut self, which: usize, what: &str, word: &FileWord, report: &mut DiagReport) -> String {
        if let Some((_, place)) = self.media.first() {
            let message = format!(
                "heartbeat wants this above the media (line {}); for Locum the order is free",
                place.line
            );
            report.add(report.info(message).word(word));
        }
        let text = if which == FACILITY { word.text.to_ascii_lowercase() } else { word.text.clone() };
        say(&mut self.logging[which], text, word, report);
        format!("{what} {}", shown(&word.text))
    }

    /// `stonith TYPE FILE`, `stonith_host HOST TYPE PARAMETERS`. One device; the last line for this node counts.
    fn fencing(&mut self, entry: &HaCfEntry, report: &mut DiagReport) -> Result<String, LineFault> {
        let words = entry.values.as_slice();
        let (device, parameters) = match words {
            [device, file] if entry.row.id == Id::Stonith => {
                if !file.text.starts_with('/') {
                    let cure = Some("write an absolute path".into());
                    return Err(LineFault::field(
                        file,
                        (format!("`{}` is not a file", shown(&file.text)), cure),
                    ));
                }
                (device, FencingParameters::File(file.text.clone()))
            }
            [host, device, parameters @ ..] if entry.row.id == Id::StonithHost => {
                if host.text != "*" && host.text.to_lowercase() != self.me {
                    return Ok(format!("a device of {}, not of this node", shown(&host.text)));
                }
                let words: Vec<&str> = parameters.iter().map(|word| word.text.as_str()).collect();
                (device, FencingParameters::Line(words.join(" ")))
            }
            _ => return Err(too_much(entry)),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        if !device.text.chars().all(is_plain)
            || device.text.contains("..")
            || device.text.starts_with(['/', '-'])
        {
            let cure = Some("`stonith -L` lists the types; fence agents are named `fence_…`".into());
            let message = format!("`{}` is not a device type", shown(&device.text));
            return Err(LineFault::field(device, (message, cure)));
        }
        let fencing = Fencing { device: device.text.clone(), parameters };
        say(&mut self.fencing, fencing, &entry.directive, report);
        Ok(format!(
            "a silent peer is reset by the device {} before its groups are taken",
            shown(&device.text)
        ))
    }

    /// `respawn USER COMMAND`, `failfast USER COMMAND`. The node itself does the work of ipfail.
    fn client(&mut self, entry: &HaCfEntry, report: &mut DiagReport) -> Result<String, LineFault> {
        let mut words = entry.values.iter().map(|word| word.text.clone());
        let user = words.next().unwrap_or_default();
        let command: Vec<String> = words.collect();
        let program = command.first().map(String::as_str).unwrap_or_default();
        if is_ipfail(entry) {
            say(&mut self.ipfail, (), &entry.directive, report);
            return Ok("a node that reaches fewer ping nodes than its peer yields; Locum does this itself, without the \
                       program"
                .into());
        }
        if let Some(name) = program.rsplit('/').next().filter(|name| API_CLIENTS.contains(name)) {
            let message = format!(
                "`{name}` is a client of heartbeat's programming interface, which Locum does not have"
            );
            report.add(
                report.warning(message).word(&entry.directive).cure("it is not started; remove the line"),
            );
            return Ok(format!("{name} is not started: it is a client of heartbeat's programming interface"));
        }
        if !program.starts_with('/') {
            let message = format!("`{}` is not the path of a program", shown(program));
            return Err((message, Some("write its whole path, from `/` on".into())).into());
        }
        let failfast = entry.row.id == Id::Failfast;
        let meaning = format!(
            "{} runs as {} while this node takes part{}",
            shown(program),
            shown(&user),
            if failfast { "; its abnormal death reboots the machine" } else { "" }
        );
        self.clients.push(Client { user, command, failfast });
        Ok(meaning)
    }

    /// `ucast IF ADDRESS`, or `ucast6` alike.
    fn unicast(&self, id: Id, entry: &HaCfEntry, report: &mut DiagReport) -> Result<R1Medium, LineFault> {
        let [name, peer] = entry.values.as_slice() else { return Err(too_much(entry)) };
        interface(&name.text)?;
        let family = peer.text.parse::<IpAddr>().is_err().then_some(id == Id::Ucast6);
        let ip = self.ip_address(peer, family, report)?;
        let modern = if ip.is_ipv6() { "ucast6" } else { "ucast" };
        if ip.is_ipv6() != (id == Id::Ucast6) {
            let message = format!("{ip} is an IPv{} address", if ip.is_ipv6() { 6 } else { 4 });
            return Err(LineFault::field(peer, (message, Some(format!("write `{modern}`")))));
        }
        Ok(R1Medium::Unicast { interface: name.text.clone(), peer: ip, port: self.port() })
    }

    /// Reads a numeric address, or the name of a host that this host can resolve. `is_v6` is set if the directive takes
    /// only one family.
    fn ip_address(
        &self,
        word: &FileWord,
        is_v6: Option<bool>,
        report: &mut DiagReport,
    ) -> Result<IpAddr, LineFault> {
        let parsed = word.text.parse::<IpAddr>().ok();
        let found =
            parsed.or_else(|| is_host_name(&word.text).then(|| (self.resolve)(&word.text, is_v6)).flatten());
        let fault = match found {
            Some(ip) if ip.is_unspecified() || ip.is_multicast() => {
                (format!("{ip} is not a host address"), Some("write the address of one host".into()))
            }
            Some(ip) if is_v6.is_none_or(|is_v6| is_v6 == ip.is_ipv6()) => {
                if parsed.is_none() {
                    let message = format!(
                        "`{}` is a name: it is looked up when the daemon starts, and is {ip} now",
                        shown(&word.text)
                    );
                    let cure = format!("write `{ip}`: name resolution may be down when it is needed");
                    report.add(report.warning(message).word(word).cure(cure));
                }
                return Ok(ip);
            }
            Some(ip) if ip.is_ipv6() => (format!("{ip} is an IPv6 address"), Some("write `ping6`".into())),
            Some(ip) => (format!("{ip} is an IPv4 address"), Some("write `ping`".into())),
            None if is_host_name(&word.text) => {
                let cure = "write the address in numbers: name resolution may be down when it is needed";
                (
                    format!(
                        "`{}` is neither an address nor a name that this host can resolve",
                        shown(&word.text)
                    ),
                    Some(cure.into()),
                )
            }
            None => {
                let cure = "write it in numbers: name resolution may be down when it is needed";
                (format!("`{}` is not an address", shown(&word.text)), Some(cure.into()))
            }
        };
        Err(LineFault::field(word, fault))
    }

    fn port(&self) -> u16 {
        value(&self.port, self.default_port)
    }

    /// Adds a medium to the link of its name.
    fn medium(
        &mut self,
        name: &str,
        medium: R1Medium,
        place: &FilePlace,
        report: &mut DiagReport,
    ) -> Result<String, ConfigFault> {
        let meaning = format!("link {}: {}", shown(name), medium_meaning(&medium));
        if let Some((_, earlier)) = self.media.iter().find(|(known, _)| *known == medium) {
            let message = format!("this medium is already in line {}", earlier.line);
            report.add(report.warning(message).at(place).offending(name).cure("leave one of them"));
            return Ok(meaning);
        }
        if self.media.len() == MEDIA_MAX {
            return Err((format!("there are more than {MEDIA_MAX} media"), Some("leave some out".into())));
        }
        let link = match self.links.iter().position(|link| link.name == name) {
            Some(link) => link,
            None if self.links.len() == LINKS_MAX => {
                return Err((
                    format!("there are more than {LINKS_MAX} links"),
                    Some("leave some out".into()),
                ));
            }
            None => {
                self.links.push(R1Link { name: name.into(), media: Vec::new() });
                self.media_places.push(Vec::new());
                self.links.len() - 1
            }
        };
        self.links[link].media.push(medium.clone());
        self.media_places[link].push(place.clone());
        self.media.push((medium, place.clone()));
        Ok(meaning)
    }

    fn env(&mut self, word: &FileWord) -> Result<String, ConfigFault> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match word.text.split_once('=') {
            Some((name, value)) if !name.is_empty() && name.bytes().all(is_name) => {
                self.parameters.insert(name.into(), value.into());
                Ok(format!("scripts see HA_{name}={}", shown(value)))
            }
            _ => {
                Err((format!("`{}` sets nothing", shown(&word.text)), Some("write `env NAME=VALUE`".into())))
            }
        }
    }

    fn ping(&mut self, ping: PingNode) -> Result<String, ConfigFault> {
        let name = shown(&ping.name);
        if self.pings.iter().any(|known| known.name == ping.name) {
            return Err((
                format!("the ping node {name} is already in the file"),
                Some("leave one of them".into()),
            ));
        }
        if self.pings.len() == PINGS_MAX {
            return Err((
                format!("there are more than {PINGS_MAX} ping nodes"),
                Some("leave some out".into()),
            ));
        }
        let members = ping.members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let meaning = if ping.is_group {
            format!("ping node {name}: alive while any of {members} answers to ICMP echo")
        } else {
            format!("ping node {name}: watched by ICMP echo, never a cause of a takeover")
        };
        self.pings.push(ping);
        Ok(meaning)
    }

    /// Whether a line of one of these directives could not be used.
    fn is_spoiled(&self, ids: &[Id]) -> bool {
        self.spoiled.iter().any(|row| ids.contains(&row.id))
    }

    /// The end of the second stage: checks the lines against each other.
    fn settle(mut self, report: &mut DiagReport) -> HaCfSettings {
        let timing = self.timing(report);
        let nodes_spoiled = self.is_spoiled(&[Id::Node]);
        for (name, time) in
            [("warntime", timing.warntime), ("initdead", timing.initdead), ("deadping", timing.deadping)]
        {
            self.parameters.entry(name.into()).or_insert_with(|| format!("{}ms", time.as_millis()));
        }
        self.check_nodes(report);
        self.check_media(report);
        self.check_ipfail(report);
        let fallback = value(&self.auto_failback, AutoFailback::Legacy);
        if self.auto_failback.is_none() && !self.is_spoiled(&FAILBACK) {
            report.explain(0, format!("auto_failback is not set, so legacy: {}", failback_meaning(fallback)));
        }
        let node_count = u32::try_from(self.nodes.len() + self.pings.len()).unwrap_or(u32::MAX);
        let [logfile, debugfile, facility] = self.logging.map(|said| said.map(|(text, _)| text));
        let priority = u8::try_from(value(&self.rtprio, 1)).unwrap_or(1);
        let (nodes, node_places) = self.nodes.into_iter().unzip();
        HaCfSettings {
            cluster: value(&self.cluster, "linux-ha".into()),
            nodes,
            node_places,
            timing,
            auto_failback: fallback,
            links: self.links,
            media_places: self.media_places,
            pings: self.pings,
            framing: FramingPlan {
                inner_auth: value(&self.inner_auth, true),
                ttl: value(&self.hopfudge, 1).saturating_add(node_count),
                rexmit_delay_max: Duration::from_millis(value(&self.rexmit_delay, 250).into()),
            },
            generation: value(&self.generation, GenerationSource::File),
            logging: Logging {
                logfile,
                debugfile,
                facility,
                debug: u8::try_from(value(&self.debug, 0)).unwrap_or(u8::MAX),
                bad_packets: value(&self.bad_packets, true),
                dated: !value(&self.syslog_format, true),
            },
            realtime: value(&self.realtime, true).then_some(priority),
            fencing: self.fencing.map(|(fencing, _)| fencing),
            ipfail: self.ipfail.is_some() && fallback != AutoFailback::Legacy,
            clients: self.clients,
            nodes_spoiled,
            watchdog: self.watchdog.map(|(device, _)| device),
            parameters: self.parameters,
        }
    }

    fn timing(&self, report: &mut DiagReport) -> R1Timing {
        let said = |which: usize| self.times[which].as_ref().map(|(time, _)| *time);
        let keepalive = said(KEEPALIVE).unwrap_or(Duration::from_secs(1));
        let deadtime = said(DEADTIME).unwrap_or(Duration::from_secs(30));
        let timing = R1Timing {
            keepalive,
            deadtime,
            warntime: said(WARNTIME).unwrap_or(deadtime / 2),
            initdead: said(INITDEAD).unwrap_or(default_initdead(deadtime)),
            deadping: said(DEADPING).unwrap_or(deadtime),
        };
        for (which, why, time) in [
            (KEEPALIVE, "heartbeat's default", timing.keepalive),
            (DEADTIME, "heartbeat's default", timing.deadtime),
            (WARNTIME, "half of deadtime", timing.warntime),
            (INITDEAD, "it follows from deadtime", timing.initdead),
            (DEADPING, "as deadtime", timing.deadping),
        ] {
            let (id, name) = TIMES[which];
            let matters = which != DEADPING || !self.pings.is_empty();
            if self.times[which].is_none() && matters && !self.is_spoiled(&[id]) {
                report.explain(0, format!("{name} is not set, so {}: {why}", Shown(time)));
            }
        }
        self.check_timing(&timing, report);
        timing
    }

    fn check_timing(&self, timing: &R1Timing, report: &mut DiagReport) {
        let R1Timing { keepalive, warntime, deadtime, initdead, deadping } = *timing;
        let two = Shown(keepalive * 2).to_string();
        // The value of a spoiled line is unknown, so it is not compared.
        let comparable = |which: usize, other: usize| !self.is_spoiled(&[TIMES[which].0, TIMES[other].0]);
        // The place of the directive that says so, or of the other one that makes it wrong.
        let place = |which: usize, other: usize| {
            let said = self.times[which].as_ref().or(self.times[other].as_ref());
            said.map(|(_, place)| place.clone()).unwrap_or_default()
        };
        for (which, name, time) in [(DEADTIME, "deadtime", deadtime), (DEADPING, "deadping", deadping)] {
            let is_copy = which == DEADPING && self.times[DEADPING].is_none();
            if time <= keepalive * 2 && !is_copy && comparable(which, KEEPALIVE) {
                let message = format!("{name} is {}, not above two keepalives ({two})", Shown(time));
                let cure = format!(
                    "one lost beat must not make a node count as dead: set {name} to {} or more",
                    Shown(keepalive * 4)
                );
                report.add(report.error(message).at(&place(which, KEEPALIVE)).cure(cure));
            }
        }
        if initdead < deadtime && comparable(INITDEAD, DEADTIME) {
            let message = format!("initdead is {}, below deadtime ({})", Shown(initdead), Shown(deadtime));
            let cure =
                format!("set initdead to {} or more, or leave it out", Shown(default_initdead(deadtime)));
            report.add(report.error(message).at(&place(INITDEAD, DEADTIME)).cure(cure));
        } else if self.times[INITDEAD].is_some() && initdead < Duration::from_secs(10) {
            let message = format!(
                "initdead is {}: a network that comes up slowly looks like a dead peer",
                Shown(initdead)
            );
            report.add(report.warning(message).at(&place(INITDEAD, DEADTIME)).cure("10 s or more is usual"));
        }
        if warntime >= deadtime && comparable(WARNTIME, DEADTIME) {
            let message = format!(
                "warntime is {}, not below deadtime ({}): no warning comes before a node counts as dead",
                Shown(warntime),
                Shown(deadtime)
            );
            let cure = format!("set it to {}, or leave it out", Shown(deadtime / 2));
            report.add(report.warning(message).at(&place(WARNTIME, DEADTIME)).cure(cure));
        }
        if warntime <= keepalive && self.times[WARNTIME].is_some() && comparable(WARNTIME, KEEPALIVE) {
            let message = format!("warntime is {}, not above keepalive: every beat is late", Shown(warntime));
            let cure = format!("set it above {}", Shown(keepalive));
            report.add(report.warning(message).at(&place(WARNTIME, KEEPALIVE)).cure(cure));
        }
        if deadtime > DT_MAX {
            let message = format!(
                "deadtime is {}, but a peer that runs Locum waits at most {}",
                Shown(deadtime),
                Shown(DT_MAX)
            );
            report.add(report.warning(message).at(&place(DEADTIME, DEADTIME)).cure("10 to 30 s are usual"));
        }
    }

    fn check_nodes(&self, report: &mut DiagReport) {
        match self.nodes.as_slice() {
            [] | [_] if self.is_spoiled(&[Id::Node]) => {}
            [] => {
                let message = "there is no `node` line";
                let cure = match self.me {
                    "" => "write `node NAME` for each node, named as `uname -n` prints it".into(),
                    me => format!("write `node {}` and a line for the other node", shown(me)),
                };
                report.add(report.error(message).cure(cure));
            }
            [(name, place)] => {
                let message = format!("{} is the only node: no node takes over from it", shown(name));
                report.add(report.warning(message).at(place).cure("add a `node` line for the other node"));
            }
            [_, _] => {}
            [_, _, others @ ..] => {
                for (name, place) in others {
                    let message = format!(
                        "{} is a third R1 node: when a node dies, each of the others takes its groups, and they have two \
                         owners",
                        shown(name)
                    );
                    let cure =
                        "leave two `node` lines; clusters of more nodes need another mode than haresources";
                    report.add(report.error(message).at(place).offending(name).cure(cure));
                }
            }
        }
        for ping in &self.pings {
            if let Some((name, place)) = self.nodes.iter().find(|(name, _)| *name == ping.name) {
                let message = format!("{} is a node and a ping node", shown(name));
                report.add(
                    report.error(message).at(place).offending(name).cure("give the ping group another name"),
                );
            }
        }
    }

    fn check_ipfail(&self, report: &mut DiagReport) {
        let Some(((), place)) = &self.ipfail else {
            if let Some(place) = self.ping_place.as_ref().filter(|_| !self.is_spoiled(&[Id::Respawn])) {
                let message = "ping nodes are watched, and nothing moves when they fall silent: no ipfail compares them";
                let cure = "add `respawn hacluster /usr/lib/heartbeat/ipfail`";
                report.add(report.warning(message).at(place).cure(cure));
            }
            return;
        };
        if value(&self.auto_failback, AutoFailback::Legacy) == AutoFailback::Legacy
            && !self.is_spoiled(&FAILBACK)
        {
            let message = "ipfail does nothing with `auto_failback legacy`, as in heartbeat";
            report.add(
                report.warning(message).at(place).cure("write `auto_failback on` or `auto_failback off`"),
            );
        }
        if self.pings.is_empty() && !self.is_spoiled(&[Id::Ping, Id::PingGroup]) {
            let message = "ipfail has no ping nodes to compare, and does nothing";
            report.add(
                report.warning(message).at(place).cure("add a `ping` line with the address of a router"),
            );
        }
    }

    fn check_media(&self, report: &mut DiagReport) {
        let is_spoiled = self.spoiled.iter().any(|row| row.meaning.starts_with("medium"));
        match self.links.as_slice() {
            _ if is_spoiled => {}
            [] => {
                let cure = "add at least one, better two: `bcast eth1`, `serial /dev/ttyS0`";
                report.add(report.error("there is no medium: the nodes cannot hear each other").cure(cure));
            }
            [link] if self.nodes.len() == 2 => {
                let message = format!(
                    "{} is the only link: when it breaks, both nodes start all groups",
                    shown(&link.name)
                );
                let cure = "add a second link that shares nothing with it";
                let place = self.media.first().map(|(_, place)| place.clone()).unwrap_or_default();
                report.add(report.info(message).at(&place).offending(&link.name).cure(cure));
            }
            _ => {}
        }
    }
}

/// Whether the line starts heartbeat's `ipfail`, whose work the node does itself.
fn is_ipfail(entry: &HaCfEntry) -> bool {
    let is_client = matches!(entry.row.id, Id::Respawn | Id::Failfast);
    is_client && entry.values.get(1).is_some_and(|program| program.text.ends_with("/ipfail"))
}

/// Finds this node in the list of nodes; it must be there.
pub(super) fn find_me(
    me: &str,
    settings: &HaCfSettings,
    options: &CheckOptions,
    report: &mut DiagReport,
) -> Option<usize> {
    if let Some(place) = settings.nodes.iter().position(|node| node == me) {
        return Some(place);
    }
    if settings.nodes.is_empty() || settings.nodes_spoiled {
        return None; // reported already
    }
    let all =
        settings.nodes.iter().map(|node| format!("`{}`", shown(node))).collect::<Vec<_>>().join(" and ");
    let me_shown = shown(me);
    let similar = settings.nodes.iter().position(|node| is_same_host(node, me));
    let at = similar.unwrap_or(0);
    let message = match similar {
        _ if options.is_named => format!("ha.cf has no node `{me_shown}`, only {all}"),
        Some(at) => format!("this host is `{me_shown}`, but ha.cf has `{}`", shown(&settings.nodes[at])),
        None => format!("this host is `{me_shown}`, but ha.cf has {all}"),
    };
    let name = shown(&settings.nodes[at]);
    let cure = match similar {
        Some(_) if options.is_named => format!("check as `{name}`"),
        None if options.is_named => "check as one of these, or add a `node` line".into(),
        Some(_) => format!("write `node {me_shown}` (here and in haresources, on both nodes), or put `{name}` \
             into the file nodeinfo"),
        None => "is this the right host and file? A node is named as `uname -n` prints it, or as the file nodeinfo says".into(),
    };
    let place = settings.node_places.get(at).cloned().unwrap_or_default();
    report.add(report.error(message).at(&place).offending(&settings.nodes[at]).cure(cure).about_host());
    None
}

/// Whether the directive has one value, so that a later line replaces it.
fn is_scalar(form: &ValueForm) -> bool {
    matches!(
        form,
        ValueForm::Time { .. }
            | ValueForm::Whole { .. }
            | ValueForm::Boolean
            | ValueForm::Choice(_)
            | ValueForm::Path
    )
}

/// The defaults that are plain values, as scripts see them.
fn literal_defaults() -> BTreeMap<String, String> {
    let rows = ROWS.iter().filter(|row| !row.default.is_empty() && !row.default.contains(' '));
    let is_derived = |row: &Directive| matches!(row.id, Id::Deadping);
    rows.filter(|row| !is_derived(row)).map(|row| (row.name.into(), row.default.into())).collect()
}

/// heartbeat's default: long enough for a network to come up.
fn default_initdead(deadtime: Duration) -> Duration {
    match deadtime.as_millis() {
        10_001.. => deadtime,
        6_000.. => deadtime * 2,
        _ => Duration::from_secs(12),
    }
}

fn failback_meaning(choice: AutoFailback) -> &'static str {
    match choice {
        AutoFailback::On => "groups return to their preferred node when it is back",
        AutoFailback::Off => "groups stay where they are when their preferred node is back",
        AutoFailback::Legacy => {
            "groups return to their preferred node when it is back (between nodes of Locum as `on`)"
        }
    }
}

fn refusal(row: &Directive, cure: &str) -> ConfigFault {
    let why = if let DirectiveStatus::Refused(why) = row.status { why } else { "it is refused" };
    (format!("`{}` cannot be on: {why}", row.name), Some(cure.into()))
}

fn carried(entry: &HaCfEntry) -> String {
    let values = entry.values.iter().map(|word| shown(&word.text)).collect::<Vec<_>>().join(" ");
    match entry.row.status {
        DirectiveStatus::Accepted(why) => format!("accepted, no effect: {why}"),
        _ => format!("{}: {values}", entry.row.meaning),
    }
}

/// The port of a medium if it is the `udpport`; other media have their own.
fn udpport(medium: &R1Medium) -> Option<u16> {
    match medium {
        R1Medium::Broadcast { port, .. } | R1Medium::Unicast { port, .. } => Some(*port),
        R1Medium::Multicast { .. } | R1Medium::Serial { .. } => None,
    }
}

fn medium_meaning(medium: &R1Medium) -> String {
    match medium {
        R1Medium::Broadcast { port, .. } => format!("UDP broadcast, port {port}"),
        R1Medium::Multicast { group, port, .. } => format!("UDP multicast to {group}, port {port}"),
        R1Medium::Unicast { peer, port, .. } => format!("UDP to {peer}, port {port}"),
        R1Medium::Serial { baud, .. } => format!("serial line, {baud} bits a second"),
    }
}

/// A fault, and the word that has it if it is not the first one.
struct LineFault {
    fault: ConfigFault,
    field: Option<FileWord>,
}

impl LineFault {
    fn field(word: &FileWord, fault: ConfigFault) -> Self {
        Self { fault, field: Some(word.clone()) }
    }
}

impl From<ConfigFault> for LineFault {
    fn from(fault: ConfigFault) -> Self {
        Self { fault, field: None }
    }
}

/// `mcast IF GROUP PORT TTL LOOP`, or `mcast6` alike.
fn multicast(id: Id, entry: &HaCfEntry) -> Result<R1Medium, LineFault> {
    let [name, group, port, ttl, loopback] = entry.values.as_slice() else { return Err(too_much(entry)) };
    interface(&name.text)?;
    let group: IpAddr = match group.text.parse() {
        Ok(ip @ IpAddr::V4(v4)) if v4.is_multicast() && id == Id::Mcast => ip,
        Ok(ip @ IpAddr::V6(v6)) if v6.is_multicast() && id == Id::Mcast6 => ip,
        _ => {
            let cure = match id {
                Id::Mcast => "write one of 224.0.0.0 to 239.255.255.255, such as 225.0.0.1",
                _ => "write one that begins with ff, such as ff05::694",
            };
            let message = format!("`{}` is not a multicast group", shown(&group.text));
            return Err(LineFault::field(group, (message, Some(cure.into()))));
        }
    };
    let number = |word: &FileWord, what: &str, min: u16, max: u16| match word.text.parse::<u16>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => {
            let message = format!("`{}` is not a valid {what}", shown(&word.text));
            Err(LineFault::field(word, (message, Some(format!("write {min} to {max}")))))
        }
    };
    let port = number(port, "port", 1, u16::MAX)?;
    let ttl = number(ttl, "ttl", 0, 4)?;
    let loopback = number(loopback, "loop", 0, 1)? == 1;
    let ttl = u8::try_from(ttl).unwrap_or(4);
    Ok(R1Medium::Multicast { interface: name.text.clone(), group, port, ttl, loopback })
}

/// Whether a word could be a host's name (RFC 1123): it begins with a letter, or has a letter after its last dot.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && last.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn too_much(entry: &HaCfEntry) -> LineFault {
    let row = entry.row;
    let fault = (
        format!("`{}` has too many values", row.name),
        Some(format!("write `{} {}`", row.name, row.form.usage())),
    );
    match entry.values.last() {
        Some(last) => LineFault::field(last, fault),
        None => fault.into(),
    }
}
