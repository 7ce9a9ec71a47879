//! Lines out of records.

use bytes::{BufMut, Bytes, BytesMut};
use heizer_client::{ConsumedRecord, RecordHeader};

/// What is written of a record: headers, key and value, in this order, as Kafka's console consumer does.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) headers: bool,
    pub(super) key: bool,
    pub(super) separator: String,
}

impl Format {
    /// Appends one line. Bytes are written as they are; what is null is written as `null`.
    pub(super) fn write(&self, record: &ConsumedRecord, out: &mut BytesMut) {
        if self.headers {
            write_headers(&record.headers, out);
            out.put_slice(self.separator.as_bytes());
        }
        if self.key {
            write_nullable(&record.key, out);
            out.put_slice(self.separator.as_bytes());
        }
        write_nullable(&record.value, out);
        out.put_u8(b'\n');
    }
}

fn write_headers(headers: &[RecordHeader], out: &mut BytesMut) {
    if headers.is_empty() {
        out.put_slice(b"NO_HEADERS");
    }
    for (index, header) in headers.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&header.key);
        out.put_u8(b':');
        write_nullable(&header.value, out);
    }
}

fn write_nullable(bytes: &Option<Bytes>, out: &mut BytesMut) {
    out.put_slice(bytes.as_deref().unwrap_or(b"null"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static str>, value: Option<&'static str>) -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 0,
            offset: 1,
            timestamp: 2,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: Vec::new(),
        }
    }

    fn line(format: &Format, record: &ConsumedRecord) -> String {
        let mut out = BytesMut::new();
        format.write(record, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_record_is_a_line_of_what_was_asked_for() {
        let format = |headers, key| Format { headers, key, separator: "|".to_owned() };
        let mut record_k = record(Some("k"), Some("v"));
        assert_eq!(line(&format(false, false), &record_k), "v\n");
        assert_eq!(line(&format(false, true), &record_k), "k|v\n");
        assert_eq!(line(&format(true, true), &record_k), "NO_HEADERS|k|v\n");
        let header = |value| RecordHeader { key: Bytes::from("h"), value };
        record_k.headers = vec![header(Some(Bytes::from("1"))), header(None)];
        assert_eq!(line(&format(true, false), &record_k), "h:1,h:null|v\n");
        assert_eq!(line(&format(false, true), &record(None, None)), "null|null\n");
        assert_eq!(line(&format(false, true), &record(Some(""), Some(""))), "|\n");
    }
}
