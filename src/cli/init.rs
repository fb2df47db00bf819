//! `locum init`: asks for what cannot be found out, and writes `locum.toml`. An option replaces its question; without a
//! terminal nothing is asked.
//!
//! Exit code: 0 the file is written, 1 it is not.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, IsTerminal, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use locum_core::config::{
    Severity,
    locum_toml::{self, quoted},
};

use crate::{
    cli::CommonOptions,
    files::{self, NATIVE},
    observe::diagnostics::draw,
};

/// The options of `locum init`: answers given in advance.
#[derive(Clone, Debug, Args)]
pub struct InitOptions {
    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// A node and its address on each link, such as web1=10.0.0.1,10.1.0.1; repeat for each node, links in the same order
    #[arg(long = "node", value_name = "NAME=ADDRESS,…")]
    pub nodes: Vec<String>,
    /// The witness, which votes and runs no groups, such as third=10.9.0.1; `none` for none
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub witness: Option<String>,
    /// The pace: after this time a silent node has lost its groups [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub pace: Option<String>,
    /// Name of the first group [default: service]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// A resource of the first group, such as 10.0.0.100/24 or nginx; repeat in start order
    #[arg(long = "resource", value_name = "RESOURCE")]
    pub resources: Vec<String>,
}

/// Asks for missing answers, checks the result, and writes the file.
///
/// # Errors
/// Why nothing was written.
pub fn run(common: &CommonOptions, options: InitOptions) -> anyhow::Result<ExitCode> {
    let is_talk = io::stdin().is_terminal() && io::stdout().is_terminal();
    refuse_to_overwrite(&common.native_dir().join(NATIVE))?; // before anything is asked
    if is_talk {
        let answers = ask(options, &files::host_name(), &mut io::stdin().lock(), &mut io::stdout().lock())?;
        make(common, &answers)
    } else {
        make(common, &options)
    }
}

fn refuse_to_overwrite(path: &Path) -> anyhow::Result<()> {
    match path.exists() {
        true => bail!("{} exists already: edit it, or remove it first", path.display()),
        false => Ok(()),
    }
}

fn make(common: &CommonOptions, options: &InitOptions) -> anyhow::Result<ExitCode> {
    let path = common.native_dir().join(NATIVE);
    let text = page(options)?;
    let node = a_member(options)?;
    let checked = locum_toml::check(text.as_bytes(), &node);
    let dir = path.parent().unwrap_or(Path::new("/"));
    for diag in checked.diags.iter().filter(|diag| diag.severity > Severity::Info) {
        errln!("{}", draw(diag, dir, Some(text.as_bytes()), false));
    }
    if checked.plan.is_none() {
        bail!("nothing was written: with these answers locum.toml would be wrong (see the errors above)");
    }
    write(&path, &text)?;
    outln!(
        "{} is written. Next: run `locum keygen`, copy both files to all nodes, run `locum check` on each.",
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes a new file and creates its directory; never overwrites.
///
/// # Errors
/// If the file exists or cannot be written.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let mut file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists already: edit it, or remove it first", path.display())
        }
        _ => anyhow::Error::new(error).context(format!("{} cannot be created", path.display())),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// The node as which the new file is checked; any member will do.
fn a_member(options: &InitOptions) -> anyhow::Result<String> {
    let first =
        options.nodes.first().context("no node is given: add `--node NAME=ADDRESS,ADDRESS` for each node")?;
    Ok(first.split('=').next().unwrap_or_default().to_lowercase())
}

/// Asks the questions that the options left open.
fn ask(
    mut options: InitOptions,
    host: &str,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> anyhow::Result<InitOptions> {
    let mut question = |text: &str, default: &str| -> anyhow::Result<String> {
        let hint = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        write!(output, "{text}{hint}: ")?;
        output.flush()?;
        let mut answer = String::new();
        if input.read_line(&mut answer)? == 0 {
            bail!(
                "the questions were not answered: run it on a terminal, or give all answers as options (see \
                   `locum init --help`)"
            );
        }
        let answer = answer.trim();
        Ok(if answer.is_empty() { default.into() } else { answer.into() })
    };
    if options.cluster.is_none() {
        options.cluster = Some(question("Name of the cluster", "cluster")?);
    }
    if options.nodes.is_empty() {
        let addresses = question(
            &format!(
                "Addresses of {host}, one per network, at least two if possible, \
                                           separated by commas"
            ),
            "",
        )?;
        options.nodes.push(format!("{}={addresses}", host.to_lowercase()));
        loop {
            let more = options.nodes.len() >= 2;
            let end = if more { ", empty if there are no more" } else { "" };
            let name = question(&format!("Name of another node, as printed there by `uname -n`{end}"), "")?;
            if name.is_empty() && more {
                break;
            }
            if !name.is_empty() {
                let addresses = question(&format!("Addresses of {name}, in the same order of networks"), "")?;
                options.nodes.push(format!("{name}={addresses}"));
            }
        }
    }
    if options.witness.is_none() && options.nodes.len().is_multiple_of(2) {
        let address = question(
            "Address of a witness (a third machine that votes and runs no groups), empty for none",
            "",
        )?;
        options.witness = Some(if address.is_empty() { "none".into() } else { format!("witness={address}") });
    }
    if options.pace.is_none() {
        options.pace = Some(question("Pace: after which time has a silent node lost its groups", "1s")?);
    }
    if options.resources.is_empty() {
        let address = question("Service address, such as 10.0.0.100/24", "")?;
        options.resources.extend(Some(address).filter(|address| !address.is_empty()));
        let services =
            question("Services that use the address (systemd units or scripts), in start order", "")?;
        options.resources.extend(services.split_whitespace().map(Into::into));
    }
    Ok(options)
}

/// The text of the file. Only the form of the answers is checked here; the rest is left to the check.
fn page(options: &InitOptions) -> anyhow::Result<String> {
    let mut page =
        String::from("# All settings: docs/locum-toml.md. `locum check` explains each line of this file.\n");
    let cluster = options.cluster.as_deref().context("the cluster has no name: add `--cluster NAME`")?;
    page += &format!("cluster = {}\n", quoted(cluster));
    page += &format!("pace = {}\n", quoted(options.pace.as_deref().unwrap_or("1s")));
    for node in &options.nodes {
        let (name, addresses) = pair(node, "--node NAME=ADDRESS,ADDRESS")?;
        let links = addresses.split([',', ' ']).filter(|one| !one.is_empty()).enumerate();
        let links = links.map(|(index, address)| format!("net{} = {}", index + 1, quoted(address)));
        let links = links.collect::<Vec<_>>().join(", ");
        page += &format!("\n[nodes.{}]\nlinks = {{ {links} }}\n", quoted(name));
    }
    if let Some(witness) = options.witness.as_deref().filter(|witness| *witness != "none") {
        let (name, address) = pair(witness, "--witness NAME=ADDRESS")?;
        page += &format!("\n[witnesses.{}]\naddress = {}\n", quoted(name), quoted(address));
    }
    if !options.resources.is_empty() {
        let resources = options.resources.iter().map(|resource| resource_text(resource)).collect::<Vec<_>>();
        let group = options.group.as_deref().unwrap_or("service");
        page += &format!("\n[groups.{}]\nresources = [{}]\n", quoted(group), resources.join(", "));
    }
    Ok(page)
}

/// A lone address becomes an address of its own type; everything else is written as a word, as in `haresources`.
fn resource_text(resource: &str) -> String {
    let ip = resource.split('/').next().unwrap_or_default();
    if ip.parse::<IpAddr>().is_ok() {
        format!("{{ address = {} }}", quoted(resource))
    } else {
        quoted(resource)
    }
}

fn pair<'a>(text: &'a str, form: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    pair.with_context(|| format!("`{}` does not have the form `{form}`", text.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> InitOptions {
        InitOptions {
            cluster: None,
            nodes: vec![],
            witness: None,
            pace: None,
            group: None,
            resources: vec![],
        }
    }

    fn answered(answers: &str) -> anyhow::Result<(String, String)> {
        let mut asked = Vec::new();
        let options = ask(none(), "Web1", &mut answers.as_bytes(), &mut asked)?;
        Ok((page(&options)?, String::from_utf8(asked).unwrap()))
    }

    #[test]
    fn the_questions_make_a_good_file() {
        let (text, asked) = answered(
            "shop\n10.0.0.1 10.1.0.1\n\nweb2\n10.0.0.2,10.1.0.2\n\n10.9.0.1\n300ms\n10.0.0.100/24\nnginx php-fpm\n",
        )
        .unwrap();
        let checked = locum_toml::check(text.as_bytes(), "web1");
        assert_eq!(checked.diags, [], "{text}");
        let plan = checked.plan.unwrap();
        assert_eq!((plan.cluster.as_str(), plan.nodes.len(), plan.voters.len()), ("shop", 2, 3));
        assert_eq!(plan.groups[0].resources.len(), 3);
        assert_eq!(plan.timing.lease.as_millis(), 300);
        assert!(asked.starts_with("Name of the cluster [cluster]: Addresses of Web1,"), "{asked}");
    }

    #[test]
    fn defaults_need_no_answer_and_the_end_of_input_is_an_error() {
        let (text, _) =
            answered("\n10.0.0.1,10.1.0.1\nb\n10.0.0.2,10.1.0.2\nc\n10.0.0.3,10.1.0.3\n\n\n\n\n").unwrap();
        let plan = locum_toml::check(text.as_bytes(), "c").plan.unwrap();
        assert_eq!((plan.cluster.as_str(), plan.nodes.len(), plan.groups.len()), ("cluster", 3, 0));
        assert!(answered("shop\n").unwrap_err().to_string().contains("were not answered"));
    }

    #[test]
    fn options_alone_make_the_file_and_it_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let common = CommonOptions { config: Some(dir.path().join("new")), ..CommonOptions::default() };
        let options = InitOptions {
            cluster: Some("shop".into()),
            nodes: vec!["a=10.0.0.1,10.1.0.1".into(), "b=10.0.0.2,10.1.0.2".into()],
            witness: Some("w=10.9.0.1".into()),
            resources: vec!["fd00::10/64".into(), "Delay::1".into()],
            ..none()
        };
        let wrong = InitOptions { pace: Some("1 day".into()), ..options.clone() };
        assert!(make(&common, &wrong).unwrap_err().to_string().contains("nothing was written"));
        assert!(!dir.path().join("new").exists());
        make(&common, &options).unwrap();
        let text = fs::read(dir.path().join("new/locum.toml")).unwrap();
        assert!(locum_toml::check(&text, "b").plan.is_some());
        assert!(make(&common, &options).unwrap_err().to_string().contains("exists already"));
        fs::remove_file(dir.path().join("new/locum.toml")).unwrap();
        for (options, said) in [
            (InitOptions { cluster: None, ..options.clone() }, "add `--cluster NAME`"),
            (InitOptions { nodes: vec!["a".into()], ..options.clone() }, "`a` does not have the form"),
            (InitOptions { nodes: vec![], ..options }, "no node is given"),
        ] {
            assert!(make(&common, &options).unwrap_err().to_string().contains(said), "{said}");
        }
    }
}
