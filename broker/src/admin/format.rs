//! Lines out of records, in each format; no I/O.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use heizer_client::{ConsumedRecord, RecordHeader, TimestampType};
use serde::Serialize;

use super::args::{ConsumeArgs, RecordFormat};
use super::data::{Data, hex};

/// What is written of a record: timestamp, partition, offset, headers, key and value, in this order, as Kafka's console
/// consumer does.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) format: RecordFormat,
    pub(super) timestamp: bool,
    pub(super) partition: bool,
    pub(super) offset: bool,
    pub(super) headers: bool,
    pub(super) key: bool,
    pub(super) separator: String,
    /// What stands for null.
    pub(super) null: String,
}

impl Format {
    pub(super) fn of(args: &ConsumeArgs) -> Format {
        Format {
            format: args.format,
            timestamp: args.print_timestamp,
            partition: args.print_partition,
            offset: args.print_offset,
            headers: args.print_headers,
            key: args.print_key,
            separator: args.key_separator.clone(),
            null: args.null_marker.clone(),
        }
    }

    /// Appends one line.
    pub(super) fn write(&self, record: &ConsumedRecord, out: &mut BytesMut) {
        if self.format == RecordFormat::Json {
            let line = serde_json::to_vec(&Line::of(record)).expect("keys are texts");
            out.put_slice(&line);
            return out.put_u8(b'\n');
        }
        if self.timestamp {
            let kind = timestamp_type(record);
            self.part(out, format_args!("{kind}:{}", record.timestamp));
        }
        if self.partition {
            self.part(out, format_args!("Partition:{}", record.partition));
        }
        if self.offset {
            self.part(out, format_args!("Offset:{}", record.offset));
        }
        if self.headers {
            self.write_headers(&record.headers, out);
            out.put_slice(self.separator.as_bytes());
        }
        if self.key {
            self.write_bytes(&record.key, out);
            out.put_slice(self.separator.as_bytes());
        }
        self.write_bytes(&record.value, out);
        out.put_u8(b'\n');
    }

    fn part(&self, out: &mut BytesMut, part: std::fmt::Arguments<'_>) {
        out.write_fmt(part).expect("memory does not fail");
        out.put_slice(self.separator.as_bytes());
    }

    fn write_headers(&self, headers: &[RecordHeader], out: &mut BytesMut) {
        if headers.is_empty() {
            out.put_slice(b"NO_HEADERS");
        }
        for (index, header) in headers.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            out.put_slice(&header.key);
            out.put_u8(b':');
            self.write_bytes(&header.value, out);
        }
    }

    fn write_bytes(&self, bytes: &Option<Bytes>, out: &mut BytesMut) {
        match bytes {
            None => out.put_slice(self.null.as_bytes()),
            Some(bytes) if self.format == RecordFormat::Hex => out.put_slice(hex(bytes).as_bytes()),
            Some(bytes) => out.put_slice(bytes),
        }
    }
}

/// Kafka's names.
fn timestamp_type(record: &ConsumedRecord) -> &'static str {
    match record.timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// A record in JSON, which `produce` reads.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    timestamp_type: &'static str,
    key: Option<Data>,
    value: Option<Data>,
    headers: Vec<(Data, Option<Data>)>,
}

impl Line<'_> {
    fn of(record: &ConsumedRecord) -> Line<'_> {
        let data = |bytes: &Option<Bytes>| bytes.clone().map(Data);
        let headers = record.headers.iter().map(|header| (Data(header.key.clone()), data(&header.value)));
        Line {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type: timestamp_type(record),
            key: data(&record.key),
            value: data(&record.value),
            headers: headers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse::{Parsed, Parser};

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 3,
            offset: 1,
            timestamp: 2,
            timestamp_type: TimestampType::CreateTime,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    fn header(value: Option<&'static [u8]>) -> RecordHeader {
        RecordHeader { key: Bytes::from("h"), value: value.map(Bytes::from_static) }
    }

    fn format(format: RecordFormat) -> Format {
        Format {
            format,
            timestamp: false,
            partition: false,
            offset: false,
            headers: false,
            key: false,
            separator: "|".to_owned(),
            null: "null".to_owned(),
        }
    }

    fn line(format: &Format, record: &ConsumedRecord) -> String {
        let mut out = BytesMut::new();
        format.write(record, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_record_is_a_line_of_what_was_asked_for() {
        let format = |headers, key| Format { headers, key, ..format(RecordFormat::Text) };
        let mut record_k = record(Some(b"k"), Some(b"v"));
        assert_eq!(line(&format(false, false), &record_k), "v\n");
        assert_eq!(line(&format(false, true), &record_k), "k|v\n");
        assert_eq!(line(&format(true, true), &record_k), "NO_HEADERS|k|v\n");
        record_k.headers = vec![header(Some(b"1")), header(None)];
        assert_eq!(line(&format(true, false), &record_k), "h:1,h:null|v\n");
        assert_eq!(line(&format(false, true), &record(None, None)), "null|null\n");
        assert_eq!(line(&format(false, true), &record(Some(b""), Some(b""))), "|\n");
    }

    #[test]
    fn where_and_when_stand_in_front_as_kafka_writes_them() {
        let all = Format { timestamp: true, partition: true, offset: true, ..format(RecordFormat::Text) };
        let mut record = record(None, Some(b"v"));
        assert_eq!(line(&all, &record), "CreateTime:2|Partition:3|Offset:1|v\n");
        record.timestamp_type = TimestampType::LogAppendTime;
        let when = Format { timestamp: true, ..format(RecordFormat::Text) };
        assert_eq!(line(&when, &record), "LogAppendTime:2|v\n");
    }

    #[test]
    fn digits_are_written_for_bytes_and_a_marker_for_null() {
        let digits = Format { key: true, null: "-".to_owned(), ..format(RecordFormat::Hex) };
        assert_eq!(line(&digits, &record(Some(b"\x00\n"), Some(b"\xff"))), "000a|ff\n");
        assert_eq!(line(&digits, &record(None, Some(b""))), "-|\n");
    }

    #[test]
    fn what_is_written_in_json_is_read_as_the_same_record() {
        let mut first = record(Some(b"\x00\xff"), Some("ü\n\"".as_bytes()));
        first.headers = vec![header(Some(b"\xfe")), header(None)];
        let json = format(RecordFormat::Json);
        assert_eq!(
            line(&json, &first),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":1,\"timestamp\":2,\"timestamp_type\":\"CreateTime\",\
             \"key\":{\"hex\":\"00ff\"},\"value\":\"ü\\n\\\"\",\"headers\":[[\"h\",{\"hex\":\"fe\"}],[\"h\",null]]}\n"
        );
        let parser = Parser { format: RecordFormat::Json, key_separator: None, null_marker: None };
        for record in [first, record(None, None), record(Some(b""), Some(b""))] {
            let parsed = parser.parse(&line(&json, &record).trim_end().to_owned().into());
            let ConsumedRecord { key, value, headers, partition, timestamp, .. } = record;
            let expected =
                Parsed { key, value, headers, partition: Some(partition), timestamp: Some(timestamp) };
            assert_eq!(parsed, Ok(expected));
        }
    }
}
