//! How operations are asked for.
//!
//! The problem and the invariant are those of [`operate`](super); these comments are the `--help`.

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::cli::ProcessArgs;

/// What can be done to a service's events and subscriptions.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Shows an aggregate's events
    Events {
        /// The aggregate's name, as in file
        aggregate: String,
        /// Which one
        id: Uuid,
        /// The first version to show
        #[arg(long, default_value_t = 1, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
        /// How to print, and where everything is.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Lists projections and sagas, and how far they are behind
    Subscriptions {
        /// How to print, and where everything is.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Brings a subscription the service's own events again; it drops those it has applied
    Replay {
        /// The subscription's name
        subscription: String,
        /// The position after which to begin
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        from: u64,
        /// How to print, and where everything is.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Builds a projection's tables anew beside those in use, and swaps them; goes on where an earlier one was ended
    Rebuild {
        /// The subscription's name
        subscription: String,
        /// How to print, and where everything is.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Lists and releases events that a handler can't take
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

/// What can be done about events that a handler can't take.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Lists them, by aggregate, in version order
    List {
        /// Only this subscription's; of a rebuild that isn't finished as in name@generation
        subscription: Option<String>,
        /// The most to list of each subscription
        #[arg(long, default_value_t = 100, value_name = "EVENTS", value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// How to print, and where everything is.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Tries an aggregate's waiting events again, in order
    Retry(Stream),
    /// Gives up an aggregate's first waiting event for good, and goes on with the others
    Skip(Stream),
}

/// An aggregate at a subscription.
#[derive(Debug, Args)]
pub struct Stream {
    /// The subscription's name; of a rebuild that isn't finished as in name@generation
    pub(super) subscription: String,
    /// The aggregate's name
    pub(super) aggregate: String,
    /// Which one
    pub(super) id: Uuid,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// What can be done about the relay.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Tells how far the bus is behind the log
    Status {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Publishes again what came after a position, for a bus that has lost it
    Rewind {
        /// The last position that the bus still has
        #[arg(long, value_name = "POSITION")]
        to: u64,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

/// [`Operation`]s and those on the relay.
#[derive(Debug, Subcommand)]
pub enum AnyOperation {
    /// On events and subscriptions.
    #[command(flatten)]
    Operation(Operation),
    /// Tells how far the relay is, and sets it back
    Relay {
        /// Where everything is.
        #[command(flatten)]
        process: Box<ProcessArgs>,
        /// What to do.
        #[command(subcommand)]
        command: RelayCommand,
    },
}

/// What every operation takes.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Prints JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) process: Box<ProcessArgs>,
}
