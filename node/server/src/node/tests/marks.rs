//! Marks of execution, by a node whose replicator executes on the leader and is played.

use super::*;

/// A cluster of one with three operations, and its replicator, which has none.
fn fed() -> Alone {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    alone.run(Duration::from_secs(10));
    submits(&mut alone, 1..=3);
    connects(&mut alone, true);
    alone
}

fn executes(alone: &mut Alone, through: u64, leading_term: Option<u64>) {
    let progress = Progress {
        last_index: through,
        commit_index: through,
        executed_index: through,
        durable_executed_index: through,
        leading_term,
    };
    hears(alone, FromReplicator::Progress(progress));
}

fn told(alone: &mut Alone) -> Vec<(Option<u64>, u64)> {
    let told = |said: ToReplicator| match said {
        ToReplicator::Leading(told) => Some((told.leads, told.execute_after)),
        _ => None,
    };
    std::mem::take(&mut alone.said)
        .into_iter()
        .filter_map(told)
        .collect()
}

fn marked(alone: &Alone) -> u64 {
    alone.node.status(alone.now).execution_mark
}

fn entries(alone: &Alone) -> u64 {
    alone.node.status(alone.now).last_log_index
}

#[test]
fn the_log_says_how_far_is_executed_now_and_then_and_the_replicator_hears_it() {
    let mut alone = fed();
    let term = alone.node.status(alone.now).term;
    assert_eq!(told(&mut alone), [(Some(term), 0)]);
    let before = entries(&alone);
    executes(&mut alone, 1, Some(term));
    assert_eq!((marked(&alone), told(&mut alone)), (1, vec![(Some(term), 1)]));
    // The next one comes some time later, and says all that was executed meanwhile.
    executes(&mut alone, 2, Some(term));
    executes(&mut alone, 3, Some(term));
    assert_eq!(marked(&alone), 1);
    alone.run(Duration::from_secs(1));
    assert_eq!((marked(&alone), told(&mut alone)), (3, vec![(Some(term), 3)]));
    assert_eq!(entries(&alone), before + 2);
    alone.run(Duration::from_secs(10));
    assert_eq!(
        entries(&alone),
        before + 2,
        "where nothing happens nothing is marked"
    );
    // On another stream it is told anew, and nothing it says is counted before it knows.
    submits(&mut alone, 4..=5);
    hears(&mut alone, FromReplicator::Closed);
    connects(&mut alone, true);
    assert_eq!(told(&mut alone), [(Some(term), 3)]);
    executes(&mut alone, 5, None);
    alone.run(Duration::from_secs(1));
    assert_eq!(marked(&alone), 3);
    executes(&mut alone, 9, Some(term));
    alone.run(Duration::from_secs(1));
    assert_eq!(marked(&alone), 5, "no more than is committed");
}

#[test]
fn a_mark_survives_a_restart_and_another_term_begins_behind_it() {
    let mut alone = fed();
    let term = alone.node.status(alone.now).term;
    executes(&mut alone, 2, Some(term));
    assert_eq!(marked(&alone), 2);
    let mut again = Alone::start(alone.disk);
    again.run(Duration::from_secs(10));
    connects(&mut again, true);
    let leads = again.node.status(again.now).term;
    assert!(leads > term);
    assert_eq!(told(&mut again), [(Some(leads), 2)]);
}

#[test]
fn one_that_executes_beside_every_node_is_told_nothing_and_marks_nothing() {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    alone.run(Duration::from_secs(10));
    submits(&mut alone, 1..=3);
    hears(&mut alone, FromReplicator::Opened);
    let empty = Position {
        cluster_id: None,
        member_id: None,
        first_index: 0,
        last: Place::default(),
        commit: Place::default(),
        executed: Place::default(),
        needs_state: false,
        on_leader: false,
    };
    hears(&mut alone, FromReplicator::Position(empty));
    executes(&mut alone, 3, None);
    alone.run(Duration::from_secs(1));
    assert!(told(&mut alone).is_empty());
    assert_eq!(marked(&alone), 0);
}
