//! Operations that outlive the daemon that began them, because it was killed while a script was at work. The script
//! goes on and some seconds later does something that is wrong by then. So each operation is noted in a file while it
//! lasts, and the next daemon ends those that it finds under way.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    cgroup::Scope,
    processes::{has_mark, kill_marked},
};

/// The directory below the run directory. It does not survive a power loss, and neither do operations.
pub const DIRECTORY: &str = "operations";
/// Killed processes need a moment to be gone: they are looked for this often, with this pause.
const ROUNDS_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The note of an operation under way. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Record(PathBuf);

impl Record {
    /// Notes that the process `leader` works for a resource.
    pub(super) fn write(directory: &Path, mark: &str, leader: u32, resource: &str) -> io::Result<Self> {
        let record = Self(directory.join(mark));
        fs::write(&record.0, format!("{leader}\n{resource}\n"))?;
        Ok(record)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An operation that was under way and has been killed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    /// The resource as written in the configuration of the earlier daemon.
    pub(super) resource: String,
    /// No process of it is left.
    pub(super) is_gone: bool,
}

/// Kills the operations of earlier daemons that are still under way, with all processes that they started. An operation
/// that has ended meanwhile may have left a service, which is left alone. Blocks until this is done. Makes the
/// directory if it does not exist.
///
/// # Errors
/// When the directory cannot be made or read: then the operations of this daemon leave no notes either.
pub(super) fn end(directory: &Path, cgroup: Option<&Path>) -> io::Result<Vec<Orphan>> {
    fs::create_dir_all(directory)?;
    let mut orphans = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let mark = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A file that is not one of our notes is left alone.
        if let Some((leader, resource)) = fs::read_to_string(&path).ok().as_deref().and_then(parse)
            && has_mark(leader, &mark)
        {
            let is_gone = kill(leader, &mark, cgroup);
            orphans.push(Orphan { resource: resource.to_owned(), is_gone });
        }
        let _ = fs::remove_file(path);
    }
    Ok(orphans)
}

fn parse(text: &str) -> Option<(u32, &str)> {
    let (leader, rest) = text.split_once('\n')?;
    Some((leader.parse().ok()?, rest.strip_suffix('\n')?))
}

fn kill(leader: u32, mark: &str, cgroup: Option<&Path>) -> bool {
    for _ in 0..ROUNDS_MAX {
        if let Some(parent) = cgroup {
            let _ = Scope::of(parent, mark).kill();
        }
        if kill_marked(leader, mark) == 0 {
            return true;
        }
        thread::park_timeout(PAUSE);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    use super::{super::processes::MARK, *};

    fn shell(mark: &str, line: &str) -> std::process::Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).env(MARK, mark).process_group(0).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Whether the process exists and is not a zombie.
    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    fn first_word(child: &mut std::process::Child) -> String {
        use std::io::BufRead as _;
        let mut line = String::new();
        io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn what_is_under_way_is_ended_and_what_has_ended_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(DIRECTORY);
        assert_eq!(end(&place, None).unwrap(), []);
        let mark = |n: u32| format!("{}-{n}-orphans", std::process::id());

        // At work, with a child that would survive it.
        let mut busy = shell(&mark(1), "sleep 60 & echo $!; wait");
        let child = first_word(&mut busy);
        let record = Record::write(&place, &mark(1), busy.id(), "httpd::a").unwrap();
        // Has ended after the daemon, and left a service.
        let mut done = shell(&mark(2), "sleep 60 > /dev/null & echo $!");
        let service = first_word(&mut done);
        done.wait().unwrap();
        let other = Record::write(&place, &mark(2), done.id(), "mysql").unwrap();
        // Its number belongs to another process now.
        let stranger = Record::write(&place, &mark(3), std::process::id(), "ldap").unwrap();

        assert_eq!(end(&place, None).unwrap(), [Orphan { resource: "httpd::a".into(), is_gone: true }]);
        busy.wait().unwrap();
        assert!(!lives(&child));
        assert!(lives(&service));
        assert_eq!(place.read_dir().unwrap().count(), 0);
        drop((record, other, stranger));
        Command::new("/bin/kill").arg(&service).status().unwrap();
    }

    #[test]
    fn files_that_are_no_notes_kill_nobody() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "1", "x\ny\n", "1\n", "-1\nhttpd\n", "99999999999\nhttpd\n"] {
            fs::write(dir.path().join("mark"), text).unwrap();
            assert_eq!(end(dir.path(), None).unwrap(), [], "{text:?}");
        }
    }
}
