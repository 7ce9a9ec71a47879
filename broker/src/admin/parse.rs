//! Records out of lines, in each format; no I/O.

use bytes::Bytes;
use heizer_client::RecordHeader;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::args::RecordFormat;
use super::data::{Data, NO_HEX, unhex};
use super::lines::split_key;

/// How a line is read.
#[derive(Clone, Debug)]
pub(super) struct Parser {
    pub(super) format: RecordFormat,
    /// Without one lines are values.
    pub(super) key_separator: Option<String>,
    /// A key or a value of this text is null.
    pub(super) null_marker: Option<String>,
}

/// What a line says of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<RecordHeader>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
}

impl Parser {
    /// The record, or what is wrong with the line.
    pub(super) fn parse(&self, line: &Bytes) -> Result<Parsed, String> {
        if self.format == RecordFormat::Json {
            return serde_json::from_slice::<Line>(line).map(Parsed::from).map_err(|error| describe(&error));
        }
        let (key, value) = match &self.key_separator {
            None => (None, line.clone()),
            Some(separator) => match split_key(line, separator.as_bytes()) {
                Some((key, value)) => (self.field(key)?, value),
                None => {
                    return Err(format!(
                        "it has no key separator `{separator}`; give the one it has with --key-separator"
                    ));
                }
            },
        };
        Ok(Parsed { key, value: self.field(value)?, ..Parsed::default() })
    }

    fn field(&self, text: Bytes) -> Result<Option<Bytes>, String> {
        if self.null_marker.as_ref().is_some_and(|marker| *marker.as_bytes() == *text) {
            return Ok(None);
        }
        match self.format {
            RecordFormat::Hex => unhex(&text).map(Some).ok_or_else(|| NO_HEX.to_owned()),
            RecordFormat::Text | RecordFormat::Json => Ok(Some(text)),
        }
    }
}

/// A line is the whole document: where in it is a column.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    format!("column {}: {said}; `heizer produce --help` shows the form", error.column())
}

/// A record in JSON. What `consume` tells of where it was is passed over; any other field is a mistake.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    key: Option<Data>,
    #[serde(deserialize_with = "there")]
    value: Option<Data>,
    #[serde(default)]
    headers: Vec<(Data, Option<Data>)>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
    #[serde(default, rename = "timestamp_type")]
    _timestamp_type: IgnoredAny,
}

/// May be null, but not absent: a tombstone is meant, or forgotten.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data>, D::Error> {
    Option::deserialize(deserializer)
}

impl From<Line> for Parsed {
    fn from(line: Line) -> Parsed {
        let headers = line
            .headers
            .into_iter()
            .map(|(name, value)| RecordHeader { key: name.0, value: value.map(|value| value.0) });
        Parsed {
            key: line.key.map(|key| key.0),
            value: line.value.map(|value| value.0),
            headers: headers.collect(),
            // One that is too large is no partition of any topic.
            partition: line.partition.map(|partition| i32::try_from(partition).unwrap_or(i32::MAX)),
            // Kafka's number for none.
            timestamp: line.timestamp.filter(|&timestamp| timestamp >= 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(format: RecordFormat, separator: Option<&str>, null: Option<&str>) -> Parser {
        Parser { format, key_separator: separator.map(str::to_owned), null_marker: null.map(str::to_owned) }
    }

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Parsed {
        Parsed { key: key.map(Bytes::from_static), value: value.map(Bytes::from_static), ..Parsed::default() }
    }

    fn parse(parser: &Parser, line: &'static str) -> Result<Parsed, String> {
        parser.parse(&Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn a_line_of_text_is_a_value_or_key_and_value() {
        let values = parser(RecordFormat::Text, None, None);
        assert_eq!(parse(&values, "k:v"), Ok(record(None, Some(b"k:v"))));
        let pairs = parser(RecordFormat::Text, Some(":"), Some("NULL"));
        assert_eq!(parse(&pairs, "k:v:w"), Ok(record(Some(b"k"), Some(b"v:w"))));
        assert_eq!(parse(&pairs, "k:"), Ok(record(Some(b"k"), Some(b""))));
        assert_eq!(parse(&pairs, "k:NULL"), Ok(record(Some(b"k"), None)));
        assert_eq!(parse(&pairs, "NULL:NULL"), Ok(record(None, None)));
        assert_eq!(parse(&pairs, "NULLS:null"), Ok(record(Some(b"NULLS"), Some(b"null"))));
        assert!(parse(&pairs, "kv").expect_err("no separator").contains("--key-separator"));
    }

    #[test]
    fn a_line_of_digits_is_any_bytes() {
        let pairs = parser(RecordFormat::Hex, Some(" "), Some("-"));
        assert_eq!(parse(&pairs, "00ff 0A0d"), Ok(record(Some(b"\x00\xff"), Some(b"\n\r"))));
        assert_eq!(parse(&pairs, "- -"), Ok(record(None, None)));
        assert_eq!(parse(&pairs, "00 "), Ok(record(Some(b"\x00"), Some(b""))));
        assert_eq!(parse(&pairs, "00 0"), Err(NO_HEX.to_owned()));
    }

    #[test]
    fn a_line_of_json_is_a_whole_record() {
        let json = parser(RecordFormat::Json, None, None);
        assert_eq!(parse(&json, r#"{"value":"v"}"#), Ok(record(None, Some(b"v"))));
        assert_eq!(parse(&json, r#" {"key":"k", "value":null} "#), Ok(record(Some(b"k"), None)));
        let line = r#"{"topic":"t","partition":3,"offset":7,"timestamp":9,"timestamp_type":"CreateTime",
            "key":{"hex":"00ff"},"value":"ü","headers":[["h","1"],["h",null],[{"hex":"ff"},{"hex":""}]]}"#;
        let header = |key: &'static [u8], value: Option<&'static [u8]>| RecordHeader {
            key: Bytes::from_static(key),
            value: value.map(Bytes::from_static),
        };
        let expected = Parsed {
            headers: vec![header(b"h", Some(b"1")), header(b"h", None), header(b"\xff", Some(b""))],
            partition: Some(3),
            timestamp: Some(9),
            ..record(Some(b"\x00\xff"), Some("ü".as_bytes()))
        };
        assert_eq!(parse(&json, line), Ok(expected));
        assert_eq!(parse(&json, r#"{"value":"","timestamp":-1}"#), Ok(record(None, Some(b""))));
    }

    #[test]
    fn a_line_of_json_that_says_something_else_is_told_where() {
        let json = parser(RecordFormat::Json, None, None);
        for (line, said) in [
            ("", "column "),
            ("text", "column 2"),
            ("{}", "`value`"),
            (r#"{"key":"k"}"#, "`value`"),
            (r#"{"value":"v","vale":1}"#, "`vale`"),
            (r#"{"value":1}"#, "expected a text"),
            (r#"{"value":{"a":1}}"#, "expected a text"),
            (r#"{"value":{"hex":"0"}}"#, "column"),
            (r#"{"value":"v","partition":-1}"#, "column"),
            (r#"{"value":"v","headers":{"a":"b"}}"#, "column"),
            (r#"{"value":"v"} {"value":"w"}"#, "column"),
        ] {
            let error = parse(&json, line).expect_err(line);
            assert!(error.contains(said) && !error.contains('\n'), "{line}: {error}");
        }
    }
}
