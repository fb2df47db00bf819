//! Finds what starts a managed service at boot without the cluster: then both nodes would run it.

use std::{fs, path::Path};

use crate::control::agents::Roots;

/// What starts a service at boot, and how to end that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) by: String,
    pub(super) cure: String,
}

/// Finds what starts a script's service at boot: an enabled unit of its name or, without such a unit, a start link of
/// System V's kind.
pub(super) fn of_script(roots: &Roots, etc: &Path, name: &str) -> Option<Boot> {
    let unit = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    let file = roots.units.iter().map(|dir| dir.join(&unit)).find(|path| path.symlink_metadata().is_ok());
    // A link to /dev/null means masked: it never starts.
    if file.as_ref().is_some_and(|file| !file.is_file()) {
        return None;
    }
    // An instance of a template has no file of its name.
    let by_systemd = wanted(roots, &unit);
    if by_systemd.is_none() && file.is_none() {
        return start_link(etc, name).map(|by| Boot { by, cure: format!("update-rc.d {name} disable") });
    }
    by_systemd.map(|by| Boot { by: format!("systemd ({by})"), cure: format!("systemctl disable {unit}") })
}

/// The first `….wants` or `….requires` directory that names the unit.
fn wanted(roots: &Roots, unit: &str) -> Option<String> {
    roots.units.iter().find_map(|dir| {
        names(dir).into_iter().find_map(|name| {
            let pulls = name.ends_with(".wants") || name.ends_with(".requires");
            let link = dir.join(&name).join(unit);
            (pulls && link.symlink_metadata().is_ok()).then(|| link.display().to_string())
        })
    })
}

/// The start link `rcN.d/SNNname`, in the directories of different systems.
fn start_link(etc: &Path, name: &str) -> Option<String> {
    let levels = ["rc2.d", "rc3.d", "rc4.d", "rc5.d", "rcS.d"];
    let dirs = levels.iter().flat_map(|level| [etc.join(level), etc.join("rc.d").join(level)]);
    dirs.into_iter().find_map(|dir| {
        let is_ours =
            |link: &str| link.strip_prefix('S').is_some_and(|rest| rest.trim_start_matches(digit) == name);
        let link = names(&dir).into_iter().find(|link| is_ours(link))?;
        Some(dir.join(link).display().to_string())
    })
}

fn digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Finds out whether a directory is mounted at boot.
pub(super) fn of_mount(etc: &Path, directory: &str) -> Option<Boot> {
    let fstab = fs::read(etc.join("fstab")).ok()?;
    let fstab = String::from_utf8_lossy(&fstab);
    let mounts = fstab.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let device = words.next().unwrap_or("#");
        let (target, options) = (words.next(), words.nth(1).unwrap_or_default());
        let is_there =
            target.map(|target| target.trim_end_matches('/')) == Some(directory.trim_end_matches('/'));
        !device.starts_with('#') && is_there && options.split(',').all(|option| option != "noauto")
    });
    let by = etc.join("fstab").display().to_string();
    mounts.then(|| Boot { by, cure: "write `noauto` into its options there, or remove the line".into() })
}

/// The names in a directory, sorted; none if it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn house() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("systemd");
        let mut roots = Roots::system(&dir.path().join("ha.d"));
        roots.units = vec![units.clone()];
        for path in ["systemd/multi-user.target.wants", "rc3.d", "rc.d/rc5.d"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for unit in ["httpd", "quiet", "old"] {
            fs::write(units.join(format!("{unit}.service")), "[Service]\n").unwrap();
        }
        symlink("../httpd.service", units.join("multi-user.target.wants/httpd.service")).unwrap();
        symlink("/dev/null", units.join("masked.service")).unwrap();
        symlink("../masked.service", units.join("multi-user.target.wants/masked.service")).unwrap();
        symlink("../postgres@.service", units.join("multi-user.target.wants/postgres@main.service")).unwrap();
        symlink("../init.d/nfs", dir.path().join("rc3.d/S20nfs")).unwrap();
        symlink("../init.d/ldap", dir.path().join("rc.d/rc5.d/S99ldap")).unwrap();
        symlink("../init.d/old", dir.path().join("rc3.d/S20old")).unwrap();
        symlink("../init.d/gone", dir.path().join("rc3.d/K20gone")).unwrap();
        (dir, roots)
    }

    #[test]
    fn services_that_start_at_boot_are_found() {
        let (dir, roots) = house();
        let cure = |name: &str| of_script(&roots, dir.path(), name).map(|boot| boot.cure);
        assert_eq!(cure("httpd").as_deref(), Some("systemctl disable httpd.service"));
        assert_eq!(cure("httpd.service").as_deref(), Some("systemctl disable httpd.service"));
        assert_eq!(cure("postgres@main").as_deref(), Some("systemctl disable postgres@main.service"));
        assert_eq!(cure("nfs").as_deref(), Some("update-rc.d nfs disable"));
        assert_eq!(cure("ldap").as_deref(), Some("update-rc.d ldap disable"));
        for name in ["quiet", "masked", "old", "gone", "nothing", "S20nfs", "postgres@other"] {
            assert_eq!(cure(name), None, "{name}");
        }
    }

    #[test]
    fn file_systems_that_are_mounted_at_boot_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let fstab = "# /dev/sda1 /c ext4 defaults 0 0\n/dev/sda2 /srv/ ext4 defaults 0 2\n/dev/sda3 /b ext4 ro,noauto\n/dev/x /d\n";
        fs::write(dir.path().join("fstab"), fstab).unwrap();
        for (directory, found) in [("/srv", true), ("/b", false), ("/c", false), ("/d", true), ("/e", false)]
        {
            assert_eq!(of_mount(dir.path(), directory).is_some(), found, "{directory}");
        }
    }
}
