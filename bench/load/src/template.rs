//! Batches made from one that was prepared: copied, stamped, sealed.
//!
//! Building a batch record by record costs more than sending it. All batches of a producer look alike, so one is built
//! at the start; for each that is sent it is copied, the headers of its values and its own are written anew, and the
//! CRC is computed. A compressed batch is compressed for real each time.

use bytes::Bytes;
use heizer_wire::record_batch::{
    BatchHeader, BatchOptions, Compression, HEADER_BYTES, LENGTH_END, RecordBatchBuilder, TimestampType,
    rewrite_timestamps,
};

use crate::value::{Pattern, Stamp, VALUE_BYTES_MIN};

/// Every key is this long: `key-` and eight hexadecimal digits.
pub(crate) const KEY_BYTES: usize = 12;

/// The key of this number.
pub(crate) fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"key-00000000";
    for (at, digit) in key[4..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (28 - 4 * at)) as usize & 15];
    }
    key
}

/// How the records of a producer look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) record_bytes: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) random_fraction: f64,
    pub(crate) compression: Compression,
    pub(crate) keyed: bool,
}

impl Shape {
    /// The most records in a batch.
    pub(crate) fn batch_records_max(&self) -> usize {
        (self.batch_bytes / self.record_bytes).max(1)
    }
}

/// The identity of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// One batch to make.
pub(crate) struct Batch<'a> {
    pub(crate) run: u32,
    pub(crate) producer: u32,
    /// Of the first record.
    pub(crate) sequence: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) identity: Option<Identity>,
    /// When each record was due; there are as many records.
    pub(crate) due_ns: &'a [u64],
    /// The number of each record's key, where they have one.
    pub(crate) keys: &'a [u32],
}

/// See the module.
pub(crate) struct Template {
    shape: Shape,
    random_bytes: u32,
    /// A whole batch, not compressed.
    bytes: Vec<u8>,
    header: BatchHeader,
    places: Vec<Place>,
}

/// Where a record's parts lie in the template.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: usize,
    value: usize,
    end: usize,
    position: u32,
}

impl Template {
    /// Builds the batch that all others are copied from.
    pub(crate) fn new(shape: Shape, pattern: &Pattern) -> Template {
        let filler_bytes = shape.record_bytes - VALUE_BYTES_MIN;
        let random_bytes = (filler_bytes as f64 * shape.random_fraction).round() as usize;
        let mut builder = RecordBatchBuilder::new(BatchOptions::default());
        let mut value = vec![0; shape.record_bytes];
        let mut places = Vec::new();
        for index in 0..shape.batch_records_max() {
            let position = Pattern::position(index, shape.record_bytes);
            pattern.fill(&mut value[VALUE_BYTES_MIN..], position as usize, random_bytes);
            builder.append(0, shape.keyed.then_some(&key(0)[..]), Some(&value), &[]);
            let end = builder.size_bytes();
            // Behind the value stands the count of headers, one byte; in front of it its length, behind the key.
            let value_at = end - 1 - shape.record_bytes;
            let key = value_at - length_bytes(shape.record_bytes) - KEY_BYTES * usize::from(shape.keyed);
            places.push(Place { key, value: value_at, end, position });
        }
        let bytes = builder.build();
        let header = BatchHeader::parse(&bytes).expect("just built");
        Template { shape, random_bytes: random_bytes as u32, bytes: bytes.to_vec(), header, places }
    }

    /// How its records look.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The batch, ready to be sent.
    pub(crate) fn make(&self, batch: &Batch<'_>) -> Bytes {
        let count = batch.due_ns.len();
        assert!(count >= 1 && count <= self.places.len(), "a batch is not larger than its template");
        assert_eq!(self.shape.keyed, !batch.keys.is_empty(), "keys for all records or for none");
        let mut bytes = self.bytes[..self.places[count - 1].end].to_vec();
        for (index, place) in self.places[..count].iter().enumerate() {
            let stamp = Stamp {
                run: batch.run,
                producer: batch.producer,
                position: place.position,
                random_bytes: self.random_bytes,
                sequence: batch.sequence + index as u64,
                due_ns: batch.due_ns[index],
            };
            stamp.write(&mut bytes[place.value..place.value + self.shape.record_bytes]);
            if let Some(&number) = batch.keys.get(index) {
                bytes[place.key..place.key + KEY_BYTES].copy_from_slice(&key(number));
            }
        }
        if self.shape.compression != Compression::None {
            let compressed = self.shape.compression.compress(&bytes[HEADER_BYTES..]);
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(&compressed);
        }
        let identity = batch.identity.unwrap_or(Identity { id: -1, epoch: -1 });
        let header = BatchHeader {
            batch_length: i32::try_from(bytes.len() - LENGTH_END).expect("a batch is smaller than 2 GiB"),
            attributes: i16::from(self.shape.compression.id()),
            last_offset_delta: count as i32 - 1,
            base_timestamp: batch.timestamp_ms,
            producer_id: identity.id,
            producer_epoch: identity.epoch,
            // Sequences wrap from the greatest int32 to 0 (contract T1).
            base_sequence: batch.identity.map_or(-1, |_| (batch.sequence & i32::MAX as u64) as i32),
            record_count: count as i32,
            ..self.header
        };
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        rewrite_timestamps(&mut bytes, TimestampType::CreateTime, batch.timestamp_ms);
        bytes.into()
    }
}

/// Bytes of the zigzag varint in front of a value.
fn length_bytes(value_bytes: usize) -> usize {
    let raw = (value_bytes as u64) << 1;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

/// The values in `batch`, which has to be sound.
#[cfg(test)]
pub(crate) fn values_of(batch: &Bytes) -> Vec<Vec<u8>> {
    use heizer_wire::record_batch::BatchView;
    let view = BatchView::parse(batch).expect("a batch");
    view.verify_crc().expect("its CRC is right");
    let unpacked = view.unpack(1 << 30).expect("its compression is sound");
    unpacked.records().map(|record| record.expect("sound").value.expect("a value").to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use heizer_wire::record_batch::{BatchView, ProduceRules, validate_produce};

    use super::*;

    fn shape(record_bytes: usize, batch_bytes: usize, compression: Compression, keyed: bool) -> Shape {
        Shape { record_bytes, batch_bytes, random_fraction: 0.5, compression, keyed }
    }

    fn batch<'a>(due_ns: &'a [u64], keys: &'a [u32]) -> Batch<'a> {
        let identity = Some(Identity { id: 9, epoch: 1 });
        Batch { run: 5, producer: 2, sequence: 100, timestamp_ms: 1_700_000_000_000, identity, due_ns, keys }
    }

    #[test]
    fn stamped_batches_are_what_a_broker_takes_and_a_reader_finds() {
        let pattern = Pattern::new();
        for compression in Compression::ALL {
            for (record_bytes, keyed) in [(40, false), (100, true), (1024, false), (20_000, true)] {
                let template = Template::new(shape(record_bytes, 65_536, compression, keyed), &pattern);
                for count in [1, template.shape().batch_records_max()] {
                    let due: Vec<u64> = (0..count as u64).map(|at| 1_000 + at).collect();
                    let keys: Vec<u32> = if keyed { (0..count as u32).collect() } else { Vec::new() };
                    let made = template.make(&batch(&due, &keys));
                    let rules = ProduceRules { batch_bytes_max: 1 << 20, zstd_allowed: true };
                    validate_produce(&made, &rules).expect("a broker takes it");
                    let values = values_of(&made);
                    assert_eq!(values.len(), count);
                    for (at, value) in values.iter().enumerate() {
                        let stamp = Stamp::read(value, &pattern).expect("a sound value");
                        assert_eq!(value.len(), record_bytes);
                        let told = (stamp.run, stamp.producer, stamp.sequence, stamp.due_ns);
                        assert_eq!(told, (5, 2, 100 + at as u64, 1_000 + at as u64));
                    }
                }
            }
        }
    }

    #[test]
    fn the_header_says_what_the_batch_is() {
        let template = Template::new(shape(100, 1_000, Compression::Zstd, false), &Pattern::new());
        let made = template.make(&Batch { sequence: i32::MAX as u64 + 3, ..batch(&[1, 2, 3], &[]) });
        let header = *BatchView::parse(&made).expect("a batch").header();
        assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
        assert_eq!(header.compression(), Ok(Compression::Zstd));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (9, 1, 2));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1_700_000_000_000, 1_700_000_000_000));
        let plain = template.make(&Batch { identity: None, ..batch(&[1], &[]) });
        let header = *BatchView::parse(&plain).expect("a batch").header();
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (-1, -1, -1));
    }

    #[test]
    fn keys_are_where_they_belong() {
        let template = Template::new(shape(200, 1_000, Compression::None, true), &Pattern::new());
        let made = template.make(&batch(&[1, 1], &[0, 0xdead_beef]));
        let unpacked = BatchView::parse(&made).expect("a batch").unpack(1 << 20).expect("sound");
        let keys: Vec<_> =
            unpacked.records().map(|record| record.expect("sound").key.map(<[u8]>::to_vec)).collect();
        assert_eq!(keys, [Some(b"key-00000000".to_vec()), Some(b"key-deadbeef".to_vec())]);
    }
}
