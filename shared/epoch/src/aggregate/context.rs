//! The origin of a command and its identity for repeated requests.
//!
//! A client that received no answer sends its command again. The id of such a command is committed with its events; the
//! same id then returns the same result and appends nothing. Correlation and causation ids link events over
//! asynchronous hops.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    event::{Metadata, envelope::Envelope, version::Version},
    time::timestamp::Timestamp,
};

/// Marks a command as repeatable under its id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idempotency {
    /// A digest of the request. The same id with another digest is rejected.
    pub fingerprint: Vec<u8>,
}

/// The identity and origin of a command, which its events inherit.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// The command's id; the same id is the same command.
    pub command_id: Uuid,
    /// Set when the command may be repeated under its id, so that its result must be stored.
    pub idempotency: Option<Idempotency>,
    /// The organization that the command acts for.
    pub tenant: Option<Uuid>,
    /// The sender as `user:<id>`, `key:<id>` or `service:<name>`.
    pub actor: Option<Arc<str>>,
    /// The first command of the causal chain.
    pub correlation_id: Uuid,
    /// The event or command that directly caused this one.
    pub causation_id: Option<Uuid>,
    /// W3C trace context (`traceparent`) of the caller.
    pub trace_context: Option<Arc<str>>,
    /// When it happened, according to the caller.
    pub occurred_at: Timestamp,
    /// The version the caller has seen; the command is rejected at any other version.
    pub expected: Option<Version>,
}

impl CommandContext {
    /// Creates the context of a command that is not repeatable and happens now.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Timestamp::now())
    }

    /// Creates the context of a command that is not repeatable and happens at `occurred_at`.
    #[must_use]
    pub fn at(occurred_at: Timestamp) -> Self {
        let command_id = Uuid::now_v7();
        Self {
            command_id,
            idempotency: None,
            tenant: None,
            actor: None,
            correlation_id: command_id,
            causation_id: None,
            trace_context: None,
            occurred_at,
            expected: None,
        }
    }

    /// Creates the context of a command caused by `event`, with the event's tenant, correlation id and trace.
    #[must_use]
    pub fn caused_by(event: &Envelope, actor: &str) -> Self {
        Self {
            tenant: event.metadata.tenant,
            actor: Some(actor.into()),
            correlation_id: event.metadata.correlation_id,
            causation_id: Some(event.event_id),
            trace_context: event.metadata.trace_context.clone(),
            ..Self::new()
        }
    }

    /// Makes the command repeatable under `command_id`.
    #[must_use]
    pub fn repeatable(mut self, command_id: Uuid, fingerprint: impl Into<Vec<u8>>) -> Self {
        self.command_id = command_id;
        self.correlation_id = command_id;
        self.idempotency = Some(Idempotency { fingerprint: fingerprint.into() });
        self
    }

    /// Sets the tenant.
    #[must_use]
    pub fn for_tenant(mut self, tenant: Uuid) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Sets the actor.
    #[must_use]
    pub fn by(mut self, actor: impl Into<Arc<str>>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Sets the expected version: the command is rejected unless the aggregate is at `version`.
    #[must_use]
    pub fn expecting(mut self, version: Version) -> Self {
        self.expected = Some(version);
        self
    }
}

impl Default for CommandContext {
    fn default() -> Self {
        Self::new()
    }
}

// Here and not with `Metadata`: events do not depend on commands.
impl From<&CommandContext> for Metadata {
    fn from(context: &CommandContext) -> Self {
        Self {
            tenant: context.tenant,
            actor: context.actor.clone(),
            command_id: context.command_id,
            correlation_id: context.correlation_id,
            causation_id: context.causation_id,
            trace_context: context.trace_context.clone(),
        }
    }
}
