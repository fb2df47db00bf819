//! The client: uses the service through its own kernel, whose neighbour cache is left as it is.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, TcpStream},
    time::Duration,
};

use locum_lab::{Program, Rack, clock::await_some};

use super::{build::CLIENT, words};

/// How long the client tries.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time limit of one attempt.
const TRY: Duration = Duration::from_millis(400);
const HTTP: u16 = 80;

/// The answer that the client got.
pub(super) struct Answer {
    /// The hardware address that answered.
    pub(super) mac: [u8; 6],
    /// The page, if the service has one.
    pub(super) page: Option<String>,
}

/// Asks until there is an answer; `None` if there was none for some seconds.
pub(super) fn ask(rack: &Rack, service: IpAddr, has_page: bool) -> Result<Option<Answer>, String> {
    let asked = await_some(PATIENCE, || match rack.inside(CLIENT, move || connect(service, has_page)) {
        Err(fault) => Some(Err(words(fault))),
        Ok(answer) => answer.ok().map(Ok),
    });
    let Some(page) = asked.transpose()? else { return Ok(None) };
    let neighbours = Program::new(&["/bin/cat", "/proc/net/arp"]);
    let table = rack.run(CLIENT, &neighbours, PATIENCE).map_err(words)?.text;
    let mac = table.lines().find_map(|line| mac_of(line, service));
    mac.map(|mac| Some(Answer { mac, page }))
        .ok_or_else(|| format!("{service} answers the client, which does not know where:\n{table}"))
}

/// Asks for a page. If the service has none, a refused connection is an answer, too: it comes from the kernel with the
/// address.
fn connect(service: IpAddr, has_page: bool) -> io::Result<Option<String>> {
    let mut stream = match TcpStream::connect_timeout(&(service, HTTP).into(), TRY) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused && !has_page => return Ok(None),
        stream => stream?,
    };
    if !has_page {
        return Ok(None);
    }
    stream.set_read_timeout(Some(TRY))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let page = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/1.0 200 "));
    page.map(|(_, page)| Some(page.trim().to_owned())).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The hardware address in a line of the kernel's neighbour table: address, type, flags, hardware address.
fn mac_of(line: &str, service: IpAddr) -> Option<[u8; 6]> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if columns.first()?.parse::<IpAddr>().ok()? != service {
        return None;
    }
    let bytes: Vec<u8> =
        columns.get(3)?.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}
