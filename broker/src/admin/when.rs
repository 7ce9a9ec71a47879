//! Times and durations as they are typed and shown: ISO 8601, in UTC.

use jiff::civil::DateTime;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// Milliseconds since the epoch, out of just that, or of a date with or without a time: in UTC, unless it ends in an
/// offset such as `+01:00`.
pub(super) fn parse_moment(text: &str) -> Result<i64, String> {
    if let Ok(millis) = text.parse::<i64>() {
        return if millis >= 0 { Ok(millis) } else { Err("it is before 1970".to_owned()) };
    }
    let moment: Option<Timestamp> = match text.parse() {
        Ok(moment) => Some(moment),
        // A zone by its name would be passed over.
        Err(_) if text.contains('[') => None,
        // Without an offset it is no moment yet.
        Err(_) => text.parse::<DateTime>().ok().and_then(|local| format!("{local}Z").parse().ok()),
    };
    match moment.map(|moment| moment.as_millisecond()) {
        Some(millis) if millis >= 0 => Ok(millis),
        Some(_) => Err("it is before 1970".to_owned()),
        None => Err("it is neither ms since 1970 nor a time such as 2026-03-01T08:00:00Z".to_owned()),
    }
}

/// Milliseconds, out of `P1DT2H3M4.5S`, or of `1d 2h`. A day has 24 hours; longer units have no length of their own.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let form = "it is not a duration such as P1DT12H, PT30M or 36h";
    let span: Span = text.parse().map_err(|_| form.to_owned())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "it has months or years, whose length differs; give days".to_owned())?;
    match i64::try_from(duration.as_millis()) {
        Ok(millis) if !duration.is_negative() => Ok(millis),
        _ => Err("it is negative".to_owned()),
    }
}

/// A moment for people.
pub(super) fn show_moment(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_numbers_or_iso_8601_in_utc() {
        let table = [
            ("0", 0),
            ("1700000000123", 1_700_000_000_123),
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T00:00:01.250", 1_250),
            ("1970-01-02", 86_400_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
            ("2023-11-14T23:43:20.123+01:30", 1_700_000_000_123),
        ];
        for (text, millis) in table {
            assert_eq!(parse_moment(text), Ok(millis), "{text}");
        }
        for text in [
            "",
            "soon",
            "-1",
            "1969-12-31T23:59:59Z",
            "2023-13-01",
            "2023-11-14T25:00:00",
            "2023-11-14T10:00[Europe/Paris]",
        ] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_iso_8601_with_days_of_24_hours() {
        let table = [
            ("PT0S", 0),
            ("PT1.5S", 1_500),
            ("PT30M", 1_800_000),
            ("P1DT2H3M4S", 93_784_000),
            ("P7D", 604_800_000),
            ("36h", 129_600_000),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(millis), "{text}");
        }
        for text in ["", "P", "1", "P1M", "P1Y", "-PT1S", "yesterday"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_that_is_shown_can_be_typed() {
        for millis in [0, 1_700_000_000_123, 253_402_207_200_000] {
            assert_eq!(parse_moment(&show_moment(millis)), Ok(millis));
        }
        assert_eq!(show_moment(i64::MAX), i64::MAX.to_string());
    }
}
