//! What the APIs about settings share: kinds of resources, and how requests to alter settings are carried out.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;

use super::Call;
use super::codes::control_code;
use crate::config::{Alteration, Brokers};
use crate::shard::{AlterConfig, ConfigTarget, here};

/// Kinds of resources that have settings in Kafka, by their numbers on the wire.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// A refusal, in the client's terms.
pub(super) type Refusal = (ErrorCode, String);

/// Which resource: its kind and its name.
pub(super) type ResourceKey = (i8, ByteString);

/// One resource of a request, and what is to become of its settings, if the request makes sense.
pub(super) struct Resource {
    pub(super) key: ResourceKey,
    pub(super) alteration: Result<Alteration, Refusal>,
}

/// What has come of a resource.
pub(super) struct Outcome {
    pub(super) key: ResourceKey,
    pub(super) code: ErrorCode,
    pub(super) message: Option<ByteString>,
}

/// Alters the settings of `resources`, each by itself: all that is asked of one, or nothing. In their order.
pub(super) async fn alter(call: &Call, resources: Vec<Resource>, validate_only: bool) -> Vec<Outcome> {
    let mut times: BTreeMap<ResourceKey, u32> = BTreeMap::new();
    for resource in &resources {
        *times.entry(resource.key.clone()).or_default() += 1;
    }
    let mut outcomes: Vec<(ResourceKey, Result<(), Refusal>)> = Vec::with_capacity(resources.len());
    let (mut requests, mut places) = (Vec::new(), Vec::new());
    for Resource { key, alteration } in resources {
        let checked = match times.get(&key) {
            Some(1) => {
                target(call, &key).and_then(|target| Ok(AlterConfig { target, alteration: alteration? }))
            }
            _ => Err((ErrorCode::InvalidRequest, "the resource is named more than once".to_owned())),
        };
        let outcome = match checked {
            Ok(request) => {
                places.push(outcomes.len());
                requests.push(request);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        outcomes.push((key, outcome));
    }
    if !requests.is_empty() {
        let altered = cores::call(call.shard.node().cluster_core(), move || async move {
            here().alter_configs(requests, validate_only).await
        });
        let gone = |error: cores::CoreGone| Err((ErrorCode::UnknownServerError, error.to_string()));
        match altered.await {
            Ok(altered) => {
                for (place, outcome) in places.into_iter().zip(altered) {
                    outcomes[place].1 = outcome.map_err(|error| (control_code(&error), error.to_string()));
                }
            }
            Err(error) => places.into_iter().for_each(|place| outcomes[place].1 = gone(error)),
        }
    }
    let outcome = |(key, outcome): (ResourceKey, Result<(), Refusal>)| match outcome {
        Ok(()) => Outcome { key, code: ErrorCode::None, message: None },
        Err((code, message)) => Outcome { key, code, message: Some(message.into()) },
    };
    outcomes.into_iter().map(outcome).collect()
}

fn target(call: &Call, (kind, name): &ResourceKey) -> Result<ConfigTarget, Refusal> {
    match *kind {
        TOPIC if name.is_empty() => {
            let message = "a topic has to be named: what holds for all topics is set for brokers";
            Err((ErrorCode::InvalidRequest, message.to_owned()))
        }
        TOPIC => Ok(ConfigTarget::Topic(name.to_string())),
        BROKER => brokers(call, name).map(ConfigTarget::Brokers),
        other => Err(no_settings(other)),
    }
}

/// The brokers that a resource's name stands for: all, where it is empty, or the one that was asked.
pub(super) fn brokers(call: &Call, name: &str) -> Result<Brokers, Refusal> {
    let id = call.shard.node().id;
    match name {
        "" => Ok(Brokers::All),
        name if name == id.to_string() => Ok(Brokers::This),
        name if name.parse::<i32>().is_ok() => {
            Err((ErrorCode::InvalidRequest, format!("this is broker {id}; ask broker {name} itself")))
        }
        name => {
            let message = format!("a broker is named by its node.id, a number, and not `{name}`");
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}

/// The refusal of resources that have no settings here, or none in Kafka either.
pub(super) fn no_settings(kind: i8) -> Refusal {
    let message = match kind {
        BROKER_LOGGER => {
            "what is logged is set by the environment variable HEIZER_LOG when a broker starts".to_owned()
        }
        CLIENT_METRICS => "metrics of clients are not collected: there is nothing to set".to_owned(),
        GROUP => "groups have no settings of their own: those of brokers hold for all".to_owned(),
        kind => format!("resources of type {kind} are unknown"),
    };
    (ErrorCode::InvalidRequest, message)
}

/// The first name that occurs more than once.
pub(super) fn named_twice<'a>(names: impl IntoIterator<Item = &'a ByteString>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err((ErrorCode::InvalidRequest, format!("{name} is named more than once"))),
        None => Ok(()),
    }
}

/// The refusal of null where a text is needed.
pub(super) fn no_value(name: &ByteString) -> Refusal {
    (ErrorCode::InvalidRequest, format!("{name} needs a value; null takes no part in altering settings"))
}
