//! The origin of an event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tenant, actor, command and trace that an event originates from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The organization that the event belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Uuid>,
    /// The user, key or service that sent the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
    /// The command that caused the event.
    pub command_id: Uuid,
    /// The first command of the causal chain.
    pub correlation_id: Uuid,
    /// The event or command that directly caused the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// W3C trace context (`traceparent`) of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_context: Option<Arc<str>>,
}
