//! Tables: columns aligned, two spaces apart; on a terminal long words are cut to its width.
use terminal_size::{Width, terminal_size};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Style;

/// No column is made narrower than this, however narrow the terminal.
const NARROWEST: usize = 8;

/// On which side the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// On the left, and cut where the terminal is too narrow: words that may be long.
    Cut,
}

/// Rows under a head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[(&'static str, Align)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. A cell is one line: whatever would break it is written as an escape.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// As text for standard output: as wide as the terminal that it is, or as wide as it takes.
    pub(crate) fn text(&self) -> String {
        let style = Style::of_stdout();
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let width = terminal_size().filter(|_| terminal).map(|(Width(width), _)| width.into());
        self.lay_out(width, style)
    }

    fn lay_out(&self, room: Option<usize>, style: Style) -> String {
        let widths = self.widths(room);
        let head: Vec<_> = self.head.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut text = style.bold(&self.line(&head, &widths, Style::plain())) + "\n";
        for row in &self.rows {
            text += &self.line(row, &widths, style);
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize], style: Style) -> String {
        let last = cells.len().saturating_sub(1);
        let mut line = String::new();
        let columns = self.head.iter().zip(cells).zip(widths).enumerate();
        for (at, (((title, align), cell), width)) in columns {
            let cell = shorten(cell, *width);
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            let shown = if *title == "STATE" || *title == "AVAILABLE" {
                style.state(&cell)
            } else {
                cell.clone()
            };
            match align {
                Align::Right => line += &(pad + &shown),
                Align::Left | Align::Cut if at == last => line += &shown,
                Align::Left | Align::Cut => line += &(shown + &pad),
            }
            if at != last {
                line += "  ";
            }
        }
        line.trim_end().to_owned()
    }

    /// As wide as their widest cells; the widest that may be cut gives way until all fit.
    fn widths(&self, room: Option<usize>) -> Vec<usize> {
        let widest = |at: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.width()).chain([title.width()]).max().unwrap_or(0)
        };
        let heads = self.head.iter().enumerate();
        let mut widths: Vec<_> = heads.map(|(at, (title, _))| widest(at, title)).collect();
        let Some(room) = room else { return widths };
        loop {
            let total = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
            let Some(over) = total.checked_sub(room).filter(|over| *over > 0) else { break };
            let cut =
                self.head.iter().zip(&mut widths).filter(|((_, align), _)| *align == Align::Cut);
            let widest = cut.map(|(_, width)| width).max().filter(|width| **width > NARROWEST);
            let Some(widest) = widest else { break };
            *widest = widest.saturating_sub(over.min(4)).max(NARROWEST);
        }
        widths
    }
}

/// What a terminal would act on, or break the line, is shown as an escape.
fn one_line(cell: &str) -> String {
    let plain = |c: char| !c.is_control();
    if cell.chars().all(plain) {
        return cell.to_owned();
    }
    let shown = |c: char| if plain(c) { c.to_string() } else { c.escape_default().to_string() };
    cell.chars().map(shown).collect()
}

/// Cuts what is too wide, and says so.
fn shorten(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let (mut short, mut used) = (String::new(), 1);
    for c in cell.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(c);
    }
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("NAME", Align::Cut), ("PID", Align::Right)]);
        table.row(["web".into(), "7".into()]);
        table.row(["a-longer-name\n".into(), "12345".into()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let text = table().lay_out(None, Style::plain());
        assert_eq!(
            text,
            "NAME               PID\nweb                  7\na-longer-name\\n  12345\n"
        );
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        for line in table().lay_out(Some(16), Style::plain()).lines() {
            assert!(line.width() <= 16, "{line:?}");
        }
        assert!(table().lay_out(Some(16), Style::plain()).contains('…'));
    }

    #[test]
    fn wide_letters_count_for_what_they_take() {
        assert_eq!(shorten("日本語", 5), "日本…");
        assert_eq!(shorten("日本", 4), "日本");
    }
}
