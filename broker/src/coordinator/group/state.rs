//! The states of a classic group and the ways between them.

use std::fmt;

/// Where a classic group stands. Contract G4: the names are Kafka's, case and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassicState {
    /// No members; perhaps offsets.
    Empty,
    /// Waiting for its members to join.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has the current assignment at its disposal.
    Stable,
    /// On its way out: its tombstone is being written.
    Dead,
}

impl ClassicState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable, Self::Dead];

    /// Kafka's name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }

    /// Whether a group may go from this state to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use ClassicState::{CompletingRebalance, Dead, Empty, PreparingRebalance, Stable};
        match next {
            // Dead to Empty is the way back when the tombstone could not be written.
            Empty => matches!(self, PreparingRebalance | Dead),
            PreparingRebalance => matches!(self, Stable | CompletingRebalance | Empty),
            CompletingRebalance => matches!(self, PreparingRebalance),
            Stable => matches!(self, CompletingRebalance),
            Dead => true,
        }
    }
}

impl fmt::Display for ClassicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::ClassicState;

    /// Rows are where a group is, columns where it may go.
    #[test]
    fn transitions_are_those_of_the_table() {
        let table = "
            from                 Empty PreparingRebalance CompletingRebalance Stable Dead
            Empty                -     yes                -                   -      yes
            PreparingRebalance   yes   -                  yes                 -      yes
            CompletingRebalance  -     yes                -                   yes    yes
            Stable               -     yes                -                   -      yes
            Dead                 yes   -                  -                   -      yes";
        let mut rows = table.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let header = rows.next().unwrap();
        for (row, from) in rows.zip(ClassicState::ALL) {
            assert_eq!(row[0], from.name());
            for (column, to) in ClassicState::ALL.into_iter().enumerate() {
                assert_eq!(header[column + 1], to.name());
                assert_eq!(from.may_become(to), row[column + 1] == "yes", "{from} to {to}");
            }
        }
    }
}
