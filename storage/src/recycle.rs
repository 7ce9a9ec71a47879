//! Files for segments to come (DESIGN §5): one that retention took from the log, or one made ahead of need.
//!
//! A recycled file's blocks are on stable storage already, so that the first durable write into it needs no journal;
//! and a roll only gives a file its name. It stays within its partition, whose old bytes are all below the new
//! segment's base offset. A spare has a name that nothing takes for a segment, and goes when the log is opened, truncated,
//! deleted or no longer in a hurry.
//!
//! What follows the end of a segment is then old bytes instead of zeros. Recovery must find its end all the same: it
//! meets a header of zeros, because whoever writes up to the end of a block writes zeros behind it (see
//! [`wants_terminator`]), or where a power cut took those, a batch that [`is_left_over`].

use std::path::{Path, PathBuf};

use heizer_runtime::fs::{File, OpenOptions, WriteSync};
use heizer_wire::record_batch::BatchHeader;

use crate::batch::HEADER_BYTES;
use crate::context::StorageContext;
use crate::error::{IoContext, StorageError};
use crate::rope::to_usize;
use crate::tail::block_ceil;

/// So many spare files a partition has at most.
pub(crate) const SPARES_MAX: usize = 2;
/// A partition that fills a segment within this time gets spares.
const FILL_MS_MAX: i64 = 10 * 60 * 1000;
/// Before so much of a segment is full (one part in so many), its rate says nothing.
const RATE_SHARE: u64 = 16;
/// What a device writes whole: old bytes begin where it begins.
const SECTOR_BYTES: u64 = 512;

/// How fast the active segment fills.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Filling {
    pub(crate) bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Since its first batch.
    pub(crate) age_ms: i64,
    /// What the segment before took, if it was filled in this process.
    pub(crate) last_fill_ms: Option<i64>,
}

impl Filling {
    /// Whether the next segment is due before long.
    pub(crate) fn is_fast(&self) -> bool {
        let age_ms = self.age_ms.max(0);
        if age_ms > FILL_MS_MAX {
            return false;
        }
        if self.bytes >= self.segment_bytes / RATE_SHARE {
            let whole = age_ms.unsigned_abs().saturating_mul(self.segment_bytes) / self.bytes.max(1);
            return whole <= FILL_MS_MAX.unsigned_abs();
        }
        self.last_fill_ms.is_some_and(|took_ms| took_ms <= FILL_MS_MAX)
    }

    /// Whether the file of the next segment is to be made now.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.bytes >= self.segment_bytes / 4 * 3
    }
}

/// A segment on its way out.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) sealed: bool,
    /// All its blocks are on stable storage.
    pub(crate) settled: bool,
    /// A reader, or anybody else, still has it.
    pub(crate) pinned: bool,
    /// The log is compacted: its batches need not be in order of a writer.
    pub(crate) compacted: bool,
}

impl Outgoing {
    /// Whether its file may serve again, where the log has so many spares.
    pub(crate) fn may_serve_again(&self, spares: usize, filling: Filling) -> bool {
        let whole = self.sealed
            && self.settled
            && !self.pinned
            && !self.compacted
            && self.bytes >= self.segment_bytes / 2;
        whole && spares < SPARES_MAX && filling.is_fast()
    }
}

/// Whether a write that ends at `end` must have zeros behind it, for a file with old bytes up to `stale`: what is left
/// of the last block does not hold a header of zeros.
pub(crate) fn wants_terminator(end: u64, stale: u64) -> bool {
    let block_end = block_ceil(end);
    block_end < stale && block_end - end < HEADER_BYTES as u64
}

/// Whether recovery has met, at `position` where the next batch should be, what the file held before it served the
/// segment that starts at `base`. Then the segment ends there, and nothing is damaged. No batch of the segment is below its
/// base; and old bytes begin with a sector, so that elsewhere such an offset is rot.
pub(crate) fn is_left_over(header: &BatchHeader, position: u64, base: i64) -> bool {
    position.is_multiple_of(SECTOR_BYTES) && header.base_offset < base
}

/// A file that may become a segment's.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Its length. Of a recycled one every block was written, and is on stable storage.
    pub(crate) bytes: u64,
    /// Blocks written up to here.
    pub(crate) written: u64,
    /// It holds old bytes.
    pub(crate) recycled: bool,
}

/// The files that a log keeps for segments to come.
#[derive(Default)]
pub(crate) struct Spares {
    files: Vec<Spare>,
    /// One is being made, or could not be made, for the segment after the one of this base.
    pub(crate) tried_after: Option<i64>,
    /// How long the last segment took to fill.
    pub(crate) last_fill_ms: Option<i64>,
}

impl Spares {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn keep(&mut self, spare: Spare) {
        assert!(self.files.len() < SPARES_MAX, "whoever makes one looks first");
        self.files.push(spare);
    }

    /// The one that is best to use.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        let recycled = self.files.iter().position(|spare| spare.recycled);
        let at = recycled.or(if self.files.is_empty() { None } else { Some(0) })?;
        Some(self.files.swap_remove(at))
    }

    pub(crate) fn take_all(&mut self) -> Vec<Spare> {
        std::mem::take(&mut self.files)
    }
}

/// Makes an empty file with space for `allocate` bytes, `zeroed` of them written, on stable storage but for its name.
pub(crate) async fn make_spare(
    path: &Path,
    allocate: u64,
    zeroed: u64,
    ctx: &StorageContext,
) -> Result<Spare, StorageError> {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        direct: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options).await.at(path, "create")?;
    let bytes = block_ceil(allocate.max(zeroed));
    file.allocate(0, bytes).await.at(path, "reserve space")?;
    if zeroed > 0 {
        file.write_at(ctx.zeros(to_usize(zeroed)), 0, WriteSync::None).await.at(path, "write")?;
    }
    file.sync_all().await.at(path, "sync")?;
    Ok(Spare { path: path.to_owned(), file, bytes, written: zeroed, recycled: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::BLOCK;
    use crate::testing::BatchSpec;

    const SEGMENT: u64 = 1 << 30;

    fn filling(bytes: u64, age_ms: i64, last_fill_ms: Option<i64>) -> Filling {
        Filling { bytes, segment_bytes: SEGMENT, age_ms, last_fill_ms }
    }

    #[test]
    fn only_a_partition_that_fills_segments_quickly_is_fast() {
        let table = [
            (SEGMENT / 2, 60_000, None, true),
            (SEGMENT / 2, 6 * 60_000, None, false),
            // Nearly empty: what the one before took counts, until this one has lain for too long.
            (1000, 1_000, Some(60_000), true),
            (1000, 1_000, Some(2 * FILL_MS_MAX), false),
            (1000, 1_000, None, false),
            (1000, 2 * FILL_MS_MAX, Some(60_000), false),
            (0, 0, Some(1), true),
            (SEGMENT, -5, None, true),
        ];
        for (bytes, age_ms, last_fill_ms, fast) in table {
            assert_eq!(filling(bytes, age_ms, last_fill_ms).is_fast(), fast, "{bytes} {age_ms}");
        }
    }

    #[test]
    fn a_file_serves_again_if_it_is_whole_large_unread_and_wanted() {
        let (sealed, settled, pinned, compacted) = (true, true, false, false);
        let good = Outgoing { bytes: SEGMENT, segment_bytes: SEGMENT, sealed, settled, pinned, compacted };
        let fast = filling(SEGMENT / 2, 1000, None);
        assert!(good.may_serve_again(SPARES_MAX - 1, fast));
        assert!(!good.may_serve_again(SPARES_MAX, fast));
        assert!(!good.may_serve_again(0, filling(SEGMENT / 2, FILL_MS_MAX, None)));
        for bad in [
            Outgoing { bytes: SEGMENT / 2 - 1, ..good },
            Outgoing { sealed: false, ..good },
            Outgoing { settled: false, ..good },
            Outgoing { pinned: true, ..good },
            Outgoing { compacted: true, ..good },
        ] {
            assert!(!bad.may_serve_again(0, fast), "{bad:?}");
        }
    }

    #[test]
    fn old_bytes_are_never_where_a_header_is_looked_for() {
        let header = HEADER_BYTES as u64;
        for (end, stale, wanted) in [
            (BLOCK, 10 * BLOCK, true),
            (BLOCK - header + 1, 10 * BLOCK, true),
            (BLOCK - header, 10 * BLOCK, false),
            (1, 10 * BLOCK, false),
            (BLOCK, BLOCK, false),
            (BLOCK, 0, false),
        ] {
            assert_eq!(wants_terminator(end, stale), wanted, "{end} {stale}");
        }
    }

    /// contract L8
    #[test]
    fn a_batch_below_the_base_at_a_sectors_start_is_left_over_and_all_else_is_not() {
        let at = |base_offset| BatchSpec::default().base_offset(base_offset).header();
        assert!(is_left_over(&at(99), 0, 100) && is_left_over(&at(0), 512 * 7, 100));
        assert!(!is_left_over(&at(99), 513, 100), "old bytes begin with a sector: this is rot");
        assert!(!is_left_over(&at(100), 0, 100), "torn, and new");
        assert!(!is_left_over(&at(150), 1024, 100));
    }
}
