//! What a producer sends for one partition. The CRC is made right first, or nothing would get past it.
#![no_main]

use bytes::Bytes;
use heizer_wire::record_batch::{HEADER_BYTES, ProduceRules, TimestampType, batches, rewrite_timestamps};
use heizer_wire::record_batch::{validate_produce, BatchHeader};
use libfuzzer_sys::fuzz_target;

const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for batch in batches(Bytes::copy_from_slice(data)).flatten() {
        read_all(&batch);
    }
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = data.to_vec();
    let max_timestamp = BatchHeader::parse(data).map_or(0, |header| header.max_timestamp);
    rewrite_timestamps(&mut sealed, TimestampType::CreateTime, max_timestamp);
    let rules = ProduceRules { batch_bytes_max: 1 << 20, zstd_allowed: true };
    let Ok((batch, info)) = validate_produce(&sealed.into(), &rules) else { return };
    let read = read_all(&batch);
    if info.walked.is_some() {
        assert_eq!(read, Some(info.record_count as usize), "what was walked can be read");
    }
});

/// Records of the batch, if all can be read.
fn read_all(batch: &heizer_wire::record_batch::BatchView) -> Option<usize> {
    let records = batch.records(DECOMPRESSED_BYTES_MAX).ok()?;
    records.map(|record| record.ok()).collect::<Option<Vec<_>>>().map(|records| records.len())
}
