//! A round of compaction on a log (contract L9): see `crate::compact` for what it is made of.

use std::rc::Rc;

use heizer_runtime::{fs, random};
use heizer_wire::record_batch::{BatchHeader, BatchView, RecordError, UnpackedBatch};

use crate::batch::crc_matches;
use crate::compact::{
    Cleanable, Cleaned, CleanedWriter, CompactError, CompactLimits, CompactReport, DECOMPRESSED_BYTES_MAX,
    Fate, Filter, Marker, OffsetMap, Pace, SegmentFacts, Transactions, Verdict, cleanable, group,
    remove_cleaned, swap,
};
use crate::config::LogConfig;
use crate::error::{IoContext, StorageError};
use crate::index::Indexes;
use crate::log::{Log, State};
use crate::paths::{self, CLEANER_OFFSET};
use crate::segment::{Segment, Step, Walker};

impl Log {
    /// Whether `cleanup.policy` contains `compact`.
    pub fn is_compacted(&self) -> bool {
        self.state.borrow().config.cleanup_compact
    }

    /// Compaction has looked at everything below this offset.
    pub fn first_dirty(&self) -> i64 {
        self.state.borrow().first_dirty()
    }

    /// What a round could clean now, where offsets below `high_watermark` are committed; none where there is nothing.
    pub async fn cleanable(
        &self,
        now_ms: i64,
        high_watermark: i64,
    ) -> Result<Option<Cleanable>, StorageError> {
        if self.is_relocating() {
            // The copy has read some of the segments: a tombstone must not go from the others.
            return Ok(None);
        }
        self.check_open()?;
        let (segments, first_dirty, config) = self.state.borrow().settled(high_watermark);
        let mut facts = Vec::with_capacity(segments.len());
        for segment in &segments {
            // Most of the time nothing has to be read for this.
            let dirty = segment.next_offset() > first_dirty;
            if dirty && config.min_compaction_lag_ms > 0 && segment.max_timestamp().is_none() {
                segment.load_indexes().await?;
            }
            let first_timestamp = match dirty && config.max_compaction_lag_ms < i64::MAX {
                true => segment.load_first_timestamp().await?,
                false => -1,
            };
            facts.push(SegmentFacts { first_timestamp, ..describe(segment, None) });
        }
        Ok(cleanable(&facts, first_dirty, now_ms, &config))
    }

    /// Cleans the log as far as `limits` and `high_watermark` let it, whatever its ratio; none where nothing is dirty.
    /// Appends and reads go on; a truncation, close or deletion interrupts it.
    pub async fn compact(
        &self,
        now_ms: i64,
        high_watermark: i64,
        limits: &mut CompactLimits,
    ) -> Result<Option<CompactReport>, CompactError> {
        let Some(_maintenance) = self.maintain() else { return Err(CompactError::Interrupted) };
        let Some(range) = self.cleanable(now_ms, high_watermark).await? else { return Ok(None) };
        let (segments, _, config) = self.state.borrow().settled(high_watermark);
        limits.pace.start();
        let mut round = Round {
            log: self,
            now_ms,
            high_watermark,
            map: OffsetMap::new(limits.map_bytes, random::bytes()),
            transactions: Transactions::default(),
            pace: &mut limits.pace,
            report: CompactReport { clean_to: range.first_dirty, ..CompactReport::default() },
            config,
        };
        round.map_keys(&segments, &range).await?;
        let clean_to = round.map.latest() + 1;
        if clean_to <= range.first_dirty {
            return Ok(Some(round.report));
        }
        round.clean(&segments).await?;
        let report = CompactReport { clean_to, ..round.report };
        let path = self.dir.join(CLEANER_OFFSET);
        fs::write_atomic(&path, paths::encode_offset(clean_to)).await.at(&path, "write")?;
        self.state.borrow_mut().clean_to = clean_to;
        Ok(Some(report))
    }

    /// The log is about to lose what is at and above `end`: what takes its place is not clean, also after a crash.
    pub(super) async fn lower_clean_to(&self, end: i64) -> Result<(), StorageError> {
        if self.state.borrow().clean_to <= end {
            return Ok(());
        }
        let path = self.dir.join(CLEANER_OFFSET);
        fs::write_atomic(&path, paths::encode_offset(end)).await.at(&path, "write")?;
        self.state.borrow_mut().clean_to = end;
        Ok(())
    }

    /// Fails where the round has to end: somebody wants the files for himself, or the log's policy is another by now.
    fn check_undisturbed(&self) -> Result<(), CompactError> {
        self.check_open()?;
        let state = self.state.borrow();
        match state.exclusive_waiting == 0 && state.config.cleanup_compact {
            true => Ok(()),
            false => Err(CompactError::Interrupted),
        }
    }

    /// Puts `cleaned` in the place of `old`, which are consecutive segments, on the disk and then in memory.
    async fn exchange(&self, old: &[Rc<Segment>], cleaned: Cleaned) -> Result<(), StorageError> {
        self.forget_checkpoint_up_to(cleaned.next_offset).await?;
        for segment in old {
            if let Err(error) = segment.retire().await {
                old.iter().for_each(|segment| segment.reinstate());
                return Err(error);
            }
        }
        let others: Vec<i64> = old[1..].iter().map(|segment| segment.base()).collect();
        if let Err(error) = swap(&self.dir, cleaned.base, &others).await {
            // Memory and disk may be apart: that is the end of this log object, and recovery sets it right.
            return Err(self.fail(&error).into());
        }
        let new = Segment::cleaned(&self.dir, cleaned, &old[old.len() - 1], self.home.context());
        let mut state = self.state.borrow_mut();
        let at = state.segment_at(new.base()).expect("the segments are held for maintenance");
        let same = state.segments.range(at..at + old.len()).zip(old).all(|(here, old)| Rc::ptr_eq(here, old));
        assert!(same, "only the holder of the maintenance exchanges sealed segments");
        state.segments[at] = new;
        state.segments.drain(at + 1..at + old.len());
        Ok(())
    }
}

impl State {
    fn first_dirty(&self) -> i64 {
        self.clean_to.max(self.log_start)
    }

    /// The sealed segments from the log start on that are wholly below the last stable offset, the first dirty offset,
    /// and the settings.
    fn settled(&self, high_watermark: i64) -> (Vec<Rc<Segment>>, i64, LogConfig) {
        let stable = self.producers.first_open_transaction().unwrap_or(i64::MAX).min(high_watermark);
        let first = self.segment_at(self.log_start).unwrap_or(0);
        let sealed = self.segments.range(first..self.segments.len() - 1);
        let settled = sealed.take_while(|segment| segment.is_sealed() && segment.next_offset() <= stable);
        (settled.cloned().collect(), self.first_dirty(), self.config.clone())
    }
}

fn describe(segment: &Segment, indexes: Option<&Indexes>) -> SegmentFacts {
    SegmentFacts {
        base: segment.base(),
        next_offset: segment.next_offset(),
        bytes: segment.bytes(),
        index_bytes: indexes.map_or(0, |indexes| indexes.offsets.bytes() as u64),
        time_index_bytes: indexes.map_or(0, |indexes| indexes.times.bytes() as u64),
        max_timestamp: segment.max_timestamp().unwrap_or(-1),
        first_timestamp: -1,
    }
}

/// One round under way.
struct Round<'a> {
    log: &'a Log,
    now_ms: i64,
    high_watermark: i64,
    config: LogConfig,
    map: OffsetMap,
    transactions: Transactions,
    pace: &'a mut Pace,
    report: CompactReport,
}

/// A batch of a segment, whole by its CRC.
struct Read {
    batch: BatchView,
    position: u64,
    /// It is the last one of its segment.
    last: bool,
}

impl Round<'_> {
    /// Pass 1: the last offset of every key from the first dirty offset on, until the range or the map's room ends, or a
    /// transaction that nobody can judge yet begins.
    async fn map_keys(&mut self, segments: &[Rc<Segment>], range: &Cleanable) -> Result<(), CompactError> {
        let first_dirty = range.first_dirty;
        for (at, segment) in segments.iter().enumerate() {
            if segment.next_offset() <= first_dirty {
                continue;
            }
            if segment.base() >= range.end {
                return Ok(());
            }
            let mut walker = self.walk(segment, first_dirty).await?;
            while let Some(read) = self.next(segment, &mut walker).await? {
                if read.batch.header().last_offset() < first_dirty {
                    continue;
                }
                self.survey_if_due(&segments[at..], &read).await?;
                if !self.map_batch(&read.batch, first_dirty).map_err(|bad| damaged(segment, &read, &bad))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Notes the keys of a batch. `false`: this is as far as pass 1 gets.
    fn map_batch(&mut self, batch: &BatchView, first_dirty: i64) -> Result<bool, RecordError> {
        let header = batch.header();
        let verdict = match header.is_control() {
            true => Verdict::Aborted,
            false => self.transactions.verdict(header),
        };
        match verdict {
            Verdict::Undecided => return Ok(false),
            Verdict::Aborted => {}
            Verdict::Committed => {
                let unpacked = batch.unpack(DECOMPRESSED_BYTES_MAX)?;
                for record in unpacked.records() {
                    let record = record?;
                    let Some(key) = record.key.filter(|_| record.offset >= first_dirty) else { continue };
                    if !self.map.put(key, record.offset) {
                        return Ok(false);
                    }
                }
            }
        }
        self.map.advance(header.last_offset());
        Ok(true)
    }

    /// Pass 2, a group after the other from the oldest on: whatever interrupts it, of every key the last record is there.
    async fn clean(&mut self, segments: &[Rc<Segment>]) -> Result<(), CompactError> {
        let mut facts = Vec::new();
        for segment in segments.iter().take_while(|segment| segment.base() <= self.map.latest()) {
            segment.load_indexes().await?;
            let found = segment.with_indexes(|indexes| describe(segment, Some(indexes)));
            facts.push(found.unwrap_or_else(|| describe(segment, None)));
        }
        let mut rest = segments;
        for length in group(&facts, &self.config) {
            let (old, later) = rest.split_at(length);
            rest = later;
            let result = self.clean_group(old, segments).await;
            if result.is_err() {
                // Recovery would remove them as well; the first error is the one that matters.
                let _ = remove_cleaned(&self.log.dir, old[0].base()).await;
            }
            result?;
        }
        Ok(())
    }

    /// Makes one segment of `old`, unless that would be the one that is there.
    async fn clean_group(&mut self, old: &[Rc<Segment>], all: &[Rc<Segment>]) -> Result<(), CompactError> {
        let base = old[0].base();
        let interval = self.config.index_interval_bytes;
        let mut writer = CleanedWriter::create(&self.log.dir, base, interval).await?;
        let mut changed = old.len() > 1;
        for (at, segment) in old.iter().enumerate() {
            let mut walker = self.walk(segment, base).await?;
            while let Some(read) = self.next(segment, &mut walker).await? {
                let from = all.iter().position(|other| Rc::ptr_eq(other, segment)).unwrap_or(0);
                self.survey_if_due(&all[from..], &read).await?;
                let ends_group = read.last && at + 1 == old.len();
                let fate =
                    self.judge(&read.batch, ends_group).map_err(|bad| damaged(segment, &read, &bad))?;
                changed |= fate != Fate::Copy;
                let written = match fate {
                    Fate::Drop => continue,
                    Fate::Copy => read.batch,
                    Fate::Replace(bytes) => BatchView::parse(&bytes).expect("a batch of our own"),
                };
                writer.push(written.header(), written.bytes()).await?;
                self.pace.spend(written.bytes().len() as u64);
                self.report.bytes_written += written.bytes().len() as u64;
            }
        }
        self.report.segments.0 += old.len();
        self.report.segments.1 += 1;
        if !changed {
            return Ok(remove_cleaned(&self.log.dir, base).await?);
        }
        let mut cleaned = writer.finish().await?;
        let end = old[old.len() - 1].next_offset();
        // The last batch stays, so that the next segment goes on where this one ends; as far as it did before.
        assert!(cleaned.next_offset <= end, "offsets never move");
        cleaned.next_offset = end;
        self.log.check_undisturbed()?;
        Ok(self.log.exchange(old, cleaned).await?)
    }

    /// What becomes of a batch (contract L9). `ends_group`: it says where the new segment ends.
    fn judge(&mut self, batch: &BatchView, ends_group: bool) -> Result<Fate, RecordError> {
        let header = batch.header();
        let committed = self.log.end_at(self.config.level());
        let last = self.log.state.borrow().producers.may_be_last_batch(header, committed);
        let retain = ends_group || last;
        let filter = Filter {
            map: &self.map,
            now_ms: self.now_ms,
            delete_retention_ms: self.config.delete_retention_ms,
        };
        let (fate, removed) = if header.is_control() {
            let unpacked = batch.unpack(DECOMPRESSED_BYTES_MAX)?;
            let done = self.transactions.saw_marker(header, Marker::of(&unpacked));
            filter.control(header, &unpacked, done, retain)?
        } else {
            self.transactions.saw_data(header);
            let aborted = self.transactions.verdict(header) == Verdict::Aborted;
            filter.data(batch, aborted, retain)?
        };
        self.report.records_removed += removed.records;
        self.report.records_keyless += removed.keyless;
        Ok(fate)
    }

    /// Surveys the transactions from `read` on, which is in the first of `segments`, if it is the first batch of one. A
    /// transaction that is open where these segments end may have its marker after them.
    async fn survey_if_due(&mut self, segments: &[Rc<Segment>], read: &Read) -> Result<(), CompactError> {
        if !self.transactions.wants_survey(read.batch.header()) {
            return Ok(());
        }
        let first = segments[0].clone();
        let later = {
            let state = self.log.state.borrow();
            let at = state.segment_at(first.next_offset()).unwrap_or(0);
            state.segments.range(at..).cloned().collect::<Vec<_>>()
        };
        let mut walker = Walker::new(first.open_file().await?, first.path(), read.position, first.bytes());
        if !self.survey(&first, &mut walker).await? {
            return Ok(());
        }
        let committed = self.high_watermark;
        for segment in later.iter().take_while(|segment| segment.base() < committed) {
            // What is committed is written, but a growing segment may hold more than that.
            let written = segment.tail().borrow().written();
            let mut walker = Walker::new(segment.open_file().await?, segment.path(), 0, written);
            if !self.survey(segment, &mut walker).await? {
                break;
            }
        }
        Ok(())
    }

    /// `false`: nothing after this segment counts.
    async fn survey(&mut self, segment: &Rc<Segment>, walker: &mut Walker) -> Result<bool, CompactError> {
        while let Some(read) = self.next(segment, walker).await? {
            let header: BatchHeader = *read.batch.header();
            if header.last_offset() >= self.high_watermark {
                return Ok(false);
            }
            let unpacked = header.is_control().then(|| read.batch.unpack(DECOMPRESSED_BYTES_MAX)).transpose();
            let unpacked: Option<UnpackedBatch> = unpacked.map_err(|bad| damaged(segment, &read, &bad))?;
            if !self.transactions.survey(&header, unpacked.as_ref().and_then(Marker::of)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks a segment from the batch that holds `offset` on, or somewhat before.
    async fn walk(&self, segment: &Rc<Segment>, offset: i64) -> Result<Walker, CompactError> {
        segment.load_indexes().await?;
        let near = segment.with_indexes(|indexes| indexes.offsets.lookup(segment.relative(offset)));
        let near = if offset > segment.base() { near.unwrap_or(0) } else { 0 };
        Ok(Walker::new(segment.open_file().await?, segment.path(), near.into(), segment.bytes()))
    }

    /// The next batch, once it is the round's turn; none at the end of the segment.
    async fn next(&mut self, segment: &Segment, walker: &mut Walker) -> Result<Option<Read>, CompactError> {
        loop {
            self.log.check_undisturbed()?;
            if self.pace.rest().await {
                break;
            }
        }
        let position = walker.position();
        let bad =
            |reason: String| CompactError::Damaged { path: segment.path().to_owned(), position, reason };
        let bytes = match walker.next().await? {
            Step::Batch { bytes, .. } => bytes,
            Step::End if walker.is_at_end() => return Ok(None),
            Step::End => return Err(bad("zeros".to_owned())),
            Step::Bad(reason) => return Err(bad(reason)),
        };
        self.pace.spend(bytes.len() as u64);
        self.report.bytes_read += bytes.len() as u64;
        let batch = BatchView::parse(&bytes).map_err(|error| bad(error.to_string()))?;
        let header = batch.header();
        // What is written anew gets a new CRC: nothing damaged may come by one.
        if !crc_matches(header, &bytes) {
            return Err(bad("CRC does not match".to_owned()));
        }
        if header.base_offset < segment.base() || header.next_offset() > segment.next_offset() {
            return Err(bad(format!("offset {} outside its segment", header.base_offset)));
        }
        let last = walker.is_at_end();
        Ok(Some(Read { batch, position, last }))
    }
}

fn damaged(segment: &Segment, read: &Read, error: &RecordError) -> CompactError {
    CompactError::Damaged {
        path: segment.path().to_owned(),
        position: read.position,
        reason: error.to_string(),
    }
}
