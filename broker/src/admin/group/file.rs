//! Offsets out of a file: lines of `topic,partition,offset`, or with the group's name in front.

use std::collections::BTreeMap;

use heizer_client::TopicPartition;

/// The offsets of `group`. Lines of other groups are passed over; a line without a group is meant for any.
pub(super) fn parse(text: &str, group: &str) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let mut offsets = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let form = || format!("line {number}: `{line}` is not topic,partition,offset");
        let (named, partition, offset) = row(line).ok_or_else(form)?;
        if named.is_some_and(|named| named != group) {
            continue;
        }
        let (topic, index) = (partition.0.clone(), partition.1);
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("line {number}: {topic}-{index} has been there before"));
        }
    }
    if offsets.is_empty() {
        return Err(format!("it has no offsets for group {group}"));
    }
    Ok(offsets)
}

/// Of its columns only a group's name may have commas.
fn row(line: &str) -> Option<(Option<String>, TopicPartition, i64)> {
    let mut columns = line.rsplitn(4, ',').map(unquoted);
    let offset: i64 = columns.next()?.parse().ok()?;
    let partition: i32 = columns.next()?.parse().ok()?;
    let topic = columns.next()?;
    if topic.is_empty() || partition < 0 || offset < 0 {
        return None;
    }
    Some((columns.next(), (topic, partition), offset))
}

/// Without the quotes that it may stand in, within which they are doubled.
fn unquoted(column: &str) -> String {
    let column = column.trim();
    let inner = column.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| column.to_owned(), |inner| inner.replace("\"\"", "\""))
}

/// A line of such a file.
pub(super) fn line((topic, partition): &TopicPartition, offset: i64) -> String {
    format!("{topic},{partition},{offset}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(of: &[(&str, i32, i64)]) -> BTreeMap<TopicPartition, i64> {
        of.iter().map(|&(topic, partition, offset)| ((topic.to_owned(), partition), offset)).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let expected = offsets(&[("a", 0, 5), ("a", 11, 0), ("b.c_d-e", 2, i64::MAX)]);
        let text: String = expected.iter().map(|(partition, offset)| line(partition, *offset)).collect();
        assert_eq!(text, "a,0,5\na,11,0\nb.c_d-e,2,9223372036854775807\n");
        assert_eq!(parse(&text, "g"), Ok(expected));
    }

    #[test]
    fn lines_may_name_their_group_in_quotes_and_out() {
        let text = "g,a,0,1\r\nh,a,0,2\n\n\"g\",\"a\",1,3\n\"g,with \"\"commas\"\"\",a,2,4\n a , 3 , 5 \n";
        assert_eq!(parse(text, "g"), Ok(offsets(&[("a", 0, 1), ("a", 1, 3), ("a", 3, 5)])));
        assert_eq!(parse(text, "g,with \"commas\""), Ok(offsets(&[("a", 2, 4), ("a", 3, 5)])));
    }

    #[test]
    fn a_line_that_says_nothing_is_named() {
        for (text, line) in
            [("a,0", 1), ("a,0,1\nb", 2), ("a,x,1", 1), ("a,0,-1", 1), ("a,-1,0", 1), (",0,1", 1)]
        {
            let error = parse(text, "g").expect_err(text);
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
        assert!(parse("a,0,1\na,0,2", "g").expect_err("twice").contains("line 2: a-0"));
        assert!(parse("h,a,0,1", "g").expect_err("of another").contains("group g"));
    }
}
