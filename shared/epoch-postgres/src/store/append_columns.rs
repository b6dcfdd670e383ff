//! A batch of appends as arrays, one per column.

use epoch::{
    CommandContext, Metadata,
    store::{Append, StoreError},
};
use uuid::Uuid;

use crate::database::rows::{bigint, schema_bigint};

/// The arguments of `epoch_append`: one entry per command, then one entry per event.
#[derive(Default)]
pub(crate) struct AppendColumns<'a> {
    pub(crate) aggregates: Vec<&'static str>,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) expected_versions: Vec<i64>,
    pub(crate) previous: Vec<Option<Uuid>>,
    pub(crate) event_counts: Vec<i64>,
    pub(crate) command_ids: Vec<Uuid>,
    pub(crate) fingerprints: Vec<Option<&'a [u8]>>,
    pub(crate) metadata: Vec<String>,
    pub(crate) occurred_at: Vec<i64>,
    /// The number of the event's command in the batch, from 1.
    pub(crate) event_appends: Vec<i64>,
    /// The number of the event in its command, from 1.
    pub(crate) event_numbers: Vec<i64>,
    pub(crate) event_ids: Vec<Uuid>,
    pub(crate) event_names: Vec<&'static str>,
    pub(crate) schemas: Vec<i64>,
    pub(crate) payloads: Vec<&'a [u8]>,
}

impl<'a> AppendColumns<'a> {
    pub(crate) fn of(batch: &'a [Append]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (append, append_number) in batch.iter().zip(1..) {
            let context = &append.context;
            columns.aggregates.push(append.aggregate);
            columns.ids.push(append.aggregate_id);
            columns.expected_versions.push(bigint(append.expected.get()));
            columns.previous.push(append.previous);
            columns.event_counts.push(bigint(append.events.len() as u64));
            columns.command_ids.push(context.command_id);
            columns.fingerprints.push(context.idempotency.as_ref().map(|known| known.fingerprint.as_slice()));
            columns.metadata.push(metadata_json(context)?);
            columns.occurred_at.push(context.occurred_at.as_millis());
            for (event, event_number) in append.events.iter().zip(1..) {
                columns.event_appends.push(append_number);
                columns.event_numbers.push(event_number);
                columns.event_ids.push(event.event_id);
                columns.event_names.push(event.name);
                columns.schemas.push(schema_bigint(event.encoded.schema));
                columns.payloads.push(&event.encoded.payload);
            }
        }
        Ok(columns)
    }
}

pub(crate) fn metadata_json(context: &CommandContext) -> Result<String, StoreError> {
    serde_json::to_string(&Metadata::from(context))
        .map_err(|error| StoreError::Refused { detail: format!("metadata: {error}") })
}
