//! What goes to standard output: tables for people, JSON for programs.

use crate::error::Error;
use clap::ValueEnum;
use serde::Serialize;
use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

/// How a listing is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// An array of objects, for programs: sizes in bytes, times in seconds since 1970.
    Json,
}

/// Writes to standard output.
///
/// # Errors
/// [`Error::OutputClosed`] if nobody reads it, [`Error::File`] if it cannot be written.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::file("write to", "standard output", error),
    })
}

/// Writes a line to standard output.
///
/// # Errors
/// As [`print()`].
pub fn print_line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Writes things as an array of objects.
///
/// # Errors
/// As [`print()`].
pub fn print_json<T: Serialize>(things: &[T]) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(things)
        .map_err(|error| Error::Usage(format!("this cannot be written as JSON: {error}")))?;
    print_line(&text)
}

/// Columns, aligned to the left, two spaces apart. A control character becomes `?`: what a registry or a
/// guest says must not reach the terminal as an instruction.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean =
        |cell: &str| -> String { cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect() };
    let rows: Vec<Vec<String>> = std::iter::once(header.iter().map(|s| (*s).to_owned()).collect())
        .chain(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row: &Vec<String>| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let space = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', space));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines of `key: value`, the values aligned.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (key, value) in facts {
        let value: String =
            value.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        // A value of several lines stays in its column.
        let value = value.trim_end().replace('\n', &format!("\n{:width$} ", ""));
        text.push_str(format!("{:width$} {value}", format!("{key}:")).trim_end());
        text.push('\n');
    }
    text
}

/// A time in seconds since 1970, as people tell it.
pub fn ago(time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    ago_at(time, now)
}

fn ago_at(time: u64, now: u64) -> String {
    let seconds = now.saturating_sub(time);
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    match (time, units.iter().find(|(unit, _)| seconds >= *unit)) {
        (0, _) => "-".into(),
        (_, None) => "just now".into(),
        (_, Some((unit, word))) => {
            let count = seconds / unit;
            format!("{count} {word}{} ago", if count == 1 { "" } else { "s" })
        }
    }
}

/// Several words in one cell.
pub fn list(words: &[String]) -> String {
    match words {
        [] => "-".into(),
        words => words.join(", "),
    }
}

/// A word, or `-` for none.
pub fn or_dash(word: &str) -> String {
    if word.is_empty() { "-".into() } else { word.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| c.to_string()).collect()
    }

    #[test]
    fn columns_line_up() {
        let text = table(&["NAME", "SIZE"], &[row(&["a", "1 GiB"]), row(&["längeres", "2 MiB"])]);
        assert_eq!(text, "NAME      SIZE\na         1 GiB\nlängeres  2 MiB\n");
        assert_eq!(table(&["NAME", "SIZE"], &[]), "NAME  SIZE\n");
    }

    #[test]
    fn facts_line_up() {
        let text =
            facts(&[("name", "x".into()), ("working dir", "/".into()), ("error", "one\ntwo\x1b[31m".into())]);
        assert_eq!(text, "name:        x\nworking dir: /\nerror:       one\n             two?[31m\n");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        for (seconds, text) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7_199, "1 hour ago"),
            (7_200, "2 hours ago"),
            (86_400 * 400, "400 days ago"),
        ] {
            assert_eq!(ago_at(1_000_000_000, 1_000_000_000 + seconds), text);
        }
        assert_eq!(ago_at(2_000, 1_000), "just now", "clocks differ");
        assert_eq!(ago_at(0, 1_000), "-");
    }

    proptest! {
        #[test]
        fn a_table_has_a_line_per_row_and_no_control_character(cells in prop::collection::vec(".{0,20}|\\PC*|[\x00-\x1f]{0,4}", 0..12)) {
            let rows: Vec<Vec<String>> = cells.chunks(3).map(<[String]>::to_vec).collect();
            let text = table(&["A", "B", "C"], &rows);
            prop_assert_eq!(text.lines().count(), rows.len() + 1);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
