//! Where every partition is, at a start.

use std::path::Path;
use std::sync::Arc;

use heizer_runtime::collections::HashMap;
use heizer_runtime::fs as async_fs;
use heizer_storage::{
    LogCopy, Note, NoteKind, Whereabouts, remove_log, split_log_name, topic_id_of, whereabouts,
};
use uuid::Uuid;

use super::{DataDirError, Placer, Survey};
use crate::metadata::{MetadataImage, TopicImage};

/// Where a partition is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the directory with this place in `log.dirs`.
    In(usize),
    /// In one that does not answer, as far as anybody knows.
    Offline(Arc<str>),
}

/// The places of all partitions.
#[derive(Debug, Default)]
pub struct Plan {
    places: HashMap<(Uuid, i32), Place>,
    /// Why a log that is nowhere may be somewhere all the same.
    missing: Option<Arc<str>>,
    /// Logs that have moved away, by directory and name.
    stale: Vec<(usize, String)>,
    /// Logs of no partition.
    strays: Vec<(usize, String)>,
    /// Notes of moves that are over, one way or the other.
    settled: Vec<(usize, Note)>,
}

impl Plan {
    /// The place of a partition that was there at the start.
    pub fn place(&self, topic_id: Uuid, partition: i32) -> Option<&Place> {
        self.places.get(&(topic_id, partition))
    }

    /// Why a partition that was there at the start and is nowhere now may be somewhere all the same, if it may.
    pub fn missing(&self) -> Option<Arc<str>> {
        self.missing.clone()
    }

    /// Finds every partition in `image`, which is complete, among what the survey has found. Those that are nowhere
    /// get a place, unless they may be in a directory that is missing: an empty log in their stead would be a lie.
    pub async fn make(
        survey: &Survey,
        image: &MetadataImage,
        placer: &mut Placer,
    ) -> Result<Plan, DataDirError> {
        let mut plan = Plan { missing: survey.missing_reason(), ..Plan::default() };
        let mut found: HashMap<&str, Vec<usize>> = HashMap::default();
        for (at, listing) in survey.listings.iter().enumerate() {
            listing.logs.iter().for_each(|log| found.entry(log).or_default().push(at));
        }
        let free = free_bytes(survey.dirs.iter().map(|dir| (&*dir.path, dir.failure.is_none()))).await;
        for topic in image.topics() {
            for index in 0..topic.record.replicas.len() as i32 {
                let name = format!("{}-{index}", topic.record.name);
                let dirs = found.remove(&*name).unwrap_or_default();
                let place = plan.locate(survey, topic, index, &name, dirs).await?;
                let place = match place {
                    Some(place) => place,
                    None => {
                        placer.choose(&free).map_or_else(|| Place::Offline("no directory".into()), Place::In)
                    }
                };
                plan.places.insert((topic.record.id, index), place);
            }
        }
        let left = found.into_iter().flat_map(|(name, dirs)| dirs.into_iter().map(move |at| (at, name)));
        plan.strays = left.map(|(at, name)| (at, name.to_owned())).collect();
        plan.strays.sort_unstable();
        plan.find_settled(survey, image);
        Ok(plan)
    }

    /// `None`: nowhere, and nothing that is missing can have it.
    async fn locate(
        &mut self,
        survey: &Survey,
        topic: &TopicImage,
        index: i32,
        name: &str,
        mut dirs: Vec<usize>,
    ) -> Result<Option<Place>, DataDirError> {
        if dirs.len() > 1 {
            // A topic of the same name may have been there before.
            let mut own = Vec::new();
            for at in dirs {
                let id = topic_id_of(&survey.dirs[at].path, name).await?;
                if id.is_none_or(|id| id == *topic.record.id.as_bytes()) {
                    own.push(at);
                } else {
                    self.strays.push((at, name.to_owned()));
                }
            }
            dirs = own;
        }
        let copies: Vec<LogCopy> = dirs.iter().map(|at| copy(survey, *at, name)).collect();
        let is_online = |id: &[u8; 16]| survey.online().any(|(_, dir)| dir.id == *id);
        Ok(match whereabouts(&copies, is_online) {
            Whereabouts::At(winner) => {
                let stale = dirs.iter().filter(|at| **at != dirs[winner]);
                self.stale.extend(stale.map(|at| (*at, name.to_owned())));
                Some(Place::In(dirs[winner]))
            }
            Whereabouts::Missing(id) => {
                let id = heizer_storage::encode_id(id);
                Some(Place::Offline(
                    format!("it was on its way from or to directory {id}, which is missing").into(),
                ))
            }
            Whereabouts::Ambiguous => {
                let paths: Vec<String> =
                    dirs.iter().map(|at| survey.dirs[*at].path.display().to_string()).collect();
                let paths = paths.join(" and ");
                tracing::error!(log = name, paths, "a log is in several directories; remove all but one");
                Some(Place::Offline(format!("it is in {paths}").into()))
            }
            // It existed before this start if its shard group knows it.
            Whereabouts::Nowhere if topic.partition(index).is_some() => self.missing().map(Place::Offline),
            Whereabouts::Nowhere => None,
        })
    }

    /// Notes say nothing any more once it is known where their log is.
    fn find_settled(&mut self, survey: &Survey, image: &MetadataImage) {
        for (at, listing) in survey.listings.iter().enumerate() {
            for note in &listing.notes {
                let place = split_log_name(&note.log)
                    .and_then(|(topic, index)| self.place(image.topic_named(topic)?.record.id, index));
                if !matches!(place, Some(Place::Offline(_))) {
                    self.settled.push((at, note.clone()));
                }
            }
        }
    }

    /// Removes what does not count: old copies of logs that were moved, logs of topics that were deleted while their
    /// directory was away, and then the notes. A log of an unknown topic in a directory that is new to this broker is
    /// left alone: it may be somebody's.
    pub async fn clean_up(&self, survey: &Survey, image: &MetadataImage) -> Result<(), DataDirError> {
        for (at, log) in &self.stale {
            let path = &survey.dirs[*at].path;
            tracing::info!(directory = %path.display(), log, "removing a log that was moved to another directory");
            remove_log(path, log).await?;
        }
        for (at, log) in &self.strays {
            let path = &survey.dirs[*at].path;
            let Some(id) = topic_id_of(path, log).await? else { continue };
            if image.topic(Uuid::from_bytes(id)).is_some() {
                continue;
            }
            if survey.dirs[*at].was_known {
                tracing::info!(directory = %path.display(), log, "removing a log whose topic was deleted");
                remove_log(path, log).await?;
            } else {
                tracing::warn!(directory = %path.display(), log, "a log of an unknown topic is left alone");
            }
        }
        for (at, note) in &self.settled {
            note.remove(&survey.dirs[*at].path).await?;
        }
        Ok(())
    }
}

fn copy(survey: &Survey, at: usize, name: &str) -> LogCopy {
    let note = |kind| {
        let notes = survey.listings[at].notes.iter();
        notes.filter(|note| note.kind == kind && note.log == name).map(|note| note.directory).next()
    };
    LogCopy {
        directory: survey.dirs[at].id,
        leaving_to: note(NoteKind::Leaving),
        arriving_from: note(NoteKind::Arriving),
    }
}

/// What is free in each directory; none in those that do not answer.
pub async fn free_bytes(dirs: impl Iterator<Item = (&Path, bool)>) -> Vec<Option<u64>> {
    let mut free = Vec::new();
    for (path, online) in dirs {
        free.push(if online { async_fs::free_bytes(path).await.ok() } else { None });
    }
    free
}
