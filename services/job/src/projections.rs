//! Read models: tables that follow the events of this service and of the file service.

pub(crate) mod job_configurations;
pub(crate) mod job_status;
pub(crate) mod jobs;
pub(crate) mod known_files;
