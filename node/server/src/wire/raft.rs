//! Messages between members. A header's cluster and members have been checked by [`crate::header`].

use std::time::Duration;

use raftlog_proto::v1;
use raftlog_raft::feature::{FeatureLevel, Supports};
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::message::{
    AppendEntries, AppendEntriesResponse, Body, Comparison, Conflict, Full, LogPosition, Message, READS_MAX,
    ReadAnswer, RequestVote, VoteAnswer,
};

use super::Malformed;
use super::entry::{entry_from_wire, entry_to_wire};

/// What every message says beside its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) cluster: ClusterId,
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) term: u64,
    pub(crate) level: FeatureLevel,
}

impl Envelope {
    fn header(self) -> v1::Header {
        v1::Header {
            feature_level: self.level.get().into(),
            ..header(self.cluster, self.from, self.to)
        }
    }
}

pub(super) fn header(cluster: ClusterId, from: MemberId, to: MemberId) -> v1::Header {
    v1::Header {
        cluster_id: cluster.get(),
        from_member: from.get(),
        to_member: to.get(),
        feature_level: 0,
    }
}

/// The level by whose rules the sender speaks.
pub(crate) fn level_from_wire(header: Option<&v1::Header>) -> Result<FeatureLevel, Malformed> {
    match header.map_or(0, |header| header.feature_level) {
        0 => Ok(FeatureLevel::FIRST),
        level => feature_level(level),
    }
}

pub(super) fn feature_level(level: u32) -> Result<FeatureLevel, Malformed> {
    let level = u8::try_from(level).ok().and_then(FeatureLevel::new);
    level.ok_or(Malformed("feature_level"))
}

fn supports_from_wire(min: u32, max: u32) -> Result<Supports, Malformed> {
    if (min, max) == (0, 0) {
        return Ok(Supports::UNSTATED);
    }
    let supports = Supports::new(feature_level(min)?, feature_level(max)?);
    supports.ok_or(Malformed("feature_level_max"))
}

/// The request for a [`Body::RequestVote`].
pub(crate) fn request_vote_to_wire(envelope: Envelope, vote: RequestVote) -> v1::RequestVoteRequest {
    v1::RequestVoteRequest {
        header: Some(envelope.header()),
        term: envelope.term,
        last_log_index: vote.last.index,
        last_log_term: vote.last.term,
        pre_vote: vote.pre_vote,
        transfer: vote.transfer,
    }
}

/// The message in a request.
pub(crate) fn request_vote_from_wire(
    from: MemberId,
    to: MemberId,
    request: &v1::RequestVoteRequest,
) -> Result<Message, Malformed> {
    let last = position(request.last_log_index, request.last_log_term)?;
    let body = RequestVote {
        pre_vote: request.pre_vote,
        transfer: request.transfer,
        last,
    };
    Ok(Message {
        from,
        to,
        term: term(request.term)?,
        level: level_from_wire(request.header.as_ref())?,
        body: Body::RequestVote(body),
    })
}

/// The response for a [`Body::Vote`].
pub(crate) fn vote_to_wire(
    envelope: Envelope,
    pre_vote: bool,
    answer: VoteAnswer,
) -> v1::RequestVoteResponse {
    v1::RequestVoteResponse {
        header: Some(envelope.header()),
        term: envelope.term,
        granted: answer == VoteAnswer::Granted,
        pre_vote,
        removed_by: 0,
        granted_if_all: answer == VoteAnswer::GrantedIfAll,
    }
}

/// The message in a response.
pub(crate) fn vote_from_wire(
    from: MemberId,
    to: MemberId,
    response: &v1::RequestVoteResponse,
) -> Result<Message, Malformed> {
    let body = Body::Vote {
        pre_vote: response.pre_vote,
        answer: match (response.granted, response.granted_if_all) {
            (true, _) => VoteAnswer::Granted,
            (false, true) => VoteAnswer::GrantedIfAll,
            (false, false) => VoteAnswer::Refused,
        },
    };
    Ok(Message {
        from,
        to,
        term: response.term,
        level: level_from_wire(response.header.as_ref())?,
        body,
    })
}

/// The request for a [`Body::TimeoutNow`].
pub(crate) fn timeout_now_to_wire(envelope: Envelope) -> v1::TimeoutNowRequest {
    v1::TimeoutNowRequest {
        header: Some(envelope.header()),
        term: envelope.term,
    }
}

/// The message in a request.
pub(crate) fn timeout_now_from_wire(
    from: MemberId,
    to: MemberId,
    request: &v1::TimeoutNowRequest,
) -> Result<Message, Malformed> {
    Ok(Message {
        from,
        to,
        term: term(request.term)?,
        level: level_from_wire(request.header.as_ref())?,
        body: Body::TimeoutNow,
    })
}

/// The request for a [`Body::Compare`].
pub(crate) fn compare_hash_to_wire(envelope: Envelope, own: Comparison) -> v1::CompareHashRequest {
    v1::CompareHashRequest {
        header: Some(envelope.header()),
        log_index: own.position.index,
        log_term: own.position.term,
        running_hash: own.running_hash,
    }
}

/// The message in a request. It is of no term: what a member holds of an entry is the same in all of them.
pub(crate) fn compare_hash_from_wire(
    from: MemberId,
    to: MemberId,
    request: &v1::CompareHashRequest,
) -> Result<Message, Malformed> {
    let theirs = Comparison {
        position: position(request.log_index, request.log_term)?,
        running_hash: request.running_hash,
    };
    Ok(Message {
        from,
        to,
        term: 0,
        level: level_from_wire(request.header.as_ref())?,
        body: Body::Compare(theirs),
    })
}

/// The response for a [`Body::Compared`].
pub(crate) fn compared_to_wire(envelope: Envelope, own: Comparison) -> v1::CompareHashResponse {
    v1::CompareHashResponse {
        header: Some(envelope.header()),
        log_index: own.position.index,
        log_term: own.position.term,
        running_hash: own.running_hash,
    }
}

/// The message in a response.
pub(crate) fn compared_from_wire(
    from: MemberId,
    to: MemberId,
    response: &v1::CompareHashResponse,
) -> Result<Message, Malformed> {
    let theirs = Comparison {
        position: position(response.log_index, response.log_term)?,
        running_hash: response.running_hash,
    };
    Ok(Message {
        from,
        to,
        term: 0,
        level: level_from_wire(response.header.as_ref())?,
        body: Body::Compared(theirs),
    })
}

/// The request for a [`Body::AppendEntries`].
pub(crate) fn append_entries_to_wire(envelope: Envelope, append: AppendEntries) -> v1::AppendEntriesRequest {
    let micros = append.minimum_election_timeout.as_micros();
    let read_answers = append.read_answers.iter().map(|answer| v1::ReadAnswer {
        id: answer.id,
        operation_index: answer.index.unwrap_or(0),
        refused: answer.index.is_none(),
    });
    v1::AppendEntriesRequest {
        header: Some(envelope.header()),
        term: envelope.term,
        previous_log_index: append.previous.index,
        previous_log_term: append.previous.term,
        read_answers: read_answers.collect(),
        entries: append.entries.into_iter().map(entry_to_wire).collect(),
        commit_log_index: append.commit,
        round: append.round,
        heartbeat: append.heartbeat,
        minimum_election_timeout_micros: u64::try_from(micros).unwrap_or(u64::MAX),
        bootstrap: Vec::new(),
        previous_running_hash: append.previous_hash,
    }
}

/// The message in a request.
pub(crate) fn append_entries_from_wire(
    from: MemberId,
    to: MemberId,
    request: v1::AppendEntriesRequest,
) -> Result<Message, Malformed> {
    if request.read_answers.len() > READS_MAX {
        return Err(Malformed("read_answers: too many"));
    }
    let term = term(request.term)?;
    let level = level_from_wire(request.header.as_ref())?;
    let previous = position(request.previous_log_index, request.previous_log_term)?;
    let mut entries = Vec::with_capacity(request.entries.len());
    let (mut index, mut entry_term) = (previous.index, previous.term);
    for entry in request.entries {
        let entry = entry_from_wire(entry)?;
        index = index.checked_add(1).ok_or(Malformed("entries: index"))?;
        if entry.log_index != index {
            return Err(Malformed("entries: not consecutive"));
        }
        if entry.term < entry_term || entry.term > term {
            return Err(Malformed("entries: term"));
        }
        entry_term = entry.term;
        entries.push(entry);
    }
    let read_answers = request.read_answers.iter().map(|answer| ReadAnswer {
        id: answer.id,
        index: (!answer.refused).then_some(answer.operation_index),
    });
    let body = AppendEntries {
        previous,
        previous_hash: request.previous_running_hash,
        entries,
        commit: request.commit_log_index,
        round: request.round,
        heartbeat: request.heartbeat,
        minimum_election_timeout: Duration::from_micros(request.minimum_election_timeout_micros),
        read_answers: read_answers.collect(),
    };
    Ok(Message {
        from,
        to,
        term,
        level,
        body: Body::AppendEntries(body),
    })
}

/// The response for a [`Body::AppendEntriesResponse`].
pub(crate) fn append_response_to_wire(
    envelope: Envelope,
    response: AppendEntriesResponse,
) -> v1::AppendEntriesResponse {
    let conflict = response.conflict.map(|conflict| v1::Conflict {
        previous_log_index: conflict.previous,
        hint_log_index: conflict.hint.index,
        hint_term: conflict.hint.term,
    });
    v1::AppendEntriesResponse {
        header: Some(envelope.header()),
        term: envelope.term,
        round: response.round,
        match_log_index: response.matched,
        received_log_index: response.received,
        conflict,
        read_requests: response.read_requests,
        disk_full: response.full.disk,
        log_full: response.full.log,
        feature_level_min: response.supports.min().get().into(),
        feature_level_max: response.supports.max().get().into(),
        wants_snapshot_behind: response.wants_snapshot,
    }
}

/// The message in a response.
pub(crate) fn append_response_from_wire(
    from: MemberId,
    to: MemberId,
    response: v1::AppendEntriesResponse,
) -> Result<Message, Malformed> {
    if response.read_requests.len() > READS_MAX {
        return Err(Malformed("read_requests: too many"));
    }
    let conflict = match response.conflict {
        None => None,
        Some(conflict) if conflict.hint_log_index > conflict.previous_log_index => {
            return Err(Malformed("conflict: hint_log_index"));
        }
        Some(conflict) => Some(Conflict {
            previous: conflict.previous_log_index,
            hint: position(conflict.hint_log_index, conflict.hint_term)?,
        }),
    };
    let level = level_from_wire(response.header.as_ref())?;
    let body = AppendEntriesResponse {
        round: response.round,
        matched: response.match_log_index,
        received: response.received_log_index,
        conflict,
        read_requests: response.read_requests,
        full: Full {
            disk: response.disk_full,
            log: response.log_full,
        },
        supports: supports_from_wire(response.feature_level_min, response.feature_level_max)?,
        wants_snapshot: response.wants_snapshot_behind,
    };
    Ok(Message {
        from,
        to,
        term: response.term,
        level,
        body: Body::AppendEntriesResponse(body),
    })
}

/// No member asks for, or leads, term 0.
pub(super) fn term(term: u64) -> Result<u64, Malformed> {
    if term == 0 {
        Err(Malformed("term"))
    } else {
        Ok(term)
    }
}

fn position(index: u64, term: u64) -> Result<LogPosition, Malformed> {
    if index == 0 && term != 0 {
        return Err(Malformed("log term at index 0"));
    }
    Ok(LogPosition { index, term })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;
    use raftlog_raft::entry::{Entry, Operation, Payload, SessionStamp};
    use raftlog_raft::membership::{Configuration, Member};

    use super::*;

    const TERM: u64 = 9;

    const LEVEL: FeatureLevel = FeatureLevel::REHEARSED;

    fn envelope() -> Envelope {
        let (cluster, from, to) = ids();
        Envelope {
            cluster,
            from,
            to,
            term: TERM,
            level: LEVEL,
        }
    }

    fn ids() -> (ClusterId, MemberId, MemberId) {
        (
            ClusterId::new(3).unwrap(),
            MemberId::new(1).unwrap(),
            MemberId::new(2).unwrap(),
        )
    }

    fn member() -> impl Strategy<Value = Member> {
        (1_u64.., 1_u32.., any::<bool>()).prop_map(|(id, node, voter)| Member {
            id: MemberId::new(id).unwrap(),
            node,
            peer_address: "p:1".into(),
            client_address: "c:1".into(),
            voter,
        })
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let session = proptest::option::of(("[a-z~]{1,9}", any::<u64>(), any::<u64>())).prop_map(|session| {
            session.map(|(client_id, sequence, acknowledged_through)| SessionStamp {
                client_id: client_id.into(),
                sequence,
                acknowledged_through,
            })
        });
        let operation = (proptest::collection::vec(any::<u8>(), 1..64), session);
        prop_oneof![
            Just(Payload::Noop),
            Just(Payload::SessionOpened),
            any::<u64>().prop_map(|executed_through| Payload::ExecutionProgress { executed_through }),
            operation.prop_map(|(data, session)| Payload::Operation(Operation {
                data: Bytes::from(data),
                session
            })),
            (any::<u64>(), member()).prop_map(|(version, one)| {
                Payload::Configuration(Configuration::new(version, vec![one]))
            }),
            (1..=u8::MAX).prop_map(|level| Payload::FeatureLevel(FeatureLevel::new(level).unwrap())),
            (1..u64::MAX, any::<u64>(), member()).prop_map(|(parent, version, one)| Payload::Recovered {
                parent: ClusterId::new(parent).unwrap(),
                configuration: Configuration::new(version, vec![one]),
            }),
        ]
    }

    fn append_entries() -> impl Strategy<Value = AppendEntries> {
        let entries = proptest::collection::vec((payload(), any::<u64>(), any::<u64>()), 0..8);
        let numbers = (
            0_u64..1 << 40,
            1_u64..TERM,
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
        );
        let answers = proptest::collection::vec((any::<u64>(), proptest::option::of(any::<u64>())), 0..4);
        let rest = (any::<bool>(), proptest::option::of(any::<u64>()));
        (entries, numbers, answers, rest).prop_map(
            |(entries, numbers, answers, (heartbeat, previous_hash))| {
                let (index, term, commit, round, micros) = numbers;
                let previous = LogPosition {
                    index,
                    term: if index == 0 { 0 } else { term },
                };
                let entries =
                    entries
                        .into_iter()
                        .zip(index + 1..)
                        .map(|((payload, operation, hash), log_index)| Entry {
                            log_index,
                            term,
                            operation_index: operation,
                            running_hash: hash,
                            payload,
                        });
                AppendEntries {
                    previous,
                    previous_hash,
                    entries: entries.collect(),
                    commit,
                    round,
                    heartbeat,
                    minimum_election_timeout: Duration::from_micros(micros),
                    read_answers: answers
                        .into_iter()
                        .map(|(id, index)| ReadAnswer { id, index })
                        .collect(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn append_entries_survives_the_wire(append in append_entries()) {
            let (_, from, to) = ids();
            let bytes = append_entries_to_wire(envelope(), append.clone()).encode_to_vec();
            let wire = v1::AppendEntriesRequest::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(
                append_entries_from_wire(from, to, wire),
                Ok(Message { from, to, term: TERM, level: LEVEL, body: Body::AppendEntries(append) })
            );
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, from, to) = ids();
            if let Ok(request) = v1::AppendEntriesRequest::decode(bytes.as_slice()) {
                let _ = append_entries_from_wire(from, to, request);
            }
            if let Ok(response) = v1::AppendEntriesResponse::decode(bytes.as_slice()) {
                let _ = append_response_from_wire(from, to, response);
            }
        }
    }

    #[test]
    fn the_other_messages_survive_the_wire() {
        let (_, from, to) = ids();
        let last = LogPosition { index: 7, term: 2 };
        let vote = RequestVote {
            pre_vote: true,
            transfer: false,
            last,
        };
        let message = Message {
            from,
            to,
            term: TERM,
            level: LEVEL,
            body: Body::RequestVote(vote),
        };
        let wire = request_vote_to_wire(envelope(), vote);
        assert_eq!(request_vote_from_wire(from, to, &wire), Ok(message));
        for answer in [VoteAnswer::Refused, VoteAnswer::Granted, VoteAnswer::GrantedIfAll] {
            let wire = vote_to_wire(envelope(), true, answer);
            let body = Body::Vote {
                pre_vote: true,
                answer,
            };
            let message = Message {
                from,
                to,
                term: TERM,
                level: LEVEL,
                body,
            };
            assert_eq!(vote_from_wire(from, to, &wire), Ok(message));
        }
        let comparison = Comparison {
            position: last,
            running_hash: u64::MAX - 5,
        };
        let message = |body| Message {
            from,
            to,
            term: 0,
            level: LEVEL,
            body,
        };
        let wire = compare_hash_to_wire(envelope(), comparison);
        let read = compare_hash_from_wire(from, to, &wire);
        assert_eq!(read, Ok(message(Body::Compare(comparison))));
        let wire = compared_to_wire(envelope(), comparison);
        let read = compared_from_wire(from, to, &wire);
        assert_eq!(read, Ok(message(Body::Compared(comparison))));
        for conflict in [
            None,
            Some(Conflict {
                previous: 9,
                hint: LogPosition { index: 4, term: 1 },
            }),
        ] {
            let response = AppendEntriesResponse {
                round: 3,
                matched: 4,
                received: 5,
                conflict,
                read_requests: vec![8],
                full: Full {
                    disk: conflict.is_some(),
                    log: conflict.is_none(),
                },
                supports: Supports::REHEARSAL,
                wants_snapshot: conflict.map(|conflict| conflict.previous),
            };
            let wire = append_response_to_wire(envelope(), response.clone());
            let body = Body::AppendEntriesResponse(response);
            assert_eq!(
                append_response_from_wire(from, to, wire),
                Ok(Message {
                    from,
                    to,
                    term: TERM,
                    level: LEVEL,
                    body
                })
            );
        }
    }

    #[test]
    fn malformed_appends_are_refused() {
        let (_, from, to) = ids();
        let entry = |log_index, term| v1::Entry {
            log_index,
            term,
            kind: Some(v1::entry::Kind::Noop(v1::Noop {})),
            ..Default::default()
        };
        let operation = |data: usize, client_id: usize| v1::Entry {
            kind: Some(v1::entry::Kind::Operation(v1::Operation {
                data: vec![1; data].into(),
                client_id: "x".repeat(client_id),
                ..Default::default()
            })),
            ..entry(5, 2)
        };
        let request = |entries| v1::AppendEntriesRequest {
            term: 3,
            previous_log_index: 4,
            previous_log_term: 2,
            entries,
            ..Default::default()
        };
        assert!(
            append_entries_from_wire(from, to, request(vec![entry(5, 2), operation(1 << 20, 256)])).is_err()
        );
        assert!(
            append_entries_from_wire(from, to, request(vec![operation(1 << 20, 256), entry(6, 3)])).is_ok()
        );
        for (request, field) in [
            (request(vec![entry(6, 2)]), "consecutive"),
            (request(vec![entry(5, 2), entry(5, 2)]), "consecutive"),
            (request(vec![entry(0, 2)]), "log_index"),
            (request(vec![entry(5, 1)]), "term"),
            (request(vec![entry(5, 4)]), "term"),
            (
                request(vec![v1::Entry {
                    kind: None,
                    ..entry(5, 2)
                }]),
                "kind",
            ),
            (request(vec![operation(0, 0)]), "operation: length"),
            (request(vec![operation((1 << 20) + 1, 0)]), "operation: length"),
            (request(vec![operation(1, 257)]), "client_id"),
            (
                v1::AppendEntriesRequest {
                    term: 0,
                    ..request(vec![])
                },
                "term",
            ),
            (
                v1::AppendEntriesRequest {
                    previous_log_index: 0,
                    ..request(vec![])
                },
                "index 0",
            ),
            (
                v1::AppendEntriesRequest {
                    previous_log_index: u64::MAX,
                    ..request(vec![entry(u64::MAX, 2)])
                },
                "index",
            ),
        ] {
            let error = append_entries_from_wire(from, to, request)
                .unwrap_err()
                .to_string();
            assert!(error.contains(field), "{error} should name {field}");
        }
        let conflict = v1::Conflict {
            previous_log_index: 3,
            hint_log_index: 4,
            hint_term: 1,
        };
        let response = v1::AppendEntriesResponse {
            conflict: Some(conflict),
            ..Default::default()
        };
        assert!(append_response_from_wire(from, to, response).is_err());
    }

    /// What an earlier version says has no levels in it, and what a later one adds is passed over.
    #[test]
    fn versions_understand_each_other() {
        let (_, from, to) = ids();
        let append = AppendEntries {
            previous: LogPosition { index: 7, term: 2 },
            previous_hash: None,
            entries: Vec::new(),
            commit: 3,
            round: 4,
            heartbeat: true,
            minimum_election_timeout: Duration::from_secs(1),
            read_answers: Vec::new(),
        };
        let mut later = append_entries_to_wire(envelope(), append.clone()).encode_to_vec();
        // Field 500, a number: of a version that is to come.
        later.extend([0xa0, 0x1f, 0x2a]);
        let later = v1::AppendEntriesRequest::decode(later.as_slice()).unwrap();
        let Ok(message) = append_entries_from_wire(from, to, later) else {
            panic!("a field that is not known does no harm")
        };
        assert_eq!(
            (message.level, message.body),
            (LEVEL, Body::AppendEntries(append))
        );
        let earlier = v1::AppendEntriesResponse {
            header: Some(header(ids().0, from, to)),
            term: TERM,
            ..Default::default()
        };
        let message = append_response_from_wire(from, to, earlier.clone()).unwrap();
        let Body::AppendEntriesResponse(response) = message.body else {
            panic!("a response")
        };
        assert_eq!(
            (message.level, response.supports),
            (FeatureLevel::FIRST, Supports::UNSTATED)
        );
        for (min, max) in [(0, 1), (2, 1), (1, 256)] {
            let response = v1::AppendEntriesResponse {
                feature_level_min: min,
                feature_level_max: max,
                ..earlier.clone()
            };
            let error = append_response_from_wire(from, to, response).unwrap_err();
            assert!(
                error.to_string().contains("feature_level"),
                "{min} to {max}: {error}"
            );
        }
        let unheard = v1::Entry {
            log_index: 8,
            term: 2,
            kind: Some(v1::entry::Kind::FeatureLevel(v1::FeatureLevel { level: 0 })),
            ..Default::default()
        };
        assert!(entry_from_wire(unheard).is_err());
    }
}
