//! `hb_standby`, `hb_takeover`, `hb_setweight`, `hb_setsite`: send an order or a message to the cluster and do not wait
//! for its end. `hb_addnode`, `hb_delnode`: refused, because only the files say which nodes there are.

use std::process::ExitCode;

use clap::ValueEnum as _;

use crate::{
    cli::CommonOptions,
    observe::report::StatusReport,
    observe::socket::{ClientFault, ControlClient, GroupSet, MoveSetOrder, OrderOutcome, OutcomeKind},
};

/// The direction in which groups move.
#[derive(Clone, Copy)]
pub(super) enum MoveDirection {
    /// Gives them to the other node.
    Standby,
    /// Takes them to this node.
    Takeover,
}

impl MoveDirection {
    const fn name(self) -> &'static str {
        match self {
            Self::Standby => "hb_standby",
            Self::Takeover => "hb_takeover",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Standby => "/standby",
            Self::Takeover => "/takeover",
        }
    }
}

/// `hb_standby [all|foreign|local|failback]`, and the same for `hb_takeover`. Returns once the daemon has accepted the
/// order. A refusal that comes at once is printed.
pub(super) fn move_groups(common: &CommonOptions, way: MoveDirection, words: &[String]) -> ExitCode {
    let name = way.name();
    let usage = || {
        errln!("usage:\n{name} [all|foreign|local|failback]");
        ExitCode::FAILURE
    };
    let set = match words {
        [] => GroupSet::All,
        [word] if word == "--help" => return usage(),
        [word] => match GroupSet::from_str(word, false) {
            Ok(set) => set,
            Err(_) => {
                errln!("{name}: wrong resources({word}).");
                return usage();
            }
        },
        _ => {
            errln!("{name}: too many arguments");
            return usage();
        }
    };
    if let MoveDirection::Standby = way {
        // Heartbeat prints the set that it asks for.
        let shown = set.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let shown = if set == GroupSet::Failback { "foreign".to_owned() } else { shown };
        errln!("Going standby [{shown}].");
    }
    let order = MoveSetOrder { set, wait: false };
    report_outcome(name, ControlClient::new(&common.run_dir()).order(way.path(), order))
}

/// An item of a node's quorum data.
#[derive(Clone, Copy)]
pub(super) enum Property {
    Weight,
    Site,
}

/// `hb_setweight NODE WEIGHT`, `hb_setsite NODE SITE`.
pub(super) fn set(common: &CommonOptions, property: Property, words: &[String]) -> ExitCode {
    let (name, field) = match property {
        Property::Weight => ("hb_setweight", "weight"),
        Property::Site => ("hb_setsite", "site"),
    };
    let [node, value] = words else {
        errln!("usage: {name} <node> <{field}>");
        return ExitCode::FAILURE;
    };
    if let Property::Weight = property
        && value.parse::<u32>().is_err()
    {
        errln!("{name}: {value} is not a weight: write a whole number from 0 to {}", u32::MAX);
        return ExitCode::FAILURE;
    }
    let client = ControlClient::new(&common.run_dir());
    // The message itself gets no answer, so the node's name is checked first.
    match client.status().map(|text| serde_json::from_str::<StatusReport>(&text)) {
        Ok(Ok(report)) if !report.cluster.nodes.iter().any(|known| known.name.eq_ignore_ascii_case(node)) => {
            errln!("{name}: refused: ha.cf has no node {node}");
            return ExitCode::FAILURE;
        }
        Err(fault) => return report_outcome(name, Err(fault)),
        Ok(_) => {}
    }
    let node = node.to_lowercase();
    let kind = name.trim_start_matches("hb_");
    let message = [("t", kind), ("node", node.as_str()), (field, value.as_str())];
    let fields = message.map(|(name, value)| (name.to_owned(), value.to_owned()));
    report_outcome(name, client.say(fields.to_vec()))
}

/// `hb_addnode`, `hb_delnode`: prints the reason and what to do instead.
pub(super) fn refuse_nodes(name: &str, words: &[String]) -> ExitCode {
    if words.is_empty() || words == ["--help"] {
        errln!("usage: {name} <node> <node> ...");
        return ExitCode::FAILURE;
    }
    errln!(
        "{name}: refused: only the files define the nodes, and with haresources there are two at most. Change the \
         `node` lines of ha.cf on all nodes and restart the nodes one after the other"
    );
    ExitCode::FAILURE
}

/// Prints nothing when the order was accepted, as heartbeat does.
fn report_outcome(name: &str, outcome: Result<OrderOutcome, ClientFault>) -> ExitCode {
    match outcome {
        Ok(OrderOutcome { outcome: OutcomeKind::Done | OutcomeKind::Begun, .. }) => ExitCode::SUCCESS,
        Ok(OrderOutcome { text, .. }) => {
            errln!("{name}: refused: {text}");
            ExitCode::FAILURE
        }
        Err(fault) => {
            errln!("{name}: {fault}");
            ExitCode::FAILURE
        }
    }
}
