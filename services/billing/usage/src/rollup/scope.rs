//! Rollup scopes: the level that is summed up, and the subject it is grouped by.

/// The level that a rollup sums up, by subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Bytes stored by the organization.
    Storage,
    /// Running jobs of the organization.
    Running,
    /// Running jobs by user.
    RunningByUser,
    /// Running jobs by the configuration they were created from.
    RunningByConfiguration,
    /// Running jobs by machine.
    RunningByMachine,
    /// Running jobs by type of the machine.
    RunningByMachineType,
}

impl Scope {
    /// The scopes of the rollups that include a run.
    pub const OF_RUNS: [Self; 5] = [
        Self::Running,
        Self::RunningByUser,
        Self::RunningByConfiguration,
        Self::RunningByMachine,
        Self::RunningByMachineType,
    ];

    /// Returns the numbers of the meter and of the scope that are stored.
    pub(crate) const fn numbers(self) -> (i16, i16) {
        match self {
            Self::Storage => (1, 0),
            Self::Running => (2, 0),
            Self::RunningByUser => (2, 1),
            Self::RunningByConfiguration => (2, 2),
            Self::RunningByMachine => (2, 3),
            Self::RunningByMachineType => (2, 4),
        }
    }

    /// Returns the scope with these stored numbers.
    pub(crate) fn of_numbers(meter: i16, scope: i16) -> Option<Self> {
        let mut all = std::iter::once(Self::Storage).chain(Self::OF_RUNS);
        all.find(|of| of.numbers() == (meter, scope))
    }
}
