//! What the service decides. Pure: no I/O, no clock, no `async`.

pub mod job;
pub mod job_configuration;
pub mod machine_type;
pub mod reported_instant;
pub mod validation;
