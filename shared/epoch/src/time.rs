//! Instants, clocks and retry delays.

pub mod clock;
pub mod retry;
pub mod timestamp;
