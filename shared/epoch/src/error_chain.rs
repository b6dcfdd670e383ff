//! Errors as text, with their causes.

use std::error::Error;

/// Formats an error and its sources in one line, separated by `: `.
///
/// For logs, and for errors that carry only text: the outermost text alone does not name the cause.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors, such as librdkafka's, already end with the text of their source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::error_chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: &'static str,
        source: Option<Box<Failure>>,
    }

    #[test]
    fn error_chain_names_each_cause_once() {
        let refused = Failure { text: "refused", source: None };
        let sending = Failure { text: "sending failed: refused", source: Some(Box::new(refused)) };
        let publishing = Failure { text: "cannot publish", source: Some(Box::new(sending)) };
        assert_eq!(error_chain(&publishing), "cannot publish: sending failed: refused");
    }
}
