//! Why a check could not run.

/// A check that could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("reading {path} failed: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("git {command} failed: {detail}")]
    Git { command: String, detail: String },
    #[error("parsing {path} failed: {detail}")]
    Parse { path: String, detail: String },
    #[error("phrases.txt has an invalid expression: {0}")]
    Phrase(#[from] regex::Error),
}
