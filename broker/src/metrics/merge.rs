//! What all cores have told, put together: one row for each series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use heizer_runtime::task::Pacer;
use uuid::Uuid;

use super::core::CoreSnapshot;
use super::figures::{Bounds, CoreFigures, GroupFigures, Holdings, LogDirFigures, PartitionFigures};
use super::process::ProcessFigures;
use super::topics::{TopicBoard, TopicCounts};
use crate::coordinator::group::ClassicState;

/// The name under which topics without series of their own are added up. No topic can be called so.
const OTHERS: &str = "(others)";

/// One core, as the core that is asked sees it.
#[derive(Clone, Debug)]
pub struct CoreRow {
    /// What it told last; none if it has never answered.
    pub figures: Option<Arc<CoreFigures>>,
    /// How long ago that was; zero where it has just answered.
    pub silent: Duration,
    /// It has not answered in time.
    pub stalled: bool,
    /// Messages that wait for it.
    pub mailbox: usize,
}

/// The broker as a whole.
#[derive(Clone, Copy, Debug)]
pub struct BrokerRow {
    /// Whether it serves clients.
    pub ready: bool,
    /// How long it has been up.
    pub uptime: Duration,
    /// What the kernel knows of the process.
    pub process: ProcessFigures,
}

/// What metrics are made of.
#[derive(Debug)]
pub struct Scrape {
    pub(super) broker: BrokerRow,
    pub(super) cores: Vec<CoreRow>,
    /// What all cores have counted together.
    pub(super) counted: CoreSnapshot,
    pub(super) dirs: Vec<LogDirFigures>,
    /// How many there are in all.
    pub(super) topic_count: usize,
    pub(super) partition_count: u64,
    /// Those with series of their own, by name, and then the others as one, if there are any.
    pub(super) topics: Vec<TopicRow>,
    pub(super) partitions: Vec<PartitionRow>,
    pub(super) groups: Vec<GroupRow>,
    pub(super) lags: Vec<LagRow>,
    pub(super) group_states: [u64; ClassicState::ALL.len()],
    pub(super) coordinators_loading: u64,
    pub(super) left_out: LeftOut,
}

/// A topic, or several.
#[derive(Debug, Default)]
pub(super) struct TopicRow {
    pub(super) name: Option<Arc<str>>,
    pub(super) counts: TopicCounts,
    pub(super) partitions: u64,
    pub(super) offline: u64,
    pub(super) bytes: u64,
    pub(super) segments: u64,
}

impl TopicRow {
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(OTHERS)
    }

    fn add(&mut self, other: &TopicRow) {
        self.counts.add(other.counts);
        self.partitions += other.partitions;
        self.offline += other.offline;
        self.bytes += other.bytes;
        self.segments += other.segments;
    }
}

#[derive(Debug)]
pub(super) struct PartitionRow {
    pub(super) topic: Arc<str>,
    pub(super) figures: PartitionFigures,
}

#[derive(Debug)]
pub(super) struct GroupRow {
    pub(super) group: ByteString,
    pub(super) state: ClassicState,
    pub(super) members: u64,
    /// Records that it has still to read; none where its partitions were left out.
    pub(super) lag: Option<u64>,
}

#[derive(Debug)]
pub(super) struct LagRow {
    pub(super) group: ByteString,
    pub(super) topic: ByteString,
    pub(super) partition: i32,
    pub(super) lag: u64,
}

/// How much there is without series of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) topics: usize,
    pub(super) partitions: usize,
    pub(super) groups: usize,
    pub(super) lags: usize,
}

/// A topic on all cores.
struct Topic {
    id: Uuid,
    row: TopicRow,
    /// In order.
    partitions: Vec<PartitionFigures>,
}

/// By name.
type Topics = BTreeMap<Arc<str>, Topic>;

impl Scrape {
    /// Puts together what the cores have told. The first of them has answered: it is the one that asks. Gives way to
    /// others, as `pacer` says.
    pub async fn put_together(
        broker: BrokerRow,
        cores: Vec<CoreRow>,
        holdings: &[Arc<Holdings>],
        bounds: Bounds,
        board: &mut TopicBoard,
        pacer: &mut Pacer,
    ) -> Scrape {
        let topics = gather(holdings, pacer).await;
        let partition_count: u64 = topics.values().map(|topic| topic.row.partitions).sum();
        let mut scrape = Scrape {
            broker,
            counted: add_up(&cores),
            cores,
            dirs: dirs(holdings),
            topic_count: topics.len(),
            partition_count,
            topics: Vec::new(),
            partitions: Vec::new(),
            groups: Vec::new(),
            lags: Vec::new(),
            group_states: Default::default(),
            coordinators_loading: holdings.iter().map(|core| core.coordinators_loading).sum(),
            left_out: LeftOut::default(),
        };
        for core in holdings {
            for (sum, count) in scrape.group_states.iter_mut().zip(core.group_states) {
                *sum += count;
            }
        }
        scrape.take_groups(holdings, bounds, &topics, pacer).await;
        scrape.take_topics(topics, bounds, board, pacer).await;
        scrape
    }

    async fn take_topics(
        &mut self,
        mut topics: Topics,
        bounds: Bounds,
        board: &mut TopicBoard,
        pacer: &mut Pacer,
    ) {
        board.begin();
        let mut seats = Vec::with_capacity(topics.len());
        for topic in topics.values_mut() {
            seats.push(board.seen(topic.id, &mut topic.row.counts));
            pacer.checkpoint().await;
        }
        board.release();
        let mut others = TopicRow { counts: board.gone(), ..TopicRow::default() };
        for ((name, topic), seat) in topics.into_iter().zip(seats) {
            let own = seat.unwrap_or_else(|| board.admit(topic.id, topic.row.counts));
            if own {
                self.take_partitions(&name, topic.partitions, bounds.partitions);
                self.topics.push(TopicRow { name: Some(name), ..topic.row });
            } else {
                self.left_out.topics += 1;
                self.left_out.partitions += topic.partitions.len();
                others.add(&topic.row);
            }
            pacer.checkpoint().await;
        }
        if self.left_out.topics > 0 || others.counts != TopicCounts::default() {
            self.topics.push(others);
        }
    }

    /// All partitions of a topic, or none where there is no place for all.
    fn take_partitions(&mut self, topic: &Arc<str>, partitions: Vec<PartitionFigures>, max: usize) {
        if self.partitions.len() + partitions.len() > max {
            self.left_out.partitions += partitions.len();
            return;
        }
        let row = |figures| PartitionRow { topic: topic.clone(), figures };
        self.partitions.extend(partitions.into_iter().map(row));
    }

    async fn take_groups(
        &mut self,
        holdings: &[Arc<Holdings>],
        bounds: Bounds,
        topics: &Topics,
        pacer: &mut Pacer,
    ) {
        let mut all: BTreeMap<(i32, &ByteString), &GroupFigures> = BTreeMap::new();
        for group in holdings.iter().flat_map(|core| &core.groups) {
            all.insert((group.partition, &group.group), group);
            pacer.checkpoint().await;
        }
        for (_, group) in all.into_iter().take(bounds.groups) {
            let mut row = GroupRow {
                group: group.group.clone(),
                state: group.state,
                members: group.members as u64,
                lag: None,
            };
            let committed = group.committed.as_ref();
            match committed.filter(|committed| self.lags.len() + committed.len() <= bounds.lags) {
                None => self.left_out.lags += group.committed_count,
                Some(committed) => {
                    let mut sum = 0;
                    for committed in committed {
                        pacer.checkpoint().await;
                        let Some(end) = high_watermark(topics, &committed.topic, committed.partition) else {
                            continue;
                        };
                        let lag = u64::try_from(end - committed.offset).unwrap_or(0);
                        sum += lag;
                        let (group, topic) = (group.group.clone(), committed.topic.clone());
                        self.lags.push(LagRow { group, topic, partition: committed.partition, lag });
                    }
                    row.lag = Some(sum);
                }
            }
            self.groups.push(row);
        }
        let shown = self.groups.len() as u64;
        let groups: u64 = self.group_states.iter().sum();
        self.left_out.groups = usize::try_from(groups.saturating_sub(shown)).unwrap_or(usize::MAX);
    }
}

/// What a group can read of a partition ends here; none for one that is not served.
fn high_watermark(topics: &Topics, topic: &ByteString, partition: i32) -> Option<i64> {
    let topic = topics.get(&**topic)?;
    let at = topic.partitions.binary_search_by_key(&partition, |figures| figures.index).ok()?;
    Some(topic.partitions[at].high_watermark)
}

/// The topics of all cores, each with its partitions in order.
async fn gather(holdings: &[Arc<Holdings>], pacer: &mut Pacer) -> Topics {
    let mut topics = Topics::new();
    for figures in holdings.iter().flat_map(|core| &core.topics) {
        let new = || Topic { id: figures.id, row: TopicRow::default(), partitions: Vec::new() };
        let topic = topics.entry(figures.name.clone()).or_insert_with(new);
        if topic.id != figures.id {
            // One has just gone and another one of its name has come: the next scrape tells which.
            continue;
        }
        let row = &mut topic.row;
        row.counts.add(figures.counts);
        row.partitions += figures.partitions.len() as u64 + figures.offline;
        row.offline += figures.offline;
        for partition in &figures.partitions {
            row.bytes += partition.bytes;
            row.segments += partition.segments;
        }
        topic.partitions.extend_from_slice(&figures.partitions);
        topic.partitions.sort_unstable_by_key(|partition| partition.index);
        pacer.checkpoint().await;
    }
    topics
}

fn add_up(cores: &[CoreRow]) -> CoreSnapshot {
    let mut told = cores.iter().filter_map(|core| core.figures.as_ref()).map(|figures| &figures.counted);
    let mut sum = told.next().expect("the core that asks answers itself").clone();
    told.for_each(|other| sum.merge(other));
    sum
}

/// Every core sees the same directories, each by its own last look.
fn dirs(holdings: &[Arc<Holdings>]) -> Vec<LogDirFigures> {
    let mut dirs: Vec<LogDirFigures> = Vec::new();
    for other in holdings.iter().flat_map(|core| &core.dirs) {
        match dirs.iter_mut().find(|known| known.dir == other.dir) {
            Some(known) => known.merge(other),
            None => dirs.push(other.clone()),
        }
    }
    dirs
}
