//! A bus in a Postgres database, for installations without a broker.
//!
//! It keeps the promises of every [bus](epoch::bus). Publishers take a lock in turn, so message numbers grow in commit
//! order, and a consumer that has read past a number has not missed an earlier one. One consumer at a time serves a
//! group.

mod consumer;
pub(crate) mod pg_bus;
