//! What happens to a node, and what comes of it.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::Raft;
use raftlog_raft::effect::{ElectedBy, Notice as ConsensusNotice};
use raftlog_raft::feature::FeatureLevel;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use raftlog_raft::message::{AppendEntries, Body, Message, VoteAnswer};
use raftlog_raft::time::Time;
use raftlog_server::node::{
    FromReplicator, Input, Notice, Output, PeerReport, Proposal, Query, RequestId, StartAction, ToReplicator,
};
use raftlog_storage::Op;

use super::processes::{Process, address};
use super::{Cluster, violation};
use crate::coverage::Seen;
use crate::disk::Completion;
use crate::distances::Distances;
use crate::happening::{Carried, Happening, Target};
use crate::invariants::Invariants;

/// How long a node may take to answer a query.
const QUERY_WAIT: Duration = Duration::from_secs(5);

impl Cluster {
    pub(super) fn happen_to_node(&mut self, number: NodeNumber, happening: Happening) {
        if matches!(happening, Happening::Start) {
            return self.start_node(number);
        }
        let now = self.shown(number);
        let Some(process) = &mut self.pod(number).node else {
            return;
        };
        let node = &mut process.node;
        let is_new = node.cluster_id().is_none();
        match happening {
            Happening::Tick => {
                process.tick_at = Time::NEVER;
                if node.deadline() <= now {
                    node.handle(now, Input::Tick);
                }
                self.observe_disk(number);
                self.observe_bounds(number);
            }
            Happening::Message {
                from,
                epoch,
                cluster,
                message,
            } if node.cluster_id() == Some(cluster) && node.member_id() == message.to => {
                self.receive(number, from, epoch, Input::Message(message));
            }
            Happening::Snapshot {
                from,
                epoch,
                cluster,
                carried,
            } if node.cluster_id() == Some(cluster) && node.member_id() == carried.to() => {
                self.receive(number, from, epoch, carried.input());
            }
            Happening::Message { cluster, message, .. }
                if is_new
                    && node.member_id() == message.to
                    && matches!(message.body, Body::AppendEntries(_)) =>
            {
                self.invite(number, cluster, message.level);
            }
            Happening::Removed(member, version) if node.member_id() == member => {
                node.handle(now, Input::Removed { version });
                self.count(Seen::ToldOfRemoval);
            }
            Happening::LinkBroken(other) => {
                let ids = self.members.iter().filter(|(_, number)| **number == other);
                let ids: Vec<_> = ids.map(|(&id, _)| id).collect();
                if let Some(process) = &mut self.pod(number).node {
                    for id in ids {
                        process.node.handle(now, Input::PeerStreamBroken(id));
                    }
                }
            }
            Happening::Disk => self.node_disk_done(number),
            Happening::Asked { by, life } => self.answer_peer(number, by, life),
            Happening::Report(node_number, report) => {
                let node_report = Input::PeerReport {
                    node: node_number,
                    report,
                };
                node.handle(now, node_report);
            }
            Happening::Bootstrap(cluster_id, to_member, members) => {
                let bootstrap = Input::Bootstrap {
                    id: 0,
                    cluster_id,
                    to_member,
                    members,
                };
                node.handle(now, bootstrap);
            }
            Happening::Said => {
                if let Some(said) = self.pod(number).stream.to_node.pop_front()
                    && let Some(process) = &mut self.pod(number).node
                {
                    process.node.handle(now, Input::Replicator(said));
                }
            }
            Happening::Connect => self.connect(number),
            Happening::Submit(id) => self.submit(number, id),
            Happening::Read(id) => {
                let query = Query {
                    id,
                    query: Bytes::from_static(b"last"),
                    allow_stale: false,
                    until: now + QUERY_WAIT,
                };
                node.handle(now, Input::Query(query));
            }
            _ => {}
        }
        self.settle(number);
    }

    /// A leader's first message says where the new member belongs.
    fn invite(&mut self, number: NodeNumber, cluster_id: ClusterId, level: FeatureLevel) {
        self.count(Seen::Invited);
        let (now, bootstrap) = (self.shown(number), self.bootstrap.clone());
        if let Some(process) = &mut self.pod(number).node {
            process.node.handle(
                now,
                Input::Invited {
                    cluster_id,
                    bootstrap,
                    level,
                },
            );
        }
    }

    fn receive(&mut self, number: NodeNumber, from: NodeNumber, epoch: u64, input: Input) {
        let now = self.shown(number);
        if !self.network.is_current(from, number, epoch) {
            return self.count(Seen::MessageLost);
        }
        self.count(Seen::MessageDelivered);
        if let Input::Message(message) = &input
            && matches!(message.body, Body::RequestVote(_))
        {
            self.tell_removed(number, from, message.from);
        }
        if let Some(process) = &mut self.pod(number).node {
            process.node.handle(now, input);
        }
    }

    fn node_disk_done(&mut self, number: NodeNumber) {
        let (now, shown) = (self.now, self.shown(number));
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        match pod.node_disk.complete(now, &mut self.random) {
            Completion::Done(id, result) => {
                if let Some(process) = &mut pod.node {
                    process.node.handle(shown, Input::Disk(id, result));
                }
            }
            Completion::Later(at) => {
                let target = Target::Node(number, Some(pod.node_life));
                self.agenda.add(at, target, Happening::Disk);
            }
            Completion::Nothing => {}
        }
    }

    fn submit(&mut self, number: NodeNumber, id: RequestId) {
        let now = self.shown(number);
        let proposed = self.requests.get(&id).and_then(crate::client::Request::proposed);
        if let (Some(proposed), Some(process)) = (proposed, &mut self.pod(number).node) {
            let proposal = Proposal {
                id,
                stream: None,
                proposed,
            };
            process.node.handle(now, Input::Submit(vec![proposal]));
        }
    }

    pub(super) fn carry_out(&mut self, number: NodeNumber, output: Output) {
        match output {
            Output::Disk(id, op) => {
                match &op {
                    Op::Read { .. } => self.count(Seen::EntriesReadBack),
                    Op::Create { .. } => self.count(Seen::SegmentBegun),
                    Op::Rename { to, .. } if to.to_string().starts_with("log-") => {
                        self.count(Seen::SegmentRecycled);
                    }
                    _ => {}
                }
                let takes = self.disk_takes();
                let now = self.now;
                let pod = self.pod(number);
                let at = pod.node_disk.submit(id, op, now, takes);
                let target = Target::Node(number, Some(pod.node_life));
                self.agenda.add(at, target, Happening::Disk);
            }
            Output::Send(message) => self.send(number, &message),
            Output::InstallSnapshot(piece) => self.send_snapshot(number, &Carried::Piece(piece)),
            Output::InstallSnapshotResponse(answer) => self.send_snapshot(number, &Carried::Answer(answer)),
            Output::Answer { id, result } => self.node_answers(id, result),
            Output::Transferred { result, .. } => self.count(match result {
                Ok(_) => Seen::TransferDone,
                Err(_) => Seen::TransferRefused,
            }),
            Output::QueryAnswered { id, result } => {
                self.read_ready(id, result.ok().map(|answer| answer.index), Seen::ReadByNode);
            }
            Output::AskPeer { node, .. } => {
                let life = self.pods[&number].node_life;
                self.call(number, node, None, Happening::Asked { by: number, life });
            }
            Output::SendBootstrap {
                node,
                cluster_id,
                to_member,
                members,
                ..
            } => self.call(
                number,
                node,
                None,
                Happening::Bootstrap(cluster_id, to_member, members),
            ),
            Output::Replicator(said) => self.say_to_replicator(number, said),
            Output::Notice(notice) => self.notice(number, &notice),
            Output::Stop(why) => self.node_stops(number, &why),
            Output::MembershipChanged { result, .. } => self.count(match result {
                Ok(_) => Seen::ChangeDone,
                Err(_) => Seen::ChangeRefused,
            }),
            // Nobody asks for snapshots here.
            Output::Bootstrapped { .. } | Output::SnapshotTaken { .. } | Output::SnapshotRead { .. } => {}
        }
    }

    fn send(&mut self, from: NodeNumber, message: &Message) {
        self.count_message(message);
        if self.options.tells_messages {
            let to = self.members.get(&message.to).copied().unwrap_or_default();
            self.tell(|| {
                format!(
                    "{from} -> {to} in term {}: {}",
                    message.term,
                    brief(&message.body)
                )
            });
        }
        self.send_on_link(from, message.to, |epoch, cluster| Happening::Message {
            from,
            epoch,
            cluster,
            message: message.clone(),
        });
    }

    fn send_snapshot(&mut self, from: NodeNumber, carried: &Carried) {
        self.count(match carried {
            Carried::Piece(_) => Seen::SnapshotPieceSent,
            Carried::Answer(_) => Seen::SnapshotPieceAnswered,
        });
        self.send_on_link(from, carried.to(), |epoch, cluster| Happening::Snapshot {
            from,
            epoch,
            cluster,
            carried: carried.clone(),
        });
    }

    /// Something goes out on the connection of the two, if there is one.
    fn send_on_link(
        &mut self,
        from: NodeNumber,
        to: MemberId,
        happening: impl Fn(u64, ClusterId) -> Happening,
    ) {
        let Some(&to) = self.members.get(&to) else {
            return;
        };
        let Some(cluster) = self.formed else { return };
        let Some(epoch) = self.network.epoch(from, to, self.now) else {
            return self.count(Seen::MessageLost);
        };
        let times = if self.one_in(self.options.duplicated_of) {
            self.count(Seen::MessageDuplicated);
            2
        } else {
            1
        };
        for _ in 0..times {
            self.call(from, to, None, happening(epoch, cluster));
        }
    }

    /// Something on its way in the network, if it is not lost.
    pub(super) fn call(&mut self, from: NodeNumber, to: NodeNumber, life: Option<u64>, happening: Happening) {
        if self.network.is_cut(from, to) {
            return self.count(Seen::MessageCut);
        }
        if self.one_in(self.options.lost_of) {
            return self.count(Seen::MessageLost);
        }
        let mut max = self.options.delay_max;
        if self.one_in(self.options.late_of) {
            self.count(Seen::MessageLate);
            max *= 20;
        }
        let distance = self.options.distances.as_ref();
        let at = match distance.map(|distances| distances.one_way(from, to)) {
            Some(exactly) => self.now + exactly,
            None => self.soon(max),
        };
        let at = at + self.slowness(to);
        self.agenda.add(at, Target::Node(to, life), happening);
    }

    /// How long a disk takes for its next operation.
    pub(super) fn disk_takes(&mut self) -> Duration {
        match self.options.distances.as_ref().map(Distances::sync) {
            Some(exactly) => exactly,
            None => self.span(self.options.disk_max),
        }
    }

    fn count_message(&mut self, message: &Message) {
        match &message.body {
            Body::Vote {
                pre_vote: true,
                answer: VoteAnswer::Refused,
            } => self.count(Seen::PreVoteRefused),
            Body::Vote {
                pre_vote: false,
                answer,
            } => self.count(match answer {
                VoteAnswer::Granted => Seen::VoteGranted,
                VoteAnswer::GrantedIfAll => Seen::VoteGrantedIfAll,
                VoteAnswer::Refused => Seen::VoteRefused,
            }),
            Body::Compared(_) => self.count(Seen::Compared),
            Body::AppendEntriesResponse(response) if response.conflict.is_some() => {
                self.count(Seen::Conflicted);
            }
            Body::AppendEntriesResponse(response) if response.full.log => self.count(Seen::LogFull),
            _ => {}
        }
    }

    fn answer_peer(&mut self, number: NodeNumber, by: NodeNumber, life: u64) {
        let now = self.shown(number);
        let Some(process) = &self.pods[&number].node else {
            return;
        };
        let status = process.node.status(now);
        let report = match (status.cluster_id, &status.bootstrap) {
            (Some(cluster_id), Some(bootstrap)) => PeerReport::Formed {
                cluster_id,
                member_ids: status
                    .configuration
                    .members()
                    .iter()
                    .map(|member| member.id)
                    .collect(),
                bootstrap: bootstrap.members().to_vec(),
            },
            _ if status.was_removed => PeerReport::WasRemoved,
            _ => PeerReport::Unformed {
                member_id: status.member_id,
                peer_address: address(number),
                client_address: address(number),
            },
        };
        self.call(number, by, Some(life), Happening::Report(number, report));
    }

    fn say_to_replicator(&mut self, number: NodeNumber, said: ToReplicator) {
        if let ToReplicator::Start {
            action: StartAction::Restore(of),
            ..
        } = &said
        {
            let verdict = self.invariants.restores(number, of.place.index);
            self.judge(verdict);
        }
        match &said {
            ToReplicator::Start { action, .. } => self.count(match action {
                StartAction::ResumeFrom(_) => Seen::Resumed,
                StartAction::CutTo(_) => Seen::Cut,
                StartAction::WaitUntil(_) => Seen::Waits,
                StartAction::Restore(_) => Seen::Restored,
            }),
            ToReplicator::TakeSnapshot { .. } => self.count(Seen::SnapshotOrdered),
            ToReplicator::StartOver { .. } => {
                self.count(Seen::StartedOver);
                return self.close_stream(number);
            }
            ToReplicator::Restore { .. } => {
                let at = self.soon(Duration::from_millis(1));
                let pod = self.pod(number);
                pod.stream.to_node.push_back(FromReplicator::RestoreTaken);
                let target = Target::Node(number, Some(pod.node_life));
                self.agenda.add(at, target, Happening::Said);
            }
            ToReplicator::Close { .. } if self.pods[&number].forged.is_some() => {
                return self.close_stream(number);
            }
            ToReplicator::Close { why } => {
                let what = format!("node {number} closes the stream to its replicator: {why}");
                return self.judge(violation("node and replicator belong together", what));
            }
            ToReplicator::Leading(leading) => {
                if leading.leads.is_some() && leading.execute_after > 0 {
                    self.count(Seen::ExecutionMarked);
                }
            }
            ToReplicator::Feed { .. }
            | ToReplicator::Query { .. }
            | ToReplicator::ReadAnswer { .. }
            | ToReplicator::SnapshotKept { .. } => {}
        }
        let at = self.soon(Duration::from_millis(1));
        let pod = self.pod(number);
        if pod.stream.id.is_some() {
            pod.stream.to_replicator.push_back(said);
            let target = Target::Replicator(number, Some(pod.replicator_life));
            self.agenda.add(at, target, Happening::Said);
        }
    }

    fn notice(&mut self, number: NodeNumber, notice: &Notice) {
        self.tell(|| notice.to_string());
        match notice {
            Notice::Formed { cluster, .. } => {
                self.count(Seen::ClusterFormed);
                self.judge_cluster(number, *cluster);
            }
            Notice::SnapshotTaken { .. } => self.count(Seen::SnapshotTaken),
            Notice::Consensus(ConsensusNotice::BecameLeader { by, .. }) => {
                self.count(match by {
                    ElectedBy::Election => Seen::Elected,
                    ElectedBy::Transfer => Seen::ElectedByTransfer,
                });
                self.judge_leases(number);
                self.began_to_lead(number);
            }
            Notice::Consensus(ConsensusNotice::Campaigns { .. }) => self.count(Seen::Campaigned),
            Notice::Consensus(ConsensusNotice::SteppedDown { why, .. }) => {
                self.count(Seen::SteppedDown);
                if why.contains("disk") {
                    self.count(Seen::SteppedDownByDisk);
                } else if why.contains("majority") {
                    self.count(Seen::SteppedDownByQuorum);
                }
            }
            Notice::Consensus(ConsensusNotice::TransferStarted { why: Some(why), .. }) => {
                if why.contains("disk") {
                    self.count(Seen::MadeWayForDisk);
                } else if why.contains("no voter") {
                    self.count(Seen::LeaderRemoved);
                }
            }
            Notice::Consensus(ConsensusNotice::DiskStalled { .. }) => self.count(Seen::StallNoticed),
            Notice::Consensus(ConsensusNotice::RaisesFeatureLevel { .. }) => self.raised_level(number),
            Notice::Consensus(ConsensusNotice::LeftBehind { .. }) => {
                self.count(Seen::LeftBehind);
                self.upgrade_soon(number);
            }
            // A new node of the earlier version does not join a cluster of the later one.
            Notice::Plain { what, .. } if self.is_too_old(number, what) => self.upgrade_soon(number),
            Notice::Consensus(ConsensusNotice::EntriesRefused { .. })
                if self.pods[&number].forged.is_none() =>
            {
                self.judge(violation("log matching", notice.to_string()));
            }
            _ => {}
        }
    }

    fn judge_leases(&mut self, elected: NodeNumber) {
        let raft = |number| self.pods[&number].node.as_ref()?.node.raft();
        let Some(term) = raft(elected).map(Raft::term) else {
            return;
        };
        let lease = |number| {
            let raft = raft(number).filter(|raft| raft.has_lease(self.shown(number)))?;
            Some((number, raft.term()))
        };
        let others = self.numbers().filter(|&number| number != elected);
        let holders: Vec<_> = others.filter_map(lease).collect();
        self.judge(Invariants::elected_beside_leases((elected, term), &holders));
    }

    /// There is one cluster.
    fn judge_cluster(&mut self, number: NodeNumber, cluster: ClusterId) {
        let first = *self.formed.get_or_insert(cluster);
        if first != cluster {
            let what = format!("node {number} is in cluster {cluster}, others are in {first}");
            return self.judge(violation("one cluster", what));
        }
        let Some(process) = &self.pods[&number].node else {
            return;
        };
        let status = process.node.status(self.shown(number));
        if let Some(bootstrap) = status.bootstrap {
            self.bootstrap = bootstrap.members().to_vec();
        }
    }

    /// A node ends itself only when a disk has failed it, its log differs from the others', or it is of an earlier version than
    /// what it is given.
    fn node_stops(&mut self, number: NodeNumber, why: &str) {
        self.tell(|| format!("node {number} stops: {why}"));
        if self.pods[&number].forged.is_some() && why.contains("raftctl member replace") {
            self.count(Seen::MinorityStopped);
            self.kill_node(number, false);
            return self.give_up_folder(number);
        }
        let disk = &self.pods[&number].node_disk;
        if disk.has_failed || disk.is_damaged() {
            self.count(Seen::NodeStopped);
            self.kill_node(number, false);
            self.start_one_soon(number, Process::Node, Duration::from_secs(5));
        } else if self.is_too_old(number, why) {
            self.kill_node(number, false);
            self.upgrade_soon(number);
        } else {
            let what = format!("node {number} stops: {why}");
            self.judge(violation("nothing stops without a cause", what));
        }
    }
}

/// What a message says, but for what its entries hold.
fn brief(body: &Body) -> String {
    let Body::AppendEntries(request) = body else {
        return format!("{body:?}");
    };
    let entries = request.entries.len();
    let bare = AppendEntries {
        entries: Vec::new(),
        ..request.clone()
    };
    format!("{entries} entries with {bare:?}")
}
