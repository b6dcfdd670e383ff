//! Levels and runs: from the events of files and jobs to byte-milliseconds and run milliseconds.

pub mod anomaly;
pub mod compute;
pub mod level;
pub mod pairing;
pub mod run;
pub mod storage;
