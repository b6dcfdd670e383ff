//! What a file is: commands, decisions, state. No I/O.

pub mod file;
pub mod range;
pub mod validation;
