//! `heizer log dump`: what is in files, batch by batch and entry by entry.

use std::path::Path;

use bytes::BytesMut;
use heizer_storage::inspect::{
    AbortedReader, BatchReader, FileKind, FrameReader, Next, NextFrame, OffsetReader, StoredBatch, Target,
    TimeReader, read_small_file, read_snapshot,
};

use super::json::Object;
use super::render::{self, Walked};
use super::{Printer, find, for_each, unreadable};
use crate::admin::args::{DumpArgs, LogFormat};
use crate::admin::error::CliError;

/// Writes what is in everything that was named.
pub(super) async fn run(args: DumpArgs) -> Result<(), CliError> {
    let mut dump = Dump { printer: Printer::open()?, out: BytesMut::new(), args };
    let target = find(&dump.args.which.path).await?;
    match &target {
        Target::File(path) => dump.file(path).await?,
        Target::Stream(path) => {
            let listed = heizer_runtime::fs::read_dir(path).await.map_err(CliError::of)?;
            for entry in listed.iter().filter(|entry| FileKind::of(&entry.name) == FileKind::Stream) {
                dump.file(&path.join(&entry.name)).await?;
            }
        }
        Target::Partition(_) | Target::DataDir(_) => {
            let which = dump.args.which.clone();
            for_each(&target, &which, async |partition| {
                let segments = partition.segments();
                for path in partition.files() {
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    // A segment whose successor starts at or below the first offset asked for holds none of them.
                    let base = FileKind::base_of(name).filter(|_| FileKind::of(name) == FileKind::Log);
                    let next = base.and_then(|base| segments.iter().find(|segment| segment.0 > base));
                    let below =
                        next.is_some_and(|&(next, _)| dump.args.from.is_some_and(|from| next <= from));
                    let above = base.zip(dump.args.to).is_some_and(|(base, to)| base >= to);
                    if !below && !above {
                        dump.file(&path).await?;
                    }
                }
                Ok(())
            })
            .await?;
        }
    }
    dump.flush().await
}

/// A dump under way.
struct Dump {
    printer: Printer,
    out: BytesMut,
    args: DumpArgs,
}

impl Dump {
    async fn flush(&mut self) -> Result<(), CliError> {
        let rest = std::cell::RefCell::new(self.out.split());
        self.printer.write_from(&rest).await
    }

    async fn file(&mut self, path: &Path) -> Result<(), CliError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let base = FileKind::base_of(name).unwrap_or(0);
        match FileKind::of(name) {
            FileKind::Log => self.segment(path).await,
            FileKind::Index => self.index(path, base).await,
            FileKind::TimeIndex => self.time_index(path, base).await,
            FileKind::TxnIndex => self.aborted(path).await,
            FileKind::Snapshot => self.snapshot(path).await,
            FileKind::Stream => self.stream(path, base.unsigned_abs()).await,
            FileKind::Epochs | FileKind::Metadata | FileKind::LogStart | FileKind::QuorumState => {
                self.text(path).await
            }
            FileKind::Passing | FileKind::Other => {
                let path = path.display();
                let text = format!("{path}: is no file of a log by its name; see `heizer log dump --help`");
                Err(CliError::Unusable(text))
            }
        }
    }

    fn title(&mut self, path: &Path) {
        let path = path.display().to_string();
        match self.args.format {
            LogFormat::Text => render::line(&mut self.out, format_args!("{path}")),
            LogFormat::Json => Object::start(&mut self.out).text("type", "file").text("path", &path).end(),
        }
    }

    async fn segment(&mut self, path: &Path) -> Result<(), CliError> {
        let mut batches = BatchReader::open(path).await.map_err(unreadable)?;
        self.title(path);
        loop {
            match batches.next().await.map_err(unreadable)? {
                Next::Batch(batch) => {
                    if self.args.to.is_some_and(|to| batch.base_offset() >= to) {
                        return Ok(());
                    }
                    if self.args.from.is_none_or(|from| batch.last_offset() >= from) {
                        self.batch(&batch).await?;
                    }
                }
                Next::End => return Ok(()),
                Next::Zeros { position, left, first_other } => {
                    self.remark(
                        position,
                        left,
                        match first_other {
                            None => "zeros: reserved space".to_owned(),
                            Some(other) => format!("zeros, and other bytes again from position {other} on"),
                        },
                    );
                    return Ok(());
                }
                Next::Bad { position, left, reason } => {
                    self.remark(position, left, format!("no batch: {reason}"));
                    return Ok(());
                }
            }
        }
    }

    /// One batch, and its records where they are asked for. The records are gone through in any case: they say the
    /// least timestamp, and whether they can be read. The batch's line comes first.
    async fn batch(&mut self, batch: &StoredBatch) -> Result<(), CliError> {
        render::batch(&mut self.out, self.args.format, batch, &walk(batch));
        if self.args.records || self.args.values {
            match batch.records() {
                Err(_) => {}
                Ok(records) => {
                    for record in records.map_while(Result::ok) {
                        let below = self.args.from.is_some_and(|from| record.offset < from);
                        if !below && self.args.to.is_none_or(|to| record.offset < to) {
                            render::record(&mut self.out, &self.args, &record);
                        }
                        self.printer.write_if_many(&mut self.out).await?;
                    }
                }
            }
            self.legacy_record(batch);
        }
        self.printer.write_if_many(&mut self.out).await
    }

    fn legacy_record(&mut self, batch: &StoredBatch) {
        let Some(found) = batch.legacy_record() else { return };
        let record = heizer_wire::record_batch::Record {
            offset: batch.last_offset(),
            timestamp: batch.max_timestamp(),
            key: found.key,
            value: found.value,
            headers: Vec::new(),
        };
        render::record(&mut self.out, &self.args, &record);
    }

    /// What follows the last batch.
    fn remark(&mut self, position: u64, left: u64, what: String) {
        match self.args.format {
            LogFormat::Text => {
                render::line(&mut self.out, format_args!("end position={position} left={left}: {what}"));
            }
            LogFormat::Json => Object::start(&mut self.out)
                .text("type", "end")
                .value("position", position)
                .value("left", left)
                .text("what", &what)
                .end(),
        }
    }

    async fn index(&mut self, path: &Path, base: i64) -> Result<(), CliError> {
        let mut entries = OffsetReader::open(path).await.map_err(unreadable)?;
        self.title(path);
        while let Some(entry) = entries.next().await.map_err(unreadable)? {
            let (offset, position) = (base.saturating_add(entry.relative.into()), entry.position);
            match self.args.format {
                LogFormat::Text => {
                    render::line(&mut self.out, format_args!("entry offset={offset} position={position}"));
                }
                LogFormat::Json => Object::start(&mut self.out)
                    .text("type", "offset_entry")
                    .value("offset", offset)
                    .value("position", position)
                    .end(),
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
        self.rest(entries.position(), entries.rest());
        Ok(())
    }

    async fn time_index(&mut self, path: &Path, base: i64) -> Result<(), CliError> {
        let mut entries = TimeReader::open(path).await.map_err(unreadable)?;
        self.title(path);
        while let Some(entry) = entries.next().await.map_err(unreadable)? {
            let (offset, timestamp) = (base.saturating_add(entry.relative.into()), entry.timestamp);
            match self.args.format {
                LogFormat::Text => {
                    render::line(&mut self.out, format_args!("entry timestamp={timestamp} offset={offset}"));
                }
                LogFormat::Json => Object::start(&mut self.out)
                    .text("type", "time_entry")
                    .value("timestamp", timestamp)
                    .value("offset", offset)
                    .end(),
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
        self.rest(entries.position(), entries.rest());
        Ok(())
    }

    fn rest(&mut self, position: u64, left: u64) {
        if left > 0 {
            self.remark(position, left, "no whole entry".to_owned());
        }
    }

    async fn aborted(&mut self, path: &Path) -> Result<(), CliError> {
        let mut entries = AbortedReader::open(path).await.map_err(unreadable)?;
        self.title(path);
        while let Some(entry) = entries.next().await.map_err(unreadable)? {
            let (id, first, last) = (entry.producer_id, entry.first_offset, entry.last_offset);
            let stable = entry.last_stable_offset;
            match self.args.format {
                LogFormat::Text => render::line(
                    &mut self.out,
                    format_args!("aborted producer={id} offsets={first}..{last} last_stable_offset={stable}"),
                ),
                LogFormat::Json => Object::start(&mut self.out)
                    .text("type", "aborted")
                    .value("producer_id", id)
                    .value("first_offset", first)
                    .value("last_offset", last)
                    .value("last_stable_offset", stable)
                    .end(),
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
        self.rest(entries.position(), entries.rest());
        Ok(())
    }

    async fn snapshot(&mut self, path: &Path) -> Result<(), CliError> {
        let producers = read_snapshot(path).await.map_err(unreadable)?;
        self.title(path);
        let Some(producers) = producers else {
            self.remark(0, 0, "damaged: its CRC, version or length is wrong".to_owned());
            return Ok(());
        };
        for producer in producers {
            let (id, epoch, sequence) = (producer.producer_id, producer.epoch, producer.last_sequence);
            let (last, seen) = (producer.last_offset, producer.last_seen_ms);
            let (coordinator, open) = (producer.coordinator_epoch, producer.open_transaction);
            match self.args.format {
                LogFormat::Text => {
                    let open = open.map_or("none".to_owned(), |offset| offset.to_string());
                    render::line(
                        &mut self.out,
                        format_args!(
                            "producer id={id} epoch={epoch} last_sequence={sequence} last_offset={last} \
                             last_seen={seen} coordinator_epoch={coordinator} open_transaction={open}"
                        ),
                    );
                }
                LogFormat::Json => Object::start(&mut self.out)
                    .text("type", "producer")
                    .value("producer_id", id)
                    .value("producer_epoch", epoch)
                    .value("last_sequence", sequence)
                    .value("last_offset", last)
                    .value("offset_delta", producer.offset_delta)
                    .value("last_seen", seen)
                    .value("coordinator_epoch", coordinator)
                    .maybe("open_transaction", open)
                    .end(),
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
        Ok(())
    }

    async fn stream(&mut self, path: &Path, base: u64) -> Result<(), CliError> {
        let mut frames = FrameReader::open(path, base).await.map_err(unreadable)?;
        self.title(path);
        loop {
            match frames.next().await.map_err(unreadable)? {
                NextFrame::Entry { position, payload, .. } => match self.args.format {
                    LogFormat::Text => render::line(
                        &mut self.out,
                        format_args!("entry position={position} payload={} crc=valid", payload.len()),
                    ),
                    LogFormat::Json => Object::start(&mut self.out)
                        .text("type", "stream_entry")
                        .value("position", position)
                        .value("payload_size", payload.len())
                        .end(),
                },
                NextFrame::End { position, left } => {
                    if left > 0 {
                        self.remark(position, left, "reserved space".to_owned());
                    }
                    return Ok(());
                }
                NextFrame::Bad { position, reason } => {
                    self.remark(position, 0, format!("no entry: {reason}"));
                    return Ok(());
                }
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
    }

    async fn text(&mut self, path: &Path) -> Result<(), CliError> {
        let text = read_small_file(path).await.map_err(unreadable)?;
        self.title(path);
        for text in String::from_utf8_lossy(&text).lines() {
            match self.args.format {
                LogFormat::Text => render::line(&mut self.out, format_args!("{}", text.escape_debug())),
                LogFormat::Json => Object::start(&mut self.out).text("type", "line").text("text", text).end(),
            }
            self.printer.write_if_many(&mut self.out).await?;
        }
        Ok(())
    }
}

/// Goes through the records of a batch.
fn walk(batch: &StoredBatch) -> Walked {
    let mut walked = Walked::default();
    let records = match batch.records() {
        Ok(records) => records,
        Err(error) => return Walked { error: Some(error.to_string()), ..walked },
    };
    for record in records {
        match record {
            Ok(record) => {
                walked.records += 1;
                let min = walked.min_timestamp.unwrap_or(i64::MAX);
                walked.min_timestamp = Some(min.min(record.timestamp));
            }
            Err(error) => {
                walked.error = Some(format!("after {} records: {error}", walked.records));
                break;
            }
        }
    }
    walked
}
