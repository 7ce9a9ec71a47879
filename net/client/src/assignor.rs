//! The range assignor, as Kafka's clients have it: each topic's partitions in contiguous ranges over the members
//! that subscribe to it, sorted by id.

use std::collections::BTreeMap;

/// Topics and their partitions.
pub(crate) type Assignment = BTreeMap<String, Vec<i32>>;

/// What each member gets. `members` are ids (the group instance id, where there is one, sorts first) with the topics
/// they subscribe to; `counts` are the partition counts of the topics that exist.
pub(crate) fn range(
    members: &BTreeMap<MemberKey, Vec<String>>,
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> =
        members.keys().map(|member| (member.member_id.clone(), Assignment::new())).collect();
    for (topic, &count) in counts {
        let subscribed: Vec<&MemberKey> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        if subscribed.is_empty() {
            continue;
        }
        let (each, extra) = (count / subscribed.len(), count % subscribed.len());
        let mut next = 0;
        for (at, member) in subscribed.iter().enumerate() {
            let size = each + usize::from(at < extra);
            let partitions: Vec<i32> = (next..next + size).map(|partition| partition as i32).collect();
            next += size;
            if !partitions.is_empty()
                && let Some(assignment) = assigned.get_mut(&member.member_id)
            {
                assignment.insert(topic.clone(), partitions);
            }
        }
    }
    assigned
}

/// A member in the order of assignment: static members by their instance id, before the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberKey {
    /// False for static members, which sort first.
    pub(crate) dynamic: bool,
    /// Instance id or member id.
    pub(crate) sort_id: String,
    /// The member id.
    pub(crate) member_id: String,
}

impl MemberKey {
    pub(crate) fn new(member_id: &str, instance_id: Option<&str>) -> MemberKey {
        MemberKey {
            dynamic: instance_id.is_none(),
            sort_id: instance_id.unwrap_or(member_id).to_owned(),
            member_id: member_id.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(table: &[(&str, &[&str])]) -> BTreeMap<MemberKey, Vec<String>> {
        let topics = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect();
        table.iter().map(|(member, subscribed)| (MemberKey::new(member, None), topics(subscribed))).collect()
    }

    #[test]
    fn ranges_are_contiguous_and_the_first_members_get_the_rest() {
        let counts = BTreeMap::from([("t".to_owned(), 7), ("u".to_owned(), 1)]);
        let assigned = range(&members(&[("a", &["t", "u"]), ("b", &["t"]), ("c", &["t", "u"])]), &counts);
        assert_eq!(assigned["a"]["t"], [0, 1, 2]);
        assert_eq!(assigned["b"]["t"], [3, 4]);
        assert_eq!(assigned["c"]["t"], [5, 6]);
        assert_eq!(assigned["a"]["u"], [0]);
        assert!(!assigned["c"].contains_key("u"));
    }

    #[test]
    fn static_members_come_first_by_their_instance_id() {
        let counts = BTreeMap::from([("t".to_owned(), 2)]);
        let topics = vec!["t".to_owned()];
        let members = BTreeMap::from([
            (MemberKey::new("a", None), topics.clone()),
            (MemberKey::new("z", Some("one")), topics),
        ]);
        let assigned = range(&members, &counts);
        assert_eq!(assigned["z"]["t"], [0]);
        assert_eq!(assigned["a"]["t"], [1]);
    }
}
