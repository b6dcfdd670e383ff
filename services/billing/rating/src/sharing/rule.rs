//! Sharing rules: how a file is shared by the jobs that are linked to it.

use epoch::Timestamp;

use crate::validation::Refused;

/// How a file is shared by the jobs it is linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rule {
    /// Among all of them.
    #[default]
    Split,
    /// Only a file whose jobs are all of one user is attributed to them; one that users share is unattributed. A job of nobody known
    /// counts as a user of its own: that two of them are of one isn't known.
    UnsharedOnly,
}

impl Rule {
    /// The rule of this name.
    ///
    /// # Errors
    /// [`Refused`] when there is none.
    pub fn named(name: &str) -> Result<Self, Refused> {
        match name {
            "split" => Ok(Rule::Split),
            "unshared_only" => Ok(Rule::UnsharedOnly),
            other => Err(Refused::new("split", format!("there is no rule {other:?}"))),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Split => "split",
            Rule::UnsharedOnly => "unshared_only",
        }
    }
}

/// Which rule applies when: each from its instant on; before the first, files are split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(pub(super) Vec<(Timestamp, Rule)>);

impl Rules {
    /// The one that applies in the end.
    #[must_use]
    pub fn last(&self) -> Rule {
        self.0.last().map_or(Rule::Split, |(_, rule)| *rule)
    }

    /// Whether any of them asks whose the jobs are.
    #[must_use]
    pub fn ask_whose(&self) -> bool {
        self.0.iter().any(|(_, rule)| *rule == Rule::UnsharedOnly)
    }
}

/// One rule, always.
impl From<Rule> for Rules {
    fn from(rule: Rule) -> Self {
        [(Timestamp::from_millis(i64::MIN), rule)].into_iter().collect()
    }
}

/// In order of time.
impl FromIterator<(Timestamp, Rule)> for Rules {
    fn from_iter<I: IntoIterator<Item = (Timestamp, Rule)>>(all: I) -> Self {
        let mut rules = Self::default();
        for (from, rule) in all {
            if rules.last() != rule {
                rules.0.push((from, rule));
            }
        }
        rules
    }
}
