//! The decisions of the service: pure functions without I/O, clock or `async`.

pub mod job;
pub mod job_configuration;
pub mod machine_type;
pub mod reported_instant;
pub mod validation;
