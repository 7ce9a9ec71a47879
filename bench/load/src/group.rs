//! Consumers that are members of a consumer group (the classic protocol), each a client of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use heizer_client::{Client, ConsumerConfig, GroupConfig, GroupConsumer, StartOffset};
use heizer_runtime::collections::HashMap;
use heizer_runtime::time::now;

use crate::cluster::{Place, client_config, topic_names};
use crate::failure::Failure;
use crate::stage::Stage;
use crate::verify::Track;
use crate::workload::{Begin, Consumers, Topic};

/// A member that nothing comes for looks this often whether it is to end.
const POLL: Duration = Duration::from_millis(100);

/// What the members of a group share.
pub(crate) struct Group {
    stage: Rc<Stage>,
    settings: Consumers,
    topics: Vec<String>,
    bootstrap: Vec<String>,
    /// Place by topic and partition.
    places: HashMap<(String, i32), usize>,
    tracks: RefCell<Vec<Track>>,
    /// Of each place: what had been acknowledged in front of where the members begin.
    acked_before: Vec<u64>,
    /// Partitions of each member, as it has last seen.
    assigned: Vec<Cell<usize>>,
}

impl Group {
    /// Nobody has joined yet.
    pub(crate) fn new(
        stage: &Rc<Stage>,
        settings: &Consumers,
        topic: &Topic,
        places: &[Place],
        bootstrap: &[String],
    ) -> Rc<Group> {
        let by_name = |(index, place): (usize, &Place)| ((place.topic.to_string(), place.partition), index);
        let before = |place| match settings.from {
            Begin::Beginning => 0,
            Begin::End | Begin::Replay => stage.acked(place),
        };
        Rc::new(Group {
            stage: Rc::clone(stage),
            settings: settings.clone(),
            topics: topic_names(topic),
            bootstrap: bootstrap.to_vec(),
            places: places.iter().enumerate().map(by_name).collect(),
            acked_before: (0..places.len()).map(before).collect(),
            tracks: RefCell::new(places.iter().map(|_| Track::from_the_start()).collect()),
            assigned: (0..settings.count).map(|_| Cell::new(0)).collect(),
        })
    }

    /// Every partition has its one member. While members come, one still counts what another has already.
    pub(crate) fn is_settled(&self) -> bool {
        let sum: usize = self.assigned.iter().map(Cell::get).sum();
        let members = self.assigned.iter().filter(|count| count.get() > 0).count();
        sum == self.places.len() && members == self.settings.count.min(self.places.len() / self.topics.len())
    }

    /// Records of this run that no member has come by yet.
    pub(crate) fn unread(&self) -> u64 {
        let tracks = self.tracks.borrow();
        let lacks = |(place, track): (usize, &Track)| {
            let due = self.stage.acked(place) - self.acked_before[place];
            due.saturating_sub(track.advanced())
        };
        tracks.iter().enumerate().map(lacks).sum()
    }

    /// Member `index`: joins, reads until it is told to stop, commits and leaves.
    pub(crate) async fn run_member(self: Rc<Group>, index: usize) -> Result<(), Failure> {
        let client = Client::new(client_config(&self.bootstrap));
        let mut member = GroupConsumer::new(&client, self.config());
        while !self.stage.consumers_stop() {
            let records = member.poll(POLL).await?;
            self.assigned[index].set(member.positions().count());
            let now_ns = now().as_nanos();
            let mut tally = self.stage.tally.borrow_mut();
            let mut verdict = self.stage.verdict.borrow_mut();
            let mut tracks = self.tracks.borrow_mut();
            let mut bytes = 0;
            let mut at: Option<(i32, Rc<str>, usize)> = None;
            for record in &records {
                let same = matches!(&at, Some((partition, topic, _))
                    if *partition == record.partition && Rc::ptr_eq(topic, &record.topic));
                if !same {
                    let place = self.places.get(&(record.topic.to_string(), record.partition)).copied();
                    let place = place.expect("members read the workload's topics alone");
                    at = Some((record.partition, Rc::clone(&record.topic), place));
                }
                let (_, _, place) = at.as_ref().expect("just set");
                let value = record.value.as_deref().unwrap_or_default();
                bytes += value.len() as u64;
                tracks[*place].follow_record(record.offset, &self.stage.rules, &mut verdict);
                if let Some(stamp) = tracks[*place].check(value, &self.stage.rules, &mut verdict) {
                    tally.add_arrival(now_ns, stamp.due_ns, 1);
                }
            }
            tally.add_fetch(now_ns, records.len() as u64, bytes);
        }
        Ok(member.close().await?)
    }

    fn config(&self) -> GroupConfig {
        let settings = &self.settings;
        let start = match settings.from {
            Begin::Beginning => StartOffset::Earliest,
            Begin::End | Begin::Replay => StartOffset::Latest,
        };
        GroupConfig {
            offset_reset: start,
            consumer: ConsumerConfig {
                fetch_bytes_min: settings.fetch_min_bytes,
                fetch_bytes_max: settings.fetch_max_bytes,
                partition_bytes_max: settings.partition_max_bytes,
                fetch_wait: Duration::from_millis(settings.fetch_max_wait_ms.into()),
                ..ConsumerConfig::default()
            },
            ..GroupConfig::new(settings.group.as_str(), self.topics.iter().cloned())
        }
    }
}
