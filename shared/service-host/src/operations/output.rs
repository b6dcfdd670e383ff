//! Output of operations: lines of text, or one JSON object a line with `--json`.

use std::io::{self, Write};

use serde_json::Value;

/// The widths of a table's columns.
const WIDTHS: [usize; 7] = [24, 11, 9, 8, 8, 7, 0];

#[derive(Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the text, or the object as JSON.
    pub(super) fn line(self, text: &str, object: &Value) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{object}")?
        } else {
            writeln!(stdout, "{text}")?
        }
        stdout.flush()
    }

    /// Prints a row of a table, or the object as JSON. A header row has no object.
    pub(super) fn row(self, cells: [String; 7], object: Option<&Value>) -> io::Result<()> {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(WIDTHS) {
            line.push_str(&format!("{cell:width$} "));
        }
        match object {
            Some(object) => self.line(line.trim_end(), object),
            None if self.json => Ok(()),
            None => self.line(line.trim_end(), &Value::Null),
        }
    }
}
