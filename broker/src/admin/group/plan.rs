//! New offsets of a group, out of what is asked for and what there is: as Kafka has it.

/// Where a partition of a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    Earliest,
    Latest,
    /// Where it is.
    Current,
    Offset(i64),
    ShiftBy(i64),
    /// At the first record from some time on; none when no record is that new.
    Found(Option<i64>),
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// What the group has committed, if anything.
    pub(super) committed: Option<i64>,
    pub(super) earliest: i64,
    pub(super) latest: i64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) offset: i64,
    pub(super) note: Option<&'static str>,
}

const NOTHING_COMMITTED: &str = "nothing was committed: the end";
const NOTHING_SO_NEW: &str = "no record is that new: the end";
const BELOW: &str = "the first one there is";
const ABOVE: &str = "the last one there is";

/// The new offset; none where there is nothing to shift from.
pub(super) fn plan(aim: Aim, known: Known) -> Option<Planned> {
    let exactly = |offset| Planned { offset, note: None };
    let end = |note| Planned { offset: known.latest, note: Some(note) };
    Some(match aim {
        Aim::Earliest => exactly(known.earliest),
        Aim::Latest => exactly(known.latest),
        Aim::Current => known.committed.map_or(end(NOTHING_COMMITTED), exactly),
        Aim::Offset(offset) => within(offset, known),
        Aim::ShiftBy(by) => within(known.committed?.saturating_add(by), known),
        Aim::Found(found) => found.map_or(end(NOTHING_SO_NEW), exactly),
    })
}

/// The offset, or the nearest one that the partition has.
fn within(offset: i64, known: Known) -> Planned {
    if offset < known.earliest {
        Planned { offset: known.earliest, note: Some(BELOW) }
    } else if offset > known.latest {
        Planned { offset: known.latest, note: Some(ABOVE) }
    } else {
        Planned { offset, note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stay_within_what_a_partition_has_and_say_so() {
        let known = Known { committed: Some(20), earliest: 10, latest: 30 };
        let table = [
            (Aim::Earliest, 10, None),
            (Aim::Latest, 30, None),
            (Aim::Current, 20, None),
            (Aim::Offset(10), 10, None),
            (Aim::Offset(30), 30, None),
            (Aim::Offset(9), 10, Some(BELOW)),
            (Aim::Offset(-1), 10, Some(BELOW)),
            (Aim::Offset(31), 30, Some(ABOVE)),
            (Aim::ShiftBy(5), 25, None),
            (Aim::ShiftBy(-5), 15, None),
            (Aim::ShiftBy(11), 30, Some(ABOVE)),
            (Aim::ShiftBy(i64::MIN), 10, Some(BELOW)),
            (Aim::ShiftBy(i64::MAX), 30, Some(ABOVE)),
            (Aim::Found(Some(12)), 12, None),
            (Aim::Found(None), 30, Some(NOTHING_SO_NEW)),
        ];
        for (aim, offset, note) in table {
            assert_eq!(plan(aim, known), Some(Planned { offset, note }), "{aim:?}");
        }
    }

    #[test]
    fn without_a_committed_offset_current_is_the_end_and_nothing_can_be_shifted() {
        let known = Known { committed: None, earliest: 10, latest: 30 };
        let end = Planned { offset: 30, note: Some(NOTHING_COMMITTED) };
        assert_eq!(plan(Aim::Current, known), Some(end));
        assert_eq!(plan(Aim::ShiftBy(1), known), None);
    }

    #[test]
    fn what_is_committed_stays_as_it_is_even_outside_of_what_there_is() {
        let known = Known { committed: Some(3), earliest: 10, latest: 30 };
        assert_eq!(plan(Aim::Current, known), Some(Planned { offset: 3, note: None }));
    }
}
