//! E-mail addresses, which identify users.
//!
//! An [`Email`] is visible ASCII with one `@` between two parts. Case-insensitive comparison therefore has the same
//! result in Rust and in Postgres, and two spellings of one address are one user. The address is not verified by mail.

/// An e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// Rejection of a text as an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// The text exceeds the limit of RFC 5321, section 4.5.3.1.3.
    #[error("an e-mail address has at most {} characters", Email::MAX_BYTES)]
    TooLong,
    /// The text is not two parts around one `@`, in visible ASCII.
    #[error("an e-mail address must be name@domain in visible ASCII characters")]
    Malformed,
}

impl Email {
    /// Maximum length of an address.
    pub const MAX_BYTES: usize = 254;

    /// Parses an address and trims surrounding whitespace. Keeps upper and lower case.
    ///
    /// # Errors
    /// [`EmailError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let email = text.trim();
        if email.len() > Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        let (name, domain) = email.split_once('@').ok_or(EmailError::Malformed)?;
        let has_two_parts = !name.is_empty() && !domain.is_empty() && !domain.contains('@');
        if !has_two_parts || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EmailError::Malformed);
        }
        Ok(Self(email.to_owned()))
    }

    /// Returns the address in its original case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Email, EmailError};

    #[test]
    fn parse_trims_and_keeps_case() {
        for text in ["ada@example.org", "Ada.Lovelace+jobs@Example.ORG", "a@b"] {
            assert_eq!(Email::parse(&format!(" {text} ")).unwrap().as_str(), text);
        }
    }

    #[test]
    fn parse_rejects_malformed_addresses() {
        for text in
            ["", "ada", "@example.org", "ada@", "a@b@c", "a da@example.org", "ada@ex\tample.org", "ädä@example.org"]
        {
            assert_eq!(Email::parse(text), Err(EmailError::Malformed), "{text:?}");
        }
        assert_eq!(Email::parse(&format!("{}@b", "a".repeat(253))), Err(EmailError::TooLong));
    }
}
