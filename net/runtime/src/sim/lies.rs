//! What a disk does other than it reports: writes that are lost or land elsewhere, reads of another place or with a
//! flipped bit.
//!
//! The file system believes what the disk reports. So a file's length is always right, and a lie that was reported as
//! durable stays as it is after a crash.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;

use super::disk::Disk;
use super::fs::write_parts;
use super::inode::Inode;
use super::rng::Seeded;
use crate::buf::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// One thing that a disk did other than it reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLie {
    /// What it was.
    pub kind: LieKind,
    /// The file concerned, by its path at the time; none when it had been removed.
    pub path: Option<PathBuf>,
    /// The bytes of the file that are not what they should be, or that were not read as they are.
    pub range: Range<u64>,
}

/// The kinds of lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LieKind {
    /// The range was to be written, and keeps its old bytes.
    LostWrite,
    /// The range was overwritten by what belonged elsewhere. The place that it belonged to is a
    /// [`LostWrite`](Self::LostWrite) just before this one.
    MisdirectedWrite,
    /// The range was read, and something else returned.
    MisdirectedRead,
    /// The range was read, and returned with a flipped bit.
    CorruptRead,
}

impl LieKind {
    /// Whether the disk has been harmed, and not just one reader.
    pub fn is_lasting(self) -> bool {
        matches!(self, LieKind::LostWrite | LieKind::MisdirectedWrite)
    }
}

type File = Rc<RefCell<Inode>>;

/// What becomes of a write that is reported as done.
pub(super) struct WriteLie {
    /// Where it lands, if anywhere.
    there: Option<(File, u64)>,
}

impl WriteLie {
    pub(super) fn carry_out(self, inode: &File, parts: &[Bytes], offset: u64, durable: bool) {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        {
            let mut inode = inode.borrow_mut();
            inode.allocate(offset + len);
            if durable {
                inode.sync_range(offset..offset + len);
            }
        }
        let Some((there, at)) = self.there else { return };
        let mut there = there.borrow_mut();
        let count = len.min(there.len().saturating_sub(at));
        write_parts(&mut there, parts, at, count);
        if durable {
            there.sync_range(at..at + count);
        }
    }
}

impl Disk {
    /// Whether, by the seed, a write of `len` bytes at `offset` of `inode` will be a lie.
    pub(super) fn lie_of_write(
        &mut self,
        inode: &File,
        offset: u64,
        len: u64,
        rng: &Seeded,
    ) -> Option<WriteLie> {
        let lost = rng.chance(self.faults.lost_write_ppm);
        let there = if !lost && rng.chance(self.faults.misdirected_write_ppm) {
            Some(self.elsewhere(inode, offset, rng)?)
        } else {
            None
        };
        if !lost && there.is_none() {
            return None;
        }
        self.note(LieKind::LostWrite, inode, offset..offset + len);
        if let Some((there, at)) = &there {
            let end = (at + len).min(there.borrow().len());
            self.note(LieKind::MisdirectedWrite, there, *at..end);
        }
        Some(WriteLie { there })
    }

    /// Makes, by the seed, something else of `read`, which lies at `offset` of `inode`.
    pub(super) fn lie_about(&mut self, inode: &File, offset: u64, read: &mut [u8], rng: &Seeded) {
        if read.is_empty() {
            return;
        }
        let range = offset..offset + read.len() as u64;
        if rng.chance(self.faults.misdirected_read_ppm)
            && let Some((there, at)) = self.elsewhere(inode, offset, rng)
        {
            let count = there.borrow().read(at, read);
            read[count..].fill(0);
            self.note(LieKind::MisdirectedRead, inode, range.clone());
        }
        if rng.chance(self.faults.corrupt_read_ppm) {
            let at = rng.index(read.len());
            read[at] ^= 1 << rng.below(8);
            self.note(LieKind::CorruptRead, inode, range);
        }
    }

    /// A block other than the one at `offset`: as often of the same file as of another one, if there is a choice.
    fn elsewhere(&self, inode: &File, offset: u64, rng: &Seeded) -> Option<(File, u64)> {
        let blocks = |file: &File| file.borrow().len().div_ceil(BLOCK);
        let others: Vec<&File> =
            self.files().filter(|file| !Rc::ptr_eq(file, inode) && blocks(file) > 0).collect();
        let own = offset / BLOCK;
        let within = blocks(inode) > 1 || (own > 0 && blocks(inode) == 1);
        if within && (others.is_empty() || rng.below(2) == 0) {
            let at = rng.below(blocks(inode));
            let at = if at == own { (at + 1) % blocks(inode) } else { at };
            return Some((inode.clone(), at * BLOCK));
        }
        if others.is_empty() {
            return None;
        }
        let other = others[rng.index(others.len())];
        Some((other.clone(), rng.below(blocks(other)) * BLOCK))
    }

    fn note(&mut self, kind: LieKind, inode: &File, range: Range<u64>) {
        let path = self.path_of(inode);
        self.lies.push(DiskLie { kind, path, range });
    }
}
