//! Delivery of events to handlers through the gate, and the state of each subscription.

pub(crate) mod applied_versions;
pub(crate) mod cursors;
pub mod dead_letters;
pub(crate) mod declared_tables;
pub(crate) mod generations;
pub(crate) mod handler;
pub(crate) mod lag;
pub(crate) mod progress;
pub(crate) mod replay;
pub(crate) mod subscription;
pub(crate) mod subscription_status;
