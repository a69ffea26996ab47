//! Execution on the leader only: who executes, where it goes on, and that nobody waits for one who does not.

use super::rig::{NODE, Rig, follows, log};
use crate::core::{Config, Effect, Event, ExecuteOn, Operation, Place, StartAction, StreamId};

fn on_leader() -> Config {
    Config {
        execute_on: ExecuteOn::Leader,
        cache_bytes: 0,
        trailing_bytes: Some(0),
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    }
}

fn leading(rig: &mut Rig, stream: StreamId, leads: Option<u64>, execute_after: u64) {
    rig.handle(Event::Leading {
        stream,
        leads,
        execute_after,
    });
    // What memory does not have is read back.
    while rig.disk_step() {}
}

/// Holds all of it, committed and on disk; nothing is executed.
fn fed(log: &[Operation]) -> (Rig, StreamId) {
    let mut rig = Rig::with(on_leader(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, log, log.len() as u64);
    rig.settle();
    (rig, stream)
}

fn executed(rig: &mut Rig) -> Vec<u64> {
    rig.settle();
    std::mem::take(&mut rig.printed)
}

fn closed(rig: &mut Rig) -> Option<String> {
    rig.take_others().iter().find_map(|effect| match effect {
        Effect::Close(_, refusal) => Some(refusal.to_string()),
        _ => None,
    })
}

/// What the leader's executor does not do, nobody else can do anything about: with more in the log than an executor may be behind, who
/// leads still has to be heard, behind all that came before.
#[test]
fn who_leads_is_heard_however_much_waits_for_an_executor() {
    let mut rig = Rig::with(on_leader(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let mut previous = Place::default();
    for commit in 1..=300 {
        let operation = follows(previous, 1, vec![b'x'; 60_000]);
        previous = operation.place();
        assert!(rig.core.takes_feed(), "at {commit}");
        rig.feed(stream, &[operation], commit);
        rig.settle();
    }
    assert_eq!(rig.progress.executed, 0);
    // The mark moves, as somebody else executes.
    leading(&mut rig, stream, None, 200);
    rig.settle();
    assert_eq!((rig.progress.executed, rig.progress.durable_executed), (200, 200));
    assert_eq!(rig.printed, [0; 0]);
    // And this one takes over, with more to do than an executor may be behind.
    leading(&mut rig, stream, Some(2), 200);
    assert!(rig.core.takes_feed() && !rig.core.status().waits_for_executor);
    assert_eq!(executed(&mut rig), (201..=300).collect::<Vec<_>>());
    assert_eq!(rig.leader_term, Some(2));
}

/// It would not hear that it leads no more, and go on beside the next one.
#[test]
fn who_takes_nothing_from_its_node_begins_nothing_for_others() {
    let config = Config {
        unpersisted_bytes_max: 256 << 10,
        ..on_leader()
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    leading(&mut rig, stream, Some(2), 0);
    let mut previous = Place::default();
    for commit in 1..=10 {
        let operation = follows(previous, 2, vec![b'x'; 60_000]);
        previous = operation.place();
        rig.feed(stream, &[operation], commit);
    }
    assert!(!rig.core.takes_feed());
    while rig.execute_step() {}
    assert_eq!(rig.printed, [1, 2, 3, 4], "while the disk had room");
    assert_eq!(executed(&mut rig), (1..=10).collect::<Vec<_>>());
}

#[test]
fn only_who_leads_executes_and_behind_the_mark() {
    let ours = log(&[1; 9]);
    for (mark, expected) in [(0, 1..10), (4, 5..10), (9, 10..10)] {
        let (mut rig, stream) = fed(&ours);
        assert!(executed(&mut rig).is_empty());
        leading(&mut rig, stream, None, mark);
        assert!(executed(&mut rig).is_empty());
        assert_eq!((rig.progress.executed, rig.progress.leading_term), (mark, None));
        leading(&mut rig, stream, Some(3), mark);
        assert_eq!(executed(&mut rig), expected.collect::<Vec<_>>());
        assert_eq!(
            (rig.progress.durable_executed, rig.progress.leading_term),
            (9, Some(3))
        );
    }
}

#[test]
fn a_new_term_goes_on_behind_the_mark_forth_or_back_and_the_same_one_where_it_was() {
    let ours = log(&[1; 9]);
    // It has executed up to 6 in term 3, of which 4 are marked.
    for (name, between, term, mark, expected) in [
        ("nobody else has led", None, 5, 4, 5..=9),
        ("somebody else has executed less", Some(5), 5, 5, 6..=9),
        ("and more", Some(8), 5, 8, 9..=9),
        ("the same term", None, 3, 4, 7..=9),
    ] {
        let (mut rig, stream) = fed(&ours[..6]);
        leading(&mut rig, stream, Some(3), 0);
        rig.settle();
        leading(&mut rig, stream, Some(3), 4);
        assert_eq!(executed(&mut rig), [1, 2, 3, 4, 5, 6], "{name}");
        leading(&mut rig, stream, None, 4);
        rig.feed(stream, &ours[6..], 9);
        assert!(executed(&mut rig).is_empty(), "{name}");
        if let Some(mark) = between {
            leading(&mut rig, stream, None, mark);
            rig.settle();
        }
        assert_eq!(rig.progress.executed, between.unwrap_or(0).max(6), "{name}");
        leading(&mut rig, stream, Some(term), mark);
        assert_eq!(executed(&mut rig), expected.collect::<Vec<_>>(), "{name}");
    }
}

/// Both are read back from the disk: what to execute, and the place of a mark that came right behind the leadership.
#[test]
fn what_a_mark_covers_is_not_executed_again_while_its_place_is_being_looked_for() {
    let (mut rig, stream) = fed(&log(&[1; 9]));
    for execute_after in [0, 5] {
        rig.handle(Event::Leading {
            stream,
            leads: Some(3),
            execute_after,
        });
    }
    while rig.disk_step() {}
    assert!(!rig.take_back, "nothing was handed out in vain");
    assert_eq!(executed(&mut rig), [6, 7, 8, 9]);
}

/// The mark is of an earlier process of the same leadership.
#[test]
fn what_the_executor_has_again_already_is_not_taken_back_for_a_mark() {
    let (mut rig, stream) = fed(&log(&[1; 9]));
    leading(&mut rig, stream, Some(3), 0);
    leading(&mut rig, stream, Some(3), 5);
    assert!(!rig.take_back);
    assert_eq!(executed(&mut rig), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_was_handed_out_is_taken_back_when_it_ends_and_counts_for_nothing() {
    let ours = log(&[1; 9]);
    let (mut rig, stream) = fed(&ours);
    leading(&mut rig, stream, Some(3), 0);
    rig.handle(Event::Executed { through: 2 });
    leading(&mut rig, stream, None, 0);
    assert!(rig.take_back);
    assert_eq!(
        (rig.core.status().executing_operations, rig.progress.leading_term),
        (0, None)
    );
    // What is done of it all the same, is not done for this leadership.
    rig.handle(Event::Executed { through: 4 });
    assert_eq!(rig.progress.executed, 2);
    // Before the executor has let go, a new leadership does not begin.
    leading(&mut rig, stream, Some(5), 2);
    rig.handle(Event::Executed { through: 5 });
    assert_eq!((rig.progress.executed, rig.progress.leading_term), (2, None));
    assert_eq!(executed(&mut rig), [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!((rig.leader_term, rig.progress.leading_term), (Some(5), Some(5)));
}

#[test]
fn it_ends_with_the_stream_and_with_the_process() {
    let ours = log(&[1; 9]);
    let (mut rig, stream) = fed(&ours);
    leading(&mut rig, stream, Some(3), 0);
    rig.handle(Event::Executed { through: 4 });
    rig.handle(Event::NodeClosed { stream });
    assert!(rig.take_back);
    assert!(executed(&mut rig).is_empty());
    // The node is back, and still leads.
    let stream = rig.started(StartAction::ResumeFrom(10), 9);
    assert!(executed(&mut rig).is_empty(), "it has not said so");
    leading(&mut rig, stream, Some(3), 1);
    assert_eq!(
        executed(&mut rig),
        [5, 6, 7, 8, 9],
        "nobody else has led that term"
    );
    // A process that starts again knows what is marked, and no more of who executed what.
    rig.restart(false);
    let stream = rig.started(StartAction::ResumeFrom(10), 9);
    leading(&mut rig, stream, Some(3), 7);
    assert_eq!(executed(&mut rig), [8, 9]);
    rig.handle(Event::Stop);
    rig.settle();
    assert!(
        rig.take_others()
            .iter()
            .any(|effect| matches!(effect, Effect::Stopped))
    );
}

#[test]
fn snapshots_and_the_beginning_of_the_log_are_at_the_mark_at_most() {
    let mut ours: Vec<Operation> = Vec::new();
    for _ in 0..100 {
        let previous = ours.last().map_or(Place::default(), Operation::place);
        ours.push(follows(previous, 1, vec![b'x'; 60_000]));
    }
    let (mut rig, stream) = fed(&ours);
    leading(&mut rig, stream, Some(3), 0);
    rig.settle();
    assert_eq!(rig.progress.durable_executed, 100);
    rig.handle(Event::TakeSnapshot { stream, id: 1 });
    let snapshot = |rig: &mut Rig| {
        rig.take_others().into_iter().find_map(|effect| match effect {
            Effect::Snapshot(_, snapshot) => Some(snapshot.place.index),
            _ => None,
        })
    };
    assert_eq!(snapshot(&mut rig), None, "nothing is marked");
    leading(&mut rig, stream, Some(3), 70);
    rig.settle();
    assert_eq!(snapshot(&mut rig), Some(70));
    // The node keeps more than is marked only where it was executed before there were marks.
    rig.handle(Event::SnapshotKept { stream, index: 70 });
    rig.settle();
    let first = rig.core.status().first_index;
    assert!((36..=71).contains(&first), "{first}");
    // So that whoever leads next has all that follows.
    rig.handle(Event::NodeClosed { stream });
    rig.restart(true);
    let last = rig.core.position().last.index;
    let stream = rig.started(StartAction::ResumeFrom(last + 1), last);
    leading(&mut rig, stream, Some(4), 70);
    rig.printed.clear();
    assert_eq!(executed(&mut rig), (71..=last).collect::<Vec<_>>());
}

#[test]
fn what_a_node_has_in_snapshots_is_executed() {
    let ours = log(&[1; 9]);
    let (mut rig, stream) = fed(&ours);
    rig.handle(Event::SnapshotKept { stream, index: 6 });
    rig.settle();
    assert_eq!((rig.progress.executed, rig.core.status().mark), (6, Some(6)));
    leading(&mut rig, stream, Some(3), 0);
    assert_eq!(executed(&mut rig), [7, 8, 9]);
}

#[test]
fn what_was_executed_beside_every_node_is_not_executed_again_and_the_other_way_round() {
    let ours = log(&[1; 9]);
    let (mut rig, _) = Rig::holding(&ours[..5], 5);
    assert_eq!(rig.printed, [1, 2, 3, 4, 5]);
    rig.config.execute_on = ExecuteOn::Leader;
    rig.restart(false);
    rig.printed.clear();
    let stream = rig.started(StartAction::ResumeFrom(6), 5);
    rig.feed(stream, &ours[5..], 9);
    leading(&mut rig, stream, Some(2), 0);
    assert_eq!(executed(&mut rig), [6, 7, 8, 9]);
    rig.config.execute_on = ExecuteOn::EveryNode;
    rig.restart(false);
    rig.started(StartAction::ResumeFrom(10), 9);
    assert!(executed(&mut rig).is_empty());
}

#[test]
fn what_does_not_follow_ends_the_stream() {
    let ours = log(&[1; 3]);
    let (mut rig, stream) = fed(&ours);
    leading(&mut rig, stream, Some(1), 4);
    assert!(closed(&mut rig).unwrap().contains("index 4 is executed"));
    let stream = rig.opened();
    leading(&mut rig, stream, Some(1), 0);
    assert!(closed(&mut rig).unwrap().contains("before it said how to start"));
    let (mut rig, stream) = Rig::holding(&ours, 3);
    leading(&mut rig, stream, Some(1), 0);
    assert!(closed(&mut rig).unwrap().contains("executes beside every node"));
    // Of a stream that is gone it is of no interest.
    let (mut rig, stream) = fed(&ours);
    rig.opened();
    leading(&mut rig, stream, Some(1), 9);
    assert_eq!(
        closed(&mut rig),
        Some("replaced by a newer stream from node 1".to_owned())
    );
}
