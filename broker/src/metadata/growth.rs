//! The growth of a topic: what is asked for, against what there is.

use std::sync::Arc;

use super::cluster::{ClusterState, PARTITIONS_PER_TOPIC_MAX, TopicRecord};

/// Partitions that are to be added to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The topic's name.
    pub topic: String,
    /// How many partitions it shall have.
    pub total: i32,
    /// Replicas of each new partition, where the client names them itself.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Why a topic does not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowthError {
    /// UNKNOWN_TOPIC_OR_PARTITION.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// INVALID_PARTITIONS.
    #[error("topic {topic} has {partitions} partition(s) already")]
    AsManyAlready {
        /// Its name.
        topic: String,
        /// How many it has.
        partitions: usize,
    },
    /// INVALID_PARTITIONS.
    #[error("topic {topic} has {partitions} partition(s), of which {total} would be no increase")]
    Fewer {
        /// Its name.
        topic: String,
        /// How many it has.
        partitions: usize,
        /// How many it should have.
        total: i32,
    },
    /// INVALID_PARTITIONS.
    #[error("a topic can have {PARTITIONS_PER_TOPIC_MAX} partitions, not {total}")]
    TooMany {
        /// How many it should have.
        total: i32,
    },
    /// INVALID_PARTITIONS.
    #[error(
        "by their number the partitions of {topic} are told apart to which the groups belong: with another one groups \
         would lose what they have committed"
    )]
    Fixed {
        /// Its name.
        topic: String,
    },
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("{added} partition(s) are to be added, but replicas were named for {named}")]
    AssignmentCount {
        /// How many are to be added.
        added: usize,
        /// For how many there are replicas.
        named: usize,
    },
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("replicas of partition {partition}: {fault}")]
    Assignment {
        /// The partition's number.
        partition: usize,
        /// What is wrong with them.
        fault: AssignmentFault,
    },
}

/// What is wrong with the replicas named for a partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentFault {
    /// There are none.
    #[error("none is named")]
    Empty,
    /// A broker that nobody knows.
    #[error("broker {0} is not registered")]
    UnknownBroker(i32),
    /// One broker more than once.
    #[error("broker {0} is named more than once")]
    Twice(i32),
    /// More or fewer than the topic's partitions have.
    #[error("{named} are named, where the topic's partitions have {factor}")]
    Count {
        /// How many are named.
        named: usize,
        /// How many the others have.
        factor: usize,
    },
}

impl ClusterState {
    /// The topic that may grow so, as it is now.
    pub fn check_growth(&self, growth: &Growth) -> Result<Arc<TopicRecord>, GrowthError> {
        let Growth { topic, total, assignments } = growth;
        let record =
            self.topic_named(topic).ok_or_else(|| GrowthError::UnknownTopic { topic: topic.clone() })?;
        let partitions = record.replicas.len();
        let wanted = usize::try_from(*total).unwrap_or(0);
        if wanted == partitions {
            return Err(GrowthError::AsManyAlready { topic: topic.clone(), partitions });
        }
        if wanted < partitions {
            return Err(GrowthError::Fewer { topic: topic.clone(), partitions, total: *total });
        }
        if wanted > PARTITIONS_PER_TOPIC_MAX {
            return Err(GrowthError::TooMany { total: *total });
        }
        let Some(assignments) = assignments else { return Ok(record.clone()) };
        let added = wanted - partitions;
        if assignments.len() != added {
            return Err(GrowthError::AssignmentCount { added, named: assignments.len() });
        }
        let factor = record.replicas[0].len();
        for (partition, replicas) in (partitions..).zip(assignments) {
            let fault = self.fault(replicas, factor);
            fault.map_or(Ok(()), |fault| Err(GrowthError::Assignment { partition, fault }))?;
        }
        Ok(record.clone())
    }

    fn fault(&self, replicas: &[i32], factor: usize) -> Option<AssignmentFault> {
        if replicas.is_empty() {
            return Some(AssignmentFault::Empty);
        }
        if let Some(stranger) = replicas.iter().find(|id| self.broker(**id).is_none()) {
            return Some(AssignmentFault::UnknownBroker(*stranger));
        }
        let again = replicas.iter().enumerate().find(|(at, id)| replicas[..*at].contains(id));
        if let Some((_, twice)) = again {
            return Some(AssignmentFault::Twice(*twice));
        }
        let named = replicas.len();
        (named != factor).then_some(AssignmentFault::Count { named, factor })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::command::{ClusterCommand, NewTopic};
    use super::*;

    #[test]
    fn a_topic_grows_by_what_is_asked_for_or_not_at_all() {
        let mut state = ClusterState::new();
        for id in [1, 2] {
            let host = format!("host-{id}");
            let incarnation = Uuid::from_u128(9);
            let register = ClusterCommand::RegisterBroker { id, host, port: 9092, rack: None, incarnation };
            state.apply_command(1, register);
        }
        let (name, id, replicas) = ("t".to_owned(), Uuid::from_u128(1), vec![vec![1], vec![2]]);
        let topic = NewTopic { name, id, replicas, configs: Vec::new() };
        state.apply_command(2, ClusterCommand::CreateTopic(topic));
        let check = |topic: &str, total, assignments: Option<&[&[i32]]>| {
            let assignments = assignments.map(|all| all.iter().map(|ids| ids.to_vec()).collect());
            state.check_growth(&Growth { topic: topic.to_owned(), total, assignments })
        };
        /// Replicas of each new partition.
        type Named = Option<&'static [&'static [i32]]>;
        let table: [(&str, i32, Named, &str); 12] = [
            ("nobody", 3, None, "topic nobody does not exist"),
            ("t", 2, None, "topic t has 2 partition(s) already"),
            ("t", 1, None, "topic t has 2 partition(s), of which 1 would be no increase"),
            ("t", 0, None, "of which 0 would be no increase"),
            ("t", i32::MIN, None, "of which -2147483648 would be no increase"),
            ("t", 100_001, None, "a topic can have 100000 partitions, not 100001"),
            ("t", 3, Some(&[]), "1 partition(s) are to be added, but replicas were named for 0"),
            ("t", 3, Some(&[&[1], &[2]]), "but replicas were named for 2"),
            ("t", 3, Some(&[&[]]), "replicas of partition 2: none is named"),
            ("t", 4, Some(&[&[1], &[7]]), "replicas of partition 3: broker 7 is not registered"),
            ("t", 3, Some(&[&[1, 1]]), "replicas of partition 2: broker 1 is named more than once"),
            ("t", 3, Some(&[&[1, 2]]), "2 are named, where the topic's partitions have 1"),
        ];
        for (topic, total, assignments, expected) in table {
            let error = check(topic, total, assignments).expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        for growth in [check("t", 3, None), check("t", 100_000, None), check("t", 4, Some(&[&[2], &[1]]))] {
            assert_eq!(growth.map(|record| record.id), Ok(id));
        }
    }
}
