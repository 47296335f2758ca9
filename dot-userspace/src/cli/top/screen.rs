//! `dotd top` on a terminal: tables that are redrawn after each sample, and the keys.
//!
//! Before: a terminal and the socket of a running dotd. After: the terminal is restored, also after an error.
//! Holds: the view, the chosen client, order, filter, and whether sampling pauses.
//! Never: bans a client without a second key.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hyper::Method;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState},
};

use super::{
    Wish,
    sample::Sample,
    text::{CLIENT_HEADS, client_cells, head, number, worker_line},
    view::{ClientRow, Order, View, chosen},
};
use crate::{
    cli::{ask, ban::ended, error::CliError},
    control::{BanRequest, Banned},
    ledger::latency::show_us,
    xdp::BanRow,
};

/// The keys in the normal state.
const KEYS: &str = "q quit  p pause  s sort  / filter  arrows choose  b ban";

/// The state of the screen.
struct Screen {
    view: Option<View>,
    order: Order,
    filter: String,
    state: TableState,
    is_paused: bool,
    asking: Asking,
    /// The result of the last request.
    said: String,
}

/// The present meaning of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asking {
    Nothing,
    /// Input of a filter; contains the previous filter.
    Filter(String),
    /// The question whether to ban this client.
    Ban(String),
}

/// The action that a key causes outside the screen.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Stay,
    Quit,
    Ban(String),
}

/// Shows the screen until a key ends it.
pub(super) fn run(socket: &Path, wish: &Wish) -> Result<(), CliError> {
    // Before the terminal changes: if no dotd answers, the error is a plain line.
    let first = Sample::take(socket, wish.with_names)?;
    let mut terminal = ratatui::try_init().map_err(CliError::Output)?;
    let result = look_and_draw(&mut terminal, socket, wish, first);
    ratatui::restore();
    result
}

fn look_and_draw(
    terminal: &mut DefaultTerminal,
    socket: &Path,
    wish: &Wish,
    mut before: Sample,
) -> Result<(), CliError> {
    let mut screen = Screen::new(wish.order, wish.filter.clone());
    let mut next = Instant::now() + Duration::from_millis(200).min(wish.interval);
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(CliError::Output)?;
        let wait = next.saturating_duration_since(Instant::now());
        if event::poll(wait).map_err(CliError::Output)? {
            match screen.hear(&event::read().map_err(CliError::Output)?) {
                Act::Stay => {}
                Act::Quit => return Ok(()),
                Act::Ban(client) => screen.said = ban(socket, client),
            }
            continue;
        }
        next = Instant::now() + wish.interval;
        let now = Sample::take(socket, wish.with_names)?;
        if !screen.is_paused {
            screen.view = Some(View::between(&before, &now));
        }
        before = now;
    }
}

/// Bans a client as `dotd ban add` does; returns the result.
fn ban(socket: &Path, client: String) -> String {
    let request = BanRequest { client, seconds: None, reason: "by dotd top".to_owned() };
    match ask::tell::<Banned>(socket, Method::POST, "/bans", &request) {
        Ok((_, banned)) => {
            let BanRow { prefix, seconds_left, .. } = &banned.ban;
            format!("{prefix} is banned for {seconds_left} s; {}", ended(&banned))
        }
        Err(error) => error.to_string(),
    }
}

impl Screen {
    fn new(order: Order, filter: String) -> Self {
        let state = TableState::default().with_selected(0);
        Self {
            view: None,
            order,
            filter,
            state,
            is_paused: false,
            asking: Asking::Nothing,
            said: String::new(),
        }
    }

    fn rows(&self) -> Vec<ClientRow> {
        self.view.as_ref().map(|view| chosen(&view.clients, self.order, &self.filter)).unwrap_or_default()
    }

    /// Handles an event.
    fn hear(&mut self, event: &Event) -> Act {
        let Event::Key(key) = event else { return Act::Stay };
        if key.kind != KeyEventKind::Press {
            return Act::Stay;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Act::Quit;
        }
        match std::mem::replace(&mut self.asking, Asking::Nothing) {
            Asking::Filter(before) => self.hear_filter(key.code, before),
            Asking::Ban(client) => {
                if key.code == KeyCode::Char('y') {
                    return Act::Ban(client);
                }
                self.said = "no client was banned".to_owned();
            }
            Asking::Nothing => return self.hear_key(key.code),
        }
        Act::Stay
    }

    fn hear_key(&mut self, code: KeyCode) -> Act {
        self.said.clear();
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.asking = Asking::Filter(std::mem::take(&mut self.filter)),
            KeyCode::Down | KeyCode::Char('j') => self.state.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.state.select_previous(),
            KeyCode::Char('b') => {
                let place = self.state.selected().unwrap_or_default();
                if let Some(row) = self.rows().get(place) {
                    self.asking = Asking::Ban(row.prefix.clone());
                }
            }
            _ => {}
        }
        Act::Stay
    }

    fn hear_filter(&mut self, code: KeyCode, before: String) {
        match code {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                self.filter = before;
                return;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
            _ => {}
        }
        self.asking = Asking::Filter(before);
    }

    /// The last line.
    fn foot(&self) -> String {
        match &self.asking {
            Asking::Filter(_) => format!("filter: {}_  (Enter keeps it, Esc does not)", self.filter),
            Asking::Ban(client) => format!("ban {client}? y, or any other key"),
            Asking::Nothing if !self.said.is_empty() => self.said.clone(),
            Asking::Nothing => KEYS.to_owned(),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Percentage(35),
            Constraint::Min(6),
            Constraint::Length(8),
            Constraint::Length(1),
        ]);
        let [top, upper, middle, lower, foot] = areas.areas(frame.area());
        let paused = if self.is_paused { " PAUSED" } else { "" };
        let title = self.view.as_ref().map_or_else(|| "dotd: the first look".to_owned(), head);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::styled(format!("{title}{paused}"), bold), top);
        frame.render_widget(Paragraph::new(self.foot()), foot);
        if let Some(view) = &self.view {
            let [rates, latency, drops] =
                Layout::horizontal([Constraint::Length(36), Constraint::Percentage(40), Constraint::Min(40)])
                    .areas(upper);
            draw_rates(frame, rates, view);
            draw_latency(frame, latency, view);
            draw_drops(frame, drops, view);
            let [backends, workers] =
                Layout::horizontal([Constraint::Percentage(60), Constraint::Min(30)]).areas(lower);
            draw_backends(frame, backends, view);
            let lines: Vec<_> = view
                .workers
                .iter()
                .enumerate()
                .map(|(worker, row)| Line::from(worker_line(worker, row)))
                .collect();
            frame.render_widget(Paragraph::new(lines).block(titled("workers")), workers);
        }
        self.draw_clients(frame, middle);
    }

    fn draw_clients(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.rows();
        let names = self.view.as_ref().and_then(|view| view.names.as_ref());
        let wide = Constraint::Percentage(if names.is_some() { 60 } else { 100 });
        let [area, beside] = Layout::horizontal([wide, Constraint::Fill(1)]).areas(area);
        let filter = if self.filter.is_empty() { String::new() } else { format!(", filter {}", self.filter) };
        let title = format!("clients a second, by {}{filter}", self.order.name());
        let heads = std::iter::once("prefix").chain(CLIENT_HEADS).chain(std::iter::once(""));
        let lines = rows.iter().map(|row| {
            let ban = if row.is_banned { "banned" } else { "" };
            let cells = std::iter::once(row.prefix.clone()).chain(client_cells(row));
            Row::new(cells.chain(std::iter::once(ban.to_owned())).map(Cell::from))
        });
        let widths = [22, 10, 10, 10, 10, 10, 7].map(Constraint::Length);
        let table = Table::new(lines, widths)
            .header(Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD)))
            .block(titled(&title))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let last = rows.len().saturating_sub(1);
        self.state.select(self.state.selected().map(|place| place.min(last)));
        frame.render_stateful_widget(table, area, &mut self.state);
        if let Some(names) = names {
            let lines = names.iter().map(|row| Row::new([number(row.per_second), row.name.clone()]));
            let table = Table::new(lines, [Constraint::Length(8), Constraint::Min(10)]);
            frame.render_widget(table.block(titled("names a second")), beside);
        }
    }
}

fn titled(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(title)
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.rates.iter().map(|(name, rate)| Row::new([name.replace('_', " "), number(*rate)]));
    let table = Table::new(rows, [Constraint::Length(22), Constraint::Length(8)]);
    frame.render_widget(table.block(titled("a second")), area);
}

fn draw_latency(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.latency.iter().map(|row| {
        let [p50, p90, p99] = [row.p50_us, row.p90_us, row.p99_us].map(show_us);
        Row::new([row.name.clone(), p50, p90, p99])
    });
    let widths = [Constraint::Min(18), Constraint::Length(9), Constraint::Length(9), Constraint::Length(9)];
    let table = Table::new(rows, widths).header(Row::new(["latency", "p50", "p90", "p99"]));
    frame.render_widget(table.block(titled("stages")), area);
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.drops.iter().map(|row| {
        let key = row.key.unwrap_or_default().to_owned();
        Row::new([format!("{} {}", row.by, row.reason), number(row.per_second), key])
    });
    let widths = [Constraint::Min(24), Constraint::Length(8), Constraint::Min(24)];
    frame.render_widget(
        Table::new(rows, widths).block(titled("drops and refusals a second, and their keys")),
        area,
    );
}

fn draw_backends(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.backends.iter().map(|row| {
        let [asked, lost, servfail] = [row.asked, row.lost, row.servfail].map(number);
        let [p50, p99] = [row.p50_us, row.p99_us].map(|us| us.map_or_else(|| "-".to_owned(), show_us));
        Row::new([row.name.clone(), row.state.clone(), asked, lost, servfail, p50, p99])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let heads = Row::new(["backend", "state", "asked", "lost", "SERVFAIL", "p50", "p99"]);
    frame.render_widget(Table::new(rows, widths).header(heads).block(titled("backends a second")), area);
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    fn press(screen: &mut Screen, code: KeyCode) -> Act {
        screen.hear(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    /// Goal: keys sort, pause, filter and quit, and a ban needs a second key. Method: each key in turn. Covers: C-522
    #[test]
    fn keys_do_what_they_say() {
        let mut screen = Screen::new(Order::Queries, String::new());
        assert_eq!(press(&mut screen, KeyCode::Char('b')), Act::Stay);
        assert_eq!(screen.asking, Asking::Nothing, "there is no client to ban");
        press(&mut screen, KeyCode::Char('s'));
        press(&mut screen, KeyCode::Char('p'));
        assert!(screen.order == Order::Handshakes && screen.is_paused);
        press(&mut screen, KeyCode::Char('/'));
        "q.7".chars().for_each(|letter| drop(press(&mut screen, KeyCode::Char(letter))));
        press(&mut screen, KeyCode::Backspace);
        press(&mut screen, KeyCode::Enter);
        assert_eq!((screen.filter.as_str(), &screen.asking), ("q.", &Asking::Nothing));
        press(&mut screen, KeyCode::Char('/'));
        press(&mut screen, KeyCode::Char('x'));
        press(&mut screen, KeyCode::Esc);
        assert_eq!(screen.filter, "q.");
        screen.asking = Asking::Ban("192.0.2.7/32".into());
        assert_eq!(press(&mut screen, KeyCode::Char('n')), Act::Stay);
        screen.asking = Asking::Ban("192.0.2.7/32".into());
        assert_eq!(press(&mut screen, KeyCode::Char('y')), Act::Ban("192.0.2.7/32".into()));
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Act::Quit);
    }
}
