//! The pure node: consensus, log, formation and the replicator's feed wired together. No I/O, no clock, no threads; the
//! runtime beside it drives it, and so does the simulator.
//!
//! [`Node::handle`] takes what happened, [`Node::outputs`] gives what is to be done, and [`Node::deadline`] says when time
//! itself is the next thing to happen.

mod api;
mod feed;
mod formation;
mod formed;
mod install_snapshot;
mod notice;
mod queries;
mod receiving;
mod recovery;
mod removal;
mod room;
mod saved;
mod sending;
mod snapshot;
mod store;
mod survivor;
mod taking;
#[cfg(test)]
mod tests;
mod unformed;
mod weights;

use std::sync::Arc;
use std::time::Duration;

use raftlog_raft::Raft;
use raftlog_raft::entry::{Entry, HardState};
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId};
use raftlog_raft::log::Log;
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::planted::Bug;
use raftlog_raft::session::Sessions;
use raftlog_raft::time::Time;
use raftlog_storage::identity::{Identity, Program};
use raftlog_storage::snapshots::SnapshotEvent;
use raftlog_storage::{Append, Disk, DiskError, DiskErrorKind, Op, OpId, OpenError, Outcome, WalEvent};
use rand_chacha::ChaCha8Rng;

pub use api::{
    BootstrapRefusal, Bounds, Change, Committed, Disks, ElectedBy, FromReplicator, Input, Kept, Leader,
    Leading, MemberProgress, MembershipChange, MembershipRefusal, NodeConfig, Output, Parent, PeerReport,
    Place, Position, Progress, Proposal, Proposed, Query, QueryRefusal, QueryRefused, QueryResult,
    ReadCounts, Refusal, ReplicatedOperation, ReplicatorView, RequestId, Role, SnapshotChunk, SnapshotPolicy,
    SnapshotRefusal, StartAction, StateSnapshot, Status, StreamId, TakenSnapshot, ToReplicator,
    TransferRefusal, Transferred, WhyRefused,
};
pub use install_snapshot::{
    InstallSnapshot, InstallSnapshotResponse, SnapshotAnswer, SnapshotId, SnapshotPart,
};
pub use notice::Notice;
pub use saved::SavedSnapshot;
pub use survivor::{Alone, Survivor};

use formation::{Decision, Formation};
use formed::{Formed, Past};
use removal::Removal;
use room::Room;
use snapshot::Origin;
use store::{Store, StoreEvent};
use unformed::{Joining, Unformed, same_cluster};

/// The operation that stores the identity; the log counts its own from 1.
const STORE_IDENTITY: OpId = OpId(u64::MAX);
/// How often a full disk is asked for room again.
const RETRY_FULL_DISK: Duration = Duration::from_secs(1);

/// One node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    identity: Identity,
    store: Store,
    room: Room,
    random: ChaCha8Rng,
    state: State,
    outputs: Vec<Output>,
    stopped: bool,
}

#[derive(Debug)]
enum State {
    Unformed(Box<Unformed>),
    Formed(Box<Formed>),
}

impl Node {
    /// Opens a data folder, or makes a new one with a new identity.
    pub fn open(
        config: NodeConfig,
        disk: &mut dyn Disk,
        now: Time,
        mut random: ChaCha8Rng,
    ) -> Result<Self, OpenError> {
        let found = Identity::load(disk)?;
        if let Some(identity) = &found {
            identity.check(Program::Node, config.node, &disk.folder())?;
        }
        let identity = found.clone().unwrap_or_else(|| {
            let member = if config.planted.has(Bug::LostDiskSameVoter) {
                MemberId::new(u64::from(config.node) << 32).expect("nodes are numbered from 1")
            } else {
                MemberId::random(&mut random)
            };
            Identity::new(Program::Node, config.node, member)
        });
        let room = Room::new(config.snapshots, volume_bytes(disk)?);
        let settings = recovery::Settings {
            bounds: config.bounds,
            supports: config.supports,
            planted: config.planted,
        };
        let (store, recovered) = recovery::recover(disk, &identity, settings, &room)?;
        let mut outputs = Vec::new();
        if found.is_none() {
            disk.execute(&identity.store())?;
            let (node, member) = (config.node, identity.member);
            outputs.push(Output::Notice(Notice::NewMember { node, member }));
        }
        for damage in &recovered.damages {
            let what = format!("goes on without a snapshot: {damage}");
            let node = config.node;
            outputs.push(Output::Notice(Notice::Plain { node, what }));
        }
        let state = if let Some(cluster) = identity.cluster.filter(|_| identity.formed) {
            let raft_config = raft_config(&config, room, identity.member);
            let mut raft = Raft::new(
                raft_config,
                recovered.hard_state,
                recovered.log,
                random.clone(),
                now,
            );
            if recovered.suspect {
                raft.set_suspect();
            }
            let bootstrap = Configuration::new(0, identity.bootstrap.clone());
            let origin = Origin {
                cluster,
                member: identity.member,
            };
            let past = Past {
                tickets: recovered.tickets,
                weights: recovered.weights,
                taking: room.taking(
                    origin,
                    recovered.base_fold,
                    raft.log().base().position.index,
                    config.planted,
                ),
                room,
                removal: Removal::kept(identity.removed_by),
            };
            let mut formed = Formed::new(cluster, bootstrap, raft, past);
            formed.listed |= recovered.listed;
            State::Formed(Box::new(formed))
        } else {
            let me = own_member(&config, identity.member);
            let mut formation = Formation::new(me, config.initial_peers.clone(), now);
            if config.was_removed {
                formation.forms_none();
            }
            State::Unformed(Box::new(Unformed {
                formation,
                joining: None,
                declined: None,
                retry_full_disk: Time::NEVER,
                identity_waits: false,
            }))
        };
        Ok(Self {
            config,
            identity,
            store,
            room,
            random,
            state,
            outputs,
            stopped: false,
        })
    }

    /// This member's identity.
    pub fn member_id(&self) -> MemberId {
        self.identity.member
    }

    /// The cluster it belongs to, once that is on its disk.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        match &self.state {
            State::Unformed(_) => None,
            State::Formed(formed) => Some(formed.cluster()),
        }
    }

    /// Its consensus, for whoever watches it; absent while it belongs to no cluster.
    pub fn raft(&self) -> Option<&Raft> {
        match &self.state {
            State::Unformed(_) => None,
            State::Formed(formed) => Some(formed.watch()),
        }
    }

    /// The version of the configuration that removed it from the cluster, for good, as its log or its disk says: its identity is of
    /// no use any more.
    pub fn removed_by(&self) -> Option<LogIndex> {
        match &self.state {
            State::Unformed(_) => None,
            State::Formed(formed) => formed.gone_since(),
        }
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Time {
        match &self.state {
            State::Unformed(unformed) => unformed.deadline(),
            State::Formed(formed) => formed.deadline(),
        }
    }

    /// Whether the next [`FromReplicator::Snapshot`] may come: the disk has taken the one before, or may be given more.
    pub fn takes_snapshot(&self) -> bool {
        match &self.state {
            State::Unformed(_) => true,
            State::Formed(formed) => formed.takes_state(),
        }
    }

    /// Takes in what happened. After [`Output::Stop`] nothing has any effect.
    pub fn handle(&mut self, now: Time, input: Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::Disk(STORE_IDENTITY, result) => self.identity_stored(now, result),
            Input::Disk(id, result) => self.disk_done(now, id, result),
            Input::Bootstrap {
                id,
                cluster_id,
                to_member,
                members,
            } => {
                self.bootstrap(id, cluster_id, to_member, members);
            }
            other => match &mut self.state {
                State::Unformed(_) => self.handle_unformed(now, other),
                State::Formed(_) => self.handle_formed(now, other),
            },
        }
    }

    fn handle_unformed(&mut self, now: Time, input: Input) {
        let State::Unformed(unformed) = &mut self.state else {
            return;
        };
        let no_leader = Refusal::NotLeader { leader: None };
        match input {
            Input::Tick if unformed.joining.is_none() && now >= unformed.formation.due() => {
                for (node, address) in unformed.formation.ask(now) {
                    self.outputs.push(Output::AskPeer { node, address });
                }
                self.decide();
            }
            Input::Tick if unformed.joining.is_some() && now >= unformed.retry_full_disk => {
                unformed.retry_full_disk = now + RETRY_FULL_DISK;
                if std::mem::take(&mut unformed.identity_waits) {
                    let store = Output::Disk(STORE_IDENTITY, self.identity.store());
                    self.outputs.push(store);
                }
                if let Some(event) = self.store.retry() {
                    self.wal_event(now, event);
                }
            }
            Input::PeerReport { node, report } => {
                unformed.formation.report(node, report);
                self.decide();
            }
            Input::Submit(proposals) => {
                for Proposal { id, .. } in proposals {
                    self.outputs.push(Output::Answer {
                        id,
                        result: Err(no_leader.clone()),
                    });
                }
            }
            Input::TakeSnapshot { id, .. } => {
                let result = Err(SnapshotRefusal::Unformed);
                self.outputs.push(Output::SnapshotTaken { id, result });
            }
            Input::ReadSnapshot { id, .. } => self.outputs.push(Output::SnapshotRead { id, data: None }),
            Input::TransferLeadership { id, .. } => {
                let result = Err(TransferRefusal::NotLeader { leader: None });
                self.outputs.push(Output::Transferred { id, result });
            }
            Input::ChangeMembership(change) => {
                let (id, leader) = (change.id, None);
                let result = Err(MembershipRefusal::NotLeader { leader });
                self.outputs.push(Output::MembershipChanged { id, result });
            }
            Input::Invited {
                cluster_id: cluster,
                bootstrap: members,
                level,
            } if unformed.joining.is_none() && !members.is_empty() => {
                match self.config.supports.check(level) {
                    Ok(()) => self.join(Joining {
                        cluster,
                        members,
                        forms: false,
                        asked_by: Vec::new(),
                    }),
                    Err(why) => self.decline(cluster, &why),
                }
            }
            Input::Query(Query { id, .. }) => {
                let result = Err(QueryRefusal::NoLeader { leader: None });
                self.outputs.push(Output::QueryAnswered { id, result });
            }
            Input::Replicator(FromReplicator::Position(_)) => {
                let why = "this node belongs to no cluster yet".to_owned();
                self.outputs.push(Output::Replicator(ToReplicator::Close { why }));
            }
            _ => {}
        }
    }

    fn handle_formed(&mut self, now: Time, input: Input) {
        let State::Formed(formed) = &mut self.state else {
            return;
        };
        match input {
            Input::Tick => {
                if let Some(event) = formed.tick(now, &mut self.store, &mut self.outputs) {
                    self.wal_event(now, event);
                }
            }
            Input::Message(message) => formed.raft().message(now, message),
            Input::PeerStreamBroken(member) => {
                formed.raft().peer_stream_broken(member);
                formed.snapshot_stream_broken(member);
            }
            Input::InstallSnapshot(message) => {
                let heard = formed.install_snapshot_heard(now, message, &mut self.store, &mut self.outputs);
                if let Err(why) = heard {
                    self.stop(why);
                }
            }
            Input::InstallSnapshotResponse(response) => {
                formed.install_snapshot_answered(now, response, &mut self.outputs);
            }
            Input::SnapshotStreamBroken(member) => formed.snapshot_stream_broken(member),
            Input::Submit(proposals) => formed.submit(now, proposals),
            Input::StreamClosed(stream) => formed.raft().stream_closed(stream),
            Input::TransferLeadership { id, target } => formed.transfer_leadership(now, id, target),
            Input::ChangeMembership(change) => formed.raft().change_membership(now, &change),
            Input::Removed { version } => formed.told_of_removal(version),
            Input::TakeSnapshot { id, within } => formed.take_snapshot(now, id, within),
            Input::ReadSnapshot { id, snapshot, offset } => {
                formed.read_snapshot(id, snapshot, offset, &mut self.store, &mut self.outputs);
            }
            Input::Query(query) => formed.query(now, query, &mut self.outputs),
            Input::Replicator(said) => formed.replicator_said(now, said, &mut self.store, &mut self.outputs),
            Input::PeerReport { .. } | Input::Disk(..) | Input::Bootstrap { .. } | Input::Invited { .. } => {}
        }
    }

    /// Takes what is to be done. The more happened since the last call, the larger the batches.
    pub fn outputs(&mut self, now: Time) -> Vec<Output> {
        if !self.stopped {
            if let State::Formed(formed) = &mut self.state
                && let Err(why) = formed.flush(now, &mut self.store, &mut self.outputs)
            {
                self.stop(why);
            }
            self.keep_removal(now);
            while let Some((id, op)) = self.store.next_op() {
                self.outputs.push(Output::Disk(id, op));
            }
        }
        std::mem::take(&mut self.outputs)
    }

    /// The next start has to know whether it was removed, too.
    fn keep_removal(&mut self, now: Time) {
        if let State::Formed(formed) = &mut self.state
            && let Some(removed_by) = formed.removal_to_keep(now)
        {
            self.identity.removed_by = Some(removed_by).filter(|version| *version > 0);
            self.outputs
                .push(Output::Disk(STORE_IDENTITY, self.identity.store()));
        }
    }

    fn disk_done(&mut self, now: Time, id: OpId, result: Result<Outcome, DiskError>) {
        match self.store.complete(id, result) {
            Ok(events) => {
                for event in events {
                    match event {
                        StoreEvent::Wal(event) => self.wal_event(now, event),
                        StoreEvent::Snapshot(event) => self.snapshot_event(now, event),
                    }
                }
            }
            Err(fatal) => self.stop(fatal.to_string()),
        }
    }

    fn wal_event(&mut self, now: Time, event: WalEvent<Entry>) {
        if let WalEvent::Full(full) = event {
            let what = if full {
                "has a full disk: as Leader it hands over to a node with room, and refuses submissions until there is any"
            } else {
                "has room on its disk again"
            };
            let (node, what) = (self.config.node, what.to_owned());
            self.outputs.push(Output::Notice(Notice::Plain { node, what }));
        }
        match &mut self.state {
            State::Formed(formed) => formed.wal_event(now, event, &self.store),
            State::Unformed(unformed) => match (event, &unformed.joining) {
                (WalEvent::Persisted(_), Some(joining)) => {
                    // The log is there: now the identity may say that it has to be.
                    self.identity.cluster = Some(joining.cluster);
                    self.identity.formed = true;
                    self.identity.bootstrap.clone_from(&joining.members);
                    self.outputs
                        .push(Output::Disk(STORE_IDENTITY, self.identity.store()));
                }
                (WalEvent::Full(full), _) => {
                    unformed.retry_full_disk = if full || unformed.identity_waits {
                        now + RETRY_FULL_DISK
                    } else {
                        Time::NEVER
                    };
                }
                _ => {}
            },
        }
    }

    fn snapshot_event(&mut self, now: Time, event: SnapshotEvent) {
        if let SnapshotEvent::Full(full) = event {
            let what = if full {
                "has no room on its disk for a snapshot: it is written once there is"
            } else {
                "has room on its disk for its snapshot"
            };
            let (node, what) = (self.config.node, what.to_owned());
            self.outputs.push(Output::Notice(Notice::Plain { node, what }));
        }
        if let State::Formed(formed) = &mut self.state {
            let transferred = formed.transfer_event(now, &event, &mut self.store, &mut self.outputs);
            formed.snapshot_event(now, event, &self.store, &mut self.outputs);
            if let Err(why) = transferred {
                self.stop(why);
            }
        }
    }

    fn stop(&mut self, why: String) {
        self.stopped = true;
        self.outputs.push(Output::Stop(why));
    }

    /// The leader invites again and again: that is told once.
    fn decline(&mut self, cluster: ClusterId, why: &str) {
        let State::Unformed(unformed) = &mut self.state else {
            return;
        };
        let why = format!("cannot join cluster {cluster}: {why}");
        if unformed.declined.as_ref() != Some(&why) {
            let (node, what) = (self.config.node, why.clone());
            self.outputs.push(Output::Notice(Notice::Plain { node, what }));
            unformed.declined = Some(why);
        }
    }

    fn decide(&mut self) {
        let State::Unformed(unformed) = &mut self.state else {
            return;
        };
        if unformed.joining.is_some() {
            return;
        }
        let joining = match unformed.formation.decide() {
            Decision::Wait => return,
            Decision::Form(members) => {
                let cluster = ClusterId::random(&mut self.random);
                Joining {
                    cluster,
                    members,
                    forms: true,
                    asked_by: Vec::new(),
                }
            }
            Decision::Join(cluster, members) => Joining {
                cluster,
                members,
                forms: false,
                asked_by: Vec::new(),
            },
        };
        self.join(joining);
    }

    /// Takes a place in a cluster: first the log gets its first batch, then the identity is stored, and only then does this
    /// node act as a member.
    fn join(&mut self, joining: Joining) {
        let State::Unformed(unformed) = &mut self.state else {
            return;
        };
        let mut state = Vec::new();
        HardState::default().encode(&mut state);
        self.store.wal.append(Append {
            state: Some(state.into()),
            truncate_from: None,
            records: Vec::new(),
        });
        unformed.joining = Some(joining);
    }

    fn bootstrap(&mut self, id: RequestId, cluster: ClusterId, to_member: MemberId, members: Vec<Member>) {
        let me = self.identity.member;
        let result = if to_member == me {
            match &mut self.state {
                State::Unformed(unformed) => match unformed.bootstrap(me, id, cluster, members) {
                    Ok(Some(joining)) => {
                        self.join(joining);
                        return;
                    }
                    Ok(None) => return,
                    Err(refusal) => Err(refusal),
                },
                State::Formed(formed) => {
                    if same_cluster(formed.cluster(), formed.bootstrap().members(), cluster, &members) {
                        Ok(())
                    } else {
                        Err(BootstrapRefusal::AlreadyFormed(formed.cluster()))
                    }
                }
            }
        } else {
            Err(BootstrapRefusal::WrongMember(me))
        };
        self.outputs.push(Output::Bootstrapped { id, result });
    }

    fn identity_stored(&mut self, now: Time, result: Result<Outcome, DiskError>) {
        let unformed = match &mut self.state {
            State::Unformed(unformed) => unformed,
            State::Formed(formed) => match result {
                Err(error) if error.kind != DiskErrorKind::Full => return self.stop(error.to_string()),
                stored => return formed.removal_kept(now, stored.is_ok()),
            },
        };
        match result {
            Ok(_) => {}
            Err(error) if error.kind == DiskErrorKind::Full => {
                unformed.identity_waits = true;
                unformed.retry_full_disk = now + RETRY_FULL_DISK;
                let node = self.config.node;
                let what = format!("takes its place in the cluster once there is room on its disk: {error}");
                self.outputs.push(Output::Notice(Notice::Plain { node, what }));
                return;
            }
            Err(error) => return self.stop(error.to_string()),
        }
        let Some(joining) = unformed.joining.take() else {
            return;
        };
        let Joining {
            cluster,
            members,
            forms,
            asked_by,
        } = joining;
        let bootstrap = Configuration::new(0, members);
        let (bounds, planted) = (self.config.bounds, self.config.planted);
        let fold = first_fold(bootstrap.clone(), bounds);
        let log = Log::new(fold.clone(), bounds.recent_bytes_max);
        let raft_config = raft_config(&self.config, self.room, self.identity.member);
        let raft = Raft::new(raft_config, HardState::default(), log, self.random.clone(), now);
        self.outputs.push(Output::Notice(Notice::Formed {
            node: self.config.node,
            cluster,
        }));
        self.outputs.extend(
            asked_by
                .into_iter()
                .map(|id| Output::Bootstrapped { id, result: Ok(()) }),
        );
        if forms {
            self.tell_others(cluster, &bootstrap);
        }
        let origin = Origin {
            cluster,
            member: self.identity.member,
        };
        let past = Past {
            // The log has written one batch on its own account.
            tickets: 1,
            weights: self.room.weights(0),
            taking: self.room.taking(origin, fold, 0, planted),
            room: self.room,
            removal: Removal::default(),
        };
        let mut formed = Formed::new(cluster, bootstrap, raft, past);
        if self.store.wal.is_full_disk() {
            // The log says so only once.
            formed.wal_event(now, WalEvent::Full(true), &self.store);
        }
        self.state = State::Formed(Box::new(formed));
    }

    fn tell_others(&mut self, cluster_id: ClusterId, bootstrap: &Configuration) {
        let me = self.identity.member;
        for member in bootstrap.members().iter().filter(|member| member.id != me) {
            self.outputs.push(Output::SendBootstrap {
                node: member.node,
                address: member.peer_address.clone(),
                cluster_id,
                to_member: member.id,
                members: bootstrap.members().to_vec(),
            });
        }
    }

    /// What it is now.
    pub fn status(&self, now: Time) -> Status {
        let mut status = Status {
            cluster_id: None,
            member_id: self.identity.member,
            node: self.config.node,
            role: Role::Unformed,
            term: 0,
            leader: None,
            leader_is_live: false,
            commit_index: 0,
            execution_mark: 0,
            last_index: 0,
            persisted_index: 0,
            commit_log_index: 0,
            last_log_index: 0,
            running_hash: 0,
            commit_hash: None,
            feature_level: None,
            supports: self.config.supports,
            configuration: Arc::default(),
            parent: None,
            bootstrap: None,
            is_member: false,
            progress: Vec::new(),
            replicator: ReplicatorView::default(),
            elected_by: None,
            disks: Disks {
                full: self.store.wal.is_full_disk(),
                ..Disks::default()
            },
            kept: Kept::default(),
            waiting_for: None,
            was_removed: false,
            reads: ReadCounts::default(),
            memory_bytes: 0,
            disk_bytes: self.store.wal.disk_bytes(),
            disk_segments: u64::try_from(self.store.wal.segments()).unwrap_or(u64::MAX),
            pending_bytes: u64::try_from(self.store.wal.pending_bytes()).unwrap_or(u64::MAX),
        };
        match &self.state {
            State::Unformed(unformed) => {
                status.waiting_for = Some(unformed.waiting_for());
                status.was_removed = self.config.was_removed;
            }
            State::Formed(formed) => formed.describe(now, &self.store, &mut status),
        }
        status
    }
}

fn volume_bytes(disk: &mut dyn Disk) -> Result<u64, OpenError> {
    match disk.execute(&Op::Volume)? {
        Outcome::Volume(bytes) => Ok(bytes),
        other => unreachable!("the size of the volume was asked for, not {other:?}"),
    }
}

fn own_member(config: &NodeConfig, id: MemberId) -> Member {
    Member {
        id,
        node: config.node,
        peer_address: config.peer_address.clone(),
        client_address: config.client_address.clone(),
        voter: true,
    }
}

/// That of the empty log of a cluster.
fn first_fold(bootstrap: Configuration, bounds: Bounds) -> Fold {
    Fold {
        sessions: Sessions::with_limit(bounds.sessions_max),
        ..Fold::new(bootstrap)
    }
}

fn raft_config(config: &NodeConfig, room: Room, id: MemberId) -> raftlog_raft::Config {
    let Bounds {
        recent_bytes_max,
        append_bytes_max,
        in_flight_bytes_max,
        uncommitted_bytes_max,
        sessions_max: _,
    } = config.bounds;
    raftlog_raft::Config {
        node: config.node,
        election_timeout_min: config.election_timeout_min,
        election_timeout_max: config.election_timeout_max,
        heartbeat_interval: config.heartbeat_interval,
        lease_reads: config.lease_reads,
        supports: config.supports,
        recent_bytes_max,
        append_bytes_max,
        in_flight_bytes_max: room.under_way_bytes_max(in_flight_bytes_max),
        uncommitted_bytes_max: room.under_way_bytes_max(uncommitted_bytes_max),
        planted: config.planted,
        ..raftlog_raft::Config::new(id)
    }
}
