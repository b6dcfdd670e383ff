//! What every service's HTTP edge and `main` need, so that services hold only their own subject.
//!
//! A request comes in through [`server`], gets its span from [`telemetry`], its asker from [`caller`], its command context
//! from [`command`], and leaves either with an answer or with a [`problem`]. A process is set up from [`config`], kept
//! running by a [`supervisor`], and watched through [`health`].

pub mod api_key;
pub mod caller;
pub mod changed;
pub mod cli;
pub mod command;
pub mod config;
pub mod extract;
pub mod fallback;
pub mod health;
pub mod healthcheck;
pub mod html;
pub mod http_client;
pub mod min_version;
pub mod operate;
pub mod page;
pub mod problem;
mod read_on;
pub mod role;
pub mod saga;
pub mod secrets;
pub mod server;
pub mod service;
pub mod streams;
pub mod supervisor;
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use caller::Caller;
pub use changed::Changed;
pub use command::{Command, CommandHeaders};
pub use extract::{ApiJson, ApiPath, ApiQuery};
pub use page::{Page, PageQuery};
pub use problem::{IntoProblem, Problem};
pub use role::Role;
pub use secrets::Secrets;
