//! Fenced code in comments and Markdown.

use crate::prose::line::Line;

/// Drops fenced code.
pub(crate) fn unfenced(lines: Vec<Line>) -> Vec<Line> {
    let mut fenced = false;
    let mut prose = Vec::with_capacity(lines.len());
    for line in lines {
        if line.text.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push(line);
        }
    }
    prose
}
