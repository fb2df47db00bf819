//! `locum import`: writes `locum.toml` from `ha.cf` and `haresources`, with a comment at every change of meaning.
//!
//! Exit code: 0 the file is written or printed, and passes the check; 1 it could not be made; 2 heartbeat's files are
//! wrong; 3 it leaves a decision to the administrator, and the check says so.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use locum_core::config::{
    FileName, Severity,
    import::{OwnAddress, import},
    locum_toml,
};
use locum_sys::netlink::Netlink;

use crate::{
    cli::{CommonOptions, init},
    files::{Files, NATIVE},
    observe::diagnostics::draw,
};

/// The options of `locum import`.
#[derive(Clone, Debug, Args)]
pub struct ImportOptions {
    /// Directory of ha.cf and haresources
    #[arg(long, value_name = "DIR", default_value = "/etc/ha.d")]
    pub from: PathBuf,
    /// Convert as this node [default: the node with this host's name]
    #[arg(long = "as", value_name = "NODE")]
    pub node: Option<String>,
    /// Print locum.toml instead of writing it
    #[arg(long)]
    pub print: bool,
}

/// Reads heartbeat's files and writes or prints `locum.toml`.
///
/// # Errors
/// Why the file cannot be written.
pub fn run(common: &CommonOptions, options: &ImportOptions) -> anyhow::Result<ExitCode> {
    let files = Files::read(&options.from, options.node.as_deref());
    let checked = files.check();
    // The keys are not imported: there is a plan without them, too.
    let Some(plan) = &checked.plan else {
        let errors = checked.diags.iter().filter(|diag| diag.severity == Severity::Error);
        for diag in errors.filter(|diag| diag.file != FileName::Authkeys) {
            errln!("{}", draw(diag, &options.from, files.text(diag.file), false));
        }
        return Ok(ExitCode::from(2));
    };
    let imported = import(plan, &own_addresses());
    let good = locum_toml::check(imported.text.as_bytes(), &files.node).plan.is_some();
    if options.print {
        out!("{}", imported.text);
    } else {
        let path = common.native_dir().join(NATIVE);
        init::write(&path, &imported.text)?;
        outln!(
            "{} is written. {} settings have a new meaning: look for CHANGED in it.",
            path.display(),
            imported.changes.len()
        );
        outln!("Next: run `locum keygen`, copy both files to all nodes, run `locum check` on each.");
    }
    for open in &imported.open {
        errln!("locum: decision needed: {open}");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// The addresses of this host's interfaces. Empty when the kernel does not tell them.
fn own_addresses() -> Vec<OwnAddress> {
    let Ok(mut netlink) = Netlink::open() else { return Vec::new() };
    let (Ok(interfaces), Ok(addresses)) = (netlink.interfaces(), netlink.addresses()) else {
        return Vec::new();
    };
    let named = addresses.into_iter().filter_map(|address| {
        let interface = interfaces.iter().find(|interface| interface.index == address.interface)?;
        // Service addresses are left out, because they move to other nodes. A secondary address may be one.
        (!address.secondary).then(|| OwnAddress { interface: interface.name.clone(), ip: address.ip })
    });
    named.collect()
}
