//! Sharing rules: how linked jobs share a file.

use epoch::Timestamp;

use crate::validation::InvalidInput;

/// The rule by which linked jobs share a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SharingRule {
    /// All linked jobs share the file.
    #[default]
    Split,
    /// A file is attributed only while all linked jobs belong to one user; otherwise it is unattributed. A
    /// job whose creator is unknown counts as a user of its own, since it may belong to any user.
    UnsharedOnly,
}

impl SharingRule {
    /// Parses the name of a rule.
    ///
    /// # Errors
    /// [`InvalidInput`] for an unknown name.
    pub fn parse(name: &str) -> Result<Self, InvalidInput> {
        match name {
            "split" => Ok(SharingRule::Split),
            "unshared_only" => Ok(SharingRule::UnsharedOnly),
            other => Err(InvalidInput::new("split", format!("unknown rule {other:?}"))),
        }
    }

    /// Returns the name in JSON and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SharingRule::Split => "split",
            SharingRule::UnsharedOnly => "unshared_only",
        }
    }
}

/// Sharing rules over time: each applies from its instant. Files are split before the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharingRules(pub(super) Vec<(Timestamp, SharingRule)>);

impl SharingRules {
    /// Returns the rule that applies at the end.
    #[must_use]
    pub fn last(&self) -> SharingRule {
        self.0.last().map_or(SharingRule::Split, |(_, rule)| *rule)
    }

    /// Returns whether a rule depends on the users of jobs.
    #[must_use]
    pub fn need_users(&self) -> bool {
        self.0.iter().any(|(_, rule)| *rule == SharingRule::UnsharedOnly)
    }
}

/// One rule for all time.
impl From<SharingRule> for SharingRules {
    fn from(rule: SharingRule) -> Self {
        [(Timestamp::from_millis(i64::MIN), rule)].into_iter().collect()
    }
}

/// Rules in order of time.
impl FromIterator<(Timestamp, SharingRule)> for SharingRules {
    fn from_iter<I: IntoIterator<Item = (Timestamp, SharingRule)>>(rules_by_time: I) -> Self {
        let mut rules = Self::default();
        for (from, rule) in rules_by_time {
            if rules.last() != rule {
                rules.0.push((from, rule));
            }
        }
        rules
    }
}
