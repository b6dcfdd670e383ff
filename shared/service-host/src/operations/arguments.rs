//! The arguments of operations. The comments are the `--help`.

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::config::ProcessArgs;

/// Operations on events and subscriptions.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Prints the events of an aggregate
    Events {
        /// The name of the aggregate, e.g. file
        aggregate: String,
        /// The id of the aggregate
        id: Uuid,
        /// The first version to print
        #[arg(long, default_value_t = 1, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Lists the subscriptions of projections and sagas with their lag
    Subscriptions {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Delivers the service's own events to a subscription again; events that it has applied are dropped
    Replay {
        /// The name of the subscription
        subscription: String,
        /// The position after which the replay starts
        #[arg(long, default_value_t = 0, value_name = "POSITION")]
        from: u64,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Rebuilds the tables of a projection as a new generation and swaps them in; resumes an interrupted rebuild
    Rebuild {
        /// The name of the subscription
        subscription: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Lists, retries and skips events that a handler failed to apply
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Lists dead letters by aggregate, in version order
    List {
        /// The name of the subscription, or name@generation for an unfinished rebuild [default: all subscriptions]
        subscription: Option<String>,
        /// The maximum number of events to list for each subscription
        #[arg(long, default_value_t = 100, value_name = "EVENTS", value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Applies the queued events of an aggregate again, in order
    Retry(ParkedStream),
    /// Drops the first queued event of an aggregate permanently, and applies the next ones
    Skip(ParkedStream),
}

/// An aggregate that is parked for a subscription.
#[derive(Debug, Args)]
pub struct ParkedStream {
    /// The name of the subscription, or name@generation for an unfinished rebuild
    pub(super) subscription: String,
    /// The name of the aggregate, e.g. file
    pub(super) aggregate: String,
    /// The id of the aggregate
    pub(super) id: Uuid,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Prints the position of the relay and its lag
    Status {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Publishes all events after a position again, for a bus that has lost events
    Rewind {
        /// The last position that the bus still has
        #[arg(long, value_name = "POSITION")]
        to: u64,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

/// All operations: an [`Operation`], or a command for the relay.
#[derive(Debug, Subcommand)]
pub enum AnyOperation {
    #[command(flatten)]
    Operation(Operation),
    /// Inspects and rewinds the relay, which publishes events to the bus
    Relay {
        #[command(flatten)]
        process: Box<ProcessArgs>,
        #[command(subcommand)]
        command: RelayCommand,
    },
}

#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Prints JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) process: Box<ProcessArgs>,
}
