//! One thing that was found, and how all of them are shown.

use std::fmt::Write;

use serde::Serialize;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is to be done.
    Ok,
    /// A broker works, and would work better otherwise.
    Advice,
    /// A broker does not start, or loses what it has promised to keep.
    Problem,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Advice => "advice",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is to be taken.
    pub level: Level,
    /// What was found, in one line.
    pub found: String,
    /// What to do, in one line; none where all is well.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { subject: subject.into(), level: Level::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn advice(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let remedy = Some(remedy.into());
        Finding { subject: subject.into(), level: Level::Advice, found: found.into(), remedy }
    }

    pub(super) fn problem(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Problem, ..Finding::advice(subject, found, remedy) }
    }

    /// What `serve` would end with: its line says what is wrong, and after a semicolon what to do.
    pub(super) fn refusal(subject: impl Into<String>, line: &str) -> Finding {
        let (found, remedy) =
            line.rsplit_once("; ").unwrap_or((line, "mend it, or `heizer serve` refuses to start"));
        Finding::problem(subject, found, remedy)
    }
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

/// A line for each finding, one more for each remedy, and a line that counts them.
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("memory does not fail");
    for Finding { subject, level, found, remedy } in findings {
        line(format_args!("{:<8} {subject}: {found}", level.name()));
        if let Some(remedy) = remedy {
            line(format_args!("{:<8} to do: {remedy}", ""));
        }
    }
    let of = |level| count(findings, level);
    let (problems, advice, ok) = (of(Level::Problem), of(Level::Advice), of(Level::Ok));
    line(format_args!("problems: {problems}, advice: {advice}, in order: {ok}"));
    out
}

/// One document: the counts and all findings.
pub fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        problems: usize,
        advice: usize,
        findings: &'a [Finding],
    }
    let (problems, advice) = (count(findings, Level::Problem), count(findings, Level::Advice));
    let report = Report { problems, advice, findings };
    serde_json::to_string(&report).expect("texts and numbers are always JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("kernel", "Linux 6.18"),
            Finding::advice("swap", "60", "`sysctl -w vm.swappiness=1`"),
            Finding::refusal("io_uring", "io_uring is forbidden; run \"x\""),
        ]
    }

    #[test]
    fn text_is_a_line_for_each_finding_and_each_remedy() {
        let expected = "ok       kernel: Linux 6.18\n\
                        advice   swap: 60\n         to do: `sysctl -w vm.swappiness=1`\n\
                        problem  io_uring: io_uring is forbidden\n         to do: run \"x\"\n\
                        problems: 1, advice: 1, in order: 1\n";
        assert_eq!(text(&findings()), expected);
    }

    #[test]
    fn json_is_one_document_with_everything() {
        let expected = "{\"problems\":1,\"advice\":1,\"findings\":[\
                        {\"subject\":\"kernel\",\"level\":\"ok\",\"found\":\"Linux 6.18\",\"remedy\":null},\
                        {\"subject\":\"swap\",\"level\":\"advice\",\"found\":\"60\",\"remedy\":\"`sysctl -w vm.swappiness=1`\"},\
                        {\"subject\":\"io_uring\",\"level\":\"problem\",\"found\":\"io_uring is forbidden\",\"remedy\":\"run \\\"x\\\"\"}]}\n";
        assert_eq!(json(&findings()), expected);
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, expected) in
            [(0, "0 bytes"), (1_024, "1 KiB"), (1 << 26, "64 MiB"), (3 << 29, "1.5 GiB"), (1 << 42, "4 TiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}
