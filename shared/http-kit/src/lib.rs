//! The HTTP edge that every service shares: extractors, access checks, problem responses, pagination and the server.
//!
//! A request enters through [`server`], gets its span from [`trace_requests`], its [`caller`] and its [`command`] context,
//! and leaves with a response or a [`problem`].
//!
//! This crate knows nothing of processes, settings or buses; those are in `service-host`.

pub mod access;
pub mod api_key;
mod body_drain;
pub mod caller;
pub mod command;
pub mod command_response;
pub mod extract;
pub mod fallback;
pub mod html;
pub mod min_version;
pub mod openapi;
pub mod page;
pub mod parameters;
pub mod problem;
pub mod repeated_commands;
pub mod role;
pub mod secrets;
pub mod server;
mod store_problems;
pub mod trace_context;
pub mod trace_requests;

pub use caller::Caller;
pub use command::{Command, CommandHeaders};
pub use command_response::CommandResponse;
pub use extract::{ApiJson, ApiPath, ApiQuery};
pub use page::{Page, PageQuery};
pub use problem::{IntoProblem, Problem};
pub use role::Role;
pub use secrets::Secrets;
