//! Delivery of committed events to subscriptions: fast path, bus or replay, each through the [`gate`].

pub mod bus;
pub mod fast_path;
mod frame;
pub mod gate;
pub mod handler;
pub mod message;
pub mod trace;
