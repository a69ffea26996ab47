//! Execution: in order, committed only, bounded, and read back from disk where memory does not have it.

use super::rig::{NODE, Rig, follows, log};
use crate::core::{Config, Event, Operation, Place, StartAction};

#[test]
fn only_what_is_committed_is_executed_and_in_order() {
    let ours = log(&[1; 10]);
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    for (from, to, commit, executed) in [
        (0, 3, 0, 0),
        (3, 6, 4, 4),
        (6, 6, 6, 6),
        (6, 10, 9, 9),
        (10, 10, 10, 10),
    ] {
        rig.feed(stream, &ours[from..to], commit);
        while rig.execute_step() {}
        assert_eq!(rig.printed, (1..=executed).collect::<Vec<_>>());
        assert_eq!(rig.progress.executed, executed);
    }
}

#[test]
fn a_slow_executor_holds_up_execution_and_nothing_else() {
    let config = Config {
        executing_operations_max: 8,
        cache_bytes: 4 << 10,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let mut previous = Place::default();
    for commit in 1..=2_000 {
        let operation = follows(previous, 1, vec![b'x'; 100]);
        previous = operation.place();
        rig.feed(stream, &[operation], commit);
        while rig.disk_step() || rig.wake_step() {}
        assert!(rig.core.status().executing_operations <= 8);
        assert!(
            rig.core.status().cached_bytes <= 8 << 10,
            "{}",
            rig.core.status().cached_bytes
        );
    }
    assert_eq!((rig.progress.commit, rig.progress.executed), (2_000, 0));
    // What memory does not have any more is read back.
    rig.settle();
    assert_eq!(rig.printed, (1..=2_000).collect::<Vec<_>>());
    assert_eq!(rig.progress.durable_executed, 2_000);
}

#[test]
fn what_waits_for_the_executor_is_bounded_on_disk_and_what_is_not_committed_holds_up_nothing() {
    let config = Config {
        cache_bytes: 0,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let mut previous = Place::default();
    let mut fed = 0;
    // Nothing is committed: there is nothing that the executor could do about it.
    let mut add = |rig: &mut Rig, commit: u64| {
        let operation = follows(previous, 1, vec![b'x'; 60_000]);
        previous = operation.place();
        rig.feed(stream, &[operation], commit);
        while rig.disk_step() || rig.wake_step() {}
        previous.index
    };
    while fed < 150 {
        assert!(rig.core.takes_feed());
        fed = add(&mut rig, 0);
    }
    rig.feed(stream, &[], fed);
    assert!(!rig.core.takes_feed() && rig.core.status().waits_for_executor);
    assert!(
        rig.core
            .readiness()
            .reason
            .contains("until the executor catches up")
    );
    rig.settle();
    assert_eq!(rig.progress.executed, fed);
    // Three segments, and the rest of the one in which the first is.
    let before = fed;
    while rig.core.takes_feed() {
        fed = add(&mut rig, fed + 1);
        assert!(fed < before + 200, "it is held up");
    }
    assert!(fed > before + 100, "held up after {} operations", fed - before);
    // Also after a restart the node is heard out: what waits for the executor does not make it unready.
    rig.restart(false);
    let stream = rig.opened();
    assert!(rig.core.takes_feed());
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(fed + 1),
        commit: fed,
    });
    assert!(!rig.core.takes_feed() && rig.core.readiness().ready);
    // Nor does what it cannot take meanwhile, and it stays so while the executor catches up.
    rig.restart(false);
    let stream = rig.opened();
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(fed + 1),
        commit: fed + 1_000,
    });
    assert!(!rig.core.takes_feed() && rig.core.readiness().ready);
    rig.settle();
    assert!(rig.core.takes_feed() && rig.core.readiness().ready);
    assert_eq!(rig.printed, (1..=fed).collect::<Vec<_>>());
}

#[test]
fn a_run_is_bounded_in_bytes_and_has_one_operation_at_least() {
    let config = Config {
        executing_bytes_max: 10_000,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let mut operations: Vec<Operation> = Vec::new();
    for length in [1, 1, 1 << 20, 1, 4_000, 4_000, 1] {
        let previous = operations.last().map_or(Place::default(), Operation::place);
        operations.push(follows(previous, 1, vec![0; length]));
    }
    rig.feed(stream, &operations, 7);
    let mut runs = Vec::new();
    while let Some(run) = rig.runs.front() {
        runs.push(run.iter().map(|operation| operation.index).collect::<Vec<_>>());
        rig.execute_step();
    }
    assert_eq!(runs, [vec![1, 2], vec![3], vec![4, 5], vec![6, 7]]);
}

#[test]
fn what_was_done_in_part_counts_in_part() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &log(&[1, 1, 1]), 3);
    rig.handle(Event::Executed { through: 2 });
    assert_eq!(rig.progress.executed, 2);
    // Going back, or beyond what was handed out, is not possible.
    rig.handle(Event::Executed { through: 1 });
    assert_eq!(rig.progress.executed, 2);
    rig.handle(Event::Executed { through: 99 });
    assert_eq!(rig.progress.executed, 3);
}
