//! What can happen, in the order of virtual time.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher};
use std::time::Duration;

use raftlog_raft::ids::{ClusterId, LogIndex, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::membership::Member;
use raftlog_raft::message::{Body, Message};
use raftlog_raft::time::Time;
use raftlog_server::node::{
    Committed, Input, InstallSnapshot, InstallSnapshotResponse, PeerReport, Refusal, RequestId, SnapshotPart,
};

use crate::client::ClientNumber;
use crate::fault::Fault;

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The node's deadline may have come.
    Tick,
    /// A message arrives on that connection.
    Message {
        from: NodeNumber,
        epoch: u64,
        cluster: ClusterId,
        message: Message,
    },
    /// A piece of a snapshot, or the answer to one, arrives on that connection.
    Snapshot {
        from: NodeNumber,
        epoch: u64,
        cluster: ClusterId,
        carried: Carried,
    },
    /// The node learns that the connection to that one is broken.
    LinkBroken(NodeNumber),
    /// The disk is done with its first operation.
    Disk,
    /// A peer, in that life of it, wants to know what this node is.
    Asked { by: NodeNumber, life: u64 },
    /// A peer says what it is.
    Report(NodeNumber, PeerReport),
    /// A peer bootstraps this node.
    Bootstrap(ClusterId, MemberId, Vec<Member>),
    /// A voter says that this member was removed by the configuration of that version.
    Removed(MemberId, LogIndex),
    /// The next thing that the other end of the stream said.
    Said,
    /// The executor is done up to there.
    Executed(OperationIndex),
    /// Something between a driver and the program beside it, on that connection of theirs.
    Machine(u64, MachineStep),
    /// The executor lets go of what was taken back.
    TakenBack,
    /// The time that the replicator asked for has passed.
    Wake,
    /// The node opens a stream to its replicator.
    Connect,
    /// A client submits an operation.
    Submit(RequestId),
    /// A client asks for a read.
    Read(RequestId),
    /// A process starts.
    Start,
    /// The power of the pod fails.
    PowerFails,
    /// The pod goes on.
    Resume,
    /// A disk has room again.
    Room,
    /// Somebody restarts the pod's node as the later version.
    Upgrade,
    /// A client may want something.
    Wish(ClientNumber),
    /// A client hears what became of its request.
    Answered(RequestId, Result<Committed, Refusal>),
    /// A client has waited long enough for an answer.
    Impatient(RequestId),
    /// A read was answered.
    HasRead(OperationIndex),
    /// A fault of that kind is due.
    Fault(Fault),
    /// Something hits a pod whose node has just begun to lead.
    HitLeader(NodeNumber),
    /// Nobody hears a pod any more, nor does it hear anybody, for up to so long.
    Isolate(NodeNumber, Duration),
    /// An ambush goes on.
    Ambush(AmbushStage),
    /// An operator changes who belongs to the cluster.
    ChangeMembership,
    /// A partition ends.
    Mend(Vec<(NodeNumber, NodeNumber)>),
    /// The partition around a leader ends, if it is still this one.
    MendLeader(Vec<(NodeNumber, NodeNumber)>),
    /// Faults end; from now on there has to be progress.
    Heal,
}

/// What happens between a driver and a program that keeps a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MachineStep {
    /// They are connected.
    Attach,
    /// What was sent up to there is applied.
    Apply(OperationIndex),
    /// A copy may begin, if all that was sent before is applied.
    BeginCopy,
    /// The copy is complete.
    EndCopy,
    /// The next piece of a snapshot is there.
    TakePiece,
    /// All of a snapshot is stored.
    EndRestore,
}

/// How far an ambush on a leader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AmbushStage {
    /// Some do not hear it any more, or are heard late.
    Hide,
    /// Nobody hears it any more.
    Spring,
    /// All is as it was.
    End,
}

/// What two nodes say to each other about a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Carried {
    Piece(InstallSnapshot),
    Answer(InstallSnapshotResponse),
}

impl Carried {
    pub(crate) fn to(&self) -> MemberId {
        match self {
            Self::Piece(piece) => piece.to,
            Self::Answer(answer) => answer.to,
        }
    }

    pub(crate) fn input(self) -> Input {
        match self {
            Self::Piece(piece) => Input::InstallSnapshot(piece),
            Self::Answer(answer) => Input::InstallSnapshotResponse(answer),
        }
    }

    fn hash(&self, trace: &mut impl Hasher) {
        match self {
            Self::Piece(piece) => match &piece.part {
                SnapshotPart::Offer(manifest) => manifest.index.hash(trace),
                SnapshotPart::Data { id, offset, data } => (id.index, offset, data.len()).hash(trace),
            },
            Self::Answer(answer) => (answer.id.index, answer.id.crc).hash(trace),
        }
    }
}

/// Whom something happens to. What was on its way to a process that died is lost with it: `life` counts its starts, and is
/// absent where it does not matter who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Node(NodeNumber, Option<u64>),
    Replicator(NodeNumber, Option<u64>),
    Pod(NodeNumber),
    World,
}

/// Something on the agenda.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    pub(crate) happening: Happening,
}

/// What is going to happen, by time and then by the order in which it was decided.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<(Time, u64), Entry>,
    decided: u64,
}

impl Agenda {
    pub(crate) fn add(&mut self, at: Time, target: Target, happening: Happening) {
        self.decided += 1;
        self.entries
            .insert((at, self.decided), Entry { target, happening });
    }

    pub(crate) fn next(&mut self) -> Option<(Time, Entry)> {
        let ((at, _), entry) = self.entries.pop_first()?;
        Some((at, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// What a trace holds of it.
    pub(crate) fn hash(&self, trace: &mut impl Hasher) {
        self.target.hash(trace);
        std::mem::discriminant(&self.happening).hash(trace);
        match &self.happening {
            Happening::Message { from, message, .. } => {
                from.hash(trace);
                message.term.hash(trace);
                hash_body(&message.body, trace);
            }
            Happening::Snapshot { from, carried, .. } => {
                from.hash(trace);
                carried.hash(trace);
            }
            Happening::LinkBroken(other)
            | Happening::HitLeader(other)
            | Happening::Isolate(other, _)
            | Happening::Asked { by: other, .. }
            | Happening::Report(other, _) => {
                other.hash(trace);
            }
            Happening::Bootstrap(cluster, member, _) => (cluster, member).hash(trace),
            Happening::Removed(member, version) => (member, version).hash(trace),
            Happening::Executed(index) | Happening::HasRead(index) => index.hash(trace),
            Happening::Submit(id) | Happening::Read(id) | Happening::Impatient(id) => id.hash(trace),
            Happening::Answered(id, result) => {
                id.hash(trace);
                result
                    .as_ref()
                    .map(|committed| committed.log_index)
                    .ok()
                    .hash(trace);
            }
            Happening::Ambush(stage) => stage.hash(trace),
            Happening::Machine(epoch, step) => (epoch, step).hash(trace),
            Happening::Fault(fault) => fault.name().hash(trace),
            Happening::Mend(directions) | Happening::MendLeader(directions) => directions.hash(trace),
            Happening::Wish(client) => client.hash(trace),
            Happening::Tick
            | Happening::Disk
            | Happening::Said
            | Happening::TakenBack
            | Happening::Wake
            | Happening::Connect
            | Happening::Start
            | Happening::PowerFails
            | Happening::Resume
            | Happening::Room
            | Happening::Upgrade
            | Happening::ChangeMembership
            | Happening::Heal => {}
        }
    }
}

fn hash_body(body: &Body, trace: &mut impl Hasher) {
    std::mem::discriminant(body).hash(trace);
    match body {
        Body::RequestVote(request) => (request.pre_vote, request.last.index, request.last.term).hash(trace),
        Body::Vote { pre_vote, answer } => (pre_vote, answer).hash(trace),
        Body::AppendEntries(request) => {
            (
                request.previous.index,
                request.commit,
                request.round,
                request.entries.len(),
            )
                .hash(trace);
        }
        Body::AppendEntriesResponse(response) => {
            (response.round, response.matched, response.received).hash(trace);
        }
        Body::TimeoutNow => {}
        Body::Compare(comparison) | Body::Compared(comparison) => {
            (comparison.position.index, comparison.running_hash).hash(trace);
        }
    }
}
