//! The type of a machine, as whoever runs it calls it.
//!
//! The problem: what a machine says about itself gets into events that are kept for good, and into every bill.
//!
//! The invariant: a type is 1 to [`MAX_LENGTH`] characters of `a-z`, `0-9`, `.`, `_` and `-`, the first of them a letter or a digit.

use std::{fmt, str::FromStr};

/// The most characters.
pub const MAX_LENGTH: usize = 63;
/// The type of a machine that doesn't say.
pub const DEFAULT: &str = "default";

/// Why a type isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMachineType {
    /// It is too long, or nothing.
    #[error("must have 1 to {MAX_LENGTH} characters")]
    Length,
    /// It has other characters.
    #[error("must have no characters but a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit")]
    Characters,
}

/// A machine's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineType(String);

impl MachineType {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MachineType {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for MachineType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for MachineType {
    type Err = InvalidMachineType;

    fn from_str(text: &str) -> Result<Self, InvalidMachineType> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(InvalidMachineType::Length);
        }
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = |byte: u8| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
        if !text.bytes().all(fits) || !text.bytes().next().is_some_and(alphanumeric) {
            return Err(InvalidMachineType::Characters);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidMachineType, MAX_LENGTH, MachineType};

    #[test]
    fn has_a_length_and_a_set_of_characters() {
        for fine in ["default", "a", "9", "c7.large", "gpu_a100-80", &"x".repeat(MAX_LENGTH)] {
            assert_eq!(fine.parse::<MachineType>().map(|kind| kind.to_string()), Ok(fine.to_owned()));
        }
        for length in ["", &"x".repeat(MAX_LENGTH + 1)] {
            assert_eq!(length.parse::<MachineType>(), Err(InvalidMachineType::Length));
        }
        for odd in [" ", "Large", "ä", "a b", "a/b", "-a", ".a", "_a", "a\n", "a\0"] {
            assert_eq!(odd.parse::<MachineType>(), Err(InvalidMachineType::Characters), "{odd:?}");
        }
        assert_eq!(MachineType::default().as_str(), "default");
    }
}
