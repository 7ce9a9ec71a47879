//! Lines out of batches and records.

use std::fmt::{Arguments, Write};

use bytes::{BufMut, BytesMut};
use heizer_storage::inspect::StoredBatch;
use heizer_wire::record_batch::{BatchHeader, Compression, Record, TimestampType};

use super::json::Object;
use crate::admin::args::{BytesFormat, DumpArgs, LogFormat};

/// What the records of a batch show, once gone through.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) records: u64,
    pub(super) min_timestamp: Option<i64>,
    /// Why the records, or the rest of them, cannot be read.
    pub(super) error: Option<String>,
}

/// Appends one line.
pub(super) fn line(out: &mut BytesMut, text: Arguments<'_>) {
    out.write_fmt(text).expect("memory does not fail");
    out.put_u8(b'\n');
}

/// Appends what there is to say of a batch.
pub(super) fn batch(out: &mut BytesMut, format: LogFormat, batch: &StoredBatch, walked: &Walked) {
    match (batch.header(), format) {
        (Some(header), LogFormat::Text) => batch_text(out, batch, header, walked),
        (Some(header), LogFormat::Json) => batch_json(out, batch, header, walked),
        (None, _) => legacy(out, format, batch),
    }
}

fn batch_text(out: &mut BytesMut, batch: &StoredBatch, header: &BatchHeader, walked: &Walked) {
    let (base, last) = (header.base_offset, header.last_offset());
    let (position, size) = (batch.position(), batch.size());
    let crc = if batch.crc_matches() { "valid" } else { "INVALID" };
    let compression = compression_name(header);
    let (kind, max) = (timestamp_type(header), header.max_timestamp);
    let min = walked.min_timestamp.map_or("-".to_owned(), |min| min.to_string());
    let (id, producer_epoch) = (header.producer_id, header.producer_epoch);
    let (sequence, last_sequence) = (header.base_sequence, header.last_sequence());
    let (epoch, count) = (header.partition_leader_epoch, header.record_count);
    let mut flags = String::new();
    if header.is_transactional() {
        flags.push_str(" transactional");
    }
    if header.is_control() {
        flags.push_str(" control");
    }
    if header.has_delete_horizon() {
        let _ = write!(flags, " delete_horizon={}", header.base_timestamp);
    }
    if let Some(error) = &walked.error {
        let _ = write!(flags, " UNREADABLE: {error}");
    }
    line(
        out,
        format_args!(
            "batch offsets={base}..{last} position={position} size={size} magic=2 crc={crc} compression={compression} \
             {kind}={min}..{max} producer={id} producer_epoch={producer_epoch} sequence={sequence}..{last_sequence} \
             leader_epoch={epoch} records={count}{flags}"
        ),
    );
}

fn batch_json(out: &mut BytesMut, batch: &StoredBatch, header: &BatchHeader, walked: &Walked) {
    let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
    Object::start(out)
        .text("type", "batch")
        .value("base_offset", header.base_offset)
        .value("last_offset", header.last_offset())
        .value("position", batch.position())
        .value("size", batch.size())
        .value("magic", 2)
        .value("crc", header.crc)
        .value("crc_valid", batch.crc_matches())
        .text("compression", &compression_name(header))
        .text("timestamp_type", timestamp_type(header))
        .maybe("min_timestamp", walked.min_timestamp)
        .value("max_timestamp", header.max_timestamp)
        .value("producer_id", header.producer_id)
        .value("producer_epoch", header.producer_epoch)
        .value("base_sequence", header.base_sequence)
        .value("last_sequence", header.last_sequence())
        .value("leader_epoch", header.partition_leader_epoch)
        .value("transactional", header.is_transactional())
        .value("control", header.is_control())
        .maybe("delete_horizon", horizon)
        .value("record_count", header.record_count)
        .maybe_text("unreadable", walked.error.as_deref())
        .end();
}

fn legacy(out: &mut BytesMut, format: LogFormat, batch: &StoredBatch) {
    let message = batch.legacy().expect("it has no header");
    let (offset, position, size) = (message.offset, batch.position(), batch.size());
    let (magic, timestamp) = (message.magic, message.timestamp);
    let compression = Compression::from_id(message.compression_id()).map_or("unknown", Compression::name);
    let kind = if message.is_log_append_time() { "LogAppendTime" } else { "CreateTime" };
    let valid = batch.crc_matches();
    match format {
        LogFormat::Text => {
            let crc = if valid { "valid" } else { "INVALID" };
            line(
                out,
                format_args!(
                    "message offset={offset} position={position} size={size} magic={magic} crc={crc} \
                     compression={compression} {kind}={timestamp} legacy"
                ),
            );
        }
        LogFormat::Json => Object::start(out)
            .text("type", "legacy_message")
            .value("last_offset", offset)
            .value("position", position)
            .value("size", size)
            .value("magic", magic)
            .value("crc", message.crc)
            .value("crc_valid", valid)
            .text("compression", compression)
            .text("timestamp_type", kind)
            .value("max_timestamp", timestamp)
            .end(),
    }
}

/// Appends what there is to say of a record.
pub(super) fn record(out: &mut BytesMut, args: &DumpArgs, record: &Record) {
    let key = record.key.as_deref().map(|key| shown(key, args.key_format));
    let value = record.value.as_deref().filter(|_| args.values).map(|value| shown(value, args.value_format));
    let value_bytes = record.value.as_ref().map_or(-1, |value| value.len() as i64);
    let headers = record.headers.iter().map(|header| {
        (
            shown(&header.key, BytesFormat::Text),
            header.value.as_deref().map(|value| shown(value, args.value_format)),
        )
    });
    match args.format {
        LogFormat::Json => {
            let object = Object::start(out)
                .text("type", "record")
                .value("offset", record.offset)
                .value("timestamp", record.timestamp)
                .maybe_text("key", key.as_deref())
                .value("value_size", value_bytes);
            let object = if args.values { object.maybe_text("value", value.as_deref()) } else { object };
            object.pairs("headers", headers).end();
        }
        LogFormat::Text => {
            let (offset, timestamp) = (record.offset, record.timestamp);
            let key = quoted(key.as_deref());
            let mut rest = String::new();
            if args.values {
                let _ = write!(rest, " value={}", quoted(value.as_deref()));
            }
            for (name, value) in headers {
                let _ = write!(rest, " header {}={}", quoted(Some(&name)), quoted(value.as_deref()));
            }
            line(
                out,
                format_args!(
                    "  record offset={offset} timestamp={timestamp} key={key} value_size={value_bytes}{rest}"
                ),
            );
        }
    }
}

/// Bytes as they are asked for.
pub(super) fn shown(bytes: &[u8], format: BytesFormat) -> String {
    match format {
        BytesFormat::Text => String::from_utf8_lossy(bytes).into_owned(),
        BytesFormat::Hex => bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// On one line, and harmless to a terminal.
pub(super) fn quoted(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), |text| format!("\"{}\"", text.escape_debug()))
}

fn compression_name(header: &BatchHeader) -> String {
    match header.compression() {
        Ok(compression) => compression.name().to_owned(),
        Err(id) => format!("unknown-{id}"),
    }
}

fn timestamp_type(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}
