//! The HTTP edge from outside: every bad input of issue 2 that this layer answers, and what holds for every route.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

mod bad_input;
mod client;
mod commands;
mod edge;
mod metric_names;
mod openapi;
mod probes;
mod sagas;
mod streams;
mod support;
