//! Who asks, why, and how to recognise the same question.
//!
//! The problem: across asynchronous hops nobody can tell what caused an event, and a client that didn't hear the answer
//! asks again.
//!
//! The invariant: a command id that came from outside is committed with the command's events; the same id again gives the
//! same result and appends nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{envelope::Envelope, timestamp::Timestamp, version::Version};

/// Says that somebody may send this command again under the same id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idempotency {
    /// A digest of what was asked; the same id with another digest is refused. Empty: not compared.
    pub fingerprint: Vec<u8>,
}

/// What travels with a command into its events.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// Names this command; the same id is the same command.
    pub command_id: Uuid,
    /// Set when the command may come again under the same id, so that its result must be kept.
    pub idempotency: Option<Idempotency>,
    /// The organization on whose behalf this happens.
    pub tenant: Option<Uuid>,
    /// Who asks, as `user:<id>`, `key:<id>`, `service:<name>`.
    pub actor: Option<Arc<str>>,
    /// The first command of the chain.
    pub correlation_id: Uuid,
    /// The event or command that directly caused this one.
    pub causation_id: Option<Uuid>,
    /// W3C trace context (`traceparent`) of the caller.
    pub trace_context: Option<Arc<str>>,
    /// When it happened, as far as the caller knows.
    pub occurred_at: Timestamp,
    /// The version the caller has seen; when it isn't the current one, the command is refused.
    pub expected: Option<Version>,
}

impl CommandContext {
    /// A command that nobody will repeat, happening now.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Timestamp::now())
    }

    /// A command that nobody will repeat, happening at `occurred_at`.
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

    /// A command caused by `event`: it belongs to the same tenant, chain and trace.
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

    /// The same command, which may be repeated under `command_id`.
    #[must_use]
    pub fn repeatable(mut self, command_id: Uuid, fingerprint: impl Into<Vec<u8>>) -> Self {
        self.command_id = command_id;
        self.correlation_id = command_id;
        self.idempotency = Some(Idempotency { fingerprint: fingerprint.into() });
        self
    }

    /// The same command on behalf of `tenant`.
    #[must_use]
    pub fn for_tenant(mut self, tenant: Uuid) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The same command, asked by `actor`.
    #[must_use]
    pub fn by(mut self, actor: impl Into<Arc<str>>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// The same command, refused unless the aggregate is at `version`.
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

/// Everything about an event that isn't its payload or its place in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The organization the event belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Uuid>,
    /// Who caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
    /// The command that caused it.
    pub command_id: Uuid,
    /// The first command of the chain.
    pub correlation_id: Uuid,
    /// The event or command that directly caused the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// W3C trace context (`traceparent`) of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_context: Option<Arc<str>>,
}

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
