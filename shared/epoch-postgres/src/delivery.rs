//! Delivery of events to handlers through the gate, and the progress of each subscription.

pub(crate) mod cursors;
pub(crate) mod dead_letter_queue;
pub mod dead_letters;
pub(crate) mod declared_tables;
pub(crate) mod error;
pub(crate) mod gate;
pub(crate) mod generations;
pub(crate) mod guard;
pub(crate) mod handler;
pub(crate) mod lag;
pub(crate) mod parking;
pub(crate) mod progress;
pub(crate) mod projection;
pub(crate) mod read_cursors;
pub(crate) mod release;
pub(crate) mod replay;
pub(crate) mod runner;
pub(crate) mod subscription;
pub(crate) mod subscription_status;
pub(crate) mod write_checked_handler;
