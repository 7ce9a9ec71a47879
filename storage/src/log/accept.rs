//! What recovery believes in (contract L8): decisions without I/O, the same for a start as for a look at what a start
//! would do.

use heizer_wire::record_batch::BatchHeader;

use crate::batch::crc_matches;
use crate::log::OpenMode;

/// How many segments, given as base offset and length from the first on, need no scan. `indexed` are the bases that
/// have both index files; `epochs_known` says that the epoch checkpoint could be read.
pub(crate) fn trusted_segments(
    bases: &[(i64, u64)],
    indexed: &[i64],
    mode: OpenMode,
    epochs_known: bool,
) -> usize {
    if !epochs_known && bases.iter().any(|&(_, bytes)| bytes > 0) {
        return 0;
    }
    let last = bases.len().saturating_sub(1);
    let sealed = |at: usize, base: i64, bytes: u64| {
        let complete = indexed.contains(&base) && (bytes > 0 || at == last);
        complete && (mode == OpenMode::Clean || at < last)
    };
    bases.iter().enumerate().take_while(|&(at, &(base, bytes))| sealed(at, base, bytes)).count()
}

/// Whether a batch found after an unclean stop belongs to the log (contract L8): at or above the expected offset,
/// whole by its CRC, of an epoch that does not fall. Anything else is torn or left over from before.
pub(crate) fn acceptable(
    header: &BatchHeader,
    bytes: &[u8],
    base: i64,
    expected: i64,
    epoch: Option<i32>,
) -> Result<(), String> {
    if header.base_offset < expected {
        return Err(format!("a batch at offset {} where {expected} is expected", header.base_offset));
    }
    if header.last_offset() - base > i64::from(i32::MAX) {
        return Err(format!("offset {} is out of reach of the segment", header.last_offset()));
    }
    if epoch.is_some_and(|epoch| header.partition_leader_epoch < epoch) {
        return Err(format!("leader epoch falls to {}", header.partition_leader_epoch));
    }
    if !crc_matches(header, bytes) {
        return Err("CRC does not match".to_owned());
    }
    Ok(())
}

/// Why a segment that starts at `later` cannot follow one that ends before `next_offset`, if so.
pub(crate) fn gap(next_offset: i64, later: Option<i64>) -> Option<String> {
    later.filter(|&base| base != next_offset).map(|base| format!("the next segment starts at {base}"))
}

/// Whether a scan that stops before `next_offset` stops in the middle of the log, and not at its torn end: everything below
/// `settled` was sealed or noted, and so the segment is damaged and is not to be cut.
pub(crate) fn is_settled(next_offset: i64, settled: Option<i64>) -> bool {
    settled.is_some_and(|settled| next_offset < settled)
}
