//! An event with personal data. The tests of the Kafka bus include this file, too.

use epoch::personal::Sealed;
use serde::{Deserialize, Serialize};

pub(crate) const SECRET: &str = "ada.lovelace@example.org";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Registered {
    pub(crate) email: Sealed<String>,
    pub(crate) town: String,
}

const REGISTERED: &str = r#"{"type": "record", "name": "Registered", "fields": [
    {"name": "email", "type": "bytes"}, {"name": "town", "type": "string"}]}"#;

epoch::events! { pub(crate) enum PersonEvent { Registered = [REGISTERED] } }
