//! The bytes between a message's start and its payload, which name the writer's schema.

use bytes::{BufMut, Bytes, BytesMut};

use crate::event::SchemaId;

/// The schema reference at the start of a message body. The first byte distinguishes the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Avro single-object encoding: `C3 01`, then the fingerprint in 8 bytes, little-endian.
    Fingerprint(SchemaId),
    /// Confluent wire format: `00`, then the schema's id in the registry in 4 bytes, big-endian.
    Registered(u32),
}

/// The length of the longest frame in bytes.
pub(super) const MAX_FRAME_BYTES: usize = 10;

impl Frame {
    pub(super) fn put(self, body: &mut BytesMut) {
        match self {
            Self::Fingerprint(schema) => {
                body.put_slice(&[0xC3, 0x01]);
                body.put_u64_le(schema.get());
            }
            Self::Registered(id) => {
                body.put_u8(0);
                body.put_u32(id);
            }
        }
    }

    /// Splits a body into its frame and its payload. Returns `None` when it starts with neither format.
    pub(super) fn split(body: &Bytes) -> Option<(Self, Bytes)> {
        if let Some(([0xC3, 0x01, fingerprint @ ..], _)) = body.split_first_chunk::<10>() {
            return Some((Self::Fingerprint(SchemaId::new(u64::from_le_bytes(*fingerprint))), body.slice(10..)));
        }
        if let Some(([0, id @ ..], _)) = body.split_first_chunk::<5>() {
            return Some((Self::Registered(u32::from_be_bytes(*id)), body.slice(5..)));
        }
        None
    }
}
