//! The search for the program that serves a resource: resource scripts, systemd units and OCF agents.
//!
//! The order of the directories is heartbeat's, then that of the article of 2002, then systemd. The first usable
//! program wins. A name from `haresources` is only compared with names in these directories, so it cannot lead out of
//! them.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use locum_core::model::resource::{Agent, Resource};
use thiserror::Error;

/// The directories in which programs are looked for. Tests use directories of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The configuration directory, with `resource.d` and `conf/OCF` in it.
    pub config: PathBuf,
    /// The directories of the system's start scripts.
    pub init: Vec<PathBuf>,
    /// The directories of the article of 2002, besides the configuration directory itself and its `rc.d`.
    pub old: Vec<PathBuf>,
    /// The directories of systemd's units; the first one wins.
    pub units: Vec<PathBuf>,
    /// The directory that OCF agents know as `OCF_ROOT`.
    pub ocf: PathBuf,
    /// The `PATH` that agents get, and in which `mount`, `umount`, `systemctl` and `sendmail` are found.
    pub path: Vec<PathBuf>,
}

impl Roots {
    /// The directories of an ordinary Linux system.
    #[must_use]
    pub fn system(config: &Path) -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Self {
            config: config.to_path_buf(),
            init: paths(&["/etc/init.d"]),
            old: paths(&["/etc/rc.d/init.d"]),
            units: paths(&[
                "/etc/systemd/system",
                "/run/systemd/system",
                "/usr/local/lib/systemd/system",
                "/usr/lib/systemd/system",
                "/lib/systemd/system",
            ]),
            ocf: PathBuf::from("/usr/lib/ocf"),
            path: paths(&["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
        }
    }

    /// The directory for resource scripts made for the cluster.
    #[must_use]
    pub fn resource_d(&self) -> PathBuf {
        self.config.join("resource.d")
    }

    /// A program of the system, by name.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(name)).find(|path| is_program(path))
    }

    /// Every directory of resource scripts, in the order of the search.
    fn script_places(&self) -> Vec<(PathBuf, ScriptPlace)> {
        let mut places = vec![(self.resource_d(), ScriptPlace::ResourceD)];
        places.extend(self.init.iter().map(|dir| (dir.clone(), ScriptPlace::Init)));
        places.push((self.config.clone(), ScriptPlace::Old));
        places.push((self.config.join("rc.d"), ScriptPlace::Old));
        places.extend(self.old.iter().map(|dir| (dir.clone(), ScriptPlace::Old)));
        places
    }
}

/// The program that serves a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceProgram {
    /// A part of Locum, in the place of heartbeat's script of that name.
    Native {
        script: String,
    },
    Script {
        path: PathBuf,
        /// In which kind of directory it was found.
        place: ScriptPlace,
    },
    Unit {
        name: String,
        file: PathBuf,
    },
    Ocf {
        path: PathBuf,
        /// The agent's type, for `OCF_RESOURCE_TYPE`.
        kind: String,
        /// The directory that holds the agent, for `OCF_RESOURCE_PROVIDER`.
        provider: String,
        /// Where its parameters come from.
        parameters: Parameters,
    },
}

impl ResourceProgram {
    /// What an administrator should change about this program, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Script { path, place: ScriptPlace::Old } => Some(format!(
                "{} was found in an outdated directory; move it to resource.d in the configuration directory",
                path.display()
            )),
            _ => None,
        }
    }
}

impl fmt::Display for ResourceProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native { script } => write!(f, "Locum's own {script}"),
            Self::Script { path, .. } => write!(f, "script {}", path.display()),
            Self::Unit { name, file } => write!(f, "systemd unit {name} ({})", file.display()),
            Self::Ocf { path, parameters: Parameters::Line(_), .. } => {
                write!(f, "OCF agent {}", path.display())
            }
            Self::Ocf { path, parameters: Parameters::File(file), .. } => {
                write!(f, "OCF agent {}, parameters from {}", path.display(), file.display())
            }
        }
    }
}

/// The kinds of directories of resource scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptPlace {
    /// `resource.d` in the configuration directory.
    ResourceD,
    /// The system's start scripts.
    Init,
    /// The article's directories: used, with a warning.
    Old,
}

/// Where the parameters of an OCF agent come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// The line in `haresources`, as names and values.
    Line(Vec<(String, String)>),
    /// A file of shell assignments, as heartbeat's wrapper script reads it.
    File(PathBuf),
}

/// Why nothing serves a resource. Prints the cure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotFound {
    /// The name could lead out of the directories.
    #[error("`{0}` is not the name of a script: it must not be empty, nor contain `/` or `..`")]
    Name(String),
    /// Something of that name exists, but cannot be run.
    #[error("{} is not an executable file: chmod +x it, or remove it", .0.display())]
    NotExecutable(PathBuf),
    /// The interpreter of the script does not exist.
    #[error(
        "the first line of {} names an interpreter that does not exist: `{}`",
        .script.display(), .interpreter.display().to_string().escape_default()
    )]
    Interpreter {
        script: PathBuf,
        /// The interpreter that the script's first line names.
        interpreter: PathBuf,
    },
    /// Nothing of that name exists.
    #[error("there is no script or systemd unit `{name}`; looked in {}", list(.places))]
    Nowhere {
        name: String,
        /// The directories that were searched.
        places: Vec<PathBuf>,
    },
    /// The unit is masked.
    #[error("systemd unit {0} is masked: systemctl unmask {0}")]
    Masked(String),
    /// The unit is a template, and the resource names no instance of it.
    #[error("systemd unit {0} is a template: write the name of an instance between its `@` and its suffix")]
    Template(String),
    /// The resource has arguments, but a unit takes none.
    #[error("`{name}` is a systemd unit ({}), which takes no arguments: write `{name}` alone", .file.display())]
    UnitArguments { name: String, file: PathBuf },
    /// There is no such OCF agent.
    #[error("there is no OCF agent `{kind}`; looked in {}", list(.places))]
    OcfAgent {
        kind: String,
        /// The directories that were searched.
        places: Vec<PathBuf>,
    },
    /// The file with the parameters of an OCF agent is missing.
    #[error("the OCF parameters file {} is missing; lines OCF_RESKEY_name=value", .0.display())]
    OcfFile(PathBuf),
    /// No environment can carry this parameter.
    #[error("`{0}` is not the name of an OCF parameter: letters, digits and `_` only")]
    OcfParameter(String),
}

impl NotFound {
    /// The cure, if the message does not contain it.
    #[must_use]
    pub fn cure(&self) -> Option<String> {
        match self {
            Self::Nowhere { name, .. } if is_unit(name) => Some(
                "correct the name, or install the package that has this unit: `systemctl list-unit-files` shows those of \
                 this host"
                    .into(),
            ),
            Self::Nowhere { name, places } => Some(format!(
                "correct the name, or put an executable script `{name}` that knows start, stop and status into {}",
                places.first().map_or_else(String::new, |place| place.display().to_string())
            )),
            Self::Interpreter { script, interpreter } => Some(match interpreter.as_os_str().as_bytes() {
                [.., b'\r'] => format!(
                    "it has line ends of another operating system: sed -i 's/\\r$//' {}",
                    script.display()
                ),
                _ => "correct it, or install the package that has the interpreter".into(),
            }),
            Self::OcfAgent { .. } => {
                Some("correct the name, or install the package that has this agent".into())
            }
            _ => None,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Finds the program that serves the resource. With `prefer_scripts`, scripts named like the native stand-ins are used
/// where they exist. For addresses such a script must exist then, because the heart leaves them alone. Reads
/// directories, so it may block.
///
/// # Errors
/// When there is nothing usable, with the cure.
pub fn find(roots: &Roots, resource: &Resource, prefer_scripts: bool) -> Result<ResourceProgram, NotFound> {
    match &resource.agent {
        Agent::Script => script_or_unit(roots, resource),
        Agent::OcfFile { kind, instance } => {
            if prefer_scripts && let Some(found) = script(roots, &resource.script)? {
                return Ok(found);
            }
            ocf_file(roots, kind, instance)
        }
        Agent::Ocf { provider, kind, parameters } => ocf(roots, provider, kind, parameters),
        Agent::MailTo { .. } | Agent::Delay { .. } | Agent::Filesystem { .. } => {
            if prefer_scripts && let Some(found) = script(roots, &resource.script)? {
                return Ok(found);
            }
            Ok(ResourceProgram::Native { script: resource.script.clone() })
        }
        Agent::Address(_) | Agent::SendArp(_) if prefer_scripts => script(roots, &resource.script)?
            .ok_or_else(|| {
                let places = roots.script_places().into_iter().map(|(dir, _)| dir).collect();
                NotFound::Nowhere { name: resource.script.clone(), places }
            }),
        Agent::Address(_) | Agent::SendArp(_) => {
            Ok(ResourceProgram::Native { script: resource.script.clone() })
        }
    }
}

fn script_or_unit(roots: &Roots, resource: &Resource) -> Result<ResourceProgram, NotFound> {
    let name = &resource.script;
    let refused = match script(roots, name) {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => None,
        // It was meant to run, so nothing else of that name may take its place.
        Err(wrong @ (NotFound::Name(_) | NotFound::Interpreter { .. })) => return Err(wrong),
        Err(refused) => Some(refused),
    };
    match unit(roots, name) {
        Ok(Some((_, file))) if !resource.args.is_empty() => {
            Err(refused.unwrap_or_else(|| NotFound::UnitArguments { name: name.clone(), file }))
        }
        Ok(Some((name, file))) => Ok(ResourceProgram::Unit { name, file }),
        Ok(None) => Err(refused.unwrap_or_else(|| {
            let mut places: Vec<_> = roots.script_places().into_iter().map(|(dir, _)| dir).collect();
            places.extend(roots.units.iter().cloned());
            NotFound::Nowhere { name: name.clone(), places }
        })),
        Err(masked) => Err(refused.unwrap_or(masked)),
    }
}

/// The first script of that name that can be run. A file in the way that is not a program is only an error if no later
/// directory has a program.
fn script(roots: &Roots, name: &str) -> Result<Option<ResourceProgram>, NotFound> {
    let name = safe(name)?;
    let mut in_the_way = None;
    for (dir, place) in roots.script_places() {
        let path = dir.join(name);
        if is_program(&path) {
            return match interpreter(&path).filter(|interpreter| !is_program(interpreter)) {
                Some(interpreter) => Err(NotFound::Interpreter { script: path, interpreter }),
                None => Ok(Some(ResourceProgram::Script { path, place })),
            };
        }
        // The old directories hold many files that are not meant to run.
        if place != ScriptPlace::Old && path.symlink_metadata().is_ok() {
            in_the_way.get_or_insert(path);
        }
    }
    in_the_way.map_or(Ok(None), |path| Err(NotFound::NotExecutable(path)))
}

/// The suffixes of unit names.
const SUFFIXES: [&str; 7] = ["service", "socket", "target", "mount", "automount", "timer", "path"];

/// Whether the name is meant as a unit's name: scripts are not called so.
fn is_unit(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, suffix)| !stem.is_empty() && SUFFIXES.contains(&suffix))
}

/// The unit that systemd would load for this name, and its file.
fn unit(roots: &Roots, name: &str) -> Result<Option<(String, PathBuf)>, NotFound> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_.\\-@".contains(&byte))
        || name.starts_with('-')
    {
        return Ok(None);
    }
    let full = if is_unit(name) { name.to_owned() } else { format!("{name}.service") };
    let mut files = vec![full.clone()];
    if let (Some(at), Some(dot)) = (full.find('@'), full.rfind('.'))
        && at < dot
    {
        if at + 1 == dot {
            return Err(NotFound::Template(full));
        }
        files.push(format!("{}{}", &full[..=at], &full[dot..]));
    }
    for file in files {
        for dir in &roots.units {
            let path = dir.join(&file);
            // A link to /dev/null, or an empty file, takes the unit out of the system.
            match path.metadata() {
                Ok(data) if data.is_file() && data.len() > 0 => return Ok(Some((full, path))),
                Ok(_) => return Err(NotFound::Masked(full)),
                Err(_) => {}
            }
        }
    }
    Ok(None)
}

/// `OCF::TYPE::INSTANCE`. As with heartbeat's wrapper, the first provider that has the type wins.
fn ocf_file(roots: &Roots, kind: &str, instance: &str) -> Result<ResourceProgram, NotFound> {
    let (kind, instance) = (safe(kind)?, safe(instance)?);
    let agents = roots.ocf.join("resource.d");
    let mut providers: Vec<String> = agents
        .read_dir()
        .map(|dir| dir.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    providers.sort();
    let file = roots.config.join("conf/OCF").join(kind).join(instance);
    for provider in providers {
        let path = agents.join(&provider).join(kind);
        if is_program(&path) {
            if !file.is_file() {
                return Err(NotFound::OcfFile(file));
            }
            return Ok(ResourceProgram::Ocf {
                path,
                kind: kind.to_owned(),
                provider,
                parameters: Parameters::File(file),
            });
        }
    }
    Err(NotFound::OcfAgent { kind: kind.to_owned(), places: vec![agents] })
}

/// Finds the agent of a resource of the form `ocf:PROVIDER:TYPE::name=value::…`.
fn ocf(
    roots: &Roots,
    provider: &str,
    kind: &str,
    parameters: &[(String, String)],
) -> Result<ResourceProgram, NotFound> {
    let (provider, kind) = (safe(provider)?, safe(kind)?);
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if let Some((name, _)) = parameters.iter().find(|(name, value)| !is_name(name) || value.contains('\0')) {
        return Err(NotFound::OcfParameter(name.clone()));
    }
    let dir = roots.ocf.join("resource.d").join(provider);
    let path = dir.join(kind);
    if is_program(&path) {
        return Ok(ResourceProgram::Ocf {
            path,
            kind: kind.to_owned(),
            provider: provider.to_owned(),
            parameters: Parameters::Line(parameters.to_vec()),
        });
    }
    if path.symlink_metadata().is_ok() {
        return Err(NotFound::NotExecutable(path));
    }
    Err(NotFound::OcfAgent { kind: kind.to_owned(), places: vec![dir] })
}

/// Refuses a name that could lead out of its directory.
fn safe(name: &str) -> Result<&str, NotFound> {
    if name.is_empty() || name == "." || name.contains(['/', '\0']) || name.contains("..") {
        return Err(NotFound::Name(name.to_owned()));
    }
    Ok(name)
}

/// The interpreter that a script's first line names, read as the kernel does: it ends at a blank, a tab or the line's end.
pub(super) fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(script).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.split(|byte| b" \t".contains(byte)).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// Whether the file is regular (through links) and executable for any user, which is enough for root, the daemon's user.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use locum_core::model::resource::Address;

    use super::*;

    struct House {
        dir: tempfile::TempDir,
        roots: Roots,
    }

    impl House {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let roots = Roots {
                config: at("ha.d"),
                init: vec![at("init.d")],
                old: vec![at("rc.d/init.d")],
                units: vec![at("etc-units"), at("lib-units")],
                ocf: at("ocf"),
                path: vec![at("bin")],
            };
            Self { dir, roots }
        }

        fn put(&self, path: &str, mode: u32) -> PathBuf {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn find(&self, script: &str, args: &[&str]) -> Result<ResourceProgram, NotFound> {
            find(&self.roots, &resource(script, args, Agent::Script), false)
        }
    }

    fn resource(script: &str, args: &[&str], agent: Agent) -> Resource {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Resource { text: script.to_owned(), script: script.to_owned(), args, agent }
    }

    #[test]
    fn the_first_place_wins() {
        let house = House::new();
        for place in ["rc.d/init.d", "ha.d/rc.d", "ha.d", "init.d", "ha.d/resource.d"] {
            let path = house.put(&format!("{place}/httpd"), 0o755);
            let found = house.find("httpd", &[]).unwrap();
            assert!(matches!(&found, ResourceProgram::Script { path: p, .. } if *p == path), "{found}");
            assert_eq!(found.warning().is_some(), !matches!(place, "init.d" | "ha.d/resource.d"), "{place}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_passed_over_and_named_when_nothing_else_is_there() {
        let house = House::new();
        let dead = house.put("ha.d/resource.d/httpd", 0o644);
        assert_eq!(house.find("httpd", &[]), Err(NotFound::NotExecutable(dead)));
        let alive = house.put("init.d/httpd", 0o755);
        assert_eq!(
            house.find("httpd", &[]),
            Ok(ResourceProgram::Script { path: alive, place: ScriptPlace::Init })
        );
        fs::create_dir_all(house.dir.path().join("init.d/folder")).unwrap();
        assert!(matches!(house.find("folder", &[]), Err(NotFound::NotExecutable(_))));
        // ha.cf lies in one of the old directories. It is not a script that lacks the right to be executed.
        house.put("ha.d/ha.cf", 0o644);
        assert!(matches!(house.find("ha.cf", &[]), Err(NotFound::Nowhere { .. })));
    }

    #[test]
    fn the_cure_of_a_missing_unit_is_no_script() {
        let house = House::new();
        let cure = |name: &str| house.find(name, &[]).unwrap_err().cure().unwrap();
        assert!(cure("missing").contains("put an executable script `missing`"), "{}", cure("missing"));
        for unit in ["missing.service", "backup.timer"] {
            assert!(cure(unit).contains("install the package that has this unit"), "{}", cure(unit));
        }
    }

    #[test]
    fn names_do_not_lead_out() {
        let house = House::new();
        house.put("evil", 0o755);
        for name in ["../evil", "..", ".", "", "a/b", "/bin/sh", "a..b"] {
            assert_eq!(house.find(name, &[]), Err(NotFound::Name(name.to_owned())), "{name}");
        }
        let agent = Agent::Ocf { provider: "..".into(), kind: "x".into(), parameters: vec![] };
        assert!(matches!(find(&house.roots, &resource("ocf", &[], agent), false), Err(NotFound::Name(_))));
        let agent = Agent::OcfFile { kind: "x".into(), instance: "../../y".into() };
        assert!(matches!(find(&house.roots, &resource("OCF", &[], agent), false), Err(NotFound::Name(_))));
    }

    #[test]
    fn units_come_last_and_take_no_arguments() {
        let house = House::new();
        let file = house.put("lib-units/nginx.service", 0o644);
        let name = "nginx.service".to_owned();
        assert_eq!(
            house.find("nginx", &[]),
            Ok(ResourceProgram::Unit { name: name.clone(), file: file.clone() })
        );
        assert_eq!(
            house.find("nginx.service", &[]),
            Ok(ResourceProgram::Unit { name: name.clone(), file: file.clone() })
        );
        let refused = house.find("nginx", &["x"]).unwrap_err();
        assert_eq!(refused, NotFound::UnitArguments { name: "nginx".into(), file });
        fs::create_dir_all(house.dir.path().join("etc-units")).unwrap();
        std::os::unix::fs::symlink("/dev/null", house.dir.path().join("etc-units/nginx.service")).unwrap();
        assert_eq!(house.find("nginx", &[]), Err(NotFound::Masked(name)));
        let script = house.put("init.d/nginx", 0o755);
        assert_eq!(
            house.find("nginx", &[]),
            Ok(ResourceProgram::Script { path: script, place: ScriptPlace::Init })
        );
        let file = house.put("lib-units/postgres@.service", 0o644);
        let name = "postgres@main.service".to_owned();
        assert_eq!(house.find("postgres@main", &[]), Ok(ResourceProgram::Unit { name, file }));
        let template = NotFound::Template("postgres@.service".into());
        for name in ["postgres@", "postgres@.service"] {
            assert_eq!(house.find(name, &[]), Err(template.clone()));
        }
    }

    #[test]
    fn a_script_that_nothing_can_interpret_is_reported_before_it_is_run() {
        let house = House::new();
        let path = house.put("ha.d/resource.d/web", 0o755);
        let found = Ok(ResourceProgram::Script { path: path.clone(), place: ScriptPlace::ResourceD });
        for (start, missing) in [
            ("#!/bin/sh\n", None),
            ("#! \t/bin/sh -e\n", None),
            ("#!/bin/sh", None),
            ("#!\n", None),
            ("echo no interpreter is named\n", None),
            ("", None),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("#!/nonexistent/python9 -u\n", Some("/nonexistent/python9")),
            ("#!/usr\n", Some("/usr")),
        ] {
            fs::write(&path, start).unwrap();
            let missing = missing.map(PathBuf::from);
            let expected = match missing {
                Some(interpreter) => Err(NotFound::Interpreter { script: path.clone(), interpreter }),
                None => found.clone(),
            };
            assert_eq!(house.find("web", &[]), expected, "{start:?}");
        }
        fs::write(&path, "#!/bin/sh\r\n").unwrap();
        // A unit of that name does something else than the script was meant to do.
        house.put("lib-units/web.service", 0o644);
        let refused = house.find("web", &[]).unwrap_err();
        assert!(refused.to_string().ends_with(r"`/bin/sh\r`"), "{refused}");
        assert!(refused.cure().unwrap().contains("sed -i"), "{refused:?}");
    }

    #[test]
    fn missing_says_where_it_was_looked_for() {
        let house = House::new();
        let text = house.find("ghost", &[]).unwrap_err().to_string();
        for place in ["ha.d/resource.d", "init.d", "ha.d/rc.d", "rc.d/init.d", "etc-units"] {
            assert!(text.contains(place), "{text}");
        }
    }

    #[test]
    fn native_unless_scripts_are_preferred_and_there() {
        let house = House::new();
        let agent = Agent::MailTo { recipients: "root".into(), subject: None };
        let mail = resource("MailTo", &["root"], agent);
        let native = ResourceProgram::Native { script: "MailTo".into() };
        assert_eq!(find(&house.roots, &mail, true), Ok(native.clone()));
        let ip = std::net::IpAddr::from([10, 0, 0, 1]);
        let agent = Agent::Address(Address {
            ip,
            prefix: None,
            interface: None,
            label: None,
            broadcast: None,
            by_route: false,
        });
        let address = resource("IPaddr", &["10.0.0.1"], agent);
        assert_eq!(
            find(&house.roots, &address, false),
            Ok(ResourceProgram::Native { script: "IPaddr".into() })
        );
        assert!(matches!(find(&house.roots, &address, true), Err(NotFound::Nowhere { .. })));
        let path = house.put("ha.d/resource.d/MailTo", 0o755);
        assert_eq!(find(&house.roots, &mail, false), Ok(native));
        assert_eq!(
            find(&house.roots, &mail, true),
            Ok(ResourceProgram::Script { path, place: ScriptPlace::ResourceD })
        );
    }

    #[test]
    fn ocf_agents_by_line_and_by_file() {
        let house = House::new();
        let path = house.put("ocf/resource.d/heartbeat/Dummy", 0o755);
        let parameters = vec![("state".to_owned(), "/x y".to_owned())];
        let agent =
            Agent::Ocf { provider: "heartbeat".into(), kind: "Dummy".into(), parameters: parameters.clone() };
        let found = find(&house.roots, &resource("ocf", &[], agent), false).unwrap();
        let expected = |parameters| ResourceProgram::Ocf {
            path: path.clone(),
            kind: "Dummy".into(),
            provider: "heartbeat".into(),
            parameters,
        };
        assert_eq!(found, expected(Parameters::Line(parameters)));

        let agent = Agent::OcfFile { kind: "Dummy".into(), instance: "one".into() };
        let by_file = resource("OCF", &["Dummy", "one"], agent);
        let file = house.dir.path().join("ha.d/conf/OCF/Dummy/one");
        assert_eq!(find(&house.roots, &by_file, false), Err(NotFound::OcfFile(file.clone())));
        house.put("ha.d/conf/OCF/Dummy/one", 0o644);
        assert_eq!(find(&house.roots, &by_file, false), Ok(expected(Parameters::File(file))));

        let agent = |kind: &str, name: &str| Agent::Ocf {
            provider: "heartbeat".into(),
            kind: kind.into(),
            parameters: vec![(name.to_owned(), String::new())],
        };
        let missing = find(&house.roots, &resource("ocf", &[], agent("Ghost", "a")), false);
        assert!(matches!(missing, Err(NotFound::OcfAgent { .. })));
        let bad = find(&house.roots, &resource("ocf", &[], agent("Dummy", "a=b")), false);
        assert_eq!(bad, Err(NotFound::OcfParameter("a=b".into())));
    }
}
