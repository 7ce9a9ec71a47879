//! A classic group: its members and the facts about them, kept consistent. What happens to them and when is
//! decided in `join`, `rebalance`, `sync` and `membership`.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{JoinGroupRequestProtocol, JoinGroupResponseMember};

use super::member::{Member, ParkedJoin};
use super::state::ClassicState;
use crate::coordinator::records::{DurableGroup, DurableMember};
use crate::coordinator::result::Millis;

/// The wait for more members after the first one joined an empty group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// The step that is running.
    pub(super) delay_ms: i32,
    /// What may still follow it.
    pub(super) remaining_ms: i32,
    /// Whether a member joined during this step.
    pub(super) member_added: bool,
}

/// The live state of one group: soft, rebuilt from the durable one at load.
///
/// Ordered maps, so that the same inputs give the same outputs in every run.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    pub(super) id: ByteString,
    state: ClassicState,
    previous: ClassicState,
    pub(super) state_since: Option<Millis>,
    pub(super) protocol_type: Option<ByteString>,
    pub(super) protocol: Option<ByteString>,
    pub(super) generation: i32,
    pub(super) leader: Option<ByteString>,
    members: BTreeMap<ByteString, Member>,
    /// Instance id to member id (KIP-345).
    static_members: BTreeMap<ByteString, ByteString>,
    /// Ids handed out and not yet joined with (KIP-394).
    pub(super) pending_joins: BTreeSet<ByteString>,
    /// Members of this generation that have not asked for their assignment.
    pub(super) pending_syncs: BTreeSet<ByteString>,
    /// How many members offer each protocol.
    offers: BTreeMap<ByteString, usize>,
    awaiting_join: usize,
    pub(super) initial_delay: Option<InitialDelay>,
    /// The generation whose assignment is on its way to the log.
    pub(super) assignment_in_flight: Option<i32>,
}

impl ClassicGroup {
    pub(super) fn new(id: ByteString, now: Option<Millis>) -> Self {
        Self {
            id,
            state: ClassicState::Empty,
            previous: ClassicState::Dead,
            state_since: now,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            offers: BTreeMap::new(),
            awaiting_join: 0,
            initial_delay: None,
            assignment_in_flight: None,
        }
    }

    /// The live group that a loaded record stands for: Stable with members, Empty without. A group that was
    /// rebalancing when its coordinator went comes back as it was before; its members are told by generation
    /// and member id that they have to join again.
    pub(super) fn from_durable(id: ByteString, durable: &DurableGroup) -> Self {
        let mut group = Self::new(id, durable.state_since);
        group.protocol_type = durable.protocol_type.clone().filter(|name| !name.is_empty());
        group.generation = durable.generation;
        group.protocol = durable.protocol.clone();
        group.leader = durable.leader.clone();
        let protocol = durable.protocol.clone().unwrap_or_default();
        for member in &durable.members {
            let offered =
                JoinGroupRequestProtocol { name: protocol.clone(), metadata: member.subscription.clone() };
            group.insert(Member {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: vec![offered],
                assignment: member.assignment.clone(),
                is_new: false,
                parked_join: None,
                parked_sync: None,
            });
        }
        if !group.members.is_empty() {
            group.state = ClassicState::Stable;
            // A foreign record may name a leader that is no member.
            let known = group.leader.as_ref().is_some_and(|leader| group.members.contains_key(leader));
            if !known {
                group.leader = group.members.keys().next().cloned();
            }
        }
        group
    }

    /// What the log says about this group once the current state, with these assignments, is durable.
    pub(super) fn to_durable(&self, assignment_of: impl Fn(&Member) -> bytes::Bytes) -> DurableGroup {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.values().map(|member| DurableMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: assignment_of(member),
        });
        DurableGroup {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since: self.state_since,
            members: members.collect(),
        }
    }

    pub(super) fn state(&self) -> ClassicState {
        self.state
    }

    pub(super) fn previous_state(&self) -> ClassicState {
        self.previous
    }

    pub(super) fn is(&self, state: ClassicState) -> bool {
        self.state == state
    }

    pub(super) fn become_state(&mut self, next: ClassicState, now: Millis) {
        assert!(self.state.may_become(next), "group {} cannot go from {} to {next}", self.id, self.state);
        self.previous = self.state;
        self.state = next;
        self.state_since = Some(now);
    }

    /// Takes back [`ClassicState::Dead`], as if the group had never been on its way out.
    pub(super) fn revive(&mut self, state_since: Option<Millis>) {
        assert!(self.is(ClassicState::Dead) && self.members.is_empty(), "only an empty group dies");
        self.state = ClassicState::Empty;
        self.previous = ClassicState::Dead;
        self.state_since = state_since;
    }

    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub(super) fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.get_mut(id)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub(super) fn member_ids(&self) -> Vec<ByteString> {
        self.members.keys().cloned().collect()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn static_member_id(&self, instance_id: &str) -> Option<&ByteString> {
        self.static_members.get(instance_id)
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_ref().is_some_and(|leader| **leader == *id)
    }

    pub(super) fn awaiting_join(&self) -> usize {
        self.awaiting_join
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.awaiting_join == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest patience of any member: how long a rebalance waits for the others.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// A member id that is known, and not fenced by a newer holder of the same instance id (KIP-345).
    pub(super) fn validate_member(&self, id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let holder = self.static_member_id(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if **holder != *id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a member with these protocols can be in the group together with those that are in it.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if self.is(ClassicState::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let same_type = self.protocol_type.as_ref().is_some_and(|own| **own == *protocol_type);
        let shared = |offered: &JoinGroupRequestProtocol| {
            self.offers.get(&offered.name).copied().unwrap_or(0) == self.members.len()
        };
        same_type && protocols.iter().any(shared)
    }

    /// Adds a member; the first one sets the group's protocol type, and leads if nobody does.
    pub(super) fn add(&mut self, member: Member, protocol_type: &ByteString) {
        assert!(!self.members.contains_key(&member.id), "member {} is in the group", member.id);
        if let Some(instance_id) = &member.instance_id {
            assert!(!self.static_members.contains_key(instance_id), "instance {instance_id} is in the group");
        }
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.pending_joins.remove(&member.id);
        self.insert(member);
    }

    fn insert(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        count_offers(&mut self.offers, &member.protocols);
        self.awaiting_join += usize::from(member.is_awaiting_join());
        if let Some(twin) = self.members.insert(member.id.clone(), member) {
            // Only a foreign record can name a member twice.
            uncount_offers(&mut self.offers, &twin.protocols);
            self.awaiting_join -= usize::from(twin.is_awaiting_join());
        }
    }

    /// Takes a member, or a handed-out id, out of the group; another member leads if it led.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        self.pending_joins.remove(id);
        self.pending_syncs.remove(id);
        let member = self.members.remove(id)?;
        uncount_offers(&mut self.offers, &member.protocols);
        self.awaiting_join -= usize::from(member.is_awaiting_join());
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives the place of `old_id`, its assignment and its lead to `new_id` (KIP-345). The requests that the old
    /// holder had parked must have been answered.
    pub(super) fn rename_static(&mut self, old_id: &str, new_id: &ByteString) {
        let mut member = self.members.remove(old_id).expect("the instance's member is in the group");
        assert!(
            member.parked_join.is_none() && member.parked_sync.is_none(),
            "a parked answer would be lost"
        );
        let instance_id = member.instance_id.clone().expect("a static member has an instance id");
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        member.id = new_id.clone();
        self.static_members.insert(instance_id, new_id.clone());
        let twin = self.members.insert(new_id.clone(), member);
        assert!(twin.is_none(), "member ids are unique");
    }

    /// Takes over what a member said in its newest JoinGroup.
    pub(super) fn update_member(
        &mut self,
        id: &str,
        protocols: Vec<JoinGroupRequestProtocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        let member = self.members.get_mut(id).expect("the member was validated");
        uncount_offers(&mut self.offers, &member.protocols);
        count_offers(&mut self.offers, &protocols);
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
    }

    /// Parks a join at its member, and gives back the one that it takes the place of.
    pub(super) fn park_join(&mut self, id: &str, join: ParkedJoin) -> Option<ParkedJoin> {
        let member = self.members.get_mut(id).expect("the member was validated");
        let old = member.parked_join.replace(join);
        self.awaiting_join += usize::from(old.is_none());
        old
    }

    pub(super) fn take_parked_join(&mut self, id: &str) -> Option<ParkedJoin> {
        let join = self.members.get_mut(id)?.parked_join.take()?;
        self.awaiting_join -= 1;
        Some(join)
    }

    /// Makes sure that the leader is a member that takes part in this rebalance; false if nobody does.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(Member::is_awaiting_join) {
            return true;
        }
        let joined = self.members.values().find(|member| member.is_awaiting_join());
        let Some(joined) = joined else { return false };
        self.leader = Some(joined.id.clone());
        true
    }

    /// The protocol that every member offers and most prefer; among equals the first by name.
    pub(super) fn select_protocol(&self) -> Option<ByteString> {
        let mut votes: BTreeMap<&ByteString, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|offered| self.is_offered_by_all(&offered.name))?;
            *votes.entry(&choice.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    fn is_offered_by_all(&self, protocol: &ByteString) -> bool {
        self.offers.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// Starts the next generation with the members that are there: waiting for the assignment, or empty.
    pub(super) fn start_generation(&mut self, now: Millis) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_syncs.clear();
        self.initial_delay = None;
        if self.members.is_empty() {
            self.protocol = None;
            self.become_state(ClassicState::Empty, now);
        } else {
            let protocol = self.select_protocol().expect("members are let in only with a protocol in common");
            self.protocol = Some(protocol);
            self.become_state(ClassicState::CompletingRebalance, now);
        }
    }

    /// What the leader learns about the others.
    pub(super) fn subscriptions(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.clone().unwrap_or_default();
        let row = |member: &Member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        self.members.values().map(row).collect()
    }

    /// Panics if what is counted is not what is there.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let waiting = self.members.values().filter(|member| member.is_awaiting_join()).count();
        assert_eq!(self.awaiting_join, waiting, "waiting joins of {}", self.id);
        let mut offers = BTreeMap::new();
        self.members.values().for_each(|member| count_offers(&mut offers, &member.protocols));
        assert_eq!(self.offers, offers, "offered protocols of {}", self.id);
        let fixed =
            self.members.values().filter_map(|member| Some((member.instance_id.clone()?, member.id.clone())));
        assert_eq!(self.static_members, fixed.collect(), "static members of {}", self.id);
        assert!(
            self.pending_syncs.iter().all(|id| self.members.contains_key(id)),
            "pending syncs of {}",
            self.id
        );
        assert!(
            self.pending_joins.iter().all(|id| !self.members.contains_key(id)),
            "pending joins of {}",
            self.id
        );
        let leader_known = self.leader.as_ref().is_none_or(|leader| self.members.contains_key(leader));
        assert!(leader_known, "leader of {}", self.id);
        if matches!(self.state, ClassicState::Empty | ClassicState::Dead) {
            assert!(self.members.is_empty(), "{} has members and is {}", self.id, self.state);
        }
    }
}

/// A protocol named twice by one member counts once: the group's size is what the counts are compared with.
fn count_offers(offers: &mut BTreeMap<ByteString, usize>, protocols: &[JoinGroupRequestProtocol]) {
    for (index, protocol) in protocols.iter().enumerate() {
        if protocols[..index].iter().all(|earlier| earlier.name != protocol.name) {
            *offers.entry(protocol.name.clone()).or_default() += 1;
        }
    }
}

fn uncount_offers(offers: &mut BTreeMap<ByteString, usize>, protocols: &[JoinGroupRequestProtocol]) {
    for (index, protocol) in protocols.iter().enumerate() {
        if protocols[..index].iter().any(|earlier| earlier.name == protocol.name) {
            continue;
        }
        let count = offers.get_mut(&protocol.name).expect("an offered protocol is counted");
        *count -= 1;
        if *count == 0 {
            offers.remove(&protocol.name);
        }
    }
}
