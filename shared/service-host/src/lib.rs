//! A service as a process: settings, buses, projections and sagas, HTTP, telemetry, and the operator's commands.
//!
//! A service implements [`service::Service`]. [`cli::run`] is the `main` of its binary; it reads [`config`], sets up
//! [`telemetry`], and [starts](process) the service under a [`supervisor`], with [`health`] probes. [`operations`] inspect and
//! repair a service next to its running processes.
//!
//! The HTTP edge is in `http-kit`.

pub mod buses;
pub mod cli;
pub mod config;
pub mod event_type;
pub mod health;
pub mod healthcheck;
pub mod operations;
pub mod peer;
pub mod process;
pub mod sagas;
pub mod service;
pub mod streams;
pub mod supervisor;
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;
