//! A file's contents: what reads see, and what a crash may leave of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::rng::Seeded;
use crate::buf::BLOCK_BYTES;

/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

const PAGE_BYTES: u64 = BLOCK_BYTES as u64;

/// Older unsynced versions kept of one sector while no sync is under way; enough for a crash to choose from.
const VERSIONS_KEPT: usize = 4;

type Page = Box<[u8; BLOCK_BYTES]>;
type Sector = Box<[u8; SECTOR_BYTES as usize]>;

/// A file's contents, sparse, with the unsynced past of every sector.
#[derive(Default)]
pub(super) struct Inode {
    pages: BTreeMap<u64, Page>,
    len: u64,
    unsynced: BTreeMap<u64, History<Sector>>,
    unsynced_len: Option<History<u64>>,
    /// Changes so far; each version carries the number of the change that made it.
    changes: u64,
    /// Changes up to here were under way when a sync failed. The kernel reports such a failure once and forgets
    /// the data: no later sync makes them durable.
    forgotten: u64,
    syncs_under_way: usize,
    /// Sectors whose place on the device is on stable storage: there is data in them already, durably.
    settled: Settled,
}

/// Runs of sectors that neither overlap nor touch, by where they start.
#[derive(Default)]
struct Settled(BTreeMap<u64, u64>);

impl Settled {
    fn add(&mut self, sectors: Range<u64>) {
        let (mut start, mut end) = (sectors.start, sectors.end);
        if start >= end {
            return;
        }
        let before = self.0.range(..=end).rev().take_while(|&(_, &until)| until >= start);
        let met: Vec<u64> = before.map(|(&from, _)| from).collect();
        for from in met {
            let until = self.0.remove(&from).expect("just seen");
            (start, end) = (start.min(from), end.max(until));
        }
        self.0.insert(start, end);
    }

    fn cut(&mut self, len: u64) {
        self.0.split_off(&len);
        if let Some((_, until)) = self.0.range_mut(..len).next_back() {
            *until = (*until).min(len);
        }
    }

    fn holds(&self, sector: u64) -> bool {
        self.0.range(..=sector).next_back().is_some_and(|(_, &until)| sector < until)
    }
}

/// One thing's durable value and the values it took since, oldest first.
struct History<T> {
    durable: T,
    versions: Vec<(u64, T)>,
}

impl<T> History<T> {
    fn push(&mut self, change: u64, value: T, syncs_under_way: usize) {
        // A sync under way may still need any of them; later ones will only want the newest.
        if syncs_under_way == 0 && self.versions.len() >= VERSIONS_KEPT {
            self.versions.remove(0);
        }
        self.versions.push((change, value));
    }

    /// Whether there is a version that a sync up to `upto` makes durable.
    fn made_by(&self, upto: u64, forgotten: u64) -> bool {
        self.versions.iter().any(|(change, _)| *change <= upto && *change > forgotten)
    }

    /// Every value that a crash may leave.
    fn values(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.durable).chain(self.versions.iter().map(|(_, value)| value))
    }

    /// Makes the newest version of at most `upto` durable; true when nothing unsynced is left.
    fn sync(&mut self, upto: u64, forgotten: u64) -> bool {
        let newest = self.versions.iter().rposition(|(change, _)| *change <= upto && *change > forgotten);
        if let Some(newest) = newest {
            let (_, value) = self.versions.drain(..=newest).next_back().expect("the range holds one");
            self.durable = value;
        }
        self.versions.is_empty()
    }

    fn survivor(self, survival: u32, rng: &Seeded) -> T {
        if !rng.chance(survival) {
            return self.durable;
        }
        let mut versions = self.versions;
        let chosen = rng.index(versions.len());
        versions.swap_remove(chosen).1
    }
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset` on and returns how much of it lies in the file.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let count = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        for (at, piece) in pieces(offset, count as u64, PAGE_BYTES) {
            let target = &mut buf[piece];
            let within = (at % PAGE_BYTES) as usize;
            match self.pages.get(&(at / PAGE_BYTES)) {
                Some(page) => target.copy_from_slice(&page[within..within + target.len()]),
                None => target.fill(0),
            }
        }
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.changes += 1;
        self.store(offset, bytes);
        self.record_len(self.len.max(offset + bytes.len() as u64));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.changes += 1;
        // What is cut off must not come back when the file grows again.
        let cut: Vec<u64> = self.pages.range(len / PAGE_BYTES..).map(|(page, _)| *page).collect();
        for page in cut {
            let start = len.max(page * PAGE_BYTES);
            let end = (page + 1) * PAGE_BYTES;
            self.store(start, &vec![0; (end - start) as usize]);
        }
        self.settled.cut(len / SECTOR_BYTES);
        self.record_len(len);
    }

    pub(super) fn allocate(&mut self, end: u64) {
        self.changes += 1;
        self.record_len(self.len.max(end));
    }

    /// A sync begins; it covers what is complete by now.
    pub(super) fn begin_sync(&mut self) -> u64 {
        self.syncs_under_way += 1;
        self.changes
    }

    /// A sync that began with `upto` ends well.
    pub(super) fn end_sync(&mut self, upto: u64) {
        self.syncs_under_way = self.syncs_under_way.saturating_sub(1);
        let forgotten = self.forgotten;
        let (unsynced, settled) = (&mut self.unsynced, &mut self.settled);
        unsynced.retain(|&sector, history| {
            if history.made_by(upto, forgotten) {
                settled.add(sector..sector + 1);
            }
            !history.sync(upto, forgotten)
        });
        settled.cut(self.len / SECTOR_BYTES);
        if self.unsynced_len.as_mut().is_some_and(|history| history.sync(upto, forgotten)) {
            self.unsynced_len = None;
        }
    }

    /// A flush of the device that began with `upto` ends well: it covers what lies in settled places, within the
    /// length that is durable.
    pub(super) fn end_flush(&mut self, upto: u64) {
        self.syncs_under_way = self.syncs_under_way.saturating_sub(1);
        let (forgotten, settled) = (self.forgotten, &self.settled);
        let lens = self.unsynced_len.iter().flat_map(History::values);
        let durable_len = lens.copied().fold(self.len, u64::min) / SECTOR_BYTES;
        self.unsynced.retain(|&sector, history| {
            let covered = sector < durable_len && settled.holds(sector);
            !(covered && history.sync(upto, forgotten))
        });
    }

    /// A sync that has begun ends without effect.
    pub(super) fn give_up_sync(&mut self) {
        self.syncs_under_way = self.syncs_under_way.saturating_sub(1);
    }

    /// A sync that began with `upto` fails.
    pub(super) fn fail_sync(&mut self, upto: u64) {
        self.syncs_under_way = self.syncs_under_way.saturating_sub(1);
        self.forgotten = self.forgotten.max(upto);
    }

    /// Makes what `range` holds now durable, and the length needed to find it.
    pub(super) fn sync_range(&mut self, range: Range<u64>) {
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        self.settled.add(range.start.div_ceil(SECTOR_BYTES)..range.end / SECTOR_BYTES);
        let synced: Vec<u64> = self.unsynced.range(sectors).map(|(sector, _)| *sector).collect();
        for sector in synced {
            self.unsynced.remove(&sector);
        }
        self.unsynced_len = None;
    }

    /// The machine dies: of each unsynced sector, and of the length, an old or a new version is left.
    pub(super) fn crash(&mut self, rng: &Seeded) {
        let survival = rng.survival();
        for (sector, history) in std::mem::take(&mut self.unsynced) {
            let survivor = history.survivor(survival, rng);
            self.sector_mut(sector).copy_from_slice(&survivor[..]);
        }
        if let Some(history) = self.unsynced_len.take() {
            self.len = history.survivor(survival, rng);
        }
        self.settled.cut(self.len / SECTOR_BYTES);
        self.pages.split_off(&self.len.div_ceil(PAGE_BYTES));
        if let Some(page) = self.pages.get_mut(&(self.len / PAGE_BYTES)) {
            page[(self.len % PAGE_BYTES) as usize..].fill(0);
        }
        self.syncs_under_way = 0;
        self.forgotten = self.changes;
    }

    /// Bit rot: flips one bit of what is durable.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let sector = offset / SECTOR_BYTES;
        self.sector_mut(sector)[(offset % SECTOR_BYTES) as usize] ^= 1 << bit;
        if let Some(history) = self.unsynced.get_mut(&sector) {
            history.durable[(offset % SECTOR_BYTES) as usize] ^= 1 << bit;
        }
    }

    /// Overwrites bytes, sector by sector, remembering what each held.
    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let (change, syncs) = (self.changes, self.syncs_under_way);
        for (at, piece) in pieces(offset, bytes.len() as u64, SECTOR_BYTES) {
            let sector = at / SECTOR_BYTES;
            let within = (at % SECTOR_BYTES) as usize;
            let contents = self.sector_mut(sector);
            let before: Sector = Box::new(*contents);
            contents[within..within + piece.len()].copy_from_slice(&bytes[piece]);
            let after: Sector = Box::new(*contents);
            let history =
                self.unsynced.entry(sector).or_insert(History { durable: before, versions: Vec::new() });
            history.push(change, after, syncs);
        }
    }

    fn record_len(&mut self, len: u64) {
        let before = std::mem::replace(&mut self.len, len);
        if before != len {
            let history = self.unsynced_len.get_or_insert(History { durable: before, versions: Vec::new() });
            history.push(self.changes, len, self.syncs_under_way);
        }
    }

    fn sector_mut(&mut self, sector: u64) -> &mut [u8; SECTOR_BYTES as usize] {
        let at = sector * SECTOR_BYTES;
        let page = self.pages.entry(at / PAGE_BYTES).or_insert_with(|| Box::new([0; BLOCK_BYTES]));
        let within = (at % PAGE_BYTES) as usize;
        page[within..].first_chunk_mut().expect("sectors divide pages")
    }
}

/// Cuts `len` bytes at `offset` at multiples of `unit`: where each piece starts, and its place among the bytes.
fn pieces(offset: u64, len: u64, unit: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let next = ((at / unit + 1) * unit).min(end);
            let piece = (at, (at - offset) as usize..(next - offset) as usize);
            at = next;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn settled_runs_join_and_are_cut() {
        let mut settled = Settled::default();
        for run in [10..12, 0..2, 4..6, 12..13, 2..4, 20..20] {
            settled.add(run);
        }
        assert_eq!(settled.0, BTreeMap::from([(0, 6), (10, 13)]));
        settled.add(5..11);
        assert_eq!(settled.0, BTreeMap::from([(0, 13)]));
        settled.cut(7);
        let held: Vec<u64> = (0..15).filter(|&sector| settled.holds(sector)).collect();
        assert_eq!(held, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_flush_of_the_device_covers_what_was_complete_in_settled_places_alone() {
        let left = outcomes(|inode| {
            inode.write(0, &[b'o'; 1024]);
            inode.sync_range(0..1024);
            inode.write(0, &[b'n'; 512]);
            // A place of its own, and longer than the file durably is.
            inode.write(1024, &[b'e'; 512]);
            let upto = inode.begin_sync();
            inode.write(512, &[b'l'; 512]);
            inode.end_flush(upto);
        });
        assert!(left.iter().all(|bytes| bytes[..512] == [b'n'; 512]), "complete, settled");
        let seconds: BTreeSet<u8> = left.iter().map(|bytes| bytes[512]).collect();
        assert_eq!(seconds, BTreeSet::from([b'o', b'l']), "settled, but came after the flush began");
        let thirds: BTreeSet<Option<u8>> = left.iter().map(|bytes| bytes.get(1024).copied()).collect();
        assert_eq!(thirds, BTreeSet::from([None, Some(0), Some(b'e')]), "complete, but without a place");
    }

    #[test]
    fn a_cut_takes_the_places_away() {
        let left = outcomes(|inode| {
            inode.write(0, &[b'o'; 1024]);
            sync(inode);
            inode.set_len(512);
            inode.allocate(1024);
            inode.write(0, &[b'n'; 1024]);
            let upto = inode.begin_sync();
            inode.end_flush(upto);
        });
        assert!(left.iter().all(|bytes| bytes[0] == b'n'));
        assert!(left.iter().any(|bytes| bytes.get(512) != Some(&b'n')), "allocated anew");
    }

    fn contents(inode: &Inode) -> Vec<u8> {
        let mut buf = vec![0; inode.len() as usize];
        assert_eq!(inode.read(0, &mut buf), buf.len());
        buf
    }

    /// What crashes under many seeds leave of the file that `prepare` makes.
    fn outcomes(prepare: impl Fn(&mut Inode)) -> BTreeSet<Vec<u8>> {
        let crash = |seed| {
            let mut inode = Inode::default();
            prepare(&mut inode);
            inode.crash(&Seeded::new(seed));
            contents(&inode)
        };
        (0..200).map(crash).collect()
    }

    fn sync(inode: &mut Inode) {
        let upto = inode.begin_sync();
        inode.end_sync(upto);
    }

    #[test]
    fn what_is_synced_survives_and_what_is_not_is_old_or_new_by_sector() {
        let left = outcomes(|inode| {
            inode.write(0, &[b'a'; 1024]);
            sync(inode);
            inode.write(0, &[b'b'; 1024]);
        });
        let sectors = |first, second| [[first; 512], [second; 512]].concat();
        let expected = [sectors(b'a', b'a'), sectors(b'a', b'b'), sectors(b'b', b'a'), sectors(b'b', b'b')];
        assert_eq!(left, BTreeSet::from(expected));
    }

    #[test]
    fn a_sync_covers_what_was_complete_when_it_began() {
        let left = outcomes(|inode| {
            inode.write(0, b"one");
            let upto = inode.begin_sync();
            inode.write(0, b"two");
            inode.end_sync(upto);
        });
        assert_eq!(left, BTreeSet::from([b"one".to_vec(), b"two".to_vec()]));
    }

    #[test]
    fn a_failed_sync_forgets_its_data_for_good() {
        let left = outcomes(|inode| {
            inode.write(0, b"old");
            sync(inode);
            inode.write(0, b"new");
            let upto = inode.begin_sync();
            inode.fail_sync(upto);
            sync(inode);
        });
        assert_eq!(left, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    }

    #[test]
    fn a_range_sync_covers_its_own_sectors_and_the_length_only() {
        let left = outcomes(|inode| {
            inode.write(0, &[b'x'; 512]);
            inode.write(512, &[b'y'; 10]);
            inode.sync_range(512..522);
        });
        assert!(left.iter().all(|bytes| bytes.len() == 522 && bytes[512..] == [b'y'; 10]));
        assert_eq!(left.len(), 2);
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
        let mut inode = Inode::default();
        inode.write(4000, &[7; 10_000]);
        inode.set_len(5000);
        inode.allocate(9000);
        let bytes = contents(&inode);
        assert!(bytes[4000..5000].iter().all(|&byte| byte == 7));
        assert!(bytes[5000..].iter().all(|&byte| byte == 0));
        sync(&mut inode);
        inode.crash(&Seeded::new(1));
        assert_eq!(contents(&inode), bytes);
    }

    #[test]
    fn many_small_unsynced_writes_keep_few_versions() {
        let mut inode = Inode::default();
        for at in 0..500 {
            inode.write(at, b"z");
        }
        assert!(inode.unsynced[&0].versions.len() <= VERSIONS_KEPT);
    }
}
