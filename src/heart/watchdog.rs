//! The watchdog: a device that resets this machine when the heart has not beaten for the deadtime. So a peer that takes
//! over from a hung node can rely on its end. Writing to such a device does not block.

use std::{
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use locum_core::model::{note::Level, time::Instant};
use locum_sys::watchdog::Watchdog;

/// As in heartbeat: a beat that comes at the last moment still counts.
const SLACK: Duration = Duration::from_millis(10);

/// An armed watchdog device, which is fed by beats.
pub(super) struct ArmedWatchdog {
    device: Watchdog,
    name: PathBuf,
    /// The beat after the one for which it was fed.
    fed: Option<Instant>,
    /// It was reported that it cannot be fed.
    complained: bool,
}

impl ArmedWatchdog {
    /// Opens the device, which arms it, and returns the line for the log. If it is missing, it is not looked for again.
    pub(super) fn get(name: &Path, deadtime: Duration) -> (Option<Self>, Level, String) {
        let device = match Watchdog::open(name) {
            Ok(device) => device,
            Err(error) => {
                let text = format!(
                    "Cannot open watchdog device: {}: {error}; a node that hangs is not reset (is the driver loaded?)",
                    name.display()
                );
                return (None, Level::Warning, text);
            }
        };
        let seconds = timeout(deadtime);
        let (level, text) = match device.set_timeout(seconds) {
            Ok(taken) if taken == seconds => (
                Level::Info,
                format!(
                    "Using watchdog device: {}; Set watchdog timer to {seconds} seconds.",
                    name.display()
                ),
            ),
            Ok(taken) => (
                Level::Warning,
                format!(
                    "Using watchdog device: {}; it takes {taken} instead of {seconds} seconds",
                    name.display()
                ),
            ),
            Err(error) => (
                Level::Warning,
                format!(
                    "Using watchdog device: {}; Failed to set watchdog timer to {seconds} seconds: {error}; its own holds",
                    name.display()
                ),
            ),
        };
        let watchdog = Self { device, name: name.to_path_buf(), fed: None, complained: false };
        (Some(watchdog), level, text)
    }

    /// Resets its timer if there was a beat since the last call; the next one is due at `next_beat`. A failure is
    /// reported once.
    pub(super) fn feed(&mut self, next_beat: Instant) -> Option<String> {
        if self.fed.replace(next_beat) == Some(next_beat) {
            return None;
        }
        let error = self.device.feed().err()?;
        let text =
            format!("Watchdog write failure: {}: {error}; this machine may be reset", self.name.display());
        (!mem::replace(&mut self.complained, true)).then_some(text)
    }

    /// Ends with a run of the heart. If something could not be stopped, the reset of this machine makes the takeover
    /// safe, which the peer begins after its deadtime.
    pub(super) fn leave(self, clean: bool) -> (Level, String) {
        let name = self.name.display();
        if !clean {
            let text = format!(
                "the watchdog {name} stays armed: it resets this machine soon, because a resource here cannot be \
                 stopped"
            );
            return (Level::Critical, text);
        }
        match self.device.disarm() {
            Ok(()) => (Level::Info, format!("Successful watchdog close: {name}")),
            Err(error) => {
                (Level::Error, format!("Watchdog close failed: {name}: {error}; this machine may be reset"))
            }
        }
    }
}

/// The timeout in whole seconds, above the deadtime.
fn timeout(deadtime: Duration) -> u32 {
    let millis = (deadtime + SLACK).as_millis();
    u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_more_than_the_deadtime_in_whole_seconds() {
        let seconds = |millis| timeout(Duration::from_millis(millis));
        assert_eq!([500, 990, 991, 1000, 10_000].map(seconds), [1, 1, 2, 2, 11]);
    }

    #[test]
    fn it_is_fed_once_a_beat_and_left_in_peace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watchdog");
        let (none, level, text) = ArmedWatchdog::get(&path, Duration::from_secs(10));
        assert!(
            none.is_none() && level == Level::Warning && text.contains("Cannot open watchdog device"),
            "{text}"
        );
        std::fs::write(&path, "").unwrap();
        let written = || std::fs::read(&path).unwrap();
        for (clean, last) in [(true, &b"\0\0\0V"[..]), (false, b"\0\0\0")] {
            std::fs::write(&path, "").unwrap();
            let (watchdog, ..) = ArmedWatchdog::get(&path, Duration::from_secs(10));
            let mut watchdog = watchdog.unwrap();
            for millis in [100, 100, 200, 200, 300] {
                assert_eq!(watchdog.feed(Instant::from_millis(millis)), None);
            }
            assert_eq!(written(), b"\0\0\0");
            let (level, _) = watchdog.leave(clean);
            assert_eq!((written().as_slice(), level == Level::Info), (last, clean));
        }
    }
}
