//! One line of prose.

/// A piece of prose and where it stands.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: String,
}
