//! The reference of all settings, written out of the registry. `deploy/CONFIGURATION.md` is what it says.

use std::fmt::Write;

use super::definition::{ConfigDef, Scope, UpdateMode};
use super::registry::{DEFINITIONS, definition};

const HEAD: &str = "\
# Configuration

Every setting there is, made by `heizer reference`: not to be edited by hand.

The broker's go into its TOML file (`heizer serve --config FILE`), as `log.retention.hours = 24` or in a table `[log]`. A
topic's are given when it is created (`heizer topic create NAME --config retention.ms=3600000`); where it says nothing,
the broker's hold that the column of defaults names, the first one that is set. What changes at any time is changed with
`heizer config`, or with any tool of Apache Kafka's.

| setting | in Apache Kafka | of | default | allowed | changes | what it does |
|---|---|---|---|---|---|---|
";

/// All settings as a page of Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for def in DEFINITIONS {
        let row = [
            format!("`{}`", def.name),
            in_kafka(def).to_owned(),
            scope(def.scope).to_owned(),
            default(def),
            def.kind.to_string(),
            changes(def.update_mode).to_owned(),
            def.doc.to_owned(),
        ];
        let row = row.map(|cell| cell.replace('|', "\\|"));
        writeln!(page, "| {} |", row.join(" | ")).expect("memory does not fail");
    }
    page
}

/// Names are Kafka's wherever Kafka has the setting.
fn in_kafka(def: &ConfigDef) -> &'static str {
    if def.name.starts_with("heizer.") { "Heizer's own" } else { "the same" }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Broker => "broker",
        Scope::Topic => "topic",
        Scope::Both => "broker, topic",
    }
}

fn changes(mode: UpdateMode) -> &'static str {
    match mode {
        UpdateMode::ReadOnly => "at a restart",
        UpdateMode::ClusterWide => "at any time",
        UpdateMode::PerBroker => "at any time, per broker",
    }
}

/// The default; of a topic's setting with the broker's that give it, the strongest first.
fn default(def: &ConfigDef) -> String {
    if def.scope != Scope::Topic {
        return def.default.map_or("unset".to_owned(), |text| format!("`{text}`"));
    }
    let last = def.synonyms.last().expect("every topic setting has a synonym: tested in the registry");
    let broker = definition(last.name).expect("synonyms are in the registry: tested there");
    let text = broker.default.expect("the last synonym has a default: tested in the registry");
    let value = broker.parse(text).expect("defaults parse: tested in the registry").scaled(last.scale);
    let names: Vec<String> = def.synonyms.iter().map(|synonym| format!("`{}`", synonym.name)).collect();
    format!("`{value}`, by {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/CONFIGURATION.md");

    #[test]
    fn the_page_in_deploy_is_what_the_registry_says() {
        let stored = std::fs::read_to_string(STORED).expect("deploy/CONFIGURATION.md is there");
        assert!(
            stored == reference(),
            "deploy/CONFIGURATION.md is stale: cargo run -- reference > deploy/CONFIGURATION.md"
        );
    }

    #[test]
    fn every_setting_is_a_row_of_its_own() {
        let page = reference();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), DEFINITIONS.len());
        for (def, row) in DEFINITIONS.iter().zip(rows) {
            assert!(row.starts_with(&format!("| `{}` | ", def.name)), "{row}");
            assert_eq!(row.replace("\\|", "").matches('|').count(), 8, "{row}");
        }
    }

    #[test]
    fn a_topic_s_default_names_where_it_comes_from() {
        let expected = "`604800000`, by `log.retention.ms`, `log.retention.minutes`, `log.retention.hours`";
        assert_eq!(default(definition("retention.ms").expect("there")), expected);
        assert_eq!(default(definition("log.retention.ms").expect("there")), "unset");
        assert_eq!(default(definition("node.id").expect("there")), "`1`");
    }
}
