//! Partitions that a verb is about, and what became of them.

use std::collections::BTreeMap;

use heizer_client::{Admin, Client, ClientError, PerPartition, TopicPartition};

use super::error::CliError;

/// Partitions of a topic: those wanted, which have to be there, or all.
pub(super) async fn partitions_of(
    admin: &Admin,
    topic: &str,
    wanted: Option<&[i32]>,
) -> Result<Vec<TopicPartition>, CliError> {
    let metadata = admin.topic(topic).await?;
    let found = metadata.topics.get(topic).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
    let there: Vec<i32> = found.iter().map(|partition| partition.index).collect();
    let Some(wanted) = wanted else {
        return Ok(there.into_iter().map(|index| (topic.to_owned(), index)).collect());
    };
    if let Some(&partition) = wanted.iter().find(|index| !there.contains(index)) {
        let topic = topic.to_owned();
        return Err(ClientError::UnknownPartition { topic, partition, count: there.len() }.into());
    }
    Ok(wanted.iter().map(|&index| (topic.to_owned(), index)).collect())
}

/// Fails unless a topic, which may be created, has a partition.
pub(super) async fn check_partition(
    client: &Client,
    topic: &str,
    partition: i32,
    create: bool,
) -> Result<(), CliError> {
    let count = client.partition_count(topic, create).await?;
    if usize::try_from(partition).is_ok_and(|partition| partition < count) {
        return Ok(());
    }
    let topic = topic.to_owned();
    Err(ClientError::UnknownPartition { topic, partition, count }.into())
}

/// What to fail with where some partitions did.
pub(super) fn failure<T>(outcomes: &PerPartition<T>) -> Option<CliError> {
    let mut errors = outcomes.values().filter_map(|outcome| outcome.as_ref().err());
    let first = CliError::from(errors.next()?.clone());
    match errors.count() {
        0 => Some(first),
        more => {
            Some(CliError::of(format_args!("{first}; {more} more of {} partitions failed", outcomes.len())))
        }
    }
}

/// What came of each partition, or what to fail with where some failed.
pub(super) fn all<T>(outcomes: PerPartition<T>) -> Result<BTreeMap<TopicPartition, T>, CliError> {
    if let Some(failure) = failure(&outcomes) {
        return Err(failure);
    }
    Ok(outcomes.into_iter().filter_map(|(partition, outcome)| Some((partition, outcome.ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_however_many_partitions_failed() {
        let of = |errors: usize| -> PerPartition<i64> {
            let outcome = |index| if index < errors { Err(ClientError::UnknownBroker(7)) } else { Ok(1) };
            (0..3).map(|index| (("t".to_owned(), index as i32), outcome(index))).collect()
        };
        assert_eq!(failure(&of(0)), None);
        let one = failure(&of(1)).expect("one failed").to_string();
        assert!(one.contains("broker 7") && !one.contains("more of"), "{one}");
        let two = failure(&of(2)).expect("two failed").to_string();
        assert!(two.contains("broker 7") && two.contains("1 more of 3"), "{two}");
        assert!(all(of(1)).is_err());
        let values: BTreeMap<i32, i64> =
            all(of(0)).expect("none failed").into_iter().map(|((_, index), value)| (index, value)).collect();
        assert_eq!(values, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    }
}
