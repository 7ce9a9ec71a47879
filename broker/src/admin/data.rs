//! Bytes of records as texts, in hexadecimal digits and in JSON; no I/O.

use bytes::Bytes;
use serde::de::Deserializer;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// The field that says that the bytes are in hexadecimal digits.
const HEX: &str = "hex";

/// Bytes in JSON: a text where they are UTF-8, else `{"hex": "00ff"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data(pub(super) Bytes);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(HEX, &hex(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        match Shape::deserialize(deserializer)? {
            Shape::Text(text) => Ok(Data(text.into())),
            Shape::Digits(Digits { hex }) => match unhex(hex.as_bytes()) {
                Some(bytes) => Ok(Data(bytes)),
                None => Err(serde::de::Error::custom(NO_HEX)),
            },
        }
    }
}

/// What is wrong with digits.
pub(super) const NO_HEX: &str = "it is not made of pairs of hexadecimal digits";

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or {\"hex\": \"00ff\"}")]
enum Shape {
    Text(String),
    Digits(Digits),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digits {
    hex: String,
}

/// Two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The bytes that are written so, in either case.
pub(super) fn unhex(digits: &[u8]) -> Option<Bytes> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    pairs.iter().map(|&[high, low]| Some((value(high)? << 4) | value(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_go_through_json_and_back() {
        let table: [(&[u8], &str); 5] = [
            (b"", r#""""#),
            (b"text", r#""text""#),
            ("\"\\\n\0 ü\u{2028}".as_bytes(), "\"\\\"\\\\\\n\\u0000 ü\u{2028}\""),
            (b"{\"hex\":\"00\"}", r#""{\"hex\":\"00\"}""#),
            (b"\x00\xff", r#"{"hex":"00ff"}"#),
        ];
        for (bytes, json) in table {
            let data = Data(Bytes::copy_from_slice(bytes));
            assert_eq!(serde_json::to_string(&data).expect("json"), json);
            assert_eq!(serde_json::from_str::<Data>(json).expect(json), data);
        }
    }

    #[test]
    fn what_is_no_bytes_is_refused() {
        for json in ["1", "[]", "{}", r#"{"hex":"0"}"#, r#"{"hex":"0g"}"#, r#"{"hex":"00","x":1}"#] {
            assert!(serde_json::from_str::<Data>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn digits_are_pairs_in_either_case() {
        assert_eq!(hex(b"\x00\x0f\xf0\xff"), "000ff0ff");
        assert_eq!(unhex(b"000fF0fF"), Some(Bytes::from_static(b"\x00\x0f\xf0\xff")));
        assert_eq!(unhex(b""), Some(Bytes::new()));
        assert_eq!((unhex(b"0"), unhex(b"0x"), unhex(b"+1")), (None, None, None));
    }
}
