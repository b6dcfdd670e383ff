//! What the service can be asked about: tables that follow events.

pub(crate) mod job_configurations;
pub(crate) mod job_status;
pub(crate) mod jobs;
pub(crate) mod known_files;
