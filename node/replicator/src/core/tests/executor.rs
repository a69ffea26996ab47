//! Executors that have a state of their own.

use bytes::Bytes;
use raftlog_raft::ids::ClusterId;

use super::rig::{NODE, Rig, cluster, fatal, follows, log, member};
use crate::core::{
    Config, Effect, Event, ExecutorKind, Operation, Parent, Place, Snapshot, SnapshotState, StartAction,
    StreamId,
};

fn state_machine() -> Config {
    Config {
        executor: ExecutorKind::StateMachine,
        cache_bytes: 64 << 10,
        trailing_bytes: Some(0),
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    }
}

fn attach(rig: &mut Rig, applied: u64, of: Option<ClusterId>) {
    rig.handle(Event::ExecutorAttached { applied, cluster: of });
    while rig.disk_step() {}
}

fn detach(rig: &mut Rig) {
    rig.runs.clear();
    rig.handle(Event::ExecutorDetached);
}

/// Holds all of it, committed and on disk, and what was executed of it.
fn fed(config: Config, log: &[Operation], attached: Option<u64>) -> (Rig, StreamId) {
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    if let Some(applied) = attached {
        attach(&mut rig, applied, None);
    }
    for operation in log {
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        rig.settle();
    }
    (rig, stream)
}

fn long_log(operations: u64) -> Vec<Operation> {
    let mut log: Vec<Operation> = Vec::new();
    for _ in 0..operations {
        let previous = log.last().map_or(Place::default(), Operation::place);
        log.push(follows(previous, 1, vec![7; 60_000]));
    }
    log
}

/// A rig whose log begins after operation 34, as the node keeps a snapshot up to 40.
fn compacted() -> (Rig, StreamId, Vec<Operation>) {
    let ours = long_log(50);
    let (mut rig, stream) = fed(state_machine(), &ours, Some(0));
    rig.handle(Event::SnapshotKept { stream, index: 40 });
    rig.settle();
    let first = rig.core.status().first_index;
    assert!((2..=41).contains(&first), "{first}");
    rig.printed.clear();
    rig.others.clear();
    (rig, stream, ours)
}

fn restores(rig: &mut Rig) -> Vec<String> {
    let told = |effect| match effect {
        Effect::RestoreBegin {
            restore,
            place,
            bytes,
            ..
        } => Some(format!("begin {restore}: {bytes} at {}", place.index)),
        Effect::RestorePiece(data) => Some(format!("piece of {}", data.len())),
        Effect::RestoreAbort(restore) => Some(format!("abort {restore}")),
        _ => None,
    };
    rig.take_others().into_iter().filter_map(told).collect()
}

fn closed(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close(_, refusal) => Some(refusal.to_string()),
        _ => None,
    })
}

fn piece(rig: &mut Rig, stream: StreamId, offset: u64, data: &[u8]) {
    assert!(rig.core.takes_feed());
    rig.handle(Event::RestorePiece {
        stream,
        offset,
        data: Bytes::copy_from_slice(data),
    });
}

#[test]
fn nothing_is_executed_before_a_state_machine_says_what_it_has() {
    let ours = log(&[1; 9]);
    let (mut rig, _) = fed(state_machine(), &ours, None);
    assert_eq!((rig.printed.len(), rig.progress.executed), (0, 0));
    attach(&mut rig, 4, Some(cluster(1)));
    rig.settle();
    assert_eq!(rig.printed, [5, 6, 7, 8, 9]);
    assert_eq!((rig.progress.executed, rig.progress.durable_executed), (9, 9));
}

#[test]
fn a_state_machine_that_comes_back_goes_on_where_it_is_whatever_was_reported() {
    // Fewer than was reported as executed, as many, and more than that.
    for (applied, expected) in [(0, 1..10), (3, 4..10), (6, 7..10), (7, 8..10), (9, 10..10)] {
        let ours = log(&[1; 9]);
        let (mut rig, stream) = fed(state_machine(), &ours[..6], Some(0));
        assert_eq!(rig.progress.executed, 6);
        rig.feed(stream, &ours[6..], 9);
        detach(&mut rig);
        rig.printed.clear();
        attach(&mut rig, applied, (applied > 0).then_some(cluster(1)));
        rig.settle();
        assert_eq!(rig.printed, expected.collect::<Vec<_>>(), "applied {applied}");
        assert_eq!(rig.progress.executed, 9);
    }
}

#[test]
fn it_goes_on_where_it_is_after_a_crash_of_either_or_both() {
    let ours = log(&[1; 9]);
    for applied in 0..=9 {
        for power_failure in [false, true] {
            let (mut rig, _) = fed(state_machine(), &ours, Some(0));
            rig.restart(power_failure);
            rig.printed.clear();
            attach(&mut rig, applied, (applied > 0).then_some(cluster(1)));
            let stream = rig.opened();
            let next = rig.core.position().last.index + 1;
            rig.handle(Event::Start {
                stream,
                action: StartAction::ResumeFrom(next),
                commit: next - 1,
            });
            rig.feed(stream, &ours[usize::try_from(next - 1).unwrap()..], 9);
            rig.settle();
            assert_eq!(rig.printed, (applied + 1..=9).collect::<Vec<_>>());
            assert_eq!(rig.progress.durable_executed, 9);
        }
    }
}

#[test]
fn a_state_machine_that_is_ahead_of_its_replicator_is_waited_for_and_given_nothing_twice() {
    let ours = log(&[1; 9]);
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    attach(&mut rig, 7, Some(cluster(1)));
    for operation in &ours {
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        rig.settle();
        let executed = if operation.index < 7 { 0 } else { operation.index };
        assert_eq!(rig.progress.executed, executed);
    }
    assert_eq!(rig.printed, [8, 9]);
}

/// What it is ahead by may be more than an executor may be behind: it waits for that, and must not be waited for.
#[test]
fn a_state_machine_that_is_far_ahead_does_not_keep_its_replicator_from_catching_up() {
    let ours = long_log(200);
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    attach(&mut rig, 190, Some(cluster(1)));
    for operation in &ours {
        assert!(rig.core.takes_feed(), "at {}", operation.index);
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        rig.settle();
    }
    assert_eq!(rig.printed, (191..=200).collect::<Vec<_>>());
}

#[test]
fn what_it_was_given_when_it_went_away_counts_for_nothing() {
    let ours = log(&[1; 9]);
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    attach(&mut rig, 0, None);
    rig.feed(stream, &ours, 9);
    assert_eq!(rig.core.status().executing_operations, 9);
    detach(&mut rig);
    assert_eq!(rig.core.status().executing_operations, 0);
    rig.settle();
    assert_eq!((rig.progress.executed, rig.printed.len()), (0, 0));
}

#[test]
fn the_state_of_another_cluster_is_refused_unless_it_is_this_clusters_past() {
    let parent = |index| Parent {
        cluster: cluster(2),
        index,
        running_hash: 5,
    };
    for (state_of, applied, parent, is_taken) in [
        (cluster(1), 3, None, true),
        (cluster(2), 3, None, false),
        (cluster(2), 3, Some(parent(3)), true),
        (cluster(2), 3, Some(parent(2)), false),
        (cluster(3), 3, Some(parent(3)), false),
    ] {
        let ours = log(&[1; 5]);
        let mut rig = Rig::with(state_machine(), 1);
        let stream = rig.opened_with(cluster(1), member(11), NODE, parent);
        rig.handle(Event::Start {
            stream,
            action: StartAction::ResumeFrom(1),
            commit: 0,
        });
        rig.feed(stream, &ours, 5);
        rig.settle();
        attach(&mut rig, applied, Some(state_of));
        rig.settle();
        let expected: &[u64] = if is_taken { &[4, 5] } else { &[] };
        assert_eq!(rig.printed, expected, "{state_of} {parent:?}");
        let others = rig.take_others();
        let refusal = others
            .iter()
            .find(|effect| matches!(effect, Effect::RefuseExecutor(_)));
        assert_eq!(refusal.is_none(), is_taken, "{refusal:?}");
    }
}

/// Otherwise its state would say that it has what is of the recovered cluster alone, and is of the one before.
#[test]
fn an_executor_is_given_nothing_of_a_recovered_cluster_before_it_knows_it() {
    let ours = log(&[1, 1, 2, 2]);
    let parent = Parent {
        cluster: cluster(1),
        index: 2,
        running_hash: ours[1].running_hash,
    };
    let (mut rig, old) = fed(state_machine(), &ours[..2], Some(0));
    rig.handle(Event::NodeClosed { stream: old });
    let stream = rig.opened_with(cluster(2), member(12), NODE, Some(parent));
    rig.take_others();
    rig.core.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(3),
        commit: 2,
    });
    rig.feed(stream, &ours[2..], 4);
    rig.settle();
    assert!(
        rig.take_others()
            .iter()
            .any(|effect| matches!(effect, Effect::Reattach))
    );
    assert_eq!(rig.printed, [1, 2], "it serves the cluster of before");
    // It goes, for that, and comes back.
    detach(&mut rig);
    attach(&mut rig, 2, Some(cluster(1)));
    rig.settle();
    assert_eq!(rig.printed, [1, 2, 3, 4]);
}

#[test]
fn a_lost_state_is_rebuilt_from_the_log_where_that_goes_back_so_far() {
    let ours = long_log(50);
    let (mut rig, _) = fed(state_machine(), &ours, Some(0));
    detach(&mut rig);
    rig.printed.clear();
    attach(&mut rig, 0, None);
    rig.settle();
    assert_eq!(rig.printed, (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_lost_state_that_the_log_does_not_have_is_restored_and_the_log_stays() {
    let (mut rig, _, ours) = compacted();
    detach(&mut rig);
    attach(&mut rig, 0, None);
    let others = rig.take_others();
    assert!(closed(&others).is_some_and(|why| why.contains("needs a snapshot")));
    assert!(rig.core.position().needs_state);
    // The node has a snapshot up to 40; the log here goes up to 50.
    let place = ours[39].place();
    let stream = rig.started(StartAction::Restore { place, size: 12 }, 50);
    piece(&mut rig, stream, 0, &[1, 4, 7, 7]);
    rig.handle(Event::RestoreTaken { restore: 1, bytes: 2 });
    piece(&mut rig, stream, 4, &[7; 8]);
    assert_eq!(
        restores(&mut rig),
        ["begin 1: 10 at 40", "piece of 2", "piece of 8"]
    );
    rig.settle();
    assert_eq!(rig.progress.executed, 50, "it holds for good what it has taken");
    rig.handle(Event::Restored {
        restore: 1,
        result: Ok(()),
    });
    rig.settle();
    let position = rig.take_others().into_iter().find_map(|effect| match effect {
        Effect::Position(to, position) if to == stream => Some(position),
        _ => None,
    });
    let position = position.unwrap();
    assert_eq!(
        (position.last.index, position.executed, position.needs_state),
        (50, place, false)
    );
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(51),
        commit: 50,
    });
    attach(&mut rig, 40, Some(cluster(1)));
    rig.settle();
    assert_eq!(rig.printed, (41..=50).collect::<Vec<_>>());
    assert_eq!(rig.progress.durable_executed, 50);
    assert_eq!(fatal(&rig.others), None);
}

/// The node was told that a state is needed, and will say so to whoever is there then.
#[test]
fn a_lost_state_is_asked_for_anew_where_who_needed_it_has_gone() {
    let (mut rig, _, ours) = compacted();
    detach(&mut rig);
    attach(&mut rig, 0, None);
    let stream = rig.opened();
    assert!(rig.core.position().needs_state);
    rig.take_others();
    detach(&mut rig);
    let others = rig.take_others();
    assert!(
        closed(&others).is_some_and(|why| why.contains("went away")),
        "{others:?}"
    );
    // It was on its way.
    let place = ours[39].place();
    let action = StartAction::Restore { place, size: 12 };
    rig.handle(Event::Start {
        stream,
        action,
        commit: 50,
    });
    assert!(closed(&rig.take_others()).is_none());
}

#[test]
fn nothing_that_a_state_machine_may_need_is_dropped_once_it_has_gone_back() {
    let ours = long_log(50);
    let (mut rig, stream) = fed(state_machine(), &ours, Some(0));
    detach(&mut rig);
    attach(&mut rig, 3, Some(cluster(1)));
    rig.handle(Event::SnapshotKept { stream, index: 40 });
    while rig.disk_step() || rig.wake_step() {}
    assert!(rig.core.status().first_index <= 4);
    rig.printed.clear();
    rig.settle();
    assert_eq!(rig.printed, (4..=50).collect::<Vec<_>>());
}

#[test]
fn a_new_replicator_passes_a_snapshot_on_before_it_begins_with_it() {
    let place = Place {
        index: 8,
        term: 4,
        running_hash: 88,
    };
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::Restore { place, size: 5 }, 8);
    assert!(!rig.core.takes_feed(), "nobody is there to take it");
    attach(&mut rig, 0, None);
    piece(&mut rig, stream, 0, &[1, 4, 9, 9, 9]);
    assert_eq!(restores(&mut rig), ["begin 1: 3 at 8", "piece of 3"]);
    rig.settle();
    assert_eq!(rig.core.position().last.index, 0);
    rig.handle(Event::Restored {
        restore: 1,
        result: Ok(()),
    });
    rig.settle();
    assert_eq!(
        (rig.core.position().last, rig.core.position().executed),
        (place, place)
    );
    attach(&mut rig, 8, Some(cluster(1)));
    rig.feed(stream, &[follows(place, 4, "operation-9")], 9);
    rig.settle();
    assert_eq!(rig.printed, [9]);
    // The power fails right behind the executor's answer: it is ahead then.
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::Restore { place, size: 5 }, 8);
    attach(&mut rig, 0, None);
    piece(&mut rig, stream, 0, &[1, 4, 9, 9, 9]);
    rig.restart(true);
    attach(&mut rig, 8, Some(cluster(1)));
    let stream = rig.started(StartAction::Restore { place, size: 5 }, 8);
    rig.others.clear();
    attach(&mut rig, 8, Some(cluster(1)));
    piece(&mut rig, stream, 0, &[1, 4, 9, 9, 9]);
    assert_eq!(restores(&mut rig), [] as [&str; 0], "it has all that");
    rig.settle();
    assert_eq!(rig.core.position().executed, place);
    rig.feed(stream, &[follows(place, 4, "operation-9")], 9);
    rig.settle();
    assert_eq!(rig.printed, [9]);
}

type Breaks = fn(&mut Rig, StreamId);

#[test]
fn a_restore_that_breaks_is_called_off_and_begins_anew() {
    let place = Place {
        index: 8,
        term: 4,
        running_hash: 88,
    };
    let breaks: [(&str, Breaks, bool); 4] = [
        (
            "the node goes",
            |rig, stream| rig.handle(Event::NodeClosed { stream }),
            true,
        ),
        (
            "another comes",
            |rig, _| {
                rig.opened();
            },
            true,
        ),
        (
            "the executor fails",
            |rig, _| {
                rig.handle(Event::Restored {
                    restore: 1,
                    result: Err("disk full".into()),
                });
            },
            true,
        ),
        (
            "the node sends nonsense",
            |rig, stream| piece(rig, stream, 1, b"x"),
            true,
        ),
    ];
    for (name, breaks, aborts) in breaks {
        let mut rig = Rig::with(state_machine(), 1);
        attach(&mut rig, 0, None);
        let stream = rig.started(StartAction::Restore { place, size: 5 }, 8);
        attach(&mut rig, 0, None);
        piece(&mut rig, stream, 0, &[1, 4, 9]);
        restores(&mut rig);
        breaks(&mut rig, stream);
        let told = restores(&mut rig);
        assert_eq!(told == ["abort 1"], aborts, "{name}: {told:?}");
        // What it says of a restore that was called off is of no interest.
        rig.handle(Event::Restored {
            restore: 1,
            result: Ok(()),
        });
        rig.settle();
        assert_eq!(rig.core.position().last.index, 0, "{name}");
        let stream = rig.started(StartAction::Restore { place, size: 4 }, 8);
        attach(&mut rig, 0, None);
        restores(&mut rig);
        piece(&mut rig, stream, 0, &[1, 4, 9, 9]);
        assert_eq!(restores(&mut rig), ["begin 2: 2 at 8", "piece of 2"], "{name}");
        rig.handle(Event::Restored {
            restore: 2,
            result: Ok(()),
        });
        rig.settle();
        assert_eq!(rig.core.position().executed, place, "{name}");
    }
}

#[test]
fn a_slow_executor_holds_up_the_pieces_of_a_snapshot() {
    let place = Place {
        index: 8,
        term: 4,
        running_hash: 88,
    };
    let mut rig = Rig::with(state_machine(), 1);
    let size = 2 + 40 * (1 << 20);
    let stream = rig.started(StartAction::Restore { place, size }, 8);
    attach(&mut rig, 0, None);
    piece(&mut rig, stream, 0, &[1, 4]);
    let mut untaken = 0;
    for number in 0..40 {
        while !rig.core.takes_feed() {
            assert!(untaken > 0);
            rig.handle(Event::RestoreTaken {
                restore: 1,
                bytes: 1 << 20,
            });
            untaken -= 1;
        }
        piece(&mut rig, stream, 2 + number * (1 << 20), &vec![7; 1 << 20]);
        untaken += 1;
        assert!(untaken <= 3);
    }
}

#[test]
fn a_copy_of_the_state_goes_with_the_place_where_it_was_begun() {
    let ours = log(&[1; 9]);
    let (mut rig, stream) = fed(state_machine(), &ours[..5], Some(0));
    rig.handle(Event::TakeSnapshot { stream, id: 7 });
    let asked = |rig: &mut Rig| {
        let others = rig.take_others();
        others
            .iter()
            .filter(|effect| matches!(effect, Effect::CopyState))
            .count()
    };
    assert_eq!(asked(&mut rig), 1);
    rig.handle(Event::CopyBegun);
    // More is executed while it is read out.
    rig.feed(stream, &ours[5..], 9);
    rig.settle();
    assert_eq!(rig.progress.durable_executed, 9);
    rig.handle(Event::Copied { bytes: Some(100) });
    let given = rig.take_others().into_iter().find_map(|effect| match effect {
        Effect::Snapshot(to, snapshot) if to == stream => Some(snapshot),
        _ => None,
    });
    let expected = Snapshot {
        id: 7,
        place: ours[4].place(),
        state: SnapshotState::Copied {
            header: [1, 4],
            bytes: 102,
        },
    };
    assert_eq!(given, Some(expected));
    // One that failed is asked for again, one that breaks off as well.
    rig.handle(Event::TakeSnapshot { stream, id: 8 });
    assert_eq!(asked(&mut rig), 1);
    rig.handle(Event::Copied { bytes: None });
    assert_eq!(asked(&mut rig), 1);
    rig.handle(Event::CopyBegun);
    detach(&mut rig);
    attach(&mut rig, 9, Some(cluster(1)));
    assert_eq!(asked(&mut rig), 1);
}

#[test]
fn a_copy_is_given_only_once_a_crash_would_not_undo_its_place() {
    let ours = log(&[1; 5]);
    let mut rig = Rig::with(state_machine(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    attach(&mut rig, 0, None);
    rig.handle(Event::TakeSnapshot { stream, id: 7 });
    rig.feed(stream, &ours, 5);
    while rig.execute_step() {}
    rig.handle(Event::CopyBegun);
    rig.handle(Event::Copied { bytes: Some(1) });
    let given = |rig: &mut Rig| {
        let others = rig.take_others();
        others.iter().any(|effect| matches!(effect, Effect::Snapshot(..)))
    };
    assert!(!given(&mut rig));
    rig.settle();
    assert!(given(&mut rig));
}

/// Entries without operations fill a node's log, too. It orders a snapshot to be rid of them though nothing was executed since the last.
#[test]
fn an_order_without_anything_executed_since_the_last_snapshot_is_answered() {
    let ours = log(&[1; 5]);
    let (mut rig, stream) = fed(state_machine(), &ours, Some(0));
    rig.handle(Event::SnapshotKept { stream, index: 5 });
    rig.handle(Event::TakeSnapshot { stream, id: 8 });
    rig.handle(Event::CopyBegun);
    rig.handle(Event::Copied { bytes: Some(1) });
    let given = rig.take_others().into_iter().find_map(|effect| match effect {
        Effect::Snapshot(_, snapshot) => Some(snapshot.place.index),
        _ => None,
    });
    assert_eq!(given, Some(5));
}
