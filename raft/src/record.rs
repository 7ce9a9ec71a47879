//! What a group leaves in the stream: `Checkpoint` (everything needed to start from here) and `Append` (hard
//! state and entries of one ready, whole or not at all). A group's first record is a checkpoint, and what stands
//! before its latest checkpoint is not needed: the stream may be cut there.

use crate::GroupId;
use crate::codec::{DecodeError, Reader, Writer};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};

const VERSION: u8 = 1;
const KIND_CHECKPOINT: u8 = 0;
const KIND_APPEND: u8 = 1;
/// Fewest bytes an encoded entry takes: term, index, empty data.
const ENTRY_BYTES_MIN: usize = 3;

/// The durable state of one group: what a checkpoint holds, and what replaying the records after it yields.
/// Opaque outside this crate; it carries a group from one core's stream to another's when the layout changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupImage {
    pub(crate) group: GroupId,
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Snapshot,
    /// Contiguous, the first one follows the snapshot's index.
    pub(crate) entries: Vec<Entry>,
}

impl GroupImage {
    /// A group that nothing has happened to yet.
    pub(crate) fn empty(group: GroupId, voters: &[u64]) -> GroupImage {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().mut_conf_state().set_voters(voters.to_vec());
        GroupImage { group, snapshot, ..GroupImage::default() }
    }

    /// The group that this is the state of.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> u64 {
        self.snapshot.get_metadata().index + self.entries.len() as u64
    }

    /// Takes over one replayed `Append`: an entry replaces the one of its index and all that followed.
    pub(crate) fn append(
        &mut self,
        hard_state: Option<HardState>,
        entries: Vec<Entry>,
    ) -> Result<(), DecodeError> {
        let first = self.snapshot.get_metadata().index + 1;
        for entry in entries {
            if entry.index < first || entry.index > self.last_index() + 1 {
                return Err(DecodeError::Invalid("entry index"));
            }
            self.entries.truncate((entry.index - first) as usize);
            self.entries.push(entry);
        }
        if let Some(hs) = hard_state {
            self.hard_state = hs;
        }
        Ok(())
    }
}

/// One record of the stream.
#[derive(Debug, PartialEq)]
pub(crate) enum Record {
    Checkpoint(GroupImage),
    Append { group: GroupId, hard_state: Option<HardState>, entries: Vec<Entry> },
}

/// Encodes a checkpoint.
pub(crate) fn encode_checkpoint(image: &GroupImage) -> Bytes {
    let mut w = Writer::with_capacity(64 + image.snapshot.data.len());
    w.u8(VERSION);
    w.u8(KIND_CHECKPOINT);
    w.u32(image.group.0);
    put_hard_state(&mut w, &image.hard_state);
    put_snapshot(&mut w, &image.snapshot);
    put_entries(&mut w, &image.entries);
    w.finish()
}

/// Encodes what one ready adds.
pub(crate) fn encode_append(group: GroupId, hard_state: Option<&HardState>, entries: &[Entry]) -> Bytes {
    let bytes: usize = entries.iter().map(|e| e.data.len() + 24).sum();
    let mut w = Writer::with_capacity(32 + bytes);
    w.u8(VERSION);
    w.u8(KIND_APPEND);
    w.u32(group.0);
    w.bool(hard_state.is_some());
    if let Some(hs) = hard_state {
        put_hard_state(&mut w, hs);
    }
    put_entries(&mut w, entries);
    w.finish()
}

/// Decodes a record of the stream.
pub(crate) fn decode(input: &[u8]) -> Result<Record, DecodeError> {
    let mut r = Reader::new(input);
    match r.u8()? {
        VERSION => {}
        other => return Err(DecodeError::Unknown(other)),
    }
    let kind = r.u8()?;
    let group = GroupId(r.u32()?);
    let record = match kind {
        KIND_CHECKPOINT => {
            let hard_state = take_hard_state(&mut r)?;
            let snapshot = take_snapshot(&mut r)?;
            let mut image = GroupImage { group, hard_state, snapshot, entries: Vec::new() };
            image.append(None, take_entries(&mut r)?)?;
            Record::Checkpoint(image)
        }
        KIND_APPEND => {
            let hard_state = if r.bool()? { Some(take_hard_state(&mut r)?) } else { None };
            Record::Append { group, hard_state, entries: take_entries(&mut r)? }
        }
        other => return Err(DecodeError::Unknown(other)),
    };
    r.finish()?;
    Ok(record)
}

fn put_hard_state(w: &mut Writer, hs: &HardState) {
    w.u64(hs.term);
    w.u64(hs.vote);
    w.u64(hs.commit);
}

fn take_hard_state(r: &mut Reader<'_>) -> Result<HardState, DecodeError> {
    Ok(HardState { term: r.u64()?, vote: r.u64()?, commit: r.u64()?, ..HardState::default() })
}

/// Only plain entries exist: configuration changes are not made yet, and one from a peer would be parsed by
/// protobuf.
pub(crate) fn put_entries(w: &mut Writer, entries: &[Entry]) {
    w.len(entries.len());
    for e in entries {
        assert_eq!(e.get_entry_type(), EntryType::EntryNormal, "configuration entries are not encoded");
        w.u64(e.term);
        w.u64(e.index);
        w.bytes(&e.data);
    }
}

pub(crate) fn take_entries(r: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let n = r.count(ENTRY_BYTES_MIN)?;
    let mut entries = Vec::with_capacity(n);
    for _ in 0..n {
        let (term, index) = (r.u64()?, r.u64()?);
        entries.push(Entry { term, index, data: Bytes::copy_from_slice(r.bytes()?), ..Entry::default() });
    }
    Ok(entries)
}

pub(crate) fn put_snapshot(w: &mut Writer, s: &Snapshot) {
    let meta = s.get_metadata();
    w.u64(meta.index);
    w.u64(meta.term);
    let conf = meta.get_conf_state();
    for ids in [&conf.voters, &conf.learners] {
        w.len(ids.len());
        ids.iter().for_each(|id| w.u64(*id));
    }
    w.bytes(&s.data);
}

pub(crate) fn take_snapshot(r: &mut Reader<'_>) -> Result<Snapshot, DecodeError> {
    let mut s = Snapshot::default();
    s.mut_metadata().index = r.u64()?;
    s.mut_metadata().term = r.u64()?;
    let mut conf = ConfState::default();
    conf.set_voters(take_ids(r)?);
    conf.set_learners(take_ids(r)?);
    s.mut_metadata().set_conf_state(conf);
    s.data = Bytes::copy_from_slice(r.bytes()?);
    Ok(s)
}

fn take_ids(r: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    let n = r.count(1)?;
    (0..n).map(|_| r.u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term, index, data: Bytes::from(format!("command {index}")), ..Entry::default() }
    }

    #[test]
    fn records_survive_the_round_trip() {
        let mut image = GroupImage::empty(GroupId(7), &[1, 2, 3]);
        image.snapshot.mut_metadata().index = 4;
        image.snapshot.data = Bytes::from_static(b"state");
        image.append(None, vec![entry(2, 5), entry(3, 6)]).expect("contiguous");
        assert_eq!(decode(&encode_checkpoint(&image)), Ok(Record::Checkpoint(image.clone())));

        let hs = HardState { term: 9, ..HardState::default() };
        let entries = vec![entry(9, 10)];
        let bytes = encode_append(GroupId(3), Some(&hs), &entries);
        let expected = Record::Append { group: GroupId(3), hard_state: Some(hs), entries };
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn every_cut_record_is_refused() {
        let bytes = encode_append(GroupId(300), Some(&HardState::default()), &[entry(1, 1), entry(1, 2)]);
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn a_replayed_entry_replaces_its_index_and_what_followed() {
        let mut image = GroupImage::empty(GroupId(1), &[1]);
        image.append(None, vec![entry(1, 1), entry(1, 2), entry(1, 3)]).expect("contiguous");
        image.append(None, vec![entry(2, 2)]).expect("conflict");
        assert_eq!(image.entries, vec![entry(1, 1), entry(2, 2)]);
        assert!(image.append(None, vec![entry(2, 5)]).is_err(), "a gap is corruption");
    }
}
