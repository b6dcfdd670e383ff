//! Event handlers and their subscriptions.
//!
//! One event may change any number of rows in any number of tables. A handler runs inside the transaction that also
//! advances the subscription's cursors, so its effects and its progress commit together or not at all. It receives each
//! aggregate's events once and in order, from any [delivery source](crate::gate::DeliverySource).

mod event_handler;
mod per_event;
mod subscription;

pub use event_handler::EventHandler;
pub use per_event::{PerEvent, PerEventHandler};
pub use subscription::{DeliverError, DeliveryCounts, Subscription};
