//! What clients ask for: committed operations, and when a read is linearizable.

use super::rig::{NODE, Rig, log};
use crate::core::{
    Config, Effect, Event, FetchId, ReadIndexError, ReadIndexId, Refusal, StartAction, StreamId,
};

fn fetched(rig: &mut Rig, from: u64, to: u64, bytes_max: usize) -> Vec<u64> {
    rig.take_others();
    rig.handle(Event::Fetch {
        id: FetchId(7),
        from,
        to,
        bytes_max,
    });
    while rig.disk_step() {}
    match &rig.take_others()[..] {
        [
            Effect::Fetched {
                id: FetchId(7),
                result: Ok(operations),
                ..
            },
        ] => operations.iter().map(|operation| operation.index).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_committed_is_shown_from_memory_as_from_disk() {
    for cache_bytes in [0, 1 << 20] {
        let mut rig = Rig::with(
            Config {
                cache_bytes,
                segment_bytes: Some(2 << 20),
                ..Config::new(NODE)
            },
            1,
        );
        let stream = rig.started(StartAction::ResumeFrom(1), 0);
        rig.feed(stream, &log(&[1; 6]), 4);
        rig.settle();
        for (from, to, bytes_max, expected) in [
            (1, 4, 1 << 20, vec![1, 2, 3, 4]),
            (2, 3, 1 << 20, vec![2, 3]),
            (3, u64::MAX, 1 << 20, vec![3, 4]),
            (4, 4, 0, vec![4]),
            (5, 9, 1 << 20, vec![]),
            (0, 9, 1 << 20, vec![]),
            (3, 2, 1 << 20, vec![]),
        ] {
            assert_eq!(
                fetched(&mut rig, from, to, bytes_max),
                expected,
                "{from}..={to}, cache of {cache_bytes}"
            );
        }
        assert_eq!(fetched(&mut rig, 1, 4, 1), [1], "one at least");
    }
}

#[test]
fn requests_to_the_disk_are_bounded() {
    let config = Config {
        cache_bytes: 0,
        fetches_max: 2,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &log(&[1]), 1);
    rig.settle();
    rig.take_others();
    for id in 1..=3 {
        rig.handle(Event::Fetch {
            id: FetchId(id),
            from: 1,
            to: 1,
            bytes_max: 1,
        });
    }
    assert!(matches!(
        rig.take_others()[..],
        [Effect::Fetched {
            id: FetchId(3),
            result: Err(_),
            ..
        }]
    ));
    while rig.disk_step() {}
    assert_eq!(rig.take_others().len(), 2);
}

fn answers(rig: &mut Rig) -> Vec<(u64, Result<u64, ReadIndexError>)> {
    let answer = |effect| match effect {
        Effect::ReadIndexReady(ReadIndexId(id), result) => Some((id, result)),
        _ => None,
    };
    rig.take_others().into_iter().filter_map(answer).collect()
}

fn asked(rig: &mut Rig, id: u64) -> Option<StreamId> {
    rig.handle(Event::ReadIndex { id: ReadIndexId(id) });
    rig.others.iter().find_map(|effect| match effect {
        Effect::AskReadIndex(stream, ReadIndexId(asked)) if *asked == id => Some(*stream),
        _ => None,
    })
}

#[test]
fn a_read_waits_until_its_index_is_committed_here() {
    let ours = log(&[1; 5]);
    let (mut rig, stream) = Rig::holding(&ours[..2], 2);
    for id in 1..=4 {
        assert_eq!(asked(&mut rig, id), Some(stream));
    }
    for (id, index) in [(1, Some(2)), (2, Some(5)), (3, None), (9, Some(1))] {
        rig.handle(Event::ReadIndexAnswer {
            stream,
            id: ReadIndexId(id),
            index,
        });
    }
    // An answer counts once.
    rig.handle(Event::ReadIndexAnswer {
        stream,
        id: ReadIndexId(2),
        index: Some(1),
    });
    assert_eq!(
        answers(&mut rig),
        [(1, Ok(2)), (3, Err(ReadIndexError::NoLeader))]
    );
    rig.feed(stream, &ours[2..], 4);
    assert_eq!(answers(&mut rig), []);
    rig.feed(stream, &[], 5);
    assert_eq!(answers(&mut rig), [(2, Ok(5))]);
    // What was asked for on a stream that is gone gets no answer any more.
    rig.handle(Event::NodeClosed { stream });
    assert_eq!(answers(&mut rig), [(4, Err(ReadIndexError::NoLeader))]);
    assert_eq!(asked(&mut rig, 5), None);
    assert_eq!(answers(&mut rig), [(5, Err(ReadIndexError::NoLeader))]);
}

#[test]
fn an_answer_from_another_stream_does_not_count() {
    let (mut rig, old) = Rig::holding(&log(&[1]), 1);
    let new = rig.started(StartAction::ResumeFrom(2), 1);
    asked(&mut rig, 1);
    rig.take_others();
    rig.handle(Event::ReadIndexAnswer {
        stream: old,
        id: ReadIndexId(1),
        index: Some(0),
    });
    assert_eq!(answers(&mut rig), []);
    rig.handle(Event::ReadIndexAnswer {
        stream: new,
        id: ReadIndexId(1),
        index: Some(0),
    });
    assert_eq!(answers(&mut rig), [(1, Ok(0))]);
}

#[test]
fn waiting_reads_are_bounded_and_make_room_when_abandoned() {
    let config = Config {
        read_indexes_max: 2,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    rig.started(StartAction::ResumeFrom(1), 0);
    assert!(asked(&mut rig, 1).is_some() && asked(&mut rig, 2).is_some());
    assert!(asked(&mut rig, 3).is_none());
    assert!(matches!(
        answers(&mut rig)[..],
        [(3, Err(ReadIndexError::Busy(_)))]
    ));
    rig.handle(Event::ReadIndexAbandoned { id: ReadIndexId(1) });
    assert!(asked(&mut rig, 4).is_some());
}

fn queried(rig: &mut Rig, stream: StreamId, id: u64) -> Option<(StreamId, u64, u64)> {
    rig.take_others();
    let query = "last".into();
    rig.handle(Event::Query { stream, id, query });
    rig.take_others().into_iter().find_map(|effect| match effect {
        Effect::Query {
            stream, id, executed, ..
        } => Some((stream, id, executed.index)),
        _ => None,
    })
}

#[test]
fn a_query_is_of_what_is_executed_not_of_what_is_committed() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    assert_eq!(queried(&mut rig, stream, 1), Some((stream, 1, 0)));
    rig.feed(stream, &log(&[1; 5]), 4);
    assert_eq!(queried(&mut rig, stream, 2), Some((stream, 2, 0)));
    rig.settle();
    assert_eq!(queried(&mut rig, stream, 3), Some((stream, 3, 4)));
}

#[test]
fn only_the_node_that_said_how_to_start_may_query() {
    let (mut rig, old) = Rig::holding(&log(&[1; 5]), 5);
    let stream = rig.opened();
    assert_eq!(queried(&mut rig, old, 1), None);
    rig.handle(Event::Query {
        stream,
        id: 2,
        query: "last".into(),
    });
    assert!(
        matches!(&rig.take_others()[..], [.., Effect::Close(closed, Refusal::Protocol { what, .. })]
            if *closed == stream && what.contains("query")),
    );
}
