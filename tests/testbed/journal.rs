//! The resource scripts of the stories, and the journal that they keep: each operation writes a line when it begins and
//! one when it ends. A killed operation has begun, has not ended, and its process is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use locum_lab::clock::Moment;
use locum_sim::transcript::{ObservedChange, ScriptOutcome};

/// The file of the journal, in the directory of the daemon's files.
pub(super) const FILE: &str = "journal";
/// The directory in a host's `/run` where the scripts note the processes that they have started.
pub(super) const SERVICES: &str = "services";

/// The text of a script. Its kind follows from the name by which it is called.
pub(super) fn script(cluster: &str) -> String {
    SCRIPT.replace("CLUSTER", cluster)
}

/// `httpd` serves a page; all others are a process that does nothing. Both keep the script's output open, as carelessly
/// written services do.
const SCRIPT: &str = r#"#!/bin/sh
# NAME [ARGUMENT...] start|stop|status: a resource that keeps a journal, and behaves as it is told.
here=/run/disk/CLUSTER
script=${0##*/}
name=$script
while [ $# -gt 1 ]; do
    name=$name::$1
    shift
done
services=/run/services/CLUSTER
service=$services/$name
mkdir -p $services

note() {
    echo "$(date +%s.%N) $$ $1 $2 $name" >> $here/journal
}
runs() {
    [ -e $service ] && read -r pid < $service && kill -0 $pid 2> /dev/null
}
bring_up() {
    if [ $script = httpd ]; then
        /run/bin/locum demo-httpd start || return 1
        read -r pid < /run/httpd.pid
    else
        sleep 1000000 &
        pid=$!
    fi
    echo $pid > $service
}
bring_down() {
    if [ $script = httpd ]; then
        /run/bin/locum demo-httpd stop || return 1
    else
        kill $pid
    fi
    rm -f $service
}

if [ "$1" = status ]; then
    if runs; then echo "$name is running"; else echo "$name is stopped"; fi
    exit 0
fi
read -r manner time < $here/conduct/$script.$1
note $1 begins
if [ $manner = hangs ]; then
    # With a child that does not die of its parent's death.
    sleep 1000000 &
    echo $! > $services/$name.hanging
    wait
fi
sleep $time
if [ $manner = fails ]; then
    note $1 failed
    echo "told to fail" >&2
    exit 1
fi
case $1 in
start) runs || bring_up ;;
stop) ! runs || bring_down ;;
esac
if [ $? = 0 ]; then note $1 done; else note $1 failed; exit 1; fi
"#;

/// The state of the journal of one daemon's scripts.
#[derive(Debug, Default)]
pub(super) struct ScriptJournal {
    read: usize,
    open: BTreeMap<u32, OpenOperation>,
    running: BTreeSet<String>,
}

/// An operation that has begun.
#[derive(Debug)]
struct OpenOperation {
    begun: Moment,
    starts: bool,
    resource: String,
}

/// An operation that has ended, and changed something or should have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JournalEntry {
    pub(super) at: Moment,
    pub(super) resource: String,
    pub(super) sight: ObservedChange,
}

impl ScriptJournal {
    /// The processes of the operations that have not ended.
    pub(super) fn open(&self) -> Vec<u32> {
        self.open.keys().copied().collect()
    }

    /// The host has lost its power, and so has everything that ran there.
    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.running.clear();
    }

    /// Reads the new lines. `gone` are processes that were found gone before `text`, the whole journal, was read.
    ///
    /// # Errors
    /// A line that no script of ours writes.
    pub(super) fn read(
        &mut self,
        text: &str,
        gone: &[u32],
        now: Moment,
    ) -> Result<Vec<JournalEntry>, String> {
        let mut entries = Vec::new();
        // An unfinished line is read the next time.
        let news = text.get(self.read..).unwrap_or_default();
        let news = news.rfind('\n').map_or("", |end| &news[..=end]);
        self.read += news.len();
        for line in news.lines() {
            self.line(line, &mut entries).ok_or_else(|| format!("not a line of a journal: {line}"))?;
        }
        for pid in gone {
            if let Some(open) = self.open.remove(pid) {
                // Any effect of its death came later than this.
                let at = open.begun + now.since(open.begun) / 2;
                self.end(at, &open, ScriptOutcome::Killed, &mut entries);
            }
        }
        Ok(entries)
    }

    fn line(&mut self, line: &str, entries: &mut Vec<JournalEntry>) -> Option<()> {
        let mut words = line.splitn(5, ' ');
        let (seconds, nanos) = words.next()?.split_once('.')?;
        let at = Moment::of_stamp(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?));
        let pid = words.next()?.parse().ok()?;
        let starts = match words.next()? {
            "start" => true,
            "stop" => false,
            _ => return None,
        };
        let (phase, resource) = (words.next()?, words.next()?.to_owned());
        let open = OpenOperation { begun: at, starts, resource };
        match phase {
            "begins" => drop(self.open.insert(pid, open)),
            "done" | "failed" => {
                self.open.remove(&pid)?;
                let end = if phase == "done" { ScriptOutcome::Succeeded } else { ScriptOutcome::Failed };
                self.end(at, &open, end, entries);
            }
            _ => return None,
        }
        Some(())
    }

    fn end(&mut self, at: Moment, open: &OpenOperation, end: ScriptOutcome, entries: &mut Vec<JournalEntry>) {
        let OpenOperation { starts, resource, .. } = open;
        let changed = match (starts, end) {
            (true, ScriptOutcome::Succeeded) => self.running.insert(resource.clone()),
            (false, ScriptOutcome::Succeeded) => self.running.remove(resource),
            (true, _) => !self.running.contains(resource),
            (false, _) => self.running.contains(resource),
        };
        if changed {
            let sight = if *starts { ObservedChange::Start } else { ObservedChange::Stop };
            entries.push(JournalEntry {
                at,
                resource: resource.clone(),
                sight: sight(resource.clone(), end),
            });
        }
    }
}
