//! The client's browser: fetches a page every ten milliseconds, each over a connection of its own.

use std::{io::PipeReader, net::SocketAddrV4, os::fd::OwnedFd, sync::Mutex, time::Duration};

use locum_sys::namespace;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType},
};

use super::{Beat, PAGE_EVERY, Page, Record, lock};
use crate::clock::Moment;

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: service\r\n\r\n";
/// A page that takes longer is given up; other pages are asked for long before.
const PATIENCE: Duration = Duration::from_secs(1);
/// A longer answer is not a page of this service.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

struct Fetch {
    socket: OwnedFd,
    begun: Moment,
    asked: bool,
    answer: Vec<u8>,
}

pub(super) fn fetch(client: &OwnedFd, target: SocketAddrV4, record: &Mutex<Record>, stop: &PipeReader) {
    if namespace::enter_network(client).is_err() {
        return;
    }
    let mut beat = Beat::new(PAGE_EVERY);
    let mut fetches: Vec<Fetch> = Vec::new();
    loop {
        if !wait_for_any(&fetches, stop, beat.next.remaining()) {
            return;
        }
        fetches.retain_mut(|fetch| match fetch.proceed() {
            Progress::Waits => Moment::now().since(fetch.begun) < PATIENCE,
            Progress::Failed => false,
            Progress::Done(text) => {
                lock(record).pages.push(Page { at: Moment::now(), text });
                false
            }
        });
        if beat.due() {
            fetches.extend(Fetch::begin(target));
        }
    }
}

/// False when the watch is to end.
fn wait_for_any(fetches: &[Fetch], stop: &PipeReader, limit: Duration) -> bool {
    let mut ready = vec![PollFd::new(stop, PollFlags::IN)];
    ready.extend(
        fetches.iter().map(|fetch| {
            PollFd::new(&fetch.socket, if fetch.asked { PollFlags::IN } else { PollFlags::OUT })
        }),
    );
    let limit = Timespec::try_from(limit).ok();
    let _ = poll(&mut ready, limit.as_ref());
    ready[0].revents().is_empty()
}

enum Progress {
    Waits,
    Failed,
    Done(String),
}

impl Fetch {
    fn begin(target: SocketAddrV4) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).ok()?;
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(_) => return None,
        }
        Some(Self { socket, begun: Moment::now(), asked: false, answer: Vec::new() })
    }

    fn proceed(&mut self) -> Progress {
        if !self.asked {
            match rustix::net::send(&self.socket, REQUEST, SendFlags::NOSIGNAL) {
                Ok(_) => self.asked = true,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return Progress::Waits,
                Err(_) => return Progress::Failed,
            }
        }
        let mut buffer = [0; 2048];
        loop {
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => return page(&self.answer).map_or(Progress::Failed, Progress::Done),
                Ok(length) if self.answer.len() + length <= ANSWER_BYTES_MAX => {
                    self.answer.extend_from_slice(&buffer[..length]);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Progress::Waits,
                Ok(_) | Err(_) => return Progress::Failed,
            }
        }
    }
}

/// The text of a good answer; `None` for any other answer.
fn page(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let good = head.starts_with("HTTP/") && head.split_whitespace().nth(1) == Some("200");
    good.then(|| body.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_page_is_a_page() {
        let good = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello world from clustnode1\n";
        assert_eq!(page(good).as_deref(), Some("hello world from clustnode1"));
        assert_eq!(page(b"HTTP/1.0 503 Busy\r\n\r\nlater"), None);
        assert_eq!(page(b"HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(page(&[0xff; 10]), None);
    }
}
