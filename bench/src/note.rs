//! The measured aggregate: notes of 230 bytes.

use epoch::Aggregate;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    pub text: String,
}

const NOTED: &str =
    r#"{"type":"record","name":"Noted","namespace":"bench","fields":[{"name":"text","type":"string"}]}"#;

epoch::events! {
    /// Events of a note.
    pub enum NoteEvent { Noted = [NOTED] }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Note {
    notes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
pub struct Never;

impl Aggregate for Note {
    const NAME: &'static str = "note";
    type Command = String;
    type Event = NoteEvent;
    type Error = Never;

    fn decide(&self, text: &String) -> Result<Vec<NoteEvent>, Never> {
        Ok(vec![Noted { text: text.clone() }.into()])
    }

    fn evolve(&mut self, _: &NoteEvent) {
        self.notes += 1;
    }
}

/// Returns a text of 230 bytes.
pub fn text() -> String {
    "x".repeat(230)
}
