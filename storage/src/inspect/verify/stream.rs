//! Raft's streams: entries whole, files without a hole.

use std::path::Path;

use heizer_runtime::fs;

use crate::error::{IoContext, StorageError};
use crate::inspect::frames::{FrameReader, NextFrame};
use crate::inspect::verify::Verifier;
use crate::paths;
use crate::stream::STREAM;

/// Checks the files in `dir`, the last of which may be in motion.
pub(super) async fn verify(
    verifier: &mut Verifier<'_>,
    dir: &Path,
    in_motion: bool,
) -> Result<(), StorageError> {
    let mut bases: Vec<i64> = fs::read_dir(dir)
        .await
        .at(dir, "list")?
        .iter()
        .filter_map(|entry| paths::parse_numbered(&entry.name))
        .filter(|&(_, suffix)| suffix == STREAM)
        .map(|(base, _)| base)
        .collect();
    bases.sort_unstable();
    let mut expected = None;
    for (at, &base) in bases.iter().enumerate() {
        let path = paths::numbered(dir, base, STREAM);
        let last = at + 1 == bases.len();
        if let Some(expected) = expected.filter(|&expected| expected != base) {
            verifier.error(
                &path,
                None,
                None,
                format!("starts at {base}, the file before ends at {expected}"),
            );
        }
        let end = verify_file(verifier, &path, base, last, in_motion).await?;
        expected = base.checked_add_unsigned(end);
    }
    Ok(())
}

/// Checks one file and gives the position behind its last entry.
async fn verify_file(
    verifier: &mut Verifier<'_>,
    path: &Path,
    base: i64,
    last: bool,
    in_motion: bool,
) -> Result<u64, StorageError> {
    let mut frames = FrameReader::open(path, base.unsigned_abs()).await?;
    verifier.summary.bytes += frames.file_bytes();
    let mut end = 0;
    loop {
        match frames.next().await? {
            NextFrame::Entry { position, end: entry_end, .. } => {
                verifier.summary.stream_entries += 1;
                (verifier.progress)(path, entry_end - position);
                end = entry_end;
            }
            NextFrame::End { left, .. } => {
                if left > 0 && !last {
                    verifier.note(path, Some(end), None, format!("{left} bytes of reserved space"));
                }
                return Ok(end);
            }
            NextFrame::Bad { position, reason } if last && in_motion => {
                let what = format!("{reason}; the stream may be in motion");
                verifier.note(path, Some(position), None, what);
                return Ok(end);
            }
            NextFrame::Bad { position, reason } => {
                verifier.error(path, Some(position), None, reason);
                return Ok(end);
            }
        }
    }
}
