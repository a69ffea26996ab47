//! Where the fuzzers begin: inputs in which everything goes as it should, made from the programs' own messages. Kept in
//! `fuzz/corpus`, written by `fuzz/run seeds`.

use prost::Message;
use raftlog_proto::v1;
use raftlog_proto::v1::replicate_log_request::Message as Said;
use raftlog_raft::entry::{Entry, HardState, Payload};
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::{Configuration, Member, OldVoter};
use raftlog_replicator::core::Operation;
use raftlog_storage::Record;
use raftlog_storage::identity::{Identity, Program};
use std::path::Path;

use crate::{Chunk, input, node, replicator, wal};

/// A folder: a target that is started with it writes its seeds there, and ends.
const FOLDER: &str = "RAFT_FUZZ_SEEDS";

/// Does so.
///
/// # Panics
/// When a seed cannot be written.
pub fn write_where_asked(target: &str) {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    for (_, name, input) in seeds().into_iter().filter(|(of, ..)| *of == target) {
        let file = Path::new(&folder).join(name);
        std::fs::write(&file, input)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
    std::process::exit(0);
}

/// The seeds of every target: target, name, input.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = vec![
        ("identity", "node", identity()),
        ("wal", "records", wal_payloads()),
        ("wal", "segments", wal_segments()),
        ("replicator", "story", replicator_story()),
        ("replicator", "restored", replicator_restored()),
        ("replicator", "on-leader", replicator_on_leader()),
        ("node", "follower", node_follower()),
        ("node", "leader", node_leader()),
        ("node", "alone", node_alone()),
        ("node", "unformed", node_unformed()),
        ("node", "invited", node_invited()),
        ("node", "members", node_members()),
        ("node", "snapshots", node_snapshots()),
        ("node", "installing", node_installing()),
        ("snapshots", "whole", snapshot_files()),
        ("stream", "story", stream_story()),
    ];
    seeds.extend(entries());
    seeds
}

fn id(node: u64) -> MemberId {
    MemberId::new(node + 100).expect("it is not 0")
}

fn member(node: u32) -> Member {
    Member {
        id: id(node.into()),
        node,
        peer_address: format!("node{node}:5001"),
        client_address: format!("node{node}:5001"),
        voter: true,
    }
}

fn identity() -> Vec<u8> {
    let identity = Identity {
        cluster: ClusterId::new(9),
        formed: true,
        bootstrap: vec![member(1), member(2)],
        paired: MemberId::new(3),
        ..Identity::new(Program::Node, 1, id(1))
    };
    let text = identity.to_string();
    let (covered, _) = text.rsplit_once("crc = ").unwrap_or((&text, ""));
    covered.as_bytes().to_vec()
}

/// Entries as a leader of term 1 makes them, one of each kind.
fn log() -> Vec<Entry> {
    log_and_fold().0
}

fn log_and_fold() -> (Vec<Entry>, Fold) {
    let mut fold = Fold::new(Configuration::new(0, vec![member(1)]));
    let operation = raftlog_raft::entry::Operation {
        data: "operation-1".into(),
        session: Some(raftlog_raft::entry::SessionStamp {
            client_id: "client".into(),
            sequence: 1,
            acknowledged_through: 0,
        }),
    };
    let payloads = [
        Payload::Noop,
        Payload::Operation(operation),
        Payload::SessionOpened,
        Payload::ExecutionProgress { executed_through: 1 },
        Payload::Configuration(Configuration::new(1, vec![member(1), member(2)])),
        Payload::Configuration(joint()),
    ];
    let mut entries = Vec::new();
    for (log_index, payload) in (1..).zip(payloads) {
        let entry = fold.next_entry(log_index, 1, payload);
        fold.apply(&entry);
        entries.push(entry);
    }
    (entries, fold)
}

/// Member 2 takes the place of member 1.
fn joint() -> Configuration {
    let old = OldVoter {
        id: id(1),
        leaves: true,
    };
    let leaving = Member {
        voter: false,
        ..member(1)
    };
    Configuration::joint(6, vec![leaving, member(2)], vec![old]).expect("who leaves is a member and no voter")
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    bytes
}

fn entries() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let names = [
        "noop",
        "operation",
        "session",
        "progress",
        "configuration",
        "joint",
    ];
    let mut seeds: Vec<_> = names
        .into_iter()
        .zip(log())
        .map(|(name, entry)| ("entry", name, encoded(&entry)))
        .collect();
    seeds.push(("entry", "hard-state", hard_state()));
    let mut fold = Vec::new();
    log_and_fold().1.encode(&mut fold);
    seeds.push(("entry", "fold", fold));
    let mut operation = Vec::new();
    Record::encode(&first_operation(), &mut operation);
    seeds.push(("entry", "replicated", operation));
    seeds
}

fn hard_state() -> Vec<u8> {
    let state = HardState {
        term: 3,
        voted_for: Some(id(2)),
        commit: 1,
        ..HardState::default()
    };
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

fn first_operation() -> Operation {
    Operation {
        index: 1,
        term: 1,
        running_hash: raftlog_raft::fold::running_hash(0, 1, 1, b"operation-1"),
        data: "operation-1".into(),
    }
}

/// The items of a batch, as the log's documentation describes them.
fn wal_batch() -> Vec<u8> {
    let item = |kind: u8, numbers: &[u64], bytes: &[u8]| {
        let mut item = vec![kind];
        numbers
            .iter()
            .for_each(|number| item.extend_from_slice(&number.to_le_bytes()));
        item.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
        item.extend_from_slice(bytes);
        item
    };
    let mut batch = item(1, &[], &hard_state());
    for entry in log() {
        batch.extend(item(3, &[entry.log_index], &encoded(&entry)));
    }
    batch
}

fn wal_payloads() -> Vec<u8> {
    let mut truncation = vec![2];
    truncation.extend_from_slice(&4_u64.to_le_bytes());
    input(&[Chunk::new(4, wal_batch()), Chunk::new(4, truncation)])
}

fn wal_segments() -> Vec<u8> {
    let segment = raftlog_storage::fuzzing::segment(wal::OWNER, &[wal_batch().into()]);
    input(&[Chunk::new(0, segment)])
}

fn replicator_says(message: v1::replicate_log_request::Message) -> Vec<u8> {
    let message = Some(message);
    v1::ReplicateLogRequest { message }.encode_to_vec()
}

fn node_hello() -> Vec<u8> {
    replicator_says(Said::Hello(v1::NodeHello {
        cluster_id: 9,
        member_id: 101,
        node: 1,
        protocol_version: 1,
        parent: Some(v1::Parent {
            cluster_id: 8,
            index: 1,
            running_hash: 0,
        }),
    }))
}

fn start(action: v1::start::Action, commit_index: u64) -> Vec<u8> {
    let action = Some(action);
    replicator_says(Said::Start(v1::Start { action, commit_index }))
}

fn replicator_story() -> Vec<u8> {
    use replicator::kind;
    let first = first_operation();
    let feed = replicator_says(Said::Feed(v1::Feed {
        operations: vec![v1::ReplicatedOperation {
            index: first.index,
            term: first.term,
            running_hash: first.running_hash,
            data: first.data,
        }],
        commit_index: 1,
    }));
    let read_index = replicator_says(Said::ReadIndex(v1::ReadIndexAnswer {
        id: 5,
        index: 2,
        refused: false,
    }));
    input(&[
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::SAID, start(v1::start::Action::ResumeFrom(1), 0)),
        Chunk::new(kind::SAID, feed),
        Chunk::new(kind::FOLLOWS, "operation-2"),
        Chunk::new(kind::READ_INDEX, ""),
        Chunk::new(kind::SAID, read_index),
        Chunk::new(kind::FETCH, vec![1, 2, 255]),
        Chunk::new(kind::WAKE, ""),
        Chunk::new(kind::REOPEN, ""),
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::SAID, start(v1::start::Action::CutTo(2), 2)),
        Chunk::new(kind::CLOSED, ""),
    ])
}

/// Its node leads, marks what is executed, leads no more, and leads again.
fn replicator_on_leader() -> Vec<u8> {
    use replicator::kind;
    let leading = |leads, term, execute_after| {
        replicator_says(Said::Leading(v1::Leading {
            leads,
            term,
            execute_after,
        }))
    };
    input(&[
        Chunk::new(kind::REOPEN_ON_LEADER, ""),
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::SAID, start(v1::start::Action::ResumeFrom(1), 0)),
        Chunk::new(kind::FOLLOWS, "operation-1"),
        Chunk::new(kind::FOLLOWS, "operation-2"),
        Chunk::new(kind::SAID, leading(true, 3, 0)),
        Chunk::new(kind::FOLLOWS, "operation-3"),
        Chunk::new(kind::WAKE, ""),
        Chunk::new(kind::SAID, leading(true, 3, 2)),
        Chunk::new(kind::FOLLOWS | 0x40, "operation-4"),
        Chunk::new(kind::SAID, leading(false, 0, 2)),
        Chunk::new(kind::SAID, leading(true, 5, 2)),
        Chunk::new(kind::WAKE, ""),
        Chunk::new(kind::REOPEN_ON_LEADER, ""),
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::SAID, leading(true, 7, 3)),
    ])
}

/// A snapshot is restored, followed, taken and kept.
fn replicator_restored() -> Vec<u8> {
    use replicator::kind;
    // As the executor `log` gives it.
    let state = vec![1, 1];
    let snapshot = v1::Snapshot {
        place: Some(v1::Place {
            index: 40,
            term: 2,
            running_hash: 7,
        }),
        size: 2,
    };
    let piece = replicator_says(Said::Restore(v1::SnapshotChunk {
        data: state.into(),
        ..Default::default()
    }));
    input(&[
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::SAID, start(v1::start::Action::Restore(snapshot), 40)),
        Chunk::new(kind::SAID, piece),
        Chunk::new(kind::FOLLOWS, "operation-41"),
        Chunk::new(kind::WAKE, ""),
        Chunk::new(
            kind::SAID,
            replicator_says(Said::TakeSnapshot(v1::TakeSnapshot { id: 1 })),
        ),
        Chunk::new(
            kind::SAID,
            replicator_says(Said::SnapshotKept(v1::SnapshotKept { index: 41 })),
        ),
        Chunk::new(kind::WAKE, ""),
        Chunk::new(kind::REOPEN, ""),
        Chunk::new(kind::OPENED, node_hello()),
        Chunk::new(kind::FETCH, vec![40, 41, 255]),
    ])
}

/// Kind and number of the other member, 0 or 1.
fn from(kind: u8, other: u8) -> u8 {
    kind | (other << 5)
}

fn wire_entry(entry: Entry) -> v1::Entry {
    use v1::entry::Kind;
    let kind = match entry.payload {
        Payload::Noop => Kind::Noop(v1::Noop {}),
        Payload::Operation(operation) => {
            let stamp = operation.session.unwrap_or(raftlog_raft::entry::SessionStamp {
                client_id: "".into(),
                sequence: 0,
                acknowledged_through: 0,
            });
            Kind::Operation(v1::Operation {
                data: operation.data,
                client_id: stamp.client_id.as_ref().to_owned(),
                sequence: stamp.sequence,
                acknowledged_through: stamp.acknowledged_through,
            })
        }
        Payload::SessionOpened => Kind::SessionOpened(v1::SessionOpened {}),
        Payload::ExecutionProgress { executed_through } => {
            Kind::ExecutionProgress(v1::ExecutionProgress { executed_through })
        }
        Payload::Configuration(configuration) if configuration.is_joint() => {
            Kind::JointConfiguration(wire_configuration(&configuration))
        }
        Payload::Configuration(configuration) => Kind::Configuration(wire_configuration(&configuration)),
        Payload::Recovered {
            parent,
            configuration,
        } => Kind::Recovered(v1::Recovered {
            parent_cluster_id: parent.get(),
            configuration: Some(wire_configuration(&configuration)),
        }),
        Payload::FeatureLevel(level) => Kind::FeatureLevel(v1::FeatureLevel {
            level: level.get().into(),
        }),
    };
    v1::Entry {
        log_index: entry.log_index,
        term: entry.term,
        operation_index: entry.operation_index,
        running_hash: entry.running_hash,
        kind: Some(kind),
    }
}

fn wire_member(member: &Member) -> v1::Member {
    v1::Member {
        member_id: member.id.get(),
        node: member.node,
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        voter: member.voter,
    }
}

fn wire_configuration(configuration: &Configuration) -> v1::Configuration {
    let old_voters = configuration.old_voters().iter().map(|old| v1::OldVoter {
        member_id: old.id.get(),
        leaves: old.leaves,
    });
    v1::Configuration {
        version: configuration.version,
        members: configuration.members().iter().map(wire_member).collect(),
        old_voters: old_voters.collect(),
    }
}

fn append(term: u64, previous: (u64, u64), entries: Vec<v1::Entry>, commit: u64) -> Vec<u8> {
    v1::AppendEntriesRequest {
        term,
        previous_log_index: previous.0,
        previous_log_term: previous.1,
        entries,
        commit_log_index: commit,
        round: commit + 1,
        heartbeat: true,
        minimum_election_timeout_micros: 1_500_000,
        ..Default::default()
    }
    .encode_to_vec()
}

fn node_follower() -> Vec<u8> {
    use node::kind;
    let entries: Vec<v1::Entry> = log().into_iter().take(4).map(wire_entry).collect();
    let vote = v1::RequestVoteRequest {
        term: 2,
        last_log_index: 9,
        last_log_term: 1,
        transfer: true,
        ..Default::default()
    };
    let mut data = vec![2];
    let follows = |entry: Entry| Chunk::new(kind::FOLLOWS, wire_entry(entry).encode_to_vec());
    let mut more: Vec<Chunk> = log().into_iter().map(follows).collect();
    more.push(Chunk::new(kind::RESTART, ""));
    more.extend(comparison());
    data.extend(input(&[
        Chunk::new(
            from(kind::APPEND_ENTRIES, 0),
            append(1, (0, 0), entries.clone(), 0),
        ),
        Chunk::new(from(kind::APPEND_ENTRIES, 0), append(1, (4, 1), vec![], 4)),
        Chunk::new(from(kind::REQUEST_VOTE, 1), vote.encode_to_vec()),
        Chunk::new(from(kind::APPEND_ENTRIES, 1), append(2, (9, 1), vec![], 4)),
        Chunk::new(kind::QUERY, ""),
        Chunk::new(
            from(kind::TIMEOUT_NOW, 1),
            v1::TimeoutNowRequest {
                term: 2,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        Chunk::new(kind::DEADLINE, ""),
    ]));
    data.extend(input(&more));
    data
}

/// The leader says what it has up to the last entry but one, which is something else; one other member says so, too.
fn comparison() -> Vec<Chunk> {
    use node::kind;
    let (log_index, log_term, running_hash) = (5, 3, 77);
    let append = v1::AppendEntriesRequest {
        term: 3,
        previous_log_index: log_index,
        previous_log_term: log_term,
        previous_running_hash: Some(running_hash),
        round: 20,
        ..Default::default()
    };
    let request = v1::CompareHashRequest {
        log_index,
        log_term,
        running_hash,
        ..Default::default()
    };
    let response = v1::CompareHashResponse {
        log_index,
        log_term,
        running_hash,
        ..Default::default()
    };
    vec![
        Chunk::new(kind::COMPARE_HASH, request.encode_to_vec()),
        Chunk::new(kind::APPEND_ENTRIES, append.encode_to_vec()),
        Chunk::new(from(kind::COMPARED, 0), response.encode_to_vec()),
        Chunk::new(from(kind::COMPARED, 1), response.encode_to_vec()),
    ]
}

fn submit(sequence: u64) -> Vec<u8> {
    v1::SubmitClientRequestRequest {
        operation: format!("operation-{sequence}").into(),
        client_id: "client".to_owned(),
        sequence,
        acknowledged_through: sequence.saturating_sub(1),
        ..Default::default()
    }
    .encode_to_vec()
}

fn node_leader() -> Vec<u8> {
    use node::kind;
    let vote = |pre_vote| {
        v1::RequestVoteResponse {
            term: 1,
            granted: true,
            pre_vote,
            ..Default::default()
        }
        .encode_to_vec()
    };
    let response = |round, matched| {
        v1::AppendEntriesResponse {
            term: 1,
            round,
            match_log_index: matched,
            received_log_index: matched,
            read_requests: vec![1],
            ..Default::default()
        }
        .encode_to_vec()
    };
    let conflict = v1::AppendEntriesResponse {
        term: 1,
        round: 1,
        conflict: Some(v1::Conflict {
            previous_log_index: 1,
            hint_log_index: 0,
            hint_term: 0,
        }),
        ..Default::default()
    };
    let mut data = vec![2];
    data.extend(input(&[
        Chunk::new(kind::DEADLINE, ""),
        Chunk::new(kind::DEADLINE, ""),
        Chunk::new(from(kind::VOTE, 0), vote(true)),
        Chunk::new(from(kind::VOTE, 0), vote(false)),
        Chunk::new(kind::SUBMIT, submit(1)),
        Chunk::new(from(kind::APPEND_ENTRIES_RESPONSE, 0), response(1, 1)),
        Chunk::new(from(kind::APPEND_ENTRIES_RESPONSE, 1), conflict.encode_to_vec()),
        Chunk::new(kind::QUERY, ""),
        Chunk::new(from(kind::APPEND_ENTRIES_RESPONSE, 0), response(2, 2)),
        Chunk::new(kind::SESSION_OR_TRANSFER, ""),
        Chunk::new(from(kind::STREAM_BROKEN, 0), ""),
        Chunk::new(kind::SESSION_OR_TRANSFER, vec![2]),
        Chunk::new(kind::DEADLINE, ""),
    ]));
    data
}

fn node_alone() -> Vec<u8> {
    use node::kind;
    use v1::replicate_log_response::Message as Said;
    let response = |message| {
        v1::ReplicateLogResponse {
            message: Some(message),
        }
        .encode_to_vec()
    };
    let position = response(Said::Position(v1::Position::default()));
    let progress = response(Said::Progress(v1::Progress {
        last_index: 2,
        commit_index: 2,
        executed_index: 1,
        durable_executed_index: 1,
        leading_term: 0,
    }));
    let read = response(Said::ReadIndex(v1::ReadIndexRequest { id: 3 }));
    let mut data = vec![0];
    data.extend(input(&[
        Chunk::new(kind::DEADLINE, ""),
        Chunk::new(kind::REPLICATOR_STREAM, ""),
        Chunk::new(kind::REPLICATOR, position),
        Chunk::new(kind::SUBMIT, submit(1)),
        Chunk::new(kind::SUBMIT | 0x80, submit(2)),
        Chunk::new(kind::SUBMIT, submit(1)),
        Chunk::new(kind::SESSION_OR_TRANSFER, ""),
        Chunk::new(kind::REPLICATOR, progress),
        Chunk::new(kind::REPLICATOR, read),
        Chunk::new(kind::QUERY, ""),
        Chunk::new(kind::REPLICATOR_STREAM, "x"),
    ]));
    data
}

fn node_unformed() -> Vec<u8> {
    use node::kind;
    let members = vec![v1::Member {
        member_id: 102,
        node: 2,
        peer_address: "node2:5001".to_owned(),
        client_address: "node2:5001".to_owned(),
        voter: true,
    }];
    let bootstrap = v1::BootstrapRequest {
        cluster_id: 9,
        to_member: 101,
        members: members.clone(),
    };
    let report = v1::NodeStatus {
        member_id: 102,
        node: 2,
        peer_address: "node2:5001".to_owned(),
        client_address: "node2:5001".to_owned(),
        role: v1::Role::Unformed.into(),
        ..Default::default()
    };
    let formed = v1::NodeStatus {
        cluster_id: 9,
        configuration: Some(v1::Configuration {
            version: 0,
            members,
            old_voters: Vec::new(),
        }),
        role: v1::Role::Leader.into(),
        ..report.clone()
    };
    let mut data = vec![0x80];
    data.extend(input(&[
        Chunk::new(kind::DEADLINE, ""),
        Chunk::new(kind::PEER_REPORT, report.encode_to_vec()),
        Chunk::new(kind::PEER_REPORT, formed.encode_to_vec()),
        Chunk::new(kind::BOOTSTRAP, bootstrap.encode_to_vec()),
        Chunk::new(kind::SUBMIT, submit(1)),
    ]));
    data
}

/// A leader takes in a node that waits to be added.
fn node_invited() -> Vec<u8> {
    use node::kind;
    let request = v1::AppendEntriesRequest {
        header: Some(v1::Header {
            cluster_id: 9,
            from_member: 102,
            to_member: node::own_id(),
            feature_level: 1,
        }),
        term: 1,
        bootstrap: vec![wire_member(&member(2))],
        ..Default::default()
    };
    let entries = log().into_iter().map(wire_entry).take(1).collect();
    let mut data = vec![0x80];
    data.extend(input(&[
        Chunk::new(kind::INVITATION, request.encode_to_vec()),
        Chunk::new(kind::APPEND_ENTRIES, append(1, (0, 0), entries, 0)),
        Chunk::new(kind::SNAPSHOT, vec![3, 1, 1]),
        Chunk::new(kind::REMOVED, vec![9]),
        Chunk::new(kind::RESTART, ""),
    ]));
    data
}

/// A leader alone adds a learner, which catches up, is promoted and takes the leader's place.
fn node_members() -> Vec<u8> {
    use node::kind;
    use v1::membership_change::Change;
    let change = |expected_version, change, force| {
        let request = v1::ChangeMembershipRequest {
            expected_version,
            changes: vec![v1::MembershipChange { change: Some(change) }],
            force,
            dry_run: false,
        };
        Chunk::new(kind::CHANGE_MEMBERSHIP, request.encode_to_vec())
    };
    let answers = |matched| {
        let response = v1::AppendEntriesResponse {
            term: 1,
            round: matched,
            match_log_index: matched,
            received_log_index: matched,
            ..Default::default()
        };
        Chunk::new(kind::APPEND_ENTRIES_RESPONSE, response.encode_to_vec())
    };
    let mut data = vec![0];
    data.extend(input(&[
        Chunk::new(kind::DEADLINE, ""),
        change(0, Change::AddLearner(wire_member(&member(2))), false),
        answers(2),
        change(2, Change::Promote(102), true),
        answers(3),
        answers(4),
        change(4, Change::Remove(node::own_id()), true),
        answers(5),
        answers(6),
        Chunk::new(kind::RESTART, ""),
        Chunk::new(kind::REMOVED, vec![9]),
    ]));
    data
}

/// A leader takes snapshots, and sends one to a follower that lacks what was compacted.
fn node_snapshots() -> Vec<u8> {
    use node::kind;
    use v1::install_snapshot_response::{Answer, Installed, Refused};
    use v1::membership_change::Change;
    use v1::replicate_log_response::Message as Said;
    let position = v1::ReplicateLogResponse {
        message: Some(Said::Position(v1::Position::default())),
    };
    let mut chunks = vec![
        Chunk::new(kind::DEADLINE, ""),
        Chunk::new(kind::REPLICATOR_STREAM, ""),
        Chunk::new(kind::REPLICATOR, position.encode_to_vec()),
    ];
    for sequence in 1..=8 {
        chunks.push(Chunk::new(kind::SUBMIT | 0x80, submit(sequence)));
        chunks.push(Chunk::new(kind::REPLICATOR_SNAPSHOT, vec![1, 1]));
        chunks.push(Chunk::new(kind::DEADLINE, ""));
    }
    let add = v1::ChangeMembershipRequest {
        changes: vec![v1::MembershipChange {
            change: Some(Change::AddLearner(wire_member(&member(2)))),
        }],
        ..Default::default()
    };
    chunks.push(Chunk::new(kind::CHANGE_MEMBERSHIP, add.encode_to_vec()));
    for previous_log_index in [9, 10] {
        let lacks_it = v1::AppendEntriesResponse {
            term: 1,
            round: 1,
            conflict: Some(v1::Conflict {
                previous_log_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        chunks.push(Chunk::new(
            kind::APPEND_ENTRIES_RESPONSE,
            lacks_it.encode_to_vec(),
        ));
    }
    chunks.push(Chunk::new(kind::DEADLINE, ""));
    let answer = |answer| {
        let response = v1::InstallSnapshotResponse {
            term: 1,
            last_log_index: 9,
            crc: 0,
            answer: Some(answer),
            ..Default::default()
        };
        Chunk::new(kind::INSTALL_SNAPSHOT_RESPONSE, response.encode_to_vec())
    };
    chunks.push(answer(Answer::GoOnAt(0)));
    chunks.push(answer(Answer::Received(4)));
    chunks.push(answer(Answer::Refused(Refused { why: "why".into() })));
    chunks.push(answer(Answer::Installed(Installed {})));
    let download = v1::DownloadSnapshotRequest {
        last_log_index: 9,
        ..Default::default()
    };
    chunks.push(Chunk::new(kind::TAKE_SNAPSHOT, vec![200]));
    chunks.push(Chunk::new(kind::DOWNLOAD_SNAPSHOT, download.encode_to_vec()));
    chunks.push(Chunk::new(kind::SNAPSHOT_STREAM_BROKEN, ""));
    chunks.push(Chunk::new(kind::STREAM_CLOSED, ""));
    chunks.push(Chunk::new(kind::RESTART, ""));
    chunks.push(Chunk::new(kind::DEADLINE, ""));
    let mut data = vec![0];
    data.extend(input(&chunks));
    data
}

/// A follower takes a leader's snapshot in the place of its log, and goes on behind it.
fn node_installing() -> Vec<u8> {
    use node::kind;
    let entry = |number: u64| {
        let operation = v1::Operation {
            data: format!("operation-{number}").into(),
            ..Default::default()
        };
        let entry = v1::Entry {
            kind: Some(v1::entry::Kind::Operation(operation)),
            ..Default::default()
        };
        Chunk::new(kind::FOLLOWS, entry.encode_to_vec())
    };
    let offer = v1::InstallSnapshotRequest {
        term: 1,
        part: Some(v1::install_snapshot_request::Part::Offer(v1::SnapshotManifest {
            last_log_index: 100,
            last_log_term: 1,
            metadata: vec![1; 33].into(),
            bytes: 2,
            crc: 1,
        })),
        ..Default::default()
    };
    let mut data = vec![2];
    data.extend(input(&[
        entry(1),
        entry(2),
        Chunk::new(kind::INSTALL_SNAPSHOT, offer.encode_to_vec()),
        Chunk::new(kind::SNAPSHOT | 0x40, vec![20, 1, 1]),
        Chunk::new(kind::SNAPSHOT, vec![20, 1, 1]),
        Chunk::new(kind::RESTART, ""),
        entry(23),
        entry(24),
        Chunk::new(kind::SNAPSHOT, vec![5, 1, 1]),
        entry(31),
        Chunk::new(kind::QUERY, ""),
    ]));
    data
}

/// The snapshots at 1 and 2, and one of which a part came in.
fn snapshot_files() -> Vec<u8> {
    let good = |index: u8, known: u8| {
        let mut bytes = vec![index, 1, 3, known, 9, 0, 0];
        bytes.extend_from_slice(b"abcthe data");
        bytes
    };
    input(&[
        Chunk::new(4, good(1, 2)),
        Chunk::new(5, good(2, 2)),
        Chunk::new(6, good(3, 0)),
    ])
}

fn stream_story() -> Vec<u8> {
    let request = |header, operations: &[&str]| {
        let operations = operations.iter().map(|data| (*data).to_owned().into());
        let request = v1::SubmitStreamRequest {
            header,
            operations: operations.collect(),
            acknowledged_through: 0,
        };
        Chunk::new(0, request.encode_to_vec())
    };
    let header = v1::SubmitStreamHeader {
        client_id: "client".to_owned(),
        first_sequence: 7,
        wait_for: v1::WaitFor::Committed.into(),
    };
    input(&[
        request(Some(header), &["one", "two"]),
        Chunk::new(1, vec![1]),
        Chunk::new(1, vec![0]),
        request(None, &["three", "four", "five"]),
        Chunk::new(1, vec![2, 4]),
        Chunk::new(1, vec![0]),
    ])
}
