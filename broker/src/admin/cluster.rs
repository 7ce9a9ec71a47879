//! `heizer cluster`.

use std::collections::BTreeMap;
use std::fmt::Write;

use heizer_client::{
    Admin, BrokerDescription, Client, ClientError, ClusterDescription, Feature, LogDir, Metadata,
};
use serde::Serialize;

use super::args::{ClusterVerb, ListingFormat};
use super::error::CliError;
use super::stdio::Report;
use super::table::{self, Table, cell, show_bytes};

/// The cluster as a whole.
#[derive(Debug, Serialize)]
struct Info {
    cluster_id: String,
    /// None has none just now.
    controller: Option<i32>,
    topics: usize,
    partitions: usize,
    features: BTreeMap<String, i16>,
    brokers: Vec<Broker>,
}

#[derive(Debug, Serialize)]
struct Broker {
    broker: i32,
    address: String,
    rack: Option<String>,
    controller: bool,
    /// Partitions that it leads, and that it has a replica of.
    leads: usize,
    replicas: usize,
    log_dirs: Vec<Dir>,
    /// Why its directories are not known.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Dir {
    path: String,
    /// What is in it.
    replicas: usize,
    bytes: i64,
    usable_bytes: Option<i64>,
    total_bytes: Option<i64>,
    error: Option<String>,
}

pub(super) async fn run(client: Client, verb: ClusterVerb) -> Result<(), CliError> {
    let ClusterVerb::Info { listing } = verb;
    let admin = Admin::new(&client);
    let cluster = admin.describe_cluster().await?;
    let features = admin.features().await?;
    let metadata = admin.topics().await?;
    let (mut dirs, mut failure) = (BTreeMap::new(), None);
    for broker in &cluster.brokers {
        let found = admin.log_dirs(broker.id).await;
        if let Err(error) = &found {
            failure = failure.or_else(|| Some(error.clone().into()));
        }
        dirs.insert(broker.id, found);
    }
    let info = put_together(cluster, features, &metadata, dirs);
    let report = match listing.output {
        ListingFormat::Text => Report::new(text(&info), failure),
        ListingFormat::Json => Report::new(table::json(&info), failure),
    };
    report.publish().await
}

fn put_together(
    cluster: ClusterDescription,
    features: Vec<Feature>,
    metadata: &Metadata,
    mut dirs: BTreeMap<i32, Result<Vec<LogDir>, ClientError>>,
) -> Info {
    let controller = cluster.controller_id;
    let brokers = cluster.brokers.into_iter().map(|described| {
        let dirs = dirs.remove(&described.id).unwrap_or(Ok(Vec::new()));
        broker(described, controller, metadata, dirs)
    });
    let brokers: Vec<Broker> = brokers.collect();
    Info {
        cluster_id: cluster.cluster_id,
        controller: Some(controller).filter(|&id| id >= 0),
        topics: metadata.topics.len(),
        partitions: metadata.topics.values().map(|topic| topic.partitions.len()).sum(),
        features: features.into_iter().map(|feature| (feature.name, feature.level)).collect(),
        brokers,
    }
}

fn broker(
    described: BrokerDescription,
    controller: i32,
    metadata: &Metadata,
    dirs: Result<Vec<LogDir>, ClientError>,
) -> Broker {
    let BrokerDescription { id, addr, rack } = described;
    let partitions = || metadata.topics.values().flat_map(|topic| &topic.partitions);
    let (dirs, error) = match dirs {
        Ok(dirs) => (dirs, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Broker {
        broker: id,
        address: addr,
        rack,
        controller: id == controller,
        leads: partitions().filter(|partition| partition.leader == id).count(),
        replicas: partitions().filter(|partition| partition.replicas.contains(&id)).count(),
        log_dirs: dirs.into_iter().map(dir).collect(),
        error,
    }
}

fn dir(found: LogDir) -> Dir {
    Dir {
        path: found.path,
        replicas: found.replicas.len(),
        bytes: found.replicas.iter().map(|replica| replica.bytes).sum(),
        usable_bytes: found.usable_bytes,
        total_bytes: found.total_bytes,
        error: Some(found.error).filter(|error| !error.is_none()).map(|error| error.to_string()),
    }
}

/// A line for the cluster, a table of its brokers, and one of their directories.
fn text(info: &Info) -> String {
    let Info { cluster_id, controller, topics, partitions, features, brokers } = info;
    let controller = cell(*controller);
    let mut text = format!(
        "cluster {cluster_id}: controller {controller}, {} brokers, {topics} topics, {partitions} partitions\n",
        brokers.len()
    );
    for (name, level) in features {
        writeln!(text, "  {name} = {level}").expect("writing to a string does not fail");
    }
    let mut table = Table::new(["BROKER", "ADDRESS", "RACK", "LEADS", "REPLICAS", "ERROR"]);
    for broker in brokers {
        table.row([
            broker.broker.to_string(),
            broker.address.clone(),
            broker.rack.clone().unwrap_or_default(),
            broker.leads.to_string(),
            broker.replicas.to_string(),
            broker.error.clone().unwrap_or_default(),
        ]);
    }
    text.push('\n');
    table.write("", &mut text);
    let mut table = Table::new(["BROKER", "DIRECTORY", "REPLICAS", "SIZE", "FREE", "OF", "ERROR"]);
    for broker in brokers {
        for dir in &broker.log_dirs {
            table.row([
                broker.broker.to_string(),
                dir.path.clone(),
                dir.replicas.to_string(),
                show_bytes(dir.bytes),
                cell(dir.usable_bytes.map(show_bytes)),
                cell(dir.total_bytes.map(show_bytes)),
                dir.error.clone().unwrap_or_default(),
            ]);
        }
    }
    text.push('\n');
    table.write("", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use heizer_client::{LogDirReplica, PartitionMetadata, TopicMetadata};
    use heizer_wire::ErrorCode;

    use super::*;

    fn info() -> Info {
        let partition = |index, leader, replicas: &[i32]| PartitionMetadata {
            index,
            error: ErrorCode::None,
            leader,
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            in_sync: vec![leader],
        };
        let partitions = vec![partition(0, 1, &[1, 2]), partition(1, 1, &[1])];
        let topic = TopicMetadata { id: None, error: ErrorCode::None, internal: false, partitions };
        let metadata = Metadata { topics: [("t".to_owned(), topic)].into(), ..Metadata::default() };
        let broker = |id, rack: Option<&str>| BrokerDescription {
            id,
            addr: format!("h:{id}"),
            rack: rack.map(str::to_owned),
        };
        let replica = |partition, bytes| LogDirReplica {
            topic: "t".to_owned(),
            partition,
            bytes,
            offset_lag: 0,
            future: false,
        };
        let dir = LogDir {
            path: "/d".to_owned(),
            error: ErrorCode::None,
            total_bytes: Some(10 << 30),
            usable_bytes: Some(5 << 30),
            replicas: vec![replica(0, 1024), replica(1, 512)],
        };
        let cluster = ClusterDescription {
            cluster_id: "c".to_owned(),
            controller_id: 1,
            brokers: vec![broker(1, Some("a")), broker(2, None)],
        };
        let features = vec![Feature { name: "metadata.version".to_owned(), level: 27 }];
        let dirs = BTreeMap::from([(1, Ok(vec![dir])), (2, Err(ClientError::UnknownBroker(2)))]);
        put_together(cluster, features, &metadata, dirs)
    }

    #[test]
    fn a_cluster_is_its_brokers_and_their_directories() {
        assert_eq!(
            text(&info()),
            "cluster c: controller 1, 2 brokers, 1 topics, 2 partitions\n  metadata.version = 27\n\n\
             BROKER  ADDRESS  RACK  LEADS  REPLICAS  ERROR\n\
             \x20    1  h:1      a         2         2\n\
             \x20    2  h:2                0         1  the cluster has no broker 2\n\n\
             BROKER  DIRECTORY  REPLICAS  SIZE     FREE     OF\n\
             \x20    1  /d                2  1.5 KiB  5.0 GiB  10.0 GiB\n"
        );
    }

    #[test]
    fn the_document_has_the_same_in_fields() {
        let document: serde_json::Value = serde_json::from_slice(&table::json(&info())).expect("json");
        assert_eq!(document["features"]["metadata.version"], 27);
        assert_eq!(document["topics"], 1);
        assert_eq!(document["partitions"], 2);
        let brokers = &document["brokers"];
        assert_eq!(brokers[0]["controller"], true);
        assert_eq!(brokers[1]["controller"], false);
        assert_eq!(brokers[0]["log_dirs"][0]["bytes"], 1536);
        assert!(brokers[1]["rack"].is_null() && brokers[1]["error"].is_string());
    }
}
