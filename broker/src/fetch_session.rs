//! Incremental fetch sessions (KIP-227, contract F2): which partitions a client follows, and what it was told of each.
//!
//! A cache belongs to one core and to the connections there. A client that comes back on another core is told
//! FETCH_SESSION_ID_NOT_FOUND and starts a new session, as after a broker's restart.

use std::collections::BTreeSet;

use std::time::Duration;

use bytestring::ByteString;
use heizer_runtime::collections::HashMap;
use heizer_runtime::time::Instant;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{FetchRequest, FetchTopic};
use uuid::Uuid;

/// A session gives way to a new one after so long without a fetch, as in Kafka.
const UNUSED_MIN: Duration = Duration::from_secs(120);

/// A sessionless fetch, or the end of a session.
const FINAL_EPOCH: i32 = -1;
/// Partitions that the sessions of one core follow together; about 200 bytes each. Who asks for more goes without.
const FOLLOWED_MAX: usize = 200_000;
/// A full fetch that asks for a session.
const INITIAL_EPOCH: i32 = 0;

/// A topic as the request names it: by id from version 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// Versions 4 to 12.
    Name(ByteString),
    /// Version 13 and up.
    Id(Uuid),
}

/// One partition to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchItem {
    /// Its topic.
    pub topic: TopicKey,
    /// Its index.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// Most bytes of this partition.
    pub bytes_max: i32,
    /// The leader epoch that the client knows, or -1 (KIP-320).
    pub current_leader_epoch: i32,
    /// The epoch of the last record fetched, or -1.
    pub last_fetched_epoch: i32,
}

/// What the client was last told of a partition, so that only changes are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Followed {
    item: FetchItem,
    told: Option<Told>,
}

#[derive(Debug)]
struct Session {
    /// The epoch that the next request must carry.
    next_epoch: i32,
    uses_ids: bool,
    followed: Vec<Followed>,
    index: HashMap<(TopicKey, i32), usize>,
    /// Where the next answer starts, so that a busy partition does not starve those behind it.
    first: usize,
    last_used: Instant,
}

/// A fetch after its session has been consulted.
#[derive(Debug)]
pub struct Plan {
    /// The session of the answer; 0 for none.
    pub session_id: i32,
    /// Whether the answer leaves out what has not changed.
    pub incremental: bool,
    /// What to read, in order of precedence.
    pub items: Vec<FetchItem>,
}

/// The sessions of one core, at most so many; one that is out of use gives way.
#[derive(Debug)]
pub struct FetchSessions {
    sessions: HashMap<i32, Session>,
    sessions_max: usize,
}

impl FetchSessions {
    /// A cache of `sessions_max` slots (`max.incremental.fetch.session.cache.slots`).
    pub fn new(sessions_max: usize) -> FetchSessions {
        FetchSessions { sessions: HashMap::default(), sessions_max }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What `request` asks for. `random` names a new session.
    pub fn plan(
        &mut self,
        request: &FetchRequest,
        version: i16,
        random: u64,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let uses_ids = version >= 13;
        if version < 7 || request.session_epoch == FINAL_EPOCH {
            self.sessions.remove(&request.session_id);
            return Ok(Plan { session_id: 0, incremental: false, items: items(&request.topics, uses_ids) });
        }
        if request.session_epoch == INITIAL_EPOCH {
            self.sessions.remove(&request.session_id);
            return Ok(self.start(items(&request.topics, uses_ids), uses_ids, random, now));
        }
        self.go_on(request, uses_ids, now)
    }

    fn start(&mut self, items: Vec<FetchItem>, uses_ids: bool, random: u64, now: Instant) -> Plan {
        let session_id = self.free_id(random);
        if !items.is_empty() && self.make_room(items.len(), now) {
            let mut session = Session {
                next_epoch: 1,
                uses_ids,
                followed: Vec::new(),
                index: HashMap::default(),
                first: 0,
                last_used: now,
            };
            items.iter().cloned().for_each(|item| session.follow(item));
            self.sessions.insert(session_id, session);
            return Plan { session_id, incremental: false, items };
        }
        Plan { session_id: 0, incremental: false, items }
    }

    /// A positive id that is not taken.
    fn free_id(&self, random: u64) -> i32 {
        let mut id = ((random >> 33) as i32).max(1);
        while self.sessions.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        id
    }

    /// Drops sessions of a full cache that nobody has used for a while, the longest unused first. Where all are in use
    /// the newcomer goes without, which is no error: else clients would take each other's sessions away for ever.
    fn make_room(&mut self, items: usize, now: Instant) -> bool {
        while self.sessions.len() >= self.sessions_max || self.followed() + items > FOLLOWED_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
            match oldest.map(|(id, session)| (*id, session.last_used)) {
                Some((id, last_used)) if now - last_used >= UNUSED_MIN => self.sessions.remove(&id),
                _ => return false,
            };
        }
        true
    }

    /// Partitions that all sessions follow.
    fn followed(&self) -> usize {
        self.sessions.values().map(|session| session.followed.len()).sum()
    }

    fn go_on(&mut self, request: &FetchRequest, uses_ids: bool, now: Instant) -> Result<Plan, ErrorCode> {
        let added: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        if added > 0 && self.followed() + added > FOLLOWED_MAX {
            // The client starts anew, and goes without if it must.
            self.sessions.remove(&request.session_id);
        }
        let session = self.sessions.get_mut(&request.session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.uses_ids != uses_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        if session.next_epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        session.last_used = now;
        for topic in &request.forgotten_topics_data {
            let key = topic_key(&topic.topic, topic.topic_id, uses_ids);
            session.forget(&key, &topic.partitions);
        }
        items(&request.topics, uses_ids).into_iter().for_each(|item| session.follow(item));
        Ok(Plan { session_id: request.session_id, incremental: true, items: session.in_turn() })
    }

    /// Notes what an answer says of a partition; whether it differs from what was said before. `data` tells whether
    /// the answer holds records, which is always news.
    pub fn tell(
        &mut self,
        session_id: i32,
        topic: &TopicKey,
        partition: i32,
        high_watermark: i64,
        log_start_offset: i64,
        data: bool,
    ) -> bool {
        let told = Told { high_watermark, log_start_offset };
        let Some(session) = self.sessions.get_mut(&session_id) else { return true };
        let Some(&at) = session.index.get(&(topic.clone(), partition)) else { return true };
        if data {
            session.first = at + 1;
        }
        let news = session.followed[at].told != Some(told);
        session.followed[at].told = Some(told);
        news || data
    }

    /// An answer tells of an error: whatever comes next is news.
    pub fn tell_error(&mut self, session_id: i32, topic: &TopicKey, partition: i32) {
        if let Some(session) = self.sessions.get_mut(&session_id)
            && let Some(&at) = session.index.get(&(topic.clone(), partition))
        {
            session.followed[at].told = None;
        }
    }
}

impl Session {
    fn follow(&mut self, item: FetchItem) {
        let key = (item.topic.clone(), item.partition);
        match self.index.get(&key) {
            Some(&at) => self.followed[at].item = item,
            None => {
                self.index.insert(key, self.followed.len());
                self.followed.push(Followed { item, told: None });
            }
        }
    }

    fn forget(&mut self, topic: &TopicKey, partitions: &[i32]) {
        let before = self.followed.len();
        let partitions: BTreeSet<i32> = partitions.iter().copied().collect();
        self.followed.retain(|followed| {
            followed.item.topic != *topic || !partitions.contains(&followed.item.partition)
        });
        if self.followed.len() != before {
            let keys =
                self.followed.iter().map(|followed| (followed.item.topic.clone(), followed.item.partition));
            self.index = keys.zip(0..).collect();
            self.first = 0;
        }
    }

    fn in_turn(&self) -> Vec<FetchItem> {
        let first = if self.first < self.followed.len() { self.first } else { 0 };
        let (front, back) = self.followed.split_at(first);
        back.iter().chain(front).map(|followed| followed.item.clone()).collect()
    }
}

fn topic_key(name: &ByteString, id: Uuid, uses_ids: bool) -> TopicKey {
    if uses_ids { TopicKey::Id(id) } else { TopicKey::Name(name.clone()) }
}

fn items(topics: &[FetchTopic], uses_ids: bool) -> Vec<FetchItem> {
    let mut items = Vec::with_capacity(topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in topics {
        let key = topic_key(&topic.topic, topic.topic_id, uses_ids);
        items.extend(topic.partitions.iter().map(|partition| FetchItem {
            topic: key.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        }));
    }
    items
}

#[cfg(test)]
mod tests {
    use heizer_wire::messages::{FetchPartition, ForgottenTopic};

    use super::*;

    const VERSION: i16 = 12;
    const NOW: Instant = Instant::from_millis(1_000_000);

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partitions = partitions
            .iter()
            .map(|partition| FetchPartition { partition: *partition, ..FetchPartition::default() })
            .collect();
        let topic = FetchTopic { topic: "t".into(), partitions, ..FetchTopic::default() };
        FetchRequest { session_id, session_epoch, topics: vec![topic], ..FetchRequest::default() }
    }

    fn partitions(plan: &Plan) -> Vec<i32> {
        plan.items.iter().map(|item| item.partition).collect()
    }

    // KIP-227, contract F2
    #[test]
    fn a_session_remembers_its_partitions_and_counts_its_epochs() {
        let mut sessions = FetchSessions::new(10);
        let first = sessions.plan(&request(0, 0, &[0, 1, 2]), VERSION, 1 << 40, NOW).expect("a session");
        assert!(first.session_id > 0 && !first.incremental);
        let id = first.session_id;
        let mut next = request(id, 1, &[3]);
        next.forgotten_topics_data =
            vec![ForgottenTopic { topic: "t".into(), partitions: vec![1], ..ForgottenTopic::default() }];
        let second = sessions.plan(&next, VERSION, 0, NOW).expect("the next epoch");
        assert!(second.incremental);
        assert_eq!(partitions(&second), [0, 2, 3]);
        assert_eq!(
            sessions.plan(&request(id, 1, &[]), VERSION, 0, NOW).expect_err("a repeated epoch"),
            ErrorCode::InvalidFetchSessionEpoch
        );
        assert_eq!(
            sessions.plan(&request(id, 2, &[]), 13, 0, NOW).expect_err("ids in a session of names"),
            ErrorCode::FetchSessionTopicIdError
        );
        sessions.plan(&request(id, -1, &[]), VERSION, 0, NOW).expect("the end of it");
        assert_eq!(
            sessions.plan(&request(id, 2, &[]), VERSION, 0, NOW).expect_err("it has ended"),
            ErrorCode::FetchSessionIdNotFound
        );
    }

    #[test]
    fn only_what_has_changed_is_news() {
        let mut sessions = FetchSessions::new(10);
        let id = sessions.plan(&request(0, 0, &[0]), VERSION, 7 << 40, NOW).expect("a session").session_id;
        let topic = TopicKey::Name("t".into());
        assert!(sessions.tell(id, &topic, 0, 5, 0, false), "first heard");
        assert!(!sessions.tell(id, &topic, 0, 5, 0, false), "nothing new");
        assert!(sessions.tell(id, &topic, 0, 6, 0, false), "the high watermark moved");
        assert!(sessions.tell(id, &topic, 0, 6, 0, true), "records are news");
        sessions.tell_error(id, &topic, 0);
        assert!(sessions.tell(id, &topic, 0, 6, 0, false), "after an error");
    }

    #[test]
    fn a_partition_with_data_lets_others_go_first_next_time() {
        let mut sessions = FetchSessions::new(10);
        let id =
            sessions.plan(&request(0, 0, &[0, 1, 2]), VERSION, 7 << 40, NOW).expect("a session").session_id;
        sessions.tell(id, &TopicKey::Name("t".into()), 0, 5, 0, true);
        let plan = sessions.plan(&request(id, 1, &[]), VERSION, 0, NOW).expect("the next epoch");
        assert_eq!(partitions(&plan), [1, 2, 0]);
    }

    #[test]
    fn a_full_cache_gives_up_what_is_out_of_use_and_else_serves_without() {
        let mut sessions = FetchSessions::new(2);
        let mut open = |n: u64, now| {
            sessions.plan(&request(0, 0, &[0]), VERSION, n << 40, now).expect("a plan").session_id
        };
        let ids = [open(1, NOW), open(2, NOW)];
        assert_eq!(open(3, NOW + UNUSED_MIN / 2), 0, "both are in use");
        let later = NOW + UNUSED_MIN;
        assert!(sessions.plan(&request(ids[1], 1, &[]), VERSION, 0, later).is_ok());
        let third = sessions.plan(&request(0, 0, &[0]), VERSION, 3 << 40, later).expect("a plan").session_id;
        assert_ne!(third, 0, "the first has not been used since");
        assert!(sessions.plan(&request(ids[0], 1, &[]), VERSION, 0, later).is_err());
        assert!(sessions.plan(&request(ids[1], 2, &[]), VERSION, 0, later).is_ok());
        let mut crowded = FetchSessions::new(2);
        let all: Vec<i32> = (0..FOLLOWED_MAX as i32).collect();
        let id = crowded.plan(&request(0, 0, &all), VERSION, 1 << 40, NOW).expect("a session").session_id;
        assert!(crowded.plan(&request(id, 1, &[-1]), VERSION, 0, NOW).is_err(), "one more");
        assert!(crowded.is_empty());
        let more: Vec<i32> = (0..=FOLLOWED_MAX as i32).collect();
        assert_eq!(crowded.plan(&request(0, 0, &more), VERSION, 1, NOW).expect("sessionless").session_id, 0);
        let mut none = FetchSessions::new(0);
        assert_eq!(none.plan(&request(0, 0, &[0]), VERSION, 1, NOW).expect("sessionless").session_id, 0);
    }
}
