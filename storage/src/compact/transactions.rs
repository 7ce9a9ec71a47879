//! What a round knows of the transactions in its range.
//!
//! A batch of a transaction is data or nothing depending on a marker that comes after it, maybe in a later segment. So
//! at the first such batch the round surveys the headers from there on, up to the high watermark. Logs without
//! transactions never pay for that.

use heizer_runtime::collections::{HashMap, HashSet};
use heizer_wire::record_batch::{BatchHeader, UnpackedBatch};

/// What a survey remembers at most, aborted and open transactions together: some tens of bytes each. Transactions
/// beyond count as undecided, and the round ends before them.
const TRANSACTIONS_MAX: usize = 1 << 17;

/// Key of a control record: version and type, two bytes each.
const MARKER_ABORT: [u8; 2] = [0, 0];
const MARKER_COMMIT: [u8; 2] = [0, 1];

/// What the records of a batch count as.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Of no transaction, or of a committed one.
    Committed,
    /// Of an aborted one: they go at once.
    Aborted,
    /// Nobody can tell yet. Nothing from here on is cleaned.
    Undecided,
}

/// How a transaction ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Commit,
    Abort,
}

impl Marker {
    /// The marker in a control batch; none in one of another kind, and in an empty one.
    pub(crate) fn of(batch: &UnpackedBatch) -> Option<Self> {
        let key = batch.records().next()?.ok()?.key?;
        match *key.get(2..)?.first_chunk()? {
            MARKER_ABORT => Some(Marker::Abort),
            MARKER_COMMIT => Some(Marker::Commit),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Transactions {
    /// Per producer the aborted ones, in order: their first offset, their marker's.
    aborted: HashMap<i64, Vec<(i64, i64)>>,
    /// Without a marker so far: per producer the first offset.
    open: HashMap<i64, i64>,
    count: usize,
    /// The survey came this far, exclusive; none without a survey.
    surveyed_to: Option<i64>,
    /// Producers whose records have been seen since their last marker, in the pass that is under way.
    live: HashSet<i64>,
}

impl Transactions {
    /// Whether the survey is due because of this batch, the first one of a transaction.
    pub(crate) fn wants_survey(&self, header: &BatchHeader) -> bool {
        self.surveyed_to.is_none() && is_data(header)
    }

    /// Takes in a batch of the survey, the next one in order, with its marker if it is a control batch. `false`: the
    /// survey ends before it.
    pub(crate) fn survey(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        self.surveyed_to = Some(header.base_offset);
        let producer = header.producer_id;
        if header.is_control() {
            if marker.is_some()
                && let Some(first) = self.open.remove(&producer)
            {
                match marker {
                    Some(Marker::Abort) => {
                        self.aborted.entry(producer).or_default().push((first, header.base_offset));
                    }
                    _ => self.count -= 1,
                }
            }
        } else if is_data(header) && !self.open.contains_key(&producer) {
            if self.count == TRANSACTIONS_MAX {
                return false;
            }
            self.count += 1;
            self.open.insert(producer, header.base_offset);
        }
        self.surveyed_to = Some(header.next_offset());
        true
    }

    /// What a batch counts as that is no control batch.
    pub(crate) fn verdict(&self, header: &BatchHeader) -> Verdict {
        if !is_data(header) {
            return Verdict::Committed;
        }
        let (producer, offset) = (header.producer_id, header.base_offset);
        let open = self.open.get(&producer).is_some_and(|&first| offset >= first);
        if open || self.surveyed_to.is_none_or(|to| offset >= to) {
            return Verdict::Undecided;
        }
        let aborted = self.aborted.get(&producer).is_some_and(|ranges| {
            let after = ranges.partition_point(|&(first, _)| first <= offset);
            after > 0 && offset < ranges[after - 1].1
        });
        if aborted { Verdict::Aborted } else { Verdict::Committed }
    }

    /// Pass 2 comes by a batch with records: the marker of its transaction is needed still.
    pub(crate) fn saw_data(&mut self, header: &BatchHeader) {
        if is_data(header) {
            self.live.insert(header.producer_id);
        }
    }

    /// Pass 2 comes by a control batch. Whether no record of its transaction is left, so that it is not needed any more.
    pub(crate) fn saw_marker(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        marker.is_some() && !self.live.remove(&header.producer_id)
    }
}

/// Whether the batch holds records of a transaction.
fn is_data(header: &BatchHeader) -> bool {
    header.is_transactional() && !header.is_control() && header.record_count > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchSpec;

    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;

    fn batch(producer_id: i64, base_offset: i64, attributes: i16) -> BatchHeader {
        let spec = BatchSpec { producer_id, producer_epoch: 0, base_sequence: 0, ..BatchSpec::default() };
        BatchHeader { attributes, ..spec.base_offset(base_offset).header() }
    }

    /// contract L9, T2
    #[test]
    fn batches_count_as_their_marker_says_and_without_one_nobody_can_tell() {
        let mut all = Transactions::default();
        let log = [
            (batch(1, 0, TRANSACTIONAL), None),
            (batch(2, 1, TRANSACTIONAL), None),
            (batch(3, 2, 0), None),
            (batch(1, 3, TRANSACTIONAL | CONTROL), Some(Marker::Abort)),
            (batch(1, 4, TRANSACTIONAL), None),
            (batch(2, 5, TRANSACTIONAL | CONTROL), Some(Marker::Commit)),
            (batch(2, 6, TRANSACTIONAL), None),
            (batch(1, 7, TRANSACTIONAL | CONTROL), Some(Marker::Commit)),
        ];
        assert!(all.wants_survey(&log[0].0) && !all.wants_survey(&log[2].0) && !all.wants_survey(&log[3].0));
        for (header, marker) in &log {
            assert!(all.survey(header, *marker));
        }
        assert!(!all.wants_survey(&log[0].0));
        let verdicts = [(0, Verdict::Aborted), (1, Verdict::Committed), (2, Verdict::Committed)];
        for (at, verdict) in verdicts.into_iter().chain([(4, Verdict::Committed), (6, Verdict::Undecided)]) {
            assert_eq!(all.verdict(&log[at].0), verdict, "batch {at}");
        }
        assert_eq!(all.verdict(&batch(9, 8, TRANSACTIONAL)), Verdict::Undecided, "beyond the survey");
        assert_eq!(all.verdict(&batch(9, 8, 0)), Verdict::Committed);
    }

    /// contract L9: the marker only after the data.
    #[test]
    fn a_marker_is_needed_while_a_record_of_its_transaction_is_there() {
        let mut all = Transactions::default();
        let marker = batch(1, 5, TRANSACTIONAL | CONTROL);
        all.saw_data(&batch(1, 0, TRANSACTIONAL));
        all.saw_data(&batch(2, 1, 0));
        assert!(!all.saw_marker(&marker, Some(Marker::Abort)), "its data was there");
        assert!(all.saw_marker(&marker, Some(Marker::Commit)), "nothing came after the last marker");
        assert!(!all.saw_marker(&marker, None), "another kind of control batch stays");
        let emptied = BatchHeader { record_count: 0, ..batch(1, 0, TRANSACTIONAL) };
        all.saw_data(&emptied);
        assert!(all.saw_marker(&marker, Some(Marker::Abort)), "a header without records is no data");
    }
}
