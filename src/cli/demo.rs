//! `locum demo`: the cluster of the 2002 article, live, on this machine alone.
//!
//! Two real daemons run with the article's own files on a rack of namespaces. Without `--hands-on` the demo pulls the
//! serial cable, cuts the master's power, gives it back, and moves the service by hand. It ends with a table of
//! measured outages.
//!
//! Exit code: 0 every step went as expected, 1 one did not, 77 no rack can be built here, 130 ended by the user.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use locum_lab::clock::{Moment, pause};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};

use self::{
    article::Pace,
    picture::{NodeView, PictureView},
    testbed::{CROSSOVER, DemoTestbed, LAN, NODES, SERIAL, SERVICE},
};
use super::lab;

pub mod article;
pub mod picture;
pub mod testbed;

/// The exit code when the user ended the demo, as shells report it for SIGINT.
const INTERRUPTED: u8 = 130;
/// The time between two drawings of the picture.
const DRAW_EVERY: Duration = Duration::from_millis(50);
/// How long the article's files are shown before the demo begins.
const READ_FOR: Duration = Duration::from_secs(6);
/// The pause between two events, so that a viewer can follow.
const CALM: Duration = Duration::from_secs(3);
/// A working service answers within this time, even on a busy machine.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Allowance on top of the deadtime for starting a daemon and running scripts on a busy machine.
const SLACK: Duration = Duration::from_secs(20);
/// A shorter gap does not count as an outage: on a busy machine the probes are not more punctual.
const NOTHING: Duration = Duration::from_millis(5);

/// The options of `locum demo`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DemoOptions {
    /// Control the demo with keys: cut the power, pull cables, freeze a daemon, move the service
    #[arg(long)]
    pub hands_on: bool,
    /// Timing of the cluster: as in the article, or quick
    #[arg(long, value_enum, default_value = "quick")]
    pub pace: PaceName,
    /// Print plain lines instead of the picture
    #[arg(long, conflicts_with = "hands_on")]
    pub plain: bool,
}

/// The paces by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PaceName {
    /// Keepalive 2 s, deadtime 10 s
    Article,
    /// Keepalive 100 ms, deadtime 1 s
    Quick,
}

/// Runs the demo to its end.
///
/// # Errors
/// If a step does not have its expected result, or if the terminal or the kernel refuses.
pub fn run(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    lab::without_rack(show(options))
}

fn show(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let pace = match options.pace {
        PaceName::Article => Pace::ARTICLE,
        PaceName::Quick => Pace::QUICK,
    };
    // First, while this process still has a single thread.
    locum_lab::enter()?;
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal() && !options.plain;
    let (columns, rows) = picture::SIZE;
    if options.hands_on && !(terminal && fits()) {
        bail!("--hands-on needs a terminal of at least {columns} x {rows}");
    }
    if terminal && !fits() {
        outln!("(plain lines, because the picture needs a terminal of at least {columns} x {rows})");
    }
    let testbed = DemoTestbed::build(pace)?;
    let screen = if terminal && fits() { Screen::Picture(ratatui::init()) } else { Screen::Lines };
    let mut play = Play {
        testbed,
        screen,
        pace,
        begin: Moment::now(),
        news: Vec::new(),
        rows: Vec::new(),
        hands_on: options.hands_on,
        ready: false,
        last_action: String::new(),
    };
    let result = if options.hands_on { play.hands_on() } else { play.by_itself() };
    play.screen.close();
    match result {
        Ok(()) => {}
        Err(error) if error.is::<Quit>() && options.hands_on => {}
        Err(error) if error.is::<Quit>() => return Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => {
            for node in NODES {
                errln!("last log lines of the daemon of {node}:\n{}", play.testbed.last_words(node));
            }
            return Err(error);
        }
    }
    out!("{}", table(&play.rows));
    Ok(ExitCode::SUCCESS)
}

/// Whether the terminal is large enough for the picture.
fn fits() -> bool {
    ratatui::crossterm::terminal::size()
        .is_ok_and(|size| size.0 >= picture::SIZE.0 && size.1 >= picture::SIZE.1)
}

/// The error by which the user's wish to quit ends the demo.
#[derive(Debug, thiserror::Error)]
#[error("ended by hand")]
struct Quit;

enum Screen {
    Picture(DefaultTerminal),
    Lines,
}

impl Screen {
    fn close(&mut self) {
        if matches!(self, Self::Picture(_)) {
            ratatui::restore();
            *self = Self::Lines;
        }
    }
}

/// One row of the table at the end.
struct OutageRow {
    event: String,
    /// The longest outage by echo, and by page.
    outages: [Option<Duration>; 2],
    remark: String,
}

struct Play {
    testbed: DemoTestbed,
    screen: Screen,
    pace: Pace,
    begin: Moment,
    news: Vec<String>,
    rows: Vec<OutageRow>,
    hands_on: bool,
    /// Whether the keys of `--hands-on` work now. Earlier key presses are dropped, and the picture says so: they would
    /// act on a cluster that the user has not seen yet.
    ready: bool,
    /// The user's last action.
    last_action: String,
}

impl Play {
    fn by_itself(&mut self) -> anyhow::Result<()> {
        let [one, two] = NODES;
        self.show_files()?;
        self.open()?;

        let from = self.act("the serial cable is pulled", |testbed| testbed.cut(SERIAL, true))?;
        self.wait(self.pace.deadtime + CALM)?;
        self.must_own(one, "a pulled serial cable")?;
        self.measure("serial cable pulled", from, "a lost link moves nothing")?;
        self.act("the serial cable is put back", |testbed| testbed.cut(SERIAL, false))?;
        self.wait(CALM / 2)?;

        let from = self.act("clustnode1 loses its power", |testbed| testbed.power_off(one))?;
        self.until_served_by(two, from, self.pace.deadtime)?;
        self.wait(CALM)?;
        let remark = format!("deadtime {}", seconds(self.pace.deadtime));
        self.measure("power of clustnode1 cut", from, &remark)?;

        let from = self.act("clustnode1 gets its power back and boots", |testbed| testbed.power_on(one))?;
        self.until_served_by(one, from, self.pace.deadtime)?;
        self.wait(CALM)?;
        self.measure("clustnode1 returns", from, "takes its service back")?;

        let from = Moment::now();
        self.say("clustnode1: locum standby");
        let mut order = self.testbed.stand_by(one)?;
        self.until_served_by(two, from, self.pace.deadtime)?;
        self.until("the end of `locum standby`", SLACK, |_| order.ended().is_some())?;
        if !order.ended().is_some_and(|status| status.success()) {
            bail!("`locum standby` failed");
        }
        self.wait(CALM)?;
        self.measure("moved by hand", from, "locum standby")
    }

    fn hands_on(&mut self) -> anyhow::Result<()> {
        self.show_files()?;
        self.open()?;
        self.ready = true;
        self.say("ready: use the keys below");
        let mut told = Moment::now();
        loop {
            if let Some(key) = self.turn()? {
                self.press_and_tell(key)?;
            }
            told = self.report_outage(told);
        }
    }

    /// Reports an outage that began after `told` and is over. Returns the time up to which all outages are reported.
    fn report_outage(&mut self, told: Moment) -> Moment {
        let Some((gap, by_page)) = self.testbed.ended_outage(told) else { return told };
        let outages = [Some(gap.to.since(gap.from)), by_page];
        self.say(&format!(
            "  outage: {} by echo, {} by page",
            outage_text(outages[0]),
            outage_text(outages[1])
        ));
        self.rows.push(OutageRow { event: self.last_action.clone(), outages, remark: String::new() });
        // The pages of this gap may come a little later than its echoes.
        Moment::now()
    }

    /// Starts both daemons and waits for the first answer.
    fn open(&mut self) -> anyhow::Result<()> {
        let from = Moment::now();
        self.say("clustnode1 and clustnode2 have power; locum starts on both");
        for node in NODES {
            self.testbed.start(node)?;
        }
        self.until_served_by(NODES[0], from, self.pace.deadtime * 2)?;
        if let Some(gates) = self.testbed.gates(NODES[0]) {
            self.say(&gates);
        }
        self.wait(CALM)
    }

    fn show_files(&mut self) -> anyhow::Result<()> {
        let title = "the article's files, and what the demo changes (-, +)";
        let text = article::shown(self.pace);
        let Screen::Picture(terminal) = &mut self.screen else {
            outln!("{title}:\n\n{text}");
            return Ok(());
        };
        terminal.draw(|frame| picture::draw_page(frame, title, &text)).context("draw")?;
        let end = Moment::now() + READ_FOR;
        while !end.remaining().is_zero() {
            match key(end.remaining())? {
                Some(KeyPress::Quit) => return Err(Quit.into()),
                Some(KeyPress::Other(_)) => break,
                None => {}
            }
        }
        Ok(())
    }

    /// One of the keys of `--hands-on`.
    fn press(&mut self, key: char) -> anyhow::Result<()> {
        match key {
            '1' | '2' => {
                let node = NODES[usize::from(key == '2')];
                if self.testbed.rack.is_on(node) {
                    self.act(&format!("{node} loses its power"), |testbed| testbed.power_off(node))?;
                } else {
                    self.act(&format!("{node} gets its power back"), |testbed| testbed.power_on(node))?;
                }
            }
            'f' => {
                let frozen = NODES.into_iter().find(|node| self.testbed.is_frozen(node));
                let Some(node) = frozen.or_else(|| self.testbed.owner()) else { return Ok(()) };
                self.testbed.freeze(node, frozen.is_none())?;
                self.say(&format!(
                    "the daemon of {node} is {}",
                    if frozen.is_none() { "frozen" } else { "thawed" }
                ));
                if frozen.is_none() {
                    self.say("  its kernel keeps the address: both hold it until f thaws the daemon");
                }
            }
            'l' | 'c' | 's' => {
                let (link, name) = match key {
                    'l' => (LAN, "the owner's LAN cable"),
                    'c' => (CROSSOVER, "the crossover cable"),
                    _ => (SERIAL, "the serial cable"),
                };
                let pulled = !self.testbed.is_cut(link);
                let done = if pulled { "pulled" } else { "put back" };
                let before = self.last_action.clone();
                self.act(&format!("{name} is {done}"), |testbed| testbed.cut(link, pulled))?;
                if !pulled {
                    // An outage that ends now was caused by the action before.
                    self.last_action = before;
                }
                if link == LAN && pulled {
                    self.say("  nothing moves: the crossover still beats, so no node is dead");
                    self.say(
                        "   cure: a `ping` node and `respawn … ipfail` in ha.cf; for now, move it with m",
                    );
                }
            }
            'm' => {
                let Some(node) = self.testbed.owner() else {
                    self.say("no single node owns the service: nothing to move");
                    return Ok(());
                };
                self.say(&format!("{node}: locum standby"));
                self.last_action = format!("moved from {node}");
                let mut order = self.testbed.stand_by(node)?;
                self.ready = false;
                let moved = self.until("the end of `locum standby`", SLACK, |_| order.ended().is_some());
                self.ready = true;
                return moved;
            }
            _ => {}
        }
        Ok(())
    }

    /// In hands-on mode an action may fail: the failure is reported and the demo goes on. Only a wish to quit ends it.
    fn press_and_tell(&mut self, key: char) -> anyhow::Result<()> {
        match self.press(key) {
            Err(error) if !error.is::<Quit>() => {
                self.say(&error.to_string());
                Ok(())
            }
            result => result,
        }
    }

    /// Announces an action, performs it, and returns the time at which it began.
    fn act(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut DemoTestbed) -> anyhow::Result<Moment>,
    ) -> anyhow::Result<Moment> {
        self.say(what);
        self.last_action = what.to_owned();
        act(&mut self.testbed)
    }

    fn until_served_by(&mut self, node: &'static str, from: Moment, limit: Duration) -> anyhow::Result<()> {
        let what = format!("the service on {node}");
        self.until(&what, limit + SLACK, |testbed| {
            testbed.owner() == Some(node) && testbed.serves(node, from)
        })?;
        let text = format!("{node} holds {SERVICE} and serves the client");
        self.say(&text);
        Ok(())
    }

    fn must_own(&mut self, node: &str, after: &str) -> anyhow::Result<()> {
        match self.testbed.owner() {
            Some(owner) if owner == node => Ok(()),
            owner => bail!("after {after} the service is on {owner:?}, not on {node}"),
        }
    }

    /// Adds a row: the longest outage since `from`.
    fn measure(&mut self, event: &str, from: Moment, remark: &str) -> anyhow::Result<()> {
        // On a busy machine even the last answer may come late.
        let mut outages = [None; 2];
        self.until("an answer to the client", LAST_ANSWER, |testbed| {
            outages = testbed.outages(from);
            !outages.contains(&None)
        })?;
        self.say(&format!(
            "  outage: {} by echo, {} by page",
            outage_text(outages[0]),
            outage_text(outages[1])
        ));
        if matches!(self.screen, Screen::Lines) {
            let now = Moment::now();
            let strip = |record: &locum_lab::Record| picture::strip(&record.pages, from, now, 70);
            let strip = self.testbed.rack.look(strip).unwrap_or_default();
            outln!("           {}", picture::as_text(&strip));
        }
        self.rows.push(OutageRow { event: event.into(), outages, remark: remark.into() });
        Ok(())
    }

    fn say(&mut self, text: &str) {
        let line = format!("{:6.1} s  {text}", Moment::now().since(self.begin).as_secs_f64());
        if matches!(self.screen, Screen::Lines) {
            outln!("{line}");
        }
        self.news.push(line);
    }

    fn wait(&mut self, length: Duration) -> anyhow::Result<()> {
        let end = Moment::now() + length;
        while !end.remaining().is_zero() {
            self.turn()?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut reached: impl FnMut(&DemoTestbed) -> bool,
    ) -> anyhow::Result<()> {
        let end = Moment::now() + limit;
        while !reached(&self.testbed) {
            if end.remaining().is_zero() {
                bail!("{what}: nothing happened within {}", seconds(limit));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// One turn of the loop: draws the picture, reads a key, and looks for a daemon that ended.
    fn turn(&mut self) -> anyhow::Result<Option<char>> {
        if let Some((node, words)) = self.testbed.fallen() {
            bail!("the daemon of {node} ended by itself:\n{words}");
        }
        let view = self.view();
        let Screen::Picture(terminal) = &mut self.screen else {
            pause(DRAW_EVERY);
            return Ok(None);
        };
        terminal.draw(|frame| picture::draw(frame, &view)).context("draw")?;
        match key(DRAW_EVERY)? {
            Some(KeyPress::Quit) => Err(Quit.into()),
            Some(KeyPress::Other(key)) => Ok(Some(key)),
            None => Ok(None),
        }
    }

    fn view(&self) -> PictureView {
        if matches!(self.screen, Screen::Lines) {
            return PictureView::default();
        }
        let (testbed, now) = (&self.testbed, Moment::now());
        let holders = testbed.holders();
        let node = |node: &'static str| NodeView {
            on: testbed.rack.is_on(node),
            frozen: testbed.is_frozen(node),
            holds: holders.contains(&node),
            lan: testbed.lan_is_plugged(node),
        };
        PictureView {
            title: format!(
                " locum demo: the cluster of 2002   keepalive {}   deadtime {}",
                seconds(self.pace.keepalive),
                seconds(self.pace.deadtime)
            ),
            clock: now.since(self.begin),
            nodes: NODES.map(node),
            serial: !testbed.is_cut(SERIAL),
            crossover: !testbed.is_cut(CROSSOVER),
            strip: testbed.rack.look(|record| picture::recent_strip(&record.pages, now)).unwrap_or_default(),
            news: self.news.clone(),
            keys: if self.hands_on && !self.ready {
                " q quit   (the other keys do not work yet)".into()
            } else if self.hands_on {
                " 1 2 power   f freeze   l LAN   c crossover   s serial   m move   q quit".into()
            } else {
                " q quit   (control it by keys with --hands-on)".into()
            },
        }
    }
}

enum KeyPress {
    Quit,
    Other(char),
}

/// Waits up to `limit` for a key press.
fn key(limit: Duration) -> anyhow::Result<Option<KeyPress>> {
    if !event::poll(limit).context("wait for a key")? {
        return Ok(None);
    }
    let Event::Key(pressed) = event::read().context("read a key")? else { return Ok(None) };
    if pressed.kind != KeyEventKind::Press {
        return Ok(None);
    }
    Ok(match pressed.code {
        KeyCode::Char('c') if pressed.modifiers.contains(KeyModifiers::CONTROL) => Some(KeyPress::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(KeyPress::Quit),
        KeyCode::Char(key) => Some(KeyPress::Other(key.to_ascii_lowercase())),
        KeyCode::Enter => Some(KeyPress::Other('\n')),
        _ => None,
    })
}

/// The table at the end.
fn table(rows: &[OutageRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    let _ = writeln!(text, "\n{:<32} {:>8} {:>8}", "outage seen by the client", "by echo", "by page");
    for OutageRow { event, outages, remark } in rows {
        let line =
            format!("{event:<32} {:>8} {:>8}   {remark}", outage_text(outages[0]), outage_text(outages[1]));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "(echo every millisecond, page every 10 ms; a move includes the script's time)");
    text
}

fn outage_text(outage: Option<Duration>) -> String {
    match outage {
        None => "no end".into(),
        Some(outage) if outage < NOTHING => "none".into(),
        Some(outage) => seconds(outage),
    }
}

/// `12 ms`, `1.04 s`
fn seconds(length: Duration) -> String {
    if length < Duration::from_secs(1) {
        format!("{} ms", length.as_millis())
    } else {
        format!("{:.2} s", length.as_secs_f64()).replace(".00 s", " s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_was_measured() {
        let ms = |millis| Some(Duration::from_millis(millis));
        let row = |event: &str, outages| OutageRow { event: event.into(), outages, remark: String::new() };
        let table =
            table(&[row("power of clustnode1 cut", [ms(1042), ms(1050)]), row("moved", [ms(2), ms(30)])]);
        let lines: Vec<_> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[2], "power of clustnode1 cut 1.04 s 1.05 s");
        assert_eq!(lines[3], "moved none 30 ms");
        assert_eq!(seconds(Duration::from_secs(10)), "10 s");
    }
}
