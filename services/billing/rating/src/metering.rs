//! Metering: from file and job events to byte-milliseconds and run milliseconds.

pub mod anomaly;
pub mod compute;
pub mod level;
pub mod pairing;
pub mod run;
pub mod storage;
