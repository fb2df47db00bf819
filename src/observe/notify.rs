//! Notifies the service manager (sd_notify(3)): one datagram to the socket that it named in `NOTIFY_SOCKET`. Without
//! that variable nothing is sent.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The connection to the service manager.
#[derive(Debug, Default)]
pub struct ServiceManager {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the socket and the watchdog's limit from the environment.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name| std::env::var_os(name);
        let number = |name| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let meant_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| meant_for_us && micros > 0);
        Self::new(variable("NOTIFY_SOCKET").as_deref(), watchdog.map(Duration::from_micros))
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let manager = socket.and_then(|socket| connect(socket).ok());
        Self { watchdog: watchdog.filter(|_| manager.is_some()), manager }
    }

    /// The time between two calls of [`ServiceManager::alive`]: half of the service manager's limit. `None` if it has no limit.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Reports that the links are open and the first beat is sent.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Sets the text that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// Reports that the configuration is read again; ends with the next [`ServiceManager::ready`].
    pub fn reloading(&self) {
        self.send("RELOADING=1");
    }

    /// Reports that the graceful leave has begun, and extends the service manager's patience to `patience` from now.
    /// Stopping the groups may take as long as their limits allow.
    pub fn stopping(&self, patience: Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", patience.as_micros()));
    }

    /// Feeds the service manager's watchdog. Call it only while both heart and control plane make progress.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.manager {
            // The daemon goes on if the manager does not listen; the manager's watchdog decides about that.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn connect(socket: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    Ok((datagram, address))
}

fn one_line(text: &str) -> String {
    text.replace(|character: char| character.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(server: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_manager_hears_every_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let server = UnixDatagram::bind(&path).unwrap();
        let notify = ServiceManager::new(Some(path.as_os_str()), Some(Duration::from_secs(20)));
        assert_eq!(notify.watchdog_interval(), Some(Duration::from_secs(10)));
        notify.ready("clustnode1\nactive");
        assert_eq!(heard(&server), "READY=1\nSTATUS=clustnode1 active");
        notify.reloading();
        assert_eq!(heard(&server), "RELOADING=1");
        notify.alive();
        assert_eq!(heard(&server), "WATCHDOG=1");
        notify.stopping(Duration::from_secs(2));
        assert_eq!(heard(&server), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000");
    }

    #[test]
    fn an_abstract_name_works_too() {
        let name = format!("locum-notify-test-{}", std::process::id());
        let server =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        ServiceManager::new(Some(OsStr::new(&format!("@{name}"))), None).status("well");
        assert_eq!(heard(&server), "STATUS=well");
    }

    #[test]
    fn without_a_manager_nothing_is_said() {
        let notify = ServiceManager::new(None, Some(Duration::from_secs(1)));
        assert_eq!(notify.watchdog_interval(), None);
        notify.ready("");
    }
}
