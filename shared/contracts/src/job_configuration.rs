//! Events of job configurations.
//!
//! Each event carries the whole configuration, so that a job can store a copy that later revisions do not affect.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the aggregate.
pub const AGGREGATE: &str = "job_configuration";

epoch::events! {
    /// An event of a job configuration.
    pub enum JobConfigurationEvent {
        JobConfigurationDefined = [schema!("job_configuration/JobConfigurationDefined")],
        JobConfigurationRevised = [schema!("job_configuration/JobConfigurationRevised")],
        JobConfigurationRetired = [schema!("job_configuration/JobConfigurationRetired")],
    }
}

/// A job configuration was defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationDefined {
    pub organization_id: Uuid,
    pub name: String,
    /// Argument list; the first argument is the program.
    pub command: Vec<String>,
    /// Maximum run time, in milliseconds.
    pub timeout_ms: i64,
}

/// A job configuration was replaced. Existing jobs keep their copy of the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationRevised {
    pub organization_id: Uuid,
    pub name: String,
    /// Argument list; the first argument is the program.
    pub command: Vec<String>,
    /// Maximum run time, in milliseconds.
    pub timeout_ms: i64,
}

/// The configuration was retired: no new jobs can be created from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfigurationRetired {
    pub organization_id: Uuid,
}
