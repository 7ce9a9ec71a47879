//! Records out of lines.

use bytes::{Bytes, BytesMut};

/// Cuts a stream of bytes into lines. A line ends in `\n` or `\r\n`, neither of which belongs to it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: BytesMut,
    /// How much of `pending` is known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// More has come.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    /// The next whole line.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let Some(at) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.pending.len();
            return None;
        };
        let mut line = self.pending.split_to(self.searched + at + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        Some(without_return(line))
    }

    /// The last line, if the input did not end with the end of one.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| without_return(rest))
    }

    /// Bytes of the line that has begun.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }
}

fn without_return(mut line: BytesMut) -> Bytes {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    line.freeze()
}

/// Key and value on either side of the first separator; none when there is no separator.
pub(super) fn split_key(line: &Bytes, separator: &[u8]) -> Option<(Bytes, Bytes)> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((line.slice(..at), line.slice(at + separator.len()..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for chunk in chunks {
            lines.push(chunk.as_bytes());
            all.extend(std::iter::from_fn(|| lines.next()));
        }
        all.extend(lines.finish());
        all.into_iter().map(|line| String::from_utf8(line.to_vec()).expect("text")).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = "one\n\ntwo\r\nthree \r four\r\n\nlast";
        let expected = ["one", "", "two", "three \r four", "", "last"];
        assert_eq!(lines(&[text]), expected);
        for at in 0..text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), expected, "cut at {at}");
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(lines(&single.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_input_that_ends_with_a_line_has_no_further_one() {
        assert_eq!(lines(&["a\n"]), ["a"]);
        assert_eq!(lines(&["\n"]), [""]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn keys_end_at_the_first_separator() {
        let split = |line: &'static str, separator: &str| {
            split_key(&Bytes::from_static(line.as_bytes()), separator.as_bytes())
        };
        assert_eq!(split("k:v:w", ":"), Some((Bytes::from("k"), Bytes::from("v:w"))));
        assert_eq!(split("k::v", "::"), Some((Bytes::from("k"), Bytes::from("v"))));
        assert_eq!(split(":", ":"), Some((Bytes::new(), Bytes::new())));
        assert_eq!((split("kv", ":"), split("", ":")), (None, None));
    }
}
