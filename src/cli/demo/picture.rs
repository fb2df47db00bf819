//! The picture: nodes, links, owner, and the strip of the client's answers, on 80 columns and 24 lines.

use std::time::Duration;

use locum_lab::{Page, clock::Moment};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, BorderType, Paragraph, Wrap},
};

use super::testbed::NODES;

/// The terminal size that the picture needs, in columns and lines.
pub const SIZE: (u16, u16) = (80, 24);
/// The width of a machine, and of the words at its LAN cable, in columns.
const MACHINE: u16 = 26;
const LEG: usize = 16;
/// The width of the strip, in columns.
const STRIP: u16 = 78;
/// The time that one column of the strip stands for.
const COLUMN: Duration = Duration::from_millis(100);

/// A node, as the picture shows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeView {
    pub on: bool,
    /// Whether its daemon is frozen.
    pub frozen: bool,
    /// Whether its kernel has the service address.
    pub holds: bool,
    /// Whether its LAN cable is plugged in.
    pub lan: bool,
}

/// Everything that the picture shows.
#[derive(Clone, Debug, Default)]
pub struct PictureView {
    /// The top line: what runs, and how fast.
    pub title: String,
    /// Time since the show began.
    pub clock: Duration,
    /// The nodes, in the order of [`NODES`].
    pub nodes: [NodeView; 2],
    /// Whether the serial line works.
    pub serial: bool,
    /// Whether the crossover cable works.
    pub crossover: bool,
    /// Which node answered in each tenth of a second, the newest last.
    pub strip: Vec<PageAnswer>,
    /// What happened, the newest last.
    pub news: Vec<String>,
    /// The lowest line: the keys that work.
    pub keys: String,
}

/// The client's answer in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAnswer {
    /// A page of the node with this place in [`NODES`].
    From(usize),
    /// No page came in that time.
    None,
}

/// The client's answers until `now`, in stretches of equal length, the newest last.
#[must_use]
pub fn strip(pages: &[Page], from: Moment, now: Moment, columns: u16) -> Vec<PageAnswer> {
    let column = now.since(from) / u32::from(columns.max(1));
    let mut strip = vec![PageAnswer::None; columns.into()];
    for page in pages.iter().rev().take_while(|page| page.at > from) {
        let place = page.at.since(from).as_nanos() / column.as_nanos().max(1);
        let node = NODES.iter().position(|node| page.text.ends_with(node));
        let answer = usize::try_from(place).ok().and_then(|place| strip.get_mut(place));
        if let (Some(answer @ PageAnswer::None), Some(node)) = (answer, node) {
            *answer = PageAnswer::From(node);
        }
    }
    strip
}

/// The strip of the last seconds, as wide as the picture shows it.
#[must_use]
pub fn recent_strip(pages: &[Page], now: Moment) -> Vec<PageAnswer> {
    strip(pages, now - COLUMN * u32::from(STRIP), now, STRIP)
}

/// The strip as plain text.
#[must_use]
pub fn as_text(strip: &[PageAnswer]) -> String {
    let sign = |answer: &PageAnswer| match answer {
        PageAnswer::From(node) => NODES[*node].chars().last().unwrap_or('?'),
        PageAnswer::None => '.',
    };
    strip.iter().map(sign).collect()
}

/// Draws the picture into a frame.
pub fn draw(frame: &mut Frame<'_>, view: &PictureView) {
    let area = frame.area();
    let [title, machines, cables, lan, client, answers, news, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(3),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(area);
    let clock = format!("{:.1} s", view.clock.as_secs_f64());
    let head = format!(
        "{:<width$}{clock}",
        view.title,
        width = usize::from(title.width).saturating_sub(clock.len())
    );
    frame.render_widget(Paragraph::new(head).bold().reversed(), title);
    draw_machines(frame, machines, view);
    draw_lan(frame, cables, lan, view);
    draw_client(frame, client, view);
    draw_answers(frame, answers, view);
    let block = Block::bordered().border_type(BorderType::Plain).title(" what happens ");
    let room = usize::from(block.inner(news).height);
    let lines: Vec<_> = view.news[view.news.len().saturating_sub(room)..]
        .iter()
        .map(|line| Line::raw(line.as_str()))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), news);
    frame.render_widget(Paragraph::new(view.keys.as_str()).dim(), keys);
}

/// Draws a page of text, such as the first one of the demo.
pub fn draw_page(frame: &mut Frame<'_>, title: &str, text: &str) {
    let colour = |line: &str| match line.chars().next() {
        Some('+') => Style::new().fg(Color::Green),
        Some('-') => Style::new().fg(Color::Red),
        _ => Style::new(),
    };
    let lines: Vec<_> = text.lines().map(|line| Line::styled(line.to_owned(), colour(line))).collect();
    let block = Block::bordered().title(format!(" {title} "));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), frame.area());
}

fn draw_machines(frame: &mut Frame<'_>, area: Rect, view: &PictureView) {
    let [left, middle, right] =
        Layout::horizontal([Constraint::Length(MACHINE), Constraint::Min(20), Constraint::Length(MACHINE)])
            .areas(area);
    for (node, place) in [left, right].into_iter().enumerate() {
        draw_node(frame, place, NODES[node], view.nodes[node], node);
    }
    let both = view.nodes.iter().all(|node| node.on);
    let width = usize::from(middle.width);
    let lines = vec![
        Line::raw(""),
        cable("serial", "null modem", view.serial && both, width),
        Line::raw(""),
        cable("eth1", "crossover", view.crossover && both, width),
    ];
    frame.render_widget(Paragraph::new(lines), middle);
}

fn draw_node(frame: &mut Frame<'_>, area: Rect, name: &str, node: NodeView, place: usize) {
    let (power, style) = match node {
        NodeView { on: false, .. } => ("no power", Style::new().fg(Color::Red)),
        NodeView { frozen: true, .. } => ("daemon frozen", Style::new().fg(Color::Cyan)),
        _ => ("power on, locum runs", Style::new()),
    };
    let service = if node.holds {
        vec![
            Line::styled("● 172.23.2.14", Style::new().fg(colour(place)).bold()),
            Line::styled("● httpd", Style::new().fg(colour(place)).bold()),
        ]
    } else {
        vec![Line::raw(if node.on { "stands by" } else { "" })]
    };
    let mut lines = vec![Line::styled(power, style)];
    lines.extend(service);
    let block = Block::bordered().border_type(if node.holds { BorderType::Thick } else { BorderType::Plain });
    let style = if node.on { Style::new() } else { Style::new().dim() };
    frame.render_widget(Paragraph::new(lines).block(block.title(format!(" {name} ")).style(style)), area);
}

fn cable(name: &str, kind: &str, works: bool, width: usize) -> Line<'static> {
    let text = if works { format!(" {name}: {kind} ") } else { format!(" {name}: cut ") };
    let (wire, style) =
        if works { ("─", Style::new().fg(Color::Green)) } else { ("╌", Style::new().fg(Color::Red)) };
    let spare = width.saturating_sub(text.chars().count());
    Line::styled(format!("{}{text}{}", wire.repeat(spare / 2), wire.repeat(spare - spare / 2)), style)
}

fn draw_lan(frame: &mut Frame<'_>, cables: Rect, lan: Rect, view: &PictureView) {
    let leg = |node: NodeView| {
        let works = node.on && node.lan;
        let text = if node.lan { "│ eth0" } else { "╳ eth0 pulled" };
        Span::styled(format!("{text:<LEG$}"), Style::new().fg(if works { Color::Green } else { Color::Red }))
    };
    // Each leg is drawn under the middle of its machine.
    let gap = usize::from(cables.width).saturating_sub(usize::from(MACHINE) + LEG);
    let line = vec![
        Span::raw(" ".repeat(usize::from(MACHINE) / 2)),
        leg(view.nodes[0]),
        Span::raw(" ".repeat(gap)),
        leg(view.nodes[1]),
    ];
    frame.render_widget(Paragraph::new(Line::from(line)), cables);
    let name = " LAN 172.23.2.0/24 ";
    let spare = usize::from(lan.width).saturating_sub(name.chars().count());
    let wire = format!("{}{name}{}", "═".repeat(spare / 2), "═".repeat(spare - spare / 2));
    frame.render_widget(Paragraph::new(wire).fg(Color::Green), lan);
}

fn draw_client(frame: &mut Frame<'_>, area: Rect, view: &PictureView) {
    let answer = match view.strip.iter().rev().take(3).find(|answer| **answer != PageAnswer::None) {
        Some(PageAnswer::From(node)) => Span::styled(
            format!("\"hello world from {}\"", NODES[*node]),
            Style::new().fg(colour(*node)).bold(),
        ),
        _ => Span::styled("no answer", Style::new().fg(Color::Red).bold()),
    };
    let middle = " ".repeat(usize::from(area.width) / 2);
    let lines = vec![
        Line::from(format!("{middle}│")),
        Line::from(vec![Span::raw("   client, http://172.23.2.14/:  "), answer]),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_answers(frame: &mut Frame<'_>, area: Rect, view: &PictureView) {
    let blocks = view.strip.iter().map(|answer| match answer {
        PageAnswer::From(node) => {
            Span::styled(as_text(&[*answer]), Style::new().fg(Color::Black).bg(colour(*node)))
        }
        PageAnswer::None => Span::styled(".", Style::new().fg(Color::Red)),
    });
    let block = Block::bordered().title(" the client's answers, 0.1 s a column ");
    frame.render_widget(Paragraph::new(Line::from_iter(blocks)).block(block), area);
}

fn colour(node: usize) -> Color {
    if node == 0 { Color::Green } else { Color::Yellow }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn page(millis: u64, text: &str) -> Page {
        Page { at: Moment::at(Duration::from_millis(millis)), text: text.into() }
    }

    #[test]
    fn the_strip_shows_who_answered_when() {
        let pages = [
            page(50, "hello world from clustnode1"),
            page(150, "hello world from clustnode1"),
            page(350, "hello world from clustnode2"),
        ];
        let at = |millis| Moment::at(Duration::from_millis(millis));
        assert_eq!(as_text(&strip(&pages, at(0), at(400), 4)), "11.2");
        assert_eq!(as_text(&strip(&pages, at(100), at(500), 4)), "1.2.");
        assert_eq!(as_text(&strip(&[], at(0), at(0), 2)), "..");
    }

    #[test]
    fn the_picture_fits_into_an_old_terminal() {
        let on = NodeView { on: true, frozen: false, holds: false, lan: true };
        let view = PictureView {
            title: " locum demo".into(),
            clock: Duration::from_millis(12_345),
            nodes: [NodeView { on: false, ..on }, NodeView { holds: true, ..on }],
            serial: true,
            crossover: true,
            strip: vec![PageAnswer::From(0), PageAnswer::None, PageAnswer::From(1)],
            news: (0..20).map(|number| format!("news {number}")).collect(),
            keys: "q quit".into(),
        };
        let mut terminal = Terminal::new(TestBackend::new(SIZE.0, SIZE.1)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let shown = format!("{}", terminal.backend());
        for part in [
            "clustnode1",
            "no power",
            "● 172.23.2.14",
            "hello world from clustnode2",
            "1.2",
            "news 19",
            "q quit",
            "12.3 s",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert!(shown.contains("serial: cut"), "a node without power answers on no link");
    }
}
