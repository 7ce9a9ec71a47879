//! Refuses schemas that would generate wrong code, with a message that says where.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::struct_name;
use super::schema::{File, Message, Versions};

/// Panics (which fails the build) on the first inconsistency.
pub(crate) fn check(files: &[File]) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut keys: BTreeSet<i16> = BTreeSet::new();
    for file in files {
        if let Some(api) = &file.api {
            assert!(keys.insert(api.key), "{}: api key {} is taken", file.module, api.key);
            assert!(api.advertised.covers(api.versions), "{}: advertised must cover versions", file.module);
            assert!(file.messages.len() == 2, "{}: an api has a request and a response", file.module);
        }
        for message in &file.messages {
            for structure in &message.structs {
                let previous = owners.insert(&structure.name, &file.module);
                assert!(
                    previous.is_none(),
                    "{}: {} is already defined in {previous:?}; names are flat",
                    file.module,
                    structure.name
                );
            }
            check_message(&file.module, message);
        }
    }
}

fn check_message(module: &str, message: &Message) {
    assert!(message.versions.max < i16::MAX, "{module}: {} needs a last version", message.name);
    for structure in &message.structs {
        let mut tags = BTreeSet::new();
        for field in &structure.fields {
            let at = format!("{module}: {}.{}", structure.name, field.name);
            let alive: Versions = field.versions.intersection(message.versions);
            assert!(!alive.is_empty(), "{at}: never on the wire");
            if let Some(name) = struct_name(&field.ty) {
                assert!(message.find(name).is_some(), "{at}: {name} has no fields");
            }
            if let Some((tag, range)) = field.tag {
                assert!(tags.insert(tag), "{at}: tag {tag} used twice");
                assert!(
                    range.intersection(alive).min >= message.flexible_from,
                    "{at}: tagged before the message is flexible"
                );
            }
            if field.default.as_deref() == Some("null") {
                assert!(field.nullable.is_some(), "{at}: defaults to null but is not nullable");
            }
        }
    }
}
