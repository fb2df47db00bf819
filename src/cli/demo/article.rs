//! The article's files, and the demo's changes to them.

use std::{fmt::Write as _, fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

const HA_CF: &str = include_str!("article/ha.cf");
const AUTHKEYS: &str = include_str!("article/authkeys");
const HARESOURCES: &str = include_str!("article/haresources");
const HTTPD: &str = include_str!("article/httpd");

/// The serial device of a PC of 2002, and the one of a node of the rack.
const SERIAL: [&str; 2] = ["/dev/ttyS0", "/run/ttyS0"];
/// The article's own deadtime and keepalive, as its ha.cf has them.
const ARTICLE: Pace = Pace { keepalive: Duration::from_secs(2), deadtime: Duration::from_secs(10) };

/// The keepalive and deadtime of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The time between two beats.
    pub keepalive: Duration,
    /// A node that is silent for this time counts as dead.
    pub deadtime: Duration,
}

impl Pace {
    /// The article's own pace, for which no line is added.
    pub const ARTICLE: Self = ARTICLE;
    /// The demo's pace, for a quick show.
    pub const QUICK: Self = Self { keepalive: Duration::from_millis(100), deadtime: Duration::from_secs(1) };

    fn lines(self) -> String {
        if self == ARTICLE {
            return String::new();
        }
        format!("keepalive {}ms\ndeadtime {}ms\n", self.keepalive.as_millis(), self.deadtime.as_millis())
    }
}

/// The `ha.cf` for this pace, on a rack.
#[must_use]
pub fn ha_cf(pace: Pace) -> String {
    HA_CF.replace(SERIAL[0], SERIAL[1]) + &pace.lines()
}

/// The three files, and the demo's changes to them in the form of `diff`.
#[must_use]
pub fn shown(pace: Pace) -> String {
    let mut text = String::new();
    let mut line = |mark: char, line: &str| {
        let _ = writeln!(text, "{mark} {line}");
    };
    line(' ', "-- ha.cf ------------------------------------------------");
    for article in HA_CF.lines().filter(|line| !line.starts_with('#')) {
        if article.contains(SERIAL[0]) {
            line('-', article);
            line('+', &article.replace(SERIAL[0], SERIAL[1]));
        } else {
            line(' ', article);
        }
    }
    pace.lines().lines().for_each(|added| line('+', added));
    line(' ', "-- authkeys ---------------------------------------------");
    AUTHKEYS.lines().for_each(|article| line(' ', article));
    line(' ', "-- haresources ------------------------------------------");
    HARESOURCES.lines().for_each(|article| line(' ', article));
    text
}

/// Writes the configuration into an existing directory.
///
/// # Errors
/// The error of the kernel.
pub fn write(directory: &Path, pace: Pace) -> io::Result<()> {
    let with_mode = |name: &str, text: &str, mode: u32| {
        let path = directory.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    with_mode("ha.cf", &ha_cf(pace), 0o644)?;
    with_mode("authkeys", AUTHKEYS, 0o600)?;
    with_mode("haresources", HARESOURCES, 0o644)?;
    fs::create_dir_all(directory.join("resource.d"))?;
    with_mode("resource.d/httpd", HTTPD, 0o755)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_serial_device_and_the_pace_differ() {
        let changed =
            |pace| shown(pace).lines().filter(|line| !line.starts_with(' ')).map(str::to_owned).collect();
        let article: Vec<String> = changed(Pace::ARTICLE);
        assert_eq!(article, ["- serial /dev/ttyS0", "+ serial /run/ttyS0"]);
        let quick: Vec<String> = changed(Pace::QUICK);
        assert_eq!(quick[2..], ["+ keepalive 100ms", "+ deadtime 1000ms"]);
        assert!(ha_cf(Pace::QUICK).contains("serial /run/ttyS0\n") && !ha_cf(Pace::QUICK).contains("/dev/"));
    }
}
