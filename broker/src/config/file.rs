//! The configuration file: TOML, as quoted dotted names or as nested tables, both read as dotted names.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::broker::ConfigError;

/// What a file may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Setting {
    Bool(bool),
    Integer(i64),
    Decimal(f64),
    Text(String),
    List(Vec<Setting>),
    Table(Settings),
}

type Settings = BTreeMap<String, Setting>;

/// The settings in `text`, sorted by name. `file` is for messages.
pub(super) fn settings(file: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let table: Settings = toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Syntax {
        file: file.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().lines().collect::<Vec<_>>().join(" "),
    })?;
    let mut settings = Vec::new();
    flatten("", &table, &mut settings);
    settings.sort();
    if let Some(pair) = settings.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ConfigError::Value {
            origin: file.to_owned(),
            name: pair[0].0.clone(),
            value: format!("{}` and `{}", pair[0].1, pair[1].1),
            allowed: "one value, not a quoted name and a table both".to_owned(),
        });
    }
    Ok(settings)
}

fn flatten(prefix: &str, table: &Settings, settings: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Setting::Table(inner) => flatten(&name, inner, settings),
            value => settings.push((name, text_of(value))),
        }
    }
}

/// The text of a value as the registry parses it; lists become comma-separated.
fn text_of(value: &Setting) -> String {
    match value {
        Setting::Text(text) => text.clone(),
        Setting::Bool(value) => value.to_string(),
        Setting::Integer(value) => value.to_string(),
        Setting::Decimal(value) => value.to_string(),
        Setting::List(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        // Inside of a list: no setting is a list of tables, and its parser says so.
        Setting::Table(_) => "{ … }".to_owned(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_and_tables_mean_the_same() {
        let expected = vec![
            ("log.cleanup.policy".to_owned(), "delete,compact".to_owned()),
            ("log.retention.ms".to_owned(), "-1".to_owned()),
            ("log.roll.ms".to_owned(), "7".to_owned()),
        ];
        let texts = [
            "'log.retention.ms' = -1\n'log.roll.ms' = 7\n'log.cleanup.policy' = ['delete', 'compact']",
            "log.retention.ms = -1\nlog.roll.ms = '7'\nlog.cleanup.policy = 'delete,compact'",
            "[log]\nretention.ms = -1\n'roll.ms' = 7\n[log.cleanup]\npolicy = ['delete', 'compact']",
        ];
        for text in texts {
            assert_eq!(settings("f", text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(settings("f", "# nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_setting_given_in_both_forms_is_refused() {
        let error = settings("f", "'node.id' = 1\n[node]\nid = 2").expect_err("twice");
        assert_eq!(
            error.to_string(),
            "f: node.id cannot be `1` and `2`; allowed: one value, not a quoted name and a table both"
        );
    }
}
