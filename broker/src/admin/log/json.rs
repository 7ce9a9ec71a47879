//! Objects of JSON, one a line.

use std::fmt::{Display, Write};

use bytes::{BufMut, BytesMut};

/// An object under way; [`end`](Self::end) closes it and its line.
pub(super) struct Object<'a> {
    out: &'a mut BytesMut,
    any: bool,
}

impl<'a> Object<'a> {
    pub(super) fn start(out: &'a mut BytesMut) -> Self {
        out.put_u8(b'{');
        Self { out, any: false }
    }

    /// A number, `true` or `false`.
    pub(super) fn value(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        write!(self.out, "{value}").expect("memory does not fail");
        self
    }

    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        put_text(self.out, text);
        self
    }

    /// A number, or null.
    pub(super) fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self.value(name, "null"),
        }
    }

    /// A text, or null.
    pub(super) fn maybe_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self.value(name, "null"),
        }
    }

    /// A list of pairs of name and text or null.
    pub(super) fn pairs(mut self, name: &str, pairs: impl Iterator<Item = (String, Option<String>)>) -> Self {
        self.name(name);
        self.out.put_u8(b'[');
        for (at, (key, value)) in pairs.enumerate() {
            if at > 0 {
                self.out.put_u8(b',');
            }
            self.out.put_u8(b'[');
            put_text(self.out, &key);
            self.out.put_u8(b',');
            match value {
                Some(value) => put_text(self.out, &value),
                None => self.out.put_slice(b"null"),
            }
            self.out.put_u8(b']');
        }
        self.out.put_u8(b']');
        self
    }

    pub(super) fn end(self) {
        self.out.put_slice(b"}\n");
    }

    fn name(&mut self, name: &str) {
        if std::mem::replace(&mut self.any, true) {
            self.out.put_u8(b',');
        }
        put_text(self.out, name);
        self.out.put_u8(b':');
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    for character in text.chars() {
        match character {
            '"' => out.put_slice(b"\\\""),
            '\\' => out.put_slice(b"\\\\"),
            '\n' => out.put_slice(b"\\n"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("memory does not fail");
            }
            other => out.put_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_whatever_the_texts() {
        let mut out = BytesMut::new();
        let pairs = [("k".to_owned(), Some("v".to_owned())), ("n".to_owned(), None)];
        Object::start(&mut out)
            .value("a", -1)
            .text("b", "\"x\\\n\u{1}ü")
            .maybe("c", None::<i64>)
            .maybe_text("d", None)
            .pairs("e", pairs.into_iter())
            .end();
        assert_eq!(
            std::str::from_utf8(&out).expect("text"),
            "{\"a\":-1,\"b\":\"\\\"x\\\\\\n\\u0001ü\",\"c\":null,\"d\":null,\"e\":[[\"k\",\"v\"],[\"n\",null]]}\n"
        );
    }
}
