//! What operations print.
//!
//! The problem: people want lines, programs want objects. The invariant: whoever asked for JSON gets one object a line and
//! nothing else.

use std::io::{self, Write};

use serde_json::Value;

/// The columns of a table.
const WIDTHS: [usize; 7] = [24, 11, 9, 8, 8, 7, 0];

#[derive(Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line for people, or the object for programs.
    pub(super) fn line(self, text: &str, object: &Value) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{object}")?
        } else {
            writeln!(stdout, "{text}")?
        }
        stdout.flush()
    }

    /// A row of a table for people, or the object; a header has none.
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
