//! Machine types, for example `default` or `gpu-a100`.
//!
//! Operators choose the type of a machine freely, and it ends up in permanent events and in every invoice. A type has 1 to
//! [`MAX_LENGTH`] characters of `a-z`, `0-9`, `.`, `_` and `-`, and begins with a letter or a digit.

use std::{fmt, str::FromStr};

/// Maximum length, in characters.
pub const MAX_LENGTH: usize = 63;
/// Type of a machine that sends none.
pub const DEFAULT: &str = "default";

/// Validation errors of [`MachineType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMachineType {
    #[error("must have 1 to {MAX_LENGTH} characters")]
    Length,
    #[error("must consist of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit")]
    Characters,
}

/// A valid machine type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineType(String);

impl MachineType {
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
        let allowed = |byte: u8| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
        if !text.bytes().all(allowed) || !text.bytes().next().is_some_and(alphanumeric) {
            return Err(InvalidMachineType::Characters);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidMachineType, MAX_LENGTH, MachineType};

    #[test]
    fn machine_type_limits_length_and_characters() {
        for valid in ["default", "a", "9", "c7.large", "gpu_a100-80", &"x".repeat(MAX_LENGTH)] {
            assert_eq!(valid.parse::<MachineType>().map(|kind| kind.to_string()), Ok(valid.to_owned()));
        }
        for text in ["", &"x".repeat(MAX_LENGTH + 1)] {
            assert_eq!(text.parse::<MachineType>(), Err(InvalidMachineType::Length));
        }
        for invalid in [" ", "Large", "ä", "a b", "a/b", "-a", ".a", "_a", "a\n", "a\0"] {
            assert_eq!(invalid.parse::<MachineType>(), Err(InvalidMachineType::Characters), "{invalid:?}");
        }
        assert_eq!(MachineType::default().as_str(), "default");
    }
}
