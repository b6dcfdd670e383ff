//! E-mail addresses, by which people are recognised.
//!
//! The problem: the same person must not become two users because an address was written in another way.
//!
//! The invariant: an [`Email`] is visible ASCII with one `@` between two parts, so that comparing it without regard to case
//! means the same everywhere. Whether anybody reads mail there is not known.

/// An e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// Why text is not an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// It is too long (RFC 5321, section 4.5.3.1.3).
    #[error("an e-mail address has at most {} characters", Email::MAX_BYTES)]
    TooLong,
    /// It isn't two parts around an `@`, in visible ASCII.
    #[error("an e-mail address reads name@domain, in visible ASCII characters")]
    Malformed,
}

impl Email {
    /// The longest address.
    pub const MAX_BYTES: usize = 254;

    /// The address in `text`, without the space around it.
    ///
    /// # Errors
    /// [`EmailError`] when it is not an address.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let email = text.trim();
        if email.len() > Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        let (name, domain) = email.split_once('@').ok_or(EmailError::Malformed)?;
        let is_whole = !name.is_empty() && !domain.is_empty() && !domain.contains('@');
        if !is_whole || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EmailError::Malformed);
        }
        Ok(Self(email.to_owned()))
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Email, EmailError};

    #[test]
    fn takes_addresses_as_they_are_written() {
        for text in ["ada@example.org", "Ada.Lovelace+jobs@Example.ORG", "a@b"] {
            assert_eq!(Email::parse(&format!(" {text} ")).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_anything_else() {
        for text in
            ["", "ada", "@example.org", "ada@", "a@b@c", "a da@example.org", "ada@ex\tample.org", "ädä@example.org"]
        {
            assert_eq!(Email::parse(text), Err(EmailError::Malformed), "{text:?}");
        }
        assert_eq!(Email::parse(&format!("{}@b", "a".repeat(253))), Err(EmailError::TooLong));
    }
}
