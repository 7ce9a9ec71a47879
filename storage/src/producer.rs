//! What the log knows of idempotent producers (contract T1), and Kafka's snapshot file of it.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use heizer_runtime::collections::HashMap;
use heizer_wire::record_batch::BatchHeader;

use crate::error::ProducerError;

/// Batches remembered per producer.
const BATCHES_MAX: usize = 5;
const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_PREFIX_BYTES: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct KnownBatch {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
}

impl KnownBatch {
    fn first_sequence(&self) -> i32 {
        // Going back d in a circle of 2^31 is going forward 2^31 - d.
        let sum = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        i32::try_from(sum.rem_euclid(i64::from(i32::MAX) + 1)).expect("reduced below 2^31")
    }
}

/// One producer id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<KnownBatch>,
    last_seen_ms: i64,
    coordinator_epoch: i32,
    open_transaction: Option<i64>,
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            last_seen_ms: -1,
            coordinator_epoch: -1,
            open_transaction: None,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }

    fn take(&mut self, batch: &BatchHeader, seen_ms: i64) {
        self.last_seen_ms = self.last_seen_ms.max(seen_ms);
        if batch.producer_epoch > self.epoch || (batch.producer_epoch != self.epoch && !batch.is_control()) {
            self.epoch = batch.producer_epoch;
            self.batches.clear();
        }
        if batch.is_control() {
            self.open_transaction = None;
            return;
        }
        // A header that compaction has left of a batch opens nothing: its marker may be gone.
        if batch.is_transactional() && batch.record_count > 0 {
            self.open_transaction.get_or_insert(batch.base_offset);
        }
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(KnownBatch {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
        });
    }
}

/// What a snapshot says of one producer id.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence of its last record, -1 without one.
    pub last_sequence: i32,
    /// The offset of its last record, -1 without one.
    pub last_offset: i64,
    /// The distance from the first to the last record of its last batch.
    pub offset_delta: i32,
    /// The last time it was heard of, in ms.
    pub last_seen_ms: i64,
    /// The epoch of its transaction coordinator, -1 without one.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts, if it has one.
    pub open_transaction: Option<i64>,
}

/// What a client's batch is to the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is here already, at these offsets.
    Duplicate {
        base_offset: i64,
        last_offset: i64,
    },
}

/// All producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, Producer>,
}

impl ProducerState {
    /// Checks a client's batch against what is known. Nothing changes; [`take`](Self::take) follows the append.
    pub(crate) fn check(&self, batch: &BatchHeader) -> Result<Verdict, ProducerError> {
        let producer_id = batch.producer_id;
        // KIP-360: an id that we know nothing of (any more) may start anywhere.
        let Some(known) = self.producers.get(&producer_id).filter(|_| batch.has_producer_id()) else {
            return Ok(Verdict::Append);
        };
        if batch.producer_epoch < known.epoch {
            let (current, got) = (known.epoch, batch.producer_epoch);
            return Err(ProducerError::InvalidEpoch { producer_id, current, got });
        }
        let out_of_order =
            |last| Err(ProducerError::OutOfOrderSequence { producer_id, last, got: batch.base_sequence });
        if batch.producer_epoch > known.epoch {
            return if batch.base_sequence == 0 { Ok(Verdict::Append) } else { out_of_order(-1) };
        }
        let range = (batch.base_sequence, batch.last_sequence());
        let same = |known: &&KnownBatch| (known.first_sequence(), known.last_sequence) == range;
        if let Some(original) = known.batches.iter().find(same) {
            let base_offset = original.last_offset - i64::from(original.offset_delta);
            return Ok(Verdict::Duplicate { base_offset, last_offset: original.last_offset });
        }
        let last = known.last_sequence();
        // -1 becomes 0, and so does the greatest int32.
        let expected = last.wrapping_add(1) & i32::MAX;
        if batch.base_sequence == expected { Ok(Verdict::Append) } else { out_of_order(last) }
    }

    /// Takes in a batch that is in the log now.
    pub(crate) fn take(&mut self, batch: &BatchHeader, seen_ms: i64) {
        if batch.has_producer_id() {
            let epoch = batch.producer_epoch;
            let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer::new(epoch));
            producer.take(batch, seen_ms);
        }
    }

    /// What is known of these ids alone.
    pub(crate) fn only(&self, ids: impl Iterator<Item = i64>) -> Self {
        let known = ids.filter_map(|id| self.producers.get(&id).map(|producer| (id, producer.clone())));
        Self { producers: known.collect() }
    }

    /// Whether `batch` may be the last one of its producer that a crash leaves, so that it must outlive its records
    /// (contract L9): no later one below `committed` is known. Of a producer without data, that is its last marker.
    pub(crate) fn may_be_last_batch(&self, batch: &BatchHeader, committed: i64) -> bool {
        let producer = self.producers.get(&batch.producer_id).filter(|_| batch.has_producer_id());
        producer.is_some_and(|producer| match producer.batches.is_empty() {
            true => batch.is_control() && batch.producer_epoch == producer.epoch,
            false => {
                let later = batch.next_offset()..committed;
                !batch.is_control()
                    && !producer.batches.iter().any(|known| later.contains(&known.last_offset))
            }
        })
    }

    /// The first offset of the oldest transaction without a marker.
    pub(crate) fn first_open_transaction(&self) -> Option<i64> {
        self.producers.values().filter_map(|producer| producer.open_transaction).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn clear(&mut self) {
        self.producers.clear();
    }

    /// Forgets ids that were silent for `expiration_ms` and hold no transaction open. Returns how many.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.open_transaction.is_some()
                || now_ms.saturating_sub(producer.last_seen_ms) < expiration_ms
        });
        before - self.producers.len()
    }

    /// What a snapshot would say, by producer id.
    pub(crate) fn entries(&self) -> Vec<ProducerEntry> {
        let entry = |(&producer_id, producer): (&i64, &Producer)| {
            let last = producer.batches.back();
            ProducerEntry {
                producer_id,
                epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_offset: last.map_or(-1, |batch| batch.last_offset),
                offset_delta: last.map_or(0, |batch| batch.offset_delta),
                last_seen_ms: producer.last_seen_ms,
                coordinator_epoch: producer.coordinator_epoch,
                open_transaction: producer.open_transaction,
            }
        };
        let mut entries: Vec<_> = self.producers.iter().map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.producer_id);
        entries
    }

    /// A `.snapshot` file: version, CRC32C of what follows, count, entries.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut ids: Vec<_> = self.producers.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        let mut out = Vec::with_capacity(SNAPSHOT_PREFIX_BYTES + 4 + ids.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let count = i32::try_from(ids.len()).expect("producer ids of one log are far below 2^31");
        out.extend_from_slice(&count.to_be_bytes());
        for (id, producer) in ids {
            let last = producer.batches.back();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_sequence().to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, |batch| batch.last_offset).to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            out.extend_from_slice(&producer.last_seen_ms.to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&producer.open_transaction.unwrap_or(-1).to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[SNAPSHOT_PREFIX_BYTES..]);
        out[2..SNAPSHOT_PREFIX_BYTES].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// All that is known, where a `.snapshot` has each producer's last batch alone: a count, then each producer.
    pub(crate) fn encode_whole(&self, out: &mut Vec<u8>) {
        out.put_u32(u32::try_from(self.producers.len()).expect("producer ids of one log are far below 2^32"));
        let mut ids: Vec<_> = self.producers.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for (id, producer) in ids {
            out.put_i64(*id);
            out.put_i16(producer.epoch);
            out.put_i64(producer.last_seen_ms);
            out.put_i32(producer.coordinator_epoch);
            out.put_i64(producer.open_transaction.unwrap_or(-1));
            out.put_u8(u8::try_from(producer.batches.len()).expect("BATCHES_MAX"));
            for batch in &producer.batches {
                out.put_i32(batch.last_sequence);
                out.put_i64(batch.last_offset);
                out.put_i32(batch.offset_delta);
            }
        }
    }

    /// What [`encode_whole`](Self::encode_whole) has put at the front of `rest`.
    pub(crate) fn decode_whole(rest: &mut &[u8]) -> Option<Self> {
        let mut state = Self::default();
        for _ in 0..rest.try_get_u32().ok()? {
            let id = rest.try_get_i64().ok()?;
            let mut producer = Producer::new(rest.try_get_i16().ok()?);
            producer.last_seen_ms = rest.try_get_i64().ok()?;
            producer.coordinator_epoch = rest.try_get_i32().ok()?;
            producer.open_transaction = Some(rest.try_get_i64().ok()?).filter(|&start| start >= 0);
            let batches = usize::from(rest.try_get_u8().ok()?);
            if batches > BATCHES_MAX {
                return None;
            }
            for _ in 0..batches {
                producer.batches.push_back(KnownBatch {
                    last_sequence: rest.try_get_i32().ok()?,
                    last_offset: rest.try_get_i64().ok()?,
                    offset_delta: rest.try_get_i32().ok()?,
                });
            }
            state.producers.insert(id, producer);
        }
        Some(state)
    }

    /// `None` unless the file is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let version = i16::from_be_bytes(*bytes.first_chunk()?);
        let crc = u32::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        let body = bytes.get(SNAPSHOT_PREFIX_BYTES..)?;
        if version != SNAPSHOT_VERSION || crc32c::crc32c(body) != crc {
            return None;
        }
        let count = usize::try_from(i32::from_be_bytes(*body.first_chunk()?)).ok()?;
        let (entries, rest) = body[4..].as_chunks::<SNAPSHOT_ENTRY_BYTES>();
        if entries.len() != count || !rest.is_empty() {
            return None;
        }
        let mut state = Self::default();
        for entry in entries {
            let (id, producer) = decode_entry(entry);
            state.producers.insert(id, producer);
        }
        Some(state)
    }
}

fn decode_entry(entry: &[u8; SNAPSHOT_ENTRY_BYTES]) -> (i64, Producer) {
    fn field<const N: usize>(entry: &[u8; SNAPSHOT_ENTRY_BYTES], at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&entry[at..at + N]);
        out
    }
    let last_sequence = i32::from_be_bytes(field(entry, 10));
    let batch = KnownBatch {
        last_sequence,
        last_offset: i64::from_be_bytes(field(entry, 14)),
        offset_delta: i32::from_be_bytes(field(entry, 22)),
    };
    let open_transaction = i64::from_be_bytes(field(entry, 38));
    let producer = Producer {
        epoch: i16::from_be_bytes(field(entry, 8)),
        batches: (last_sequence >= 0).then_some(batch).into_iter().collect(),
        last_seen_ms: i64::from_be_bytes(field(entry, 26)),
        coordinator_epoch: i32::from_be_bytes(field(entry, 34)),
        open_transaction: (open_transaction >= 0).then_some(open_transaction),
    };
    (i64::from_be_bytes(field(entry, 0)), producer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchSpec;

    fn batch(epoch: i16, sequence: i32, records: i32, offset: i64) -> BatchHeader {
        let spec = BatchSpec {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            ..BatchSpec::default()
        };
        spec.records(records).base_offset(offset).header()
    }

    fn with(batches: &[(i16, i32, i32, i64)]) -> ProducerState {
        let mut state = ProducerState::default();
        for &(epoch, sequence, records, offset) in batches {
            state.take(&batch(epoch, sequence, records, offset), 1000);
        }
        state
    }

    /// contract T1
    #[test]
    fn a_duplicate_gets_its_original_offset_while_it_is_among_the_last_five() {
        let state =
            with(&[(0, 0, 2, 10), (0, 2, 1, 20), (0, 3, 3, 30), (0, 6, 1, 40), (0, 7, 1, 50), (0, 8, 1, 60)]);
        let original = Verdict::Duplicate { base_offset: 30, last_offset: 32 };
        assert_eq!(state.check(&batch(0, 3, 3, 0)), Ok(original));
        assert!(state.check(&batch(0, 3, 2, 0)).is_err(), "another range is no duplicate");
        assert!(state.check(&batch(0, 0, 2, 0)).is_err(), "the sixth last is forgotten");
        assert_eq!(state.check(&batch(0, 9, 1, 0)), Ok(Verdict::Append));
    }

    /// contract T1
    #[test]
    fn gaps_are_refused_unknown_ids_start_anywhere_and_new_epochs_start_at_zero() {
        let state = with(&[(3, 100, 5, 0)]);
        let gap = ProducerError::OutOfOrderSequence { producer_id: 7, last: 104, got: 106 };
        assert_eq!(state.check(&batch(3, 106, 1, 0)), Err(gap));
        assert_eq!(state.check(&batch(3, 105, 1, 0)), Ok(Verdict::Append));
        assert_eq!(ProducerState::default().check(&batch(3, 55, 1, 0)), Ok(Verdict::Append), "KIP-360");
        assert_eq!(state.check(&batch(4, 0, 1, 0)), Ok(Verdict::Append));
        assert!(matches!(state.check(&batch(4, 105, 1, 0)), Err(ProducerError::OutOfOrderSequence { .. })));
        let fenced = ProducerError::InvalidEpoch { producer_id: 7, current: 3, got: 2 };
        assert_eq!(state.check(&batch(2, 105, 1, 0)), Err(fenced));
    }

    /// contract T1
    #[test]
    fn sequences_wrap_at_int32() {
        let state = with(&[(0, i32::MAX - 1, 2, 0)]);
        assert_eq!(state.check(&batch(0, 0, 1, 0)), Ok(Verdict::Append));
        let state = with(&[(0, i32::MAX - 1, 4, 10)]);
        assert_eq!(state.check(&batch(0, 2, 1, 0)), Ok(Verdict::Append));
        let again = Verdict::Duplicate { base_offset: 10, last_offset: 13 };
        assert_eq!(state.check(&batch(0, i32::MAX - 1, 4, 0)), Ok(again));
    }

    #[test]
    fn silent_ids_expire() {
        let mut state = with(&[(0, 0, 1, 0)]);
        assert_eq!(state.expire(1999, 1000), 0);
        assert_eq!((state.expire(2000, 1000), state.len()), (1, 0));
    }

    #[test]
    fn a_snapshot_round_trips_and_a_damaged_one_is_refused() {
        let state = with(&[(2, 5, 3, 40)]);
        let bytes = state.encode();
        assert_eq!((bytes.len(), &bytes[..2]), (10 + 46, &[0, 1][..]));
        assert_eq!(ProducerState::decode(&bytes), Some(state));
        let empty = ProducerState::default();
        assert_eq!(ProducerState::decode(&empty.encode()), Some(empty));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(ProducerState::decode(&damaged), None, "byte {at}");
            assert_eq!(ProducerState::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
