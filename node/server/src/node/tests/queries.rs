//! A query's way through a node, with a replicator that is played.

use super::*;

/// A cluster of one with so many operations, all of which its replicator has, and none of which it has executed.
fn fed(operations: u64) -> Alone {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    alone.run(Duration::from_secs(10));
    submits(&mut alone, 1..=operations);
    connects(&mut alone, false);
    alone
}

fn executes(alone: &mut Alone, executed_index: u64) {
    let progress = Progress {
        last_index: executed_index,
        commit_index: executed_index,
        executed_index,
        durable_executed_index: 0,
        leading_term: None,
    };
    hears(alone, FromReplicator::Progress(progress));
}

fn asks(alone: &mut Alone, id: RequestId, allow_stale: bool) {
    let query = Query {
        id,
        query: "last".into(),
        allow_stale,
        until: alone.now + Duration::from_secs(1),
    };
    alone.node.handle(alone.now, Input::Query(query));
    alone.run(MOMENT);
}

fn asked(alone: &Alone) -> Vec<u64> {
    let asked = |said: &ToReplicator| match said {
        ToReplicator::Query { id, .. } => Some(*id),
        _ => None,
    };
    alone.said.iter().filter_map(asked).collect()
}

fn answers(alone: &mut Alone, id: u64, index: u64) {
    let answer = FromReplicator::QueryAnswer {
        id,
        index,
        term: 1,
        result: Ok("op".into()),
    };
    hears(alone, answer);
}

#[test]
fn a_query_waits_for_what_was_committed_before_it_and_a_stale_one_for_nothing() {
    let mut alone = fed(5);
    executes(&mut alone, 3);
    asks(&mut alone, 11, false);
    asks(&mut alone, 12, true);
    assert_eq!(asked(&alone), [12], "of 5 operations 3 are executed");
    answers(&mut alone, 12, 3);
    executes(&mut alone, 5);
    assert_eq!(asked(&alone), [12, 11]);
    answers(&mut alone, 11, 5);
    let index = |id| alone.queried[&id].as_ref().map(|answer| answer.index);
    assert_eq!((index(11), index(12)), (Ok(5), Ok(3)));
}

#[test]
fn a_stuck_replicator_costs_a_query_its_deadline_and_no_more() {
    let mut alone = fed(5);
    executes(&mut alone, 3);
    asks(&mut alone, 11, false);
    asks(&mut alone, 12, true);
    alone.run(Duration::from_secs(2));
    assert_eq!(
        alone.queried[&11],
        Err(QueryRefusal::NotExecutedInTime {
            index: 5,
            executed: Some(3)
        })
    );
    assert_eq!(alone.queried[&12], Err(QueryRefusal::NotAnsweredInTime));
    // It comes back.
    answers(&mut alone, 12, 3);
    executes(&mut alone, 5);
    asks(&mut alone, 13, false);
    answers(&mut alone, 13, 5);
    assert!(alone.queried[&13].is_ok());
}

#[test]
fn a_replicator_that_is_away_or_talks_nonsense_answers_nothing() {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    asks(&mut alone, 10, true);
    alone.run(Duration::from_secs(10));
    asks(&mut alone, 11, true);
    asks(&mut alone, 12, false);
    assert_eq!(alone.queried[&10], Err(QueryRefusal::NoLeader { leader: None }));
    for id in [11, 12] {
        assert_eq!(alone.queried[&id], Err(QueryRefusal::NoReplicator));
    }

    let mut alone = fed(5);
    executes(&mut alone, 5);
    asks(&mut alone, 11, false);
    hears(&mut alone, FromReplicator::Closed);
    assert_eq!(alone.queried[&11], Err(QueryRefusal::NoReplicator));

    let mut alone = fed(5);
    executes(&mut alone, 5);
    asks(&mut alone, 11, false);
    // A state machine that has gone back is asked again later; an answer to nothing is nonsense.
    answers(&mut alone, 11, 4);
    assert!(
        matches!(&alone.queried[&11], Err(QueryRefusal::Executor(refused)) if refused.message.contains("up to 5"))
    );
    asks(&mut alone, 12, false);
    answers(&mut alone, 99, 5);
    assert_eq!(alone.queried[&12], Err(QueryRefusal::NoReplicator));
    assert!(matches!(alone.said.last(), Some(ToReplicator::Close { why }) if why.contains("not asked")));
}
