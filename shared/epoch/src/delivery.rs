//! Delivery of committed events to subscriptions.

pub mod bus;
pub mod fast_path;
pub mod gate;
pub mod handler;
pub mod message;
pub mod trace;
