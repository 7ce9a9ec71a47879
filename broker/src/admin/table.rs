//! Tables and documents: what a listing writes; no I/O.

use bytes::Bytes;
use serde::Serialize;

/// What stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// Columns under their titles: text flush left, numbers flush right, two blanks between. A column that is empty in
/// every row is left out.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    titles: [&'static str; N],
    rows: Vec<[String; N]>,
}

/// How a column is written.
#[derive(Clone, Copy)]
struct Column {
    at: usize,
    width: usize,
    right: bool,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(titles: [&'static str; N]) -> Table<N> {
        Table { titles, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| shown(&cell)));
    }

    /// Appends the table, every line behind `indent`; nothing when it has no rows.
    pub(super) fn write(&self, indent: &str, out: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        let columns: Vec<Column> = (0..N).filter_map(|at| self.column(at)).collect();
        write_line(&self.titles, &columns, indent, out);
        for row in &self.rows {
            write_line(row, &columns, indent, out);
        }
    }

    fn column(&self, at: usize) -> Option<Column> {
        let cells = || self.rows.iter().map(move |row| row[at].as_str());
        let width = cells().chain([self.titles[at]]).map(|cell| cell.chars().count()).max()?;
        let empty = cells().all(str::is_empty);
        (!empty).then(|| Column { at, width, right: cells().all(is_number) })
    }
}

fn is_number(cell: &str) -> bool {
    cell == UNKNOWN || cell.strip_prefix(['-', '+']).unwrap_or(cell).bytes().all(|byte| byte.is_ascii_digit())
}

fn write_line(cells: &[impl AsRef<str>], columns: &[Column], indent: &str, out: &mut String) {
    let mut line = indent.to_owned();
    for (place, column) in columns.iter().enumerate() {
        let cell = cells[column.at].as_ref();
        let padding = " ".repeat(column.width - cell.chars().count());
        let (before, behind) = if column.right { (&*padding, "") } else { ("", &*padding) };
        let gap = if place > 0 { "  " } else { "" };
        line.extend([gap, before, cell, behind]);
    }
    out.push_str(line.trim_end_matches(' '));
    out.push('\n');
}

/// On one line, and harmless to a terminal: names come from strangers.
fn shown(cell: &str) -> String {
    if cell.chars().any(char::is_control) { cell.escape_debug().to_string() } else { cell.to_owned() }
}

/// A cell of what may not be known.
pub(super) fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// A text that may be empty.
pub(super) fn text_cell(text: &str) -> String {
    cell(Some(text).filter(|text| !text.is_empty()))
}

/// Numbers, separated by commas.
pub(super) fn numbers(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// Bytes for people.
pub(super) fn show_bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// One document, with a line end.
pub(super) fn json(document: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec_pretty(document).expect("keys are texts, and memory does not fail");
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_numbers_to_the_right() {
        let mut table = Table::new(["TOPIC", "PARTITION", "LAG", "MEMBER"]);
        table.row(["a".into(), "0".into(), "12345".into(), "m".into()]);
        table.row(["längst".into(), "10".into(), "-".into(), "-".into()]);
        let mut text = String::new();
        table.write("  ", &mut text);
        assert_eq!(
            text,
            "  TOPIC   PARTITION    LAG  MEMBER\n  \
             a               0  12345  m\n  \
             längst         10      -  -\n"
        );
    }

    #[test]
    fn names_cannot_steer_the_terminal_and_no_line_ends_in_blanks() {
        let mut table = Table::new(["NAME", "NOTE"]);
        table.row(["a\u{1b}[2J".into(), String::new()]);
        let mut text = String::new();
        table.write("", &mut text);
        assert_eq!(text, "NAME\na\\u{1b}[2J\n", "an empty column is left out");
        table.row(["b".into(), "x".into()]);
        text.clear();
        table.write("", &mut text);
        assert_eq!(text, "NAME        NOTE\na\\u{1b}[2J\nb           x\n");
        let mut empty = String::new();
        Table::new(["NAME"]).write("", &mut empty);
        assert_eq!(empty, "");
    }

    #[test]
    fn sizes_have_the_unit_that_suits_them() {
        let table = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_536 << 20, "1.5 GiB")];
        for (bytes, text) in table {
            assert_eq!(show_bytes(bytes), text);
        }
        assert_eq!(show_bytes(i64::MAX), "8192.0 PiB");
    }
}
