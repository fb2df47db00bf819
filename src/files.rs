//! The configuration directory: the three files in it, and this host's name. Reading never fails: faults are
//! diagnostics, beside those about the text.

use std::{
    fs::{self, File},
    io::{self, Read},
    net::{IpAddr, ToSocketAddrs},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use locum_core::{
    config::{self, CheckOptions, CheckedHaFiles, Diag, FileName, Severity, authkeys, locum_key, locum_toml},
    model::{keys::Keys, note::Escaped},
    native::{
        director::keys_of,
        plan::{KEY_FILE, NativeMember, NativePlan},
    },
};

use crate::control::ports;

/// If this file exists, the directory is of the native dialect.
pub const NATIVE: &str = FileName::LocumToml.name();
/// The limit for reading a file, above the limit of any of them: the core reports a file that reaches it.
const BYTES_MAX: u64 = 2 << 20;

/// The dialect of a configuration directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConfigDialect {
    /// heartbeat's dialect: `ha.cf`, `authkeys`, `haresources`.
    R1,
    /// The native dialect: `locum.toml` and its keys.
    Native,
}

impl ConfigDialect {
    /// The dialect of the file that exists. `None` if the files of both exist.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        match (dir.join(FileName::HaCf.name()).exists(), dir.join(NATIVE).exists()) {
            (true, true) => None,
            (false, true) => Some(Self::Native),
            (_, false) => Some(Self::R1),
        }
    }
}

/// The files of one configuration directory.
#[derive(Clone, Debug)]
pub struct Files {
    pub dir: PathBuf,
    /// This node: the first line of `nodeinfo`, else the host's name; lower case.
    pub node: String,
    ha_cf: Option<Vec<u8>>,
    authkeys: Option<Vec<u8>>,
    haresources: Option<Vec<u8>>,
    options: CheckOptions,
    /// The faults of the files themselves.
    faults: Vec<Diag>,
}

/// Resolves a name by the host's own means: its file of hosts and its name servers.
fn resolve(name: &str, is_v6: Option<bool>) -> Option<IpAddr> {
    let mut all = (name, 0).to_socket_addrs().ok()?.map(|address| address.ip());
    all.find(|ip| is_v6.is_none_or(|is_v6| is_v6 == ip.is_ipv6()))
}

impl Files {
    /// Reads the directory; with `node`, as that node instead of this host.
    #[must_use]
    pub fn read(dir: &Path, node: Option<&str>) -> Self {
        let mut faults = Vec::new();
        let mut read = |name| read_file(dir, name, &mut faults);
        let [ha_cf, authkeys, haresources] =
            [FileName::HaCf, FileName::Authkeys, FileName::Haresources].map(&mut read);
        if ha_cf.is_none() && dir.join(NATIVE).exists() {
            faults.push(native_dialect());
        }
        let mut options = CheckOptions { is_named: node.is_some(), ..CheckOptions::default() };
        let node = node.map_or_else(|| node_name(dir), str::to_lowercase);
        let udp_port = fs::read("/etc/services").ok().and_then(|text| service_port(&text));
        options.udp_port = udp_port.unwrap_or(options.udp_port);
        options.resolve = resolve;
        Self { dir: dir.to_path_buf(), node, ha_cf, authkeys, haresources, options, faults }
    }

    /// Checks the files: returns the plan and everything that is wrong with them.
    #[must_use]
    pub fn check(&self) -> CheckedHaFiles {
        let texts = config::HaFiles {
            ha_cf: self.text(FileName::HaCf),
            authkeys: self.text(FileName::Authkeys),
            haresources: self.text(FileName::Haresources),
        };
        let mut checked = config::check(&texts, &self.node, &self.options);
        // If a file exists but cannot be read, the core can only say that it is missing.
        let is_native = self.faults.contains(&native_dialect());
        let unreadable = |diag: &Diag| {
            self.text(diag.file).is_none() && (is_native || self.faults.iter().any(|f| f.file == diag.file))
        };
        checked.diags.retain(|diag| !unreadable(diag));
        checked.diags.extend(self.faults.iter().cloned());
        checked.diags.sort_by_key(|diag| (diag.file, diag.place.line, diag.place.span.start));
        checked
    }

    /// Puts a text in the place of `haresources`, and forgets the faults of the file itself.
    pub fn put_haresources(&mut self, text: String) {
        self.haresources = Some(text.into_bytes());
        self.faults.retain(|fault| fault.file != FileName::Haresources);
    }

    /// The text of a file, if there is one.
    #[must_use]
    pub fn text(&self, name: FileName) -> Option<&[u8]> {
        match name {
            FileName::HaCf => self.ha_cf.as_deref(),
            FileName::Authkeys => self.authkeys.as_deref(),
            FileName::Haresources => self.haresources.as_deref(),
            FileName::LocumToml | FileName::LocumKey => None,
        }
    }
}

/// The files of a configuration directory of the native dialect.
#[derive(Clone, Debug)]
pub struct NativeFiles {
    pub dir: PathBuf,
    /// This member: the host's name, lower case.
    pub node: String,
    text: Option<Vec<u8>>,
    /// The faults of the file itself.
    faults: Vec<Diag>,
}

/// The result of checking a native configuration.
#[derive(Clone, Debug)]
pub struct NativeChecked {
    /// The result of `locum.toml`, and all diagnostics.
    pub file: locum_toml::CheckedLocumToml,
    /// The keys, when nothing is wrong with their file.
    pub keys: Option<Keys>,
}

impl NativeFiles {
    /// Reads the directory; with `node`, as that member instead of this host. `None` when it is not of this dialect:
    /// with a `ha.cf` it is heartbeat's.
    #[must_use]
    pub fn read(dir: &Path, node: Option<&str>) -> Option<Self> {
        (ConfigDialect::of(dir) == Some(ConfigDialect::Native)).then(|| Self::read_them(dir, node))
    }

    /// Reads the directory as one of the native dialect, whatever other files it has.
    #[must_use]
    pub fn read_them(dir: &Path, node: Option<&str>) -> Self {
        let mut faults = Vec::new();
        let text = read_file(dir, FileName::LocumToml, &mut faults);
        let node = node.map_or_else(host_name, ToOwned::to_owned).to_lowercase();
        Self { dir: dir.to_path_buf(), node, text, faults }
    }

    /// Checks the files: returns the plan, the keys and everything that is wrong with them.
    #[must_use]
    pub fn check(&self) -> NativeChecked {
        let mut file = locum_toml::check(self.text().unwrap_or_default(), &self.node);
        if self.text.is_none() {
            file.diags.clear(); // the fault is that it cannot be read
        }
        file.diags.extend(self.faults.iter().cloned());
        let own = match (file.me, &file.draft) {
            (Some(NativeMember::Witness(me)), Some(plan)) => plan.witnesses[me.0].key,
            _ => None,
        };
        let name = file.draft.as_ref().map_or(KEY_FILE, |plan| plan.local.key_file.as_str());
        let (keys, diags) = match own {
            // A witness does not take part in what the cluster's nodes send each other.
            Some(secret) => (Some(keys_of(secret)), Vec::new()),
            None => read_native_keys(&self.dir, name),
        };
        file.diags.extend(diags);
        file.diags.extend(self.check_secrecy(file.draft.as_ref()));
        file.diags.sort_by_key(|diag| (diag.file, diag.place.line, diag.place.span.start));
        NativeChecked { keys, file }
    }

    /// Warns if others can read the file while a witness's key stands in it.
    fn check_secrecy(&self, plan: Option<&NativePlan>) -> Option<Diag> {
        let has_key = plan?.witnesses.iter().any(|witness| witness.key.is_some());
        let path = self.dir.join(NATIVE);
        let metadata = fs::metadata(&path).ok()?;
        let mode = metadata.mode();
        if has_key && let Some((message, cure)) = check_owner(&path, metadata.uid()) {
            return Some(Diag::new(Severity::Warning, FileName::LocumToml, message).cure(cure).about_host());
        }
        (has_key && mode & 0o077 != 0).then(|| {
            let message = format!(
                "users other than the owner can read the witness's key in it (mode {:04o})",
                mode & 0o7777
            );
            let cure = format!("chmod 600 {}", Escaped(path.as_os_str().as_bytes()));
            Diag::new(Severity::Warning, FileName::LocumToml, message).cure(cure).about_host()
        })
    }

    /// The text of `locum.toml`, if it could be read.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }
}

/// Reads the native cluster's keys; `name` is the file name in the configuration. `None` when they must not be used.
#[must_use]
pub fn read_native_keys(dir: &Path, name: &str) -> (Option<Keys>, Vec<Diag>) {
    let path = dir.join(name);
    let error = |message: String| Diag::new(Severity::Error, FileName::LocumKey, message);
    let (text, FileRights { mode, owner }) = match read_text(&path) {
        Ok(read) => read,
        Err(fault) => {
            let diag = error(format!("the file {} cannot be read: {fault}", path.display()));
            let cure = match fault.kind() {
                io::ErrorKind::NotFound => "make it with `locum keygen`, and copy it to all nodes".to_owned(),
                io::ErrorKind::PermissionDenied => "run this as root".to_owned(),
                _ => "check the disk".to_owned(),
            };
            // Only this host may lack the keys.
            return (None, vec![diag.cure(cure).about_host()]);
        }
    };
    let (keys, mut diags) = locum_key::read(&text);
    if mode & 0o077 != 0 {
        let message = format!("users other than the owner can read the keys (mode {:04o})", mode & 0o7777);
        diags.push(error(message).cure(format!("chmod 600 {}", path.display())));
    }
    if let Some((message, cure)) = check_owner(&path, owner) {
        diags.push(error(message).cure(cure).about_host());
    }
    (keys.filter(|_| !config::failed(&diags)), diags)
}

/// Reads only `authkeys` again while the daemon runs; `None` when it must not be used.
#[must_use]
pub fn read_keys(dir: &Path) -> (Option<Keys>, Vec<Diag>) {
    let mut diags = Vec::new();
    let Some(text) = read_file(dir, FileName::Authkeys, &mut diags) else {
        if diags.is_empty() {
            diags.push(Diag::new(Severity::Error, FileName::Authkeys, "the file is missing"));
        }
        return (None, diags);
    };
    let (keys, more) = config::keys(&text);
    diags.extend(more);
    (keys.filter(|_| !config::failed(&diags)), diags)
}

/// The file that makes the heart drop frames; heartbeat's test suite writes it.
pub const FOR_TESTING: &str = "OnlyForTesting";

/// The text of [`FOR_TESTING`]; `None` when the file does not exist, as it should be.
#[must_use]
pub fn read_for_testing(dir: &Path) -> Option<io::Result<String>> {
    match read_text(&dir.join(FOR_TESTING)) {
        Ok((text, _)) => Some(String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error)),
    }
}

/// The text of a file; `None` without a fault when the file does not exist.
fn read_file(dir: &Path, name: FileName, faults: &mut Vec<Diag>) -> Option<Vec<u8>> {
    let path = dir.join(name.name());
    match read_text(&path) {
        Ok((text, FileRights { mode, owner })) => {
            faults.extend(check_mode(name, &path, mode));
            // heartbeat does not check the owner, so a cluster that it ran goes on with a warning.
            if name == FileName::Authkeys
                && let Some((message, cure)) = check_owner(&path, owner)
            {
                faults.push(Diag::new(Severity::Warning, name, message).cure(cure).about_host());
            }
            Some(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let diag = Diag::new(Severity::Error, name, format!("the file cannot be read: {error}"));
            // Permission depends on this host and user. A file that is not a text file is wrong everywhere.
            faults.push(match error.kind() {
                io::ErrorKind::PermissionDenied => diag.cure("run this as root").about_host(),
                io::ErrorKind::Other => diag.cure("make it a text file"),
                _ => diag.cure("check the disk").about_host(),
            });
            None
        }
    }
}

fn native_dialect() -> Diag {
    let text = format!(
        "the directory holds {NATIVE} and no ha.cf: its dialect is native, which this command does not support"
    );
    Diag::new(Severity::Error, FileName::HaCf, text)
        .cure("write ha.cf, authkeys and haresources in that directory")
}

/// Checks a file's mode. The cure names the file as it was opened, so that it can be copied into a shell.
fn check_mode(name: FileName, path: &Path, mode: u32) -> Option<Diag> {
    let cure = |mode: &str| format!("chmod {mode} {}", Escaped(path.as_os_str().as_bytes()));
    if name == FileName::Authkeys
        && let Err(diag) = authkeys::check_mode(mode)
    {
        return Some(diag.cure(cure("600")));
    }
    // heartbeat lets the group write authkeys, so only write access of others counts there.
    let writers = if name == FileName::Authkeys { 0o002 } else { 0o022 };
    (mode & writers != 0).then(|| {
        let message = format!(
            "users other than the owner can write it (mode {:04o}), and so choose the programs that root runs",
            mode & 0o7777
        );
        let cure = cure(if name == FileName::Authkeys { "600" } else { "644" });
        Diag::new(Severity::Warning, name, message).cure(cure).about_host()
    })
}

/// Checks the owner of a key file, who can read and change the keys whatever the mode is. Returns the fault and the
/// cure.
fn check_owner(path: &Path, owner: u32) -> Option<(String, String)> {
    let me = rustix::process::geteuid().as_raw();
    (owner != 0 && owner != me).then(|| {
        let message = format!(
            "user {} owns the file, and can read and change the keys, but is neither root nor the daemon's user",
            ports::user(owner)
        );
        (message, format!("chown root {}", Escaped(path.as_os_str().as_bytes())))
    })
}

/// The owner of a file, and what others may do with it.
#[derive(Clone, Copy, Debug)]
struct FileRights {
    mode: u32,
    owner: u32,
}

/// The text of a regular file, and its mode and owner. Never waits, as reading a pipe would.
fn read_text(path: &Path) -> io::Result<(Vec<u8>, FileRights)> {
    let is_file = |metadata: &fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a regular file")),
    };
    is_file(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    is_file(&metadata)?;
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok((text, FileRights { mode: metadata.mode(), owner: metadata.uid() }))
}

fn node_name(dir: &Path) -> String {
    let nodeinfo = read_text(&dir.join("nodeinfo")).ok().map(|(text, _)| text);
    config::node_name(nodeinfo.as_deref(), &host_name())
}

/// The host's name as `uname -n` prints it.
#[must_use]
pub fn host_name() -> String {
    // From the kernel, because a unit with `ProcSubset=pid` does not see the file in /proc.
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The UDP port of the service `ha-cluster`.
fn service_port(services: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(services);
    let mut ports = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let is_ours = protocol == "udp" && (name == "ha-cluster" || words.any(|alias| alias == "ha-cluster"));
        is_ours.then(|| port.parse().ok()).flatten()
    });
    ports.find(|&port| port > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, mode) in files {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        dir
    }

    const HA_CF: (&str, &str, u32) = ("ha.cf", "bcast eth0 eth1\nnode web1 web2\n", 0o644);
    const HARESOURCES: (&str, &str, u32) = ("haresources", "web1 10.0.0.1\n", 0o644);
    const AUTHKEYS: (&str, &str, u32) = ("authkeys", "auth 1\n1 sha1 k\n", 0o600);

    fn diag_texts(dir: &Path) -> Vec<String> {
        Files::read(dir, Some("WEB1")).check().diags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_directory_has_a_plan() {
        let dir = directory(&[HA_CF, HARESOURCES, AUTHKEYS, ("nodeinfo", "Web2\nrest", 0o644)]);
        let checked = Files::read(dir.path(), None).check();
        assert_eq!(checked.diags, []);
        assert_eq!(checked.plan.unwrap().me.0, 1);
        assert!(checked.keys.is_some() && read_keys(dir.path()).0.is_some());
    }

    #[test]
    fn a_directory_of_the_native_dialect_is_one_error() {
        let dir = directory(&[("locum.toml", "", 0o644)]);
        let said = diag_texts(dir.path());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("holds locum.toml and no ha.cf"), "{said:?}");
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let dir = directory(&[HA_CF, HARESOURCES, ("authkeys", AUTHKEYS.1, 0o640)]);
        let text = format!(
            "authkeys: error: users other than the owner can read the keys (mode 0640) (chmod 600 {}/authkeys)",
            dir.path().display()
        );
        assert_eq!(diag_texts(dir.path()), [text.as_str()]);
        let (keys, diags) = read_keys(dir.path());
        assert_eq!((keys, diags[0].to_string()), (None, text));
    }

    /// The owner of a file can read it and write it, whatever its mode says.
    #[test]
    fn keys_that_somebody_else_owns_are_reported() {
        let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
        let dir = directory(&[HA_CF, HARESOURCES, AUTHKEYS, (KEY_FILE, key, 0o600)]);
        let path = |name: &str| dir.path().join(name);
        assert!(read_native_keys(dir.path(), KEY_FILE).1.is_empty() && diag_texts(dir.path()).is_empty());
        for name in ["authkeys", KEY_FILE] {
            if std::os::unix::fs::chown(path(name), Some(61_234), None).is_err() {
                return; // only root can give a file away
            }
        }
        let text = |severity: &str, name: &str| {
            format!(
                "{name}: {severity}: user 61234 owns the file, and can read and change the keys, but is neither \
                 root nor the daemon's user (chown root {})",
                path(name).display()
            )
        };
        assert_eq!(diag_texts(dir.path()), [text("warning", "authkeys")]);
        assert!(read_keys(dir.path()).0.is_some(), "heartbeat takes them");
        let (keys, diags) = read_native_keys(dir.path(), KEY_FILE);
        assert_eq!((keys, diags[0].to_string()), (None, text("error", KEY_FILE)));
    }

    #[test]
    fn files_that_others_can_write_are_warned_of() {
        let dir = directory(&[HA_CF, ("haresources", HARESOURCES.1, 0o666), ("authkeys", AUTHKEYS.1, 0o620)]);
        let text = format!(
            "haresources: warning: users other than the owner can write it (mode 0666), and so choose the \
             programs that root runs (chmod \
             644 {}/haresources)",
            dir.path().display()
        );
        assert_eq!(diag_texts(dir.path()), [text]);
    }

    #[test]
    fn what_is_no_file_is_an_error_of_its_own() {
        let dir = directory(&[HA_CF, AUTHKEYS]);
        fs::create_dir(dir.path().join("haresources")).unwrap();
        assert_eq!(
            diag_texts(dir.path()),
            ["haresources: error: the file cannot be read: it is not a regular file (make it a text file)"]
        );
        fs::remove_file(dir.path().join("authkeys")).unwrap();
        let (keys, diags) = read_keys(dir.path());
        assert_eq!((keys, diags[0].to_string().as_str()), (None, "authkeys: error: the file is missing"));
    }

    #[test]
    fn the_port_of_the_service_is_found() {
        let services =
            b"ssh 22/tcp\nha-cluster 694/tcp\nha-cluster\t1694/udp heartbeat # x\n# ha-cluster 1/udp\n\xff\n";
        assert_eq!(service_port(services), Some(1694));
        assert_eq!(service_port(b"heartbeat 695/udp ha-cluster\n"), Some(695));
        assert_eq!(service_port(b"ha-cluster 99999/udp\n"), None);
        assert_eq!(service_port(b""), None);
    }
}
