//! What happens to a job configuration.
//!
//! The problem: a configuration changes while jobs made from it exist.
//!
//! The invariant: an event has the whole configuration, never a part of it, so that a job can keep a copy.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The aggregate's name.
pub const AGGREGATE: &str = "job_configuration";

epoch::events! {
    /// What happens to a job configuration.
    pub enum JobConfigurationEvent {
        JobConfigurationDefined = [schema!("job_configuration/JobConfigurationDefined")],
        JobConfigurationRevised = [schema!("job_configuration/JobConfigurationRevised")],
        JobConfigurationRetired = [schema!("job_configuration/JobConfigurationRetired")],
    }
}

/// A way to run jobs was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationDefined {
    /// The organization that owns the configuration.
    pub organization_id: Uuid,
    /// What people call it.
    pub name: String,
    /// The argument list; the first is the program.
    pub command: Vec<String>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: i64,
}

/// A configuration was replaced; jobs that exist keep what they were created with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationRevised {
    /// The organization that owns the configuration.
    pub organization_id: Uuid,
    /// The name from now on.
    pub name: String,
    /// The argument list; the first is the program.
    pub command: Vec<String>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: i64,
}

/// No new job can be created from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationRetired {
    /// The organization that owns the configuration.
    pub organization_id: Uuid,
}
