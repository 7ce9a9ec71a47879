//! `heizer config`.

use std::fmt::Write;

use heizer_client::{Admin, Client, ConfigChange, ConfigEntry, ConfigResource};
use serde::Serialize;

use super::args::{ConfigKind, ConfigTarget, ConfigVerb, ListingFormat};
use super::error::CliError;
use super::stdio::Report;
use super::table::{self, Table};

/// The name of what holds for all brokers.
const DEFAULT: &str = "default";
/// DescribeConfigs' number for a value that nobody has set.
const SOURCE_DEFAULT: i8 = 5;

pub(super) async fn run(client: Client, verb: ConfigVerb) -> Result<(), CliError> {
    let admin = Admin::new(&client);
    let report: Report = match verb {
        ConfigVerb::Get { target, keys, all, listing } => {
            let resource = resource(&target)?;
            let entries = wanted(&resource, admin.configs(&resource).await?, &keys, all)?;
            match listing.output {
                ListingFormat::Text => text(&entries).into(),
                ListingFormat::Json => table::json(&entries.iter().map(Row::of).collect::<Vec<_>>()).into(),
            }
        }
        ConfigVerb::Set { target, settings, dry_run } => {
            alter(&admin, &target, &changes(&settings, &[])?, dry_run).await?.into()
        }
        ConfigVerb::Unset { target, keys, dry_run } => {
            alter(&admin, &target, &changes(&[], &keys)?, dry_run).await?.into()
        }
    };
    report.publish().await
}

async fn alter(
    admin: &Admin,
    target: &ConfigTarget,
    changes: &[ConfigChange],
    dry_run: bool,
) -> Result<String, CliError> {
    let resource = resource(target)?;
    admin.alter_configs(&resource, changes, dry_run).await?;
    Ok(tell_changes(&resource, changes, dry_run))
}

fn resource(target: &ConfigTarget) -> Result<ConfigResource, CliError> {
    let name = target.name.as_str();
    match target.kind {
        ConfigKind::Topic => Ok(ConfigResource::Topic(name.to_owned())),
        ConfigKind::Broker if name == DEFAULT => Ok(ConfigResource::Brokers),
        ConfigKind::Broker => match name.parse::<i32>() {
            Ok(id) if id >= 0 => Ok(ConfigResource::Broker(id)),
            _ => Err(CliError::Usage(format!(
                "`{name}` is no broker; give its number, which `heizer cluster info` shows, or {DEFAULT} for all"
            ))),
        },
    }
}

/// What is to be changed: settings with new values, and settings that return to their defaults.
pub(super) fn changes(set: &[(String, String)], unset: &[String]) -> Result<Vec<ConfigChange>, CliError> {
    let set = set.iter().map(|(name, value)| (name, Some(value.clone())));
    let mut changes: Vec<ConfigChange> = Vec::new();
    for (name, value) in set.chain(unset.iter().map(|name| (name, None))) {
        if changes.iter().any(|change| change.name == *name) {
            return Err(CliError::Usage(format!("{name} is named twice; name it once")));
        }
        changes.push(ConfigChange { name: name.clone(), value });
    }
    Ok(changes)
}

/// A line for each change.
pub(super) fn tell_changes(resource: &ConfigResource, changes: &[ConfigChange], dry_run: bool) -> String {
    let mut text = String::new();
    for ConfigChange { name, value } in changes {
        let told = match (value, dry_run) {
            (Some(value), false) => writeln!(text, "set {name} = {value} of {resource}"),
            (Some(value), true) => writeln!(text, "would set {name} = {value} of {resource}"),
            (None, false) => writeln!(text, "returned {name} of {resource} to its default"),
            (None, true) => writeln!(text, "would return {name} of {resource} to its default"),
        };
        told.expect("writing to a string does not fail");
    }
    text
}

/// The settings to show, in the order in which they were asked for.
fn wanted(
    resource: &ConfigResource,
    entries: Vec<ConfigEntry>,
    keys: &[String],
    all: bool,
) -> Result<Vec<ConfigEntry>, CliError> {
    if keys.is_empty() {
        return Ok(entries.into_iter().filter(|entry| all || entry.source != SOURCE_DEFAULT).collect());
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let entry = entries.iter().find(|entry| entry.name == *key).ok_or_else(|| {
            CliError::of(format_args!("{resource} has no setting {key}; --all shows those that it has"))
        })?;
        found.push(entry.clone());
    }
    Ok(found)
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// None is a secret one.
    value: Option<&'a str>,
    source: &'static str,
    read_only: bool,
    sensitive: bool,
}

impl Row<'_> {
    fn of(entry: &ConfigEntry) -> Row<'_> {
        Row {
            name: &entry.name,
            value: entry.value.as_deref(),
            source: source_name(entry.source),
            read_only: entry.read_only,
            sensitive: entry.sensitive,
        }
    }
}

fn text(entries: &[ConfigEntry]) -> String {
    let mut table = Table::new(["NAME", "VALUE", "SOURCE", "NOTE"]);
    for entry in entries {
        let value = match &entry.value {
            None if entry.sensitive => "(hidden)".to_owned(),
            None => "(unset)".to_owned(),
            Some(value) => value.clone(),
        };
        let note = if entry.read_only { "read-only" } else { "" };
        table.row([entry.name.clone(), value, source_name(entry.source).to_owned(), note.to_owned()]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text
}

/// Kafka's names for where a value comes from.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        SOURCE_DEFAULT => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: Option<&str>, source: i8) -> ConfigEntry {
        ConfigEntry {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source,
            read_only: source == 4,
            sensitive: false,
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn brokers_are_numbers_or_all_of_them() {
        let resource = |kind, name: &str| resource(&ConfigTarget { kind, name: name.to_owned() });
        assert_eq!(resource(ConfigKind::Topic, "7"), Ok(ConfigResource::Topic("7".to_owned())));
        assert_eq!(resource(ConfigKind::Broker, "7"), Ok(ConfigResource::Broker(7)));
        assert_eq!(resource(ConfigKind::Broker, "default"), Ok(ConfigResource::Brokers));
        for name in ["", "one", "-1", "localhost:9092"] {
            assert!(matches!(resource(ConfigKind::Broker, name), Err(CliError::Usage(_))), "{name}");
        }
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_shown_unless_asked() {
        let entries = || {
            vec![
                entry("a", Some("1"), 5),
                entry("b", Some("2"), 1),
                entry("c", None, 5),
                entry("d", Some("4"), 4),
            ]
        };
        let topic = ConfigResource::Topic("t".to_owned());
        let names = |keys: &[&str], all| {
            let wanted = wanted(&topic, entries(), &owned(keys), all).expect("all are there");
            wanted.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[], false), ["b", "d"]);
        assert_eq!(names(&[], true), ["a", "b", "c", "d"]);
        assert_eq!(names(&["c", "b"], false), ["c", "b"]);
        let error = wanted(&topic, entries(), &owned(&["x"]), false).expect_err("no such setting");
        assert!(error.to_string().starts_with("topic t has no setting x; "), "{error}");
    }

    #[test]
    fn settings_are_shown_with_who_set_them() {
        let entries = [entry("b", Some("2"), 1), entry("long.name", None, 5), entry("d", Some("4"), 4)];
        assert_eq!(
            text(&entries),
            "NAME       VALUE    SOURCE                NOTE\n\
             b          2        DYNAMIC_TOPIC_CONFIG\n\
             long.name  (unset)  DEFAULT_CONFIG\n\
             d          4        STATIC_BROKER_CONFIG  read-only\n"
        );
        let json = serde_json::to_string(&Row::of(&entries[0])).expect("json");
        assert_eq!(
            json,
            r#"{"name":"b","value":"2","source":"DYNAMIC_TOPIC_CONFIG","read_only":false,"sensitive":false}"#
        );
    }

    #[test]
    fn changes_are_told_and_no_setting_is_changed_twice() {
        let set = [("a".to_owned(), "1".to_owned())];
        let both = changes(&set, &owned(&["b"])).expect("two settings");
        assert_eq!(
            tell_changes(&ConfigResource::Brokers, &both, false),
            "set a = 1 of all brokers\nreturned b of all brokers to its default\n"
        );
        assert_eq!(
            tell_changes(&ConfigResource::Broker(3), &both, true),
            "would set a = 1 of broker 3\nwould return b of broker 3 to its default\n"
        );
        assert!(matches!(changes(&set, &owned(&["a"])), Err(CliError::Usage(_))));
    }
}
