//! Clients: the programs that `respawn` and `failfast` name. They run while this node takes part, as the user that the
//! line names, and are started again when they end. A client that ends with exit code 100 is not started again. One
//! that keeps ending soon after its start is given up. If a client of `failfast` dies, the machine is rebooted.
//!
//! Source: `docs/heartbeat.md`, sections 2, 9 and 10. Unlike the original, Locum pauses before it starts a program
//! again that ended at once.

use std::{io, sync::Arc, time::Duration};

use locum_core::{
    model::note::{Level, Note},
    r1::plan::Client,
};
use locum_sys::user::User;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Agents,
    job::{ProgramEnd, ProgramJob, Service},
    output::Speaker,
};
use crate::control::errands::call;

/// The exit code of a client that does not want to be started again.
const ENOUGH: i32 = 100;
/// A run shorter than this counts as short.
const SHORT: Duration = Duration::from_secs(30);
/// After more short runs in a row than this the client is given up.
const SHORT_RUNS_MAX: u32 = 10;
/// The pause before a client is started again after a short run.
const PAUSE: Duration = Duration::from_millis(500);
/// Stands for no limit: a century.
const EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reboots the machine; takes the reason in words.
pub type Reboot = Arc<dyn Fn(&str) + Send + Sync>;

/// All clients of a plan, running.
#[derive(Debug, Default)]
pub struct Clients(Vec<Running>);

#[derive(Debug)]
struct Running {
    name: String,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Clients {
    /// Starts all clients in the order of `ha.cf` as soon as there is `room`, that is, when the earlier ones have
    /// ended. Needs a runtime around it.
    #[must_use]
    pub fn start(agents: &Agents, reboot: &Reboot, room: &watch::Receiver<bool>) -> Self {
        let start = |client: &Client| {
            let (end, ended) = watch::channel(false);
            let keeper = Keeper {
                agents: agents.clone(),
                client: client.clone(),
                name: client.command.join(" "),
                end: ended,
                room: room.clone(),
                reboot: Arc::clone(reboot),
            };
            Running { name: keeper.name.clone(), end, task: tokio::spawn(keeper.keep()) }
        };
        Self(agents.host_config().clients.iter().map(start).collect())
    }

    /// Ends all clients, the last one first, each by TERM and after a while by force.
    pub async fn stop(self, tell: impl Fn(Note)) {
        for Running { name, end, task } in self.0.into_iter().rev() {
            if !task.is_finished() {
                tell(Note {
                    level: Level::Info,
                    group: None,
                    epoch: None,
                    text: format!("Shutting down client {name}"),
                });
            }
            end.send_replace(true);
            // Its only error is a panic, which has been reported.
            let _ = task.await;
        }
    }
}

/// Keeps one client running.
struct Keeper {
    agents: Agents,
    client: Client,
    name: String,
    end: watch::Receiver<bool>,
    room: watch::Receiver<bool>,
    reboot: Reboot,
}

/// What to do after a client's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterExit {
    Again,
    Enough,
    Reboot,
}

impl Keeper {
    async fn keep(mut self) {
        let mut ended = self.end.clone();
        tokio::select! {
            _ = ended.wait_for(|&end| end) => return,
            // An error means that the sender is gone, and the clients that it ended with it.
            _ = self.room.wait_for(|&free| free) => {}
        }
        let user = self.client.user.clone();
        let user = call(format!("user {user}"), move || User::named(&user));
        let user = match user.await.map_err(io::Error::other).flatten() {
            Ok(user) => user,
            Err(error) => {
                let text = format!("Client {} is not started: user {}: {error}", self.name, self.client.user);
                return self.say(Level::Error, text);
            }
        };
        let mut short_lives = 0;
        loop {
            let (uid, gid) = (user.uid, user.gid);
            self.say(Level::Info, format!("Starting child client \"{}\" ({uid},{gid})", self.name));
            let began = Instant::now();
            let end = self.job(user.clone()).run().await.end;
            if *self.end.borrow() {
                return;
            }
            match self.decide_after(&end) {
                AfterExit::Enough => return,
                AfterExit::Reboot => {
                    let reason = self.name.clone();
                    self.say(Level::Critical, format!("Rebooting system.  Reason: {reason}"));
                    return (self.reboot)(&reason);
                }
                AfterExit::Again => {}
            }
            short_lives = if began.elapsed() < SHORT { short_lives + 1 } else { 0 };
            if short_lives > SHORT_RUNS_MAX {
                let text = format!("Client {} \"respawning too fast\": given up", self.name);
                return self.say(Level::Error, text);
            }
            let mut ended = self.end.clone();
            tokio::select! {
                _ = ended.wait_for(|&end| end) => return,
                () = sleep(if short_lives > 0 { PAUSE } else { Duration::ZERO }) => {}
            }
            self.say(Level::Info, format!("Respawning client \"{}\":", self.name));
        }
    }

    /// Logs how the client ended. A program that could not be started has not died: rebooting again and again because a
    /// file is missing would help nobody.
    fn decide_after(&self, end: &ProgramEnd) -> AfterExit {
        let name = &self.name;
        let (level, text, is_death) = match end {
            ProgramEnd::Exited(ENOUGH) => {
                self.say(Level::Info, format!("Client {name} exited with return code {ENOUGH}."));
                return AfterExit::Enough;
            }
            // The shell ends so if it cannot start the program.
            ProgramEnd::Exited(code @ (126 | 127)) => {
                (Level::Error, format!("Client {name} cannot be started: exit code {code}"), false)
            }
            ProgramEnd::Exited(0) => {
                (Level::Info, format!("Client {name} exited with return code 0."), false)
            }
            ProgramEnd::Exited(code) => {
                (Level::Warning, format!("Client {name} exited with return code {code}."), true)
            }
            ProgramEnd::Signalled(signal) => {
                (Level::Warning, format!("Client {name} killed by signal {signal}."), true)
            }
            ProgramEnd::TimedOut => (Level::Warning, format!("Client {name} was ended by force."), true),
            ProgramEnd::NotStarted(why) | ProgramEnd::CannotRun(why) => {
                (Level::Error, format!("Client {name} cannot be started: {why}"), false)
            }
        };
        self.say(level, text);
        if is_death && self.client.failfast { AfterExit::Reboot } else { AfterExit::Again }
    }

    /// Runs the client through the shell, as in the original: the line may quote and redirect.
    fn job(&self, user: User) -> ProgramJob {
        let options = &self.agents.0.options;
        ProgramJob {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), format!("exec {}", self.name)],
            environment: self.agents.0.environment.clone(),
            input: None,
            speaker: Speaker {
                tell: Arc::clone(&options.tell),
                group: None,
                epoch: None,
                label: self.name.clone(),
            },
            level: Level::Info,
            deadline: Instant::now() + EVER,
            cgroup: options.cgroup_path(),
            kin: None,
            resource: self.name.clone(),
            whose: format!("client {}", self.name),
            notes: options.notes.clone(),
            service: Some(Service { user, end: self.end.clone() }),
        }
    }

    fn say(&self, level: Level, text: String) {
        (self.agents.0.options.tell)(Note { level, group: None, epoch: None, text });
    }
}
