//! The file aggregate, its value types and validators. No I/O.

pub mod file;
pub mod range;
pub mod validation;
