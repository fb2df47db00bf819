//! Finds out which process holds a UDP port of this machine, to explain why a link does not open. Facts: proc_net(5),
//! proc_pid_fd(5).

use std::{fs, path::Path};

use locum_core::model::note::Escaped;

/// The two tables of UDP sockets, in the network namespace of the calling thread.
const TABLES: [&str; 2] = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];

/// A socket that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortSocket {
    inode: u64,
    user: u32,
}

/// The process that holds this port and its user, in words and as far as they can be seen. `None` if only this process
/// does. Reads all of `/proc`: blocks.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let tables = TABLES.map(|table| fs::read_to_string(table).unwrap_or_default());
    let all: Vec<PortSocket> = tables.iter().flat_map(|table| holders(table, port)).collect();
    let processes: Vec<(u32, &PortSocket)> = all
        .iter()
        .filter_map(|holder| Some((process(holder.inode)?, holder)))
        .filter(|(process, _)| *process != std::process::id())
        .collect();
    if let Some((process, holder)) = processes.first() {
        return Some(named(*process, holder.user));
    }
    let unseen = all.iter().find(|holder| process(holder.inode).is_none())?;
    Some(format!("a process of user {} that cannot be seen from here", user(unseen.user)))
}

/// A process in words.
pub(super) fn named(process: u32, of: u32) -> String {
    let name = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("{} (process {process}, user {})", Escaped(name.trim_ascii_end()), user(of))
}

/// The sockets of a table that are bound to a port.
fn holders(table: &str, port: u16) -> Vec<PortSocket> {
    let line = |line: &str| {
        // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let bound = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
        let holder = PortSocket { user: words.get(7)?.parse().ok()?, inode: words.get(9)?.parse().ok()? };
        (bound == port).then_some(holder)
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// The process that has this socket open.
fn process(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|process: &u32| {
        let open = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"));
        open.into_iter().flatten().flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        })
    })
}

/// A user's name. It asks no name service: those libraries may block, and do not belong in a daemon like this.
pub(crate) fn user(number: u32) -> String {
    let file = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number.to_string()).then(|| Escaped(name.as_bytes()).to_string())
    });
    name.unwrap_or_else(|| number.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_kernels_table_is_read_as_it_is_written() {
        let rest = "00000000:0000 07 00000000:00000000 00:00000000 00000000";
        let table = format!(
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20 345: 00000000:1B1C {rest} 65534        0 1234 2 0000000000000000 0\n\
             \x20 346: 0100007F:0035 {rest}     0        0 99 2 0000000000000000 0\nbroken\n"
        );
        let table = table.as_str();
        assert_eq!(holders(table, 6940), [PortSocket { inode: 1234, user: 65534 }]);
        assert_eq!(holders(table, 6941), []);
        assert_eq!(user(0), "root");
    }

    #[test]
    fn a_socket_leads_to_its_process() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else { continue };
            let port = socket.local_addr().unwrap().port();
            let found: Vec<PortSocket> = TABLES
                .iter()
                .flat_map(|table| holders(&fs::read_to_string(table).unwrap_or_default(), port))
                .collect();
            assert_eq!(found.len(), 1, "{address}");
            assert_eq!(process(found[0].inode), Some(std::process::id()));
            assert_eq!(holder(port), None, "our own is in nobody's way");
        }
    }
}
