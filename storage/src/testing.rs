//! Batches for tests.

use bytes::Bytes;
use heizer_wire::record_batch::{BatchHeader, HEADER_BYTES, LENGTH_END};

/// A batch to be made.
#[derive(Clone, Debug)]
pub(crate) struct BatchSpec {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) timestamp: i64,
    pub(crate) value: Vec<u8>,
    pub(crate) records: i32,
    pub(crate) base_offset: i64,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self {
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            leader_epoch: -1,
            timestamp: 1000,
            value: b"value".to_vec(),
            records: 1,
            base_offset: 0,
        }
    }
}

impl BatchSpec {
    pub(crate) fn records(mut self, records: i32) -> Self {
        self.records = records;
        self
    }

    pub(crate) fn base_offset(mut self, base_offset: i64) -> Self {
        self.base_offset = base_offset;
        self
    }

    pub(crate) fn header(&self) -> BatchHeader {
        BatchHeader::parse(&self.bytes()).expect("a batch of our own")
    }

    /// A whole batch with a right CRC; the i-th record has timestamp `timestamp + i`.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut body = Vec::new();
        for at in 0..self.records {
            let mut record = vec![0];
            varint(&mut record, at.into());
            varint(&mut record, at.into());
            varint(&mut record, -1);
            varint(&mut record, self.value.len() as i64);
            record.extend_from_slice(&self.value);
            varint(&mut record, 0);
            varint(&mut body, record.len() as i64);
            body.extend_from_slice(&record);
        }
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            batch_length: i32::try_from(HEADER_BYTES - LENGTH_END + body.len()).expect("small"),
            partition_leader_epoch: self.leader_epoch,
            crc: 0,
            attributes: 0,
            last_offset_delta: self.records - 1,
            base_timestamp: self.timestamp,
            max_timestamp: self.timestamp + i64::from(self.records) - 1,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.records,
        };
        header.crc = crc32c::crc32c_append(crc32c::crc32c(&header.encode()[21..]), &body);
        [&header.encode()[..], &body].concat().into()
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}
