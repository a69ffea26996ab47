//! Snapshots: given to the node, taken in the place of the log, and what is dropped for them (design 6.5).

use bytes::Bytes;

use super::rig::{NODE, Rig, cluster, fatal, follows, log, member};
use crate::core::{
    Config, Effect, Event, FetchError, FetchId, Notice, Operation, Place, Readiness, Refusal, Snapshot,
    SnapshotState, StartAction, StreamId,
};

/// The state of the executor `log`.
const STATE: &[u8] = &[1, 1];

const PLACE_8: Place = Place {
    index: 8,
    term: 4,
    running_hash: 88,
};

fn restore(place: Place) -> StartAction {
    StartAction::Restore {
        place,
        size: STATE.len() as u64,
    }
}

fn piece(rig: &mut Rig, stream: StreamId, offset: u64, data: &'static [u8]) {
    rig.handle(Event::RestorePiece {
        stream,
        offset,
        data: Bytes::from_static(data),
    });
}

fn snapshots(rig: &mut Rig) -> Vec<Snapshot> {
    let given = |effect| match effect {
        Effect::Snapshot(_, snapshot) => Some(snapshot),
        _ => None,
    };
    rig.take_others().into_iter().filter_map(given).collect()
}

fn refused(rig: &mut Rig) -> Option<String> {
    rig.take_others().into_iter().find_map(|effect| match effect {
        Effect::Close(_, refusal @ Refusal::Protocol { .. }) => Some(refusal.to_string()),
        _ => None,
    })
}

/// Last, commit and executed index, and the durable executed one.
fn indexes(rig: &Rig) -> (u64, u64, u64, u64) {
    let progress = rig.core.progress();
    (
        progress.last,
        progress.commit,
        progress.executed,
        progress.durable_executed,
    )
}

/// Operations of 60,000 bytes each, which a segment has room for 34 of.
pub(super) fn long_log(operations: u64) -> Vec<Operation> {
    let mut log: Vec<Operation> = Vec::new();
    for _ in 0..operations {
        let previous = log.last().map_or(Place::default(), Operation::place);
        log.push(follows(previous, 1, vec![7; 60_000]));
    }
    log
}

fn small() -> Config {
    Config {
        cache_bytes: 64 << 10,
        trailing_bytes: Some(0),
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    }
}

/// Holds all of it, committed, executed and on disk.
pub(super) fn filled(config: Config, log: &[Operation]) -> (Rig, StreamId) {
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    for operation in log {
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        rig.settle();
    }
    rig.take_others();
    (rig, stream)
}

pub(super) fn fetch(rig: &mut Rig, from: u64) -> Result<Vec<Operation>, FetchError> {
    rig.take_others();
    rig.handle(Event::Fetch {
        id: FetchId(1),
        from,
        to: u64::MAX,
        bytes_max: 1,
    });
    while rig.disk_step() {}
    let answer = |effect| match effect {
        Effect::Fetched { result, .. } => Some(result),
        _ => None,
    };
    rig.take_others().into_iter().find_map(answer).unwrap()
}

#[test]
fn a_snapshot_is_of_what_is_executed_durably() {
    let mut rig = Rig::new();
    let ours = log(&[1, 1, 2]);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.handle(Event::TakeSnapshot { stream, id: 3 });
    rig.handle(Event::TakeSnapshot { stream, id: 4 });
    rig.feed(stream, &ours, 2);
    while rig.execute_step() {}
    assert_eq!(indexes(&rig), (3, 2, 2, 0));
    assert!(snapshots(&mut rig).is_empty(), "a crash would undo the execution");
    rig.settle();
    let expected = Snapshot {
        id: 4,
        place: ours[1].place(),
        state: SnapshotState::Whole(Bytes::from_static(STATE)),
    };
    assert_eq!(
        snapshots(&mut rig),
        std::slice::from_ref(&expected),
        "the last order is answered once"
    );
    // What is executed, but not durably, is not in it.
    rig.feed(stream, &[], 3);
    while rig.execute_step() {}
    rig.handle(Event::TakeSnapshot { stream, id: 5 });
    assert_eq!(snapshots(&mut rig), [Snapshot { id: 5, ..expected }]);
    rig.handle(Event::TakeSnapshot {
        stream: StreamId(99),
        id: 6,
    });
    rig.settle();
    assert!(snapshots(&mut rig).is_empty(), "of another stream");
}

#[test]
fn a_snapshot_takes_the_place_of_everything() {
    // It holds 5, of which 3 are committed; nothing, or 5 with another tail.
    for (terms, commit) in [(&[1, 1, 1, 1, 1][..], 3), (&[], 0), (&[1, 1, 1, 2, 2], 3)] {
        for power_failure in [false, true] {
            let ours = log(terms);
            let (mut rig, _) = Rig::holding(&ours, commit);
            let stream = rig.started(restore(PLACE_8), 20);
            piece(&mut rig, stream, 0, &STATE[..1]);
            rig.settle();
            assert_eq!(rig.core.progress().commit, commit, "half a snapshot is none");
            piece(&mut rig, stream, 1, &STATE[1..]);
            assert!(!rig.core.takes_feed(), "until it is on disk");
            rig.settle();
            assert_eq!(indexes(&rig), (8, 8, 8, 8));
            assert_eq!(rig.progress, rig.core.progress(), "and the node was told");
            let told = Notice::Restored { node: NODE, index: 8 };
            let restored = |effect: &Effect| matches!(effect, Effect::Notice(notice) if *notice == told);
            assert!(rig.take_others().iter().any(restored));
            let next = follows(PLACE_8, 4, "operation-9");
            assert!(rig.core.takes_feed());
            rig.feed(stream, std::slice::from_ref(&next), 9);
            rig.settle();
            assert_eq!(rig.printed.last(), Some(&9));
            assert_eq!(fetch(&mut rig, 8), Err(FetchError::Compacted { first: 9 }));
            assert_eq!(fetch(&mut rig, 9), Ok(vec![next.clone()]));
            rig.restart(power_failure);
            assert_eq!(indexes(&rig), (9, 9, 9, 9));
            let position = rig.core.position();
            assert_eq!((position.first_index, position.last), (9, next.place()));
            assert_eq!(
                (position.cluster, position.member),
                (Some(cluster(1)), Some(member(11)))
            );
            assert_eq!(fetch(&mut rig, 8), Err(FetchError::Compacted { first: 9 }));
        }
    }
}

#[test]
fn what_is_restored_and_not_followed_by_anything_is_there_after_a_restart() {
    let (mut rig, _) = Rig::holding(&log(&[1, 1]), 2);
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    rig.settle();
    rig.restart(true);
    let position = rig.core.position();
    assert_eq!(
        (
            position.first_index,
            position.last,
            position.commit,
            position.executed
        ),
        (0, PLACE_8, PLACE_8, PLACE_8)
    );
    assert_eq!(rig.core.status().compacted_through, 8);
    rig.started(StartAction::ResumeFrom(9), 8);
    assert!(rig.core.readiness().ready);
}

#[test]
fn a_snapshot_that_waits_for_a_stuck_executor_makes_nothing_unready() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 20);
    rig.feed(stream, &log(&[1, 1, 1]), 3);
    let stream = rig.started(restore(PLACE_8), 20);
    piece(&mut rig, stream, 0, &STATE[..1]);
    assert!(!rig.core.readiness().ready, "the node has not sent all of it");
    piece(&mut rig, stream, 1, &STATE[1..]);
    while rig.disk_step() || rig.wake_step() {}
    let Readiness { ready, reason } = rig.core.readiness();
    assert!(ready && reason.contains("a snapshot waits"), "{reason}");
    assert_eq!(rig.core.progress().executed, 0);
    rig.settle();
    assert_eq!(indexes(&rig), (8, 8, 8, 8));
    assert!(!rig.core.readiness().ready, "20 were committed");
}

#[test]
fn a_snapshot_waits_for_the_executor_and_nothing_of_before_is_executed_after_it() {
    let ours = log(&[1, 1, 1]);
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &ours, 3);
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    while rig.disk_step() || rig.wake_step() {}
    assert_eq!(rig.core.progress().executed, 0, "the executor is slow");
    rig.settle();
    assert_eq!(
        (indexes(&rig), rig.printed.as_slice()),
        ((8, 8, 8, 8), &[1, 2, 3][..])
    );
}

#[test]
fn an_interrupted_restore_leaves_what_was_and_begins_again() {
    let ours = log(&[1, 1, 1]);
    let (mut rig, _) = Rig::holding(&ours, 2);
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, &STATE[..1]);
    rig.handle(Event::NodeClosed { stream });
    rig.settle();
    assert_eq!(rig.core.position().last, ours[2].place());
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 1, &STATE[1..]);
    assert!(
        refused(&mut rig).is_some(),
        "it has to begin with the first piece"
    );
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    rig.settle();
    assert_eq!(rig.core.position().last, PLACE_8);
}

#[test]
fn a_stream_that_opens_while_a_snapshot_goes_to_disk_is_told_what_is_there_then() {
    let (mut rig, _) = Rig::holding(&log(&[1]), 1);
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    rig.take_others();
    let stream = rig.opened();
    let positions = |rig: &mut Rig| -> Vec<(StreamId, u64)> {
        let told = |effect| match effect {
            Effect::Position(stream, position) => Some((stream, position.last.index)),
            _ => None,
        };
        rig.take_others().into_iter().filter_map(told).collect()
    };
    assert_eq!(positions(&mut rig), []);
    rig.settle();
    assert_eq!(positions(&mut rig), [(stream, 8)]);
    // Stopping meanwhile writes it, too.
    let (mut rig, _) = Rig::holding(&log(&[1]), 1);
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    rig.handle(Event::Stop);
    rig.settle();
    assert!(matches!(rig.others.last(), Some(Effect::Stopped)));
    rig.restart(true);
    assert_eq!(rig.core.position().executed, PLACE_8);
}

#[test]
fn what_is_no_snapshot_is_refused_and_nothing_changes() {
    type Pieces = &'static [(u64, &'static [u8])];
    let size = |size| StartAction::Restore { place: PLACE_8, size };
    let at = |index| StartAction::Restore {
        place: Place { index, ..PLACE_8 },
        size: 2,
    };
    let cases: [(&str, StartAction, Pieces); 13] = [
        ("it is committed", at(3), &[]),
        ("it is below", at(0), &[]),
        ("it is too large", size(3), &[]),
        ("it is far too large", size(u64::MAX), &[]),
        ("it was not announced", StartAction::ResumeFrom(6), &[(0, STATE)]),
        ("a gap", size(3), &[(0, &[1]), (2, &[1])]),
        ("a step back", size(3), &[(0, &[1]), (0, &[1])]),
        ("more than announced", size(2), &[(0, &[1]), (1, &[1, 1])]),
        ("an empty piece", size(2), &[(0, &[])]),
        ("no state at all", size(0), &[(0, &[])]),
        ("another version", size(2), &[(0, &[9, 1])]),
        ("another executor", size(2), &[(0, &[1, 9])]),
        ("a longer state", size(3), &[(0, &[1, 1, 1])]),
    ];
    for (name, action, pieces) in cases {
        let ours = log(&[1, 1, 1, 1, 1]);
        let (mut rig, _) = Rig::holding(&ours, 3);
        let stream = rig.started(action, 3);
        for (offset, data) in pieces {
            piece(&mut rig, stream, *offset, data);
        }
        let why = refused(&mut rig).unwrap_or_else(|| panic!("{name} is refused"));
        assert!(
            why.starts_with("node 1 broke") && !why.contains('\n'),
            "{name}: {why}"
        );
        rig.settle();
        assert_eq!(
            (indexes(&rig), fatal(&rig.others)),
            ((5, 3, 3, 3), None),
            "{name}"
        );
        rig.started(StartAction::ResumeFrom(6), 3);
        assert_eq!(refused(&mut rig), None, "{name}: the node is welcome again");
    }
}

#[test]
fn a_node_that_says_how_to_start_in_the_middle_of_a_restore_is_refused() {
    let mut rig = Rig::new();
    let stream = rig.started(restore(PLACE_8), 8);
    piece(&mut rig, stream, 0, STATE);
    rig.handle(Event::Start {
        stream,
        action: StartAction::ResumeFrom(1),
        commit: 0,
    });
    assert!(refused(&mut rig).is_some());
    rig.settle();
    assert_eq!(rig.core.position().last, PLACE_8, "it was under way");
}

#[test]
fn only_whole_segments_that_nobody_needs_are_dropped() {
    let ours = long_log(150);
    for (trailing_bytes, kept, least, most) in [
        (Some(0), 0, 0, 0),
        (Some(0), 20, 0, 0),
        (Some(0), 100, 66, 100),
        (Some(0), u64::MAX, 100, 149),
        (Some(3 << 20), 100, 60, 100),
        (Some(5 << 20), u64::MAX, 33, 66),
        (Some(1 << 30), u64::MAX, 0, 0),
        (None, u64::MAX, 80, 120),
    ] {
        let config = Config {
            trailing_bytes,
            ..small()
        };
        let (mut rig, stream) = filled(config, &ours);
        rig.handle(Event::SnapshotKept { stream, index: kept });
        rig.settle();
        let through = rig.core.status().compacted_through;
        assert!(
            (least..=most).contains(&through),
            "{trailing_bytes:?}, kept {kept}: dropped through {through}"
        );
        let first = through + 1;
        assert_eq!(rig.core.position().first_index, first);
        if through > 0 {
            for dropped in [1, through] {
                assert_eq!(fetch(&mut rig, dropped), Err(FetchError::Compacted { first }));
            }
        }
        let at = usize::try_from(through).unwrap();
        assert_eq!(fetch(&mut rig, first), Ok(vec![ours[at].clone()]));
        rig.restart(true);
        let (first_index, last) = (rig.core.position().first_index, rig.core.position().last);
        assert_eq!((first_index, last), (first, ours[149].place()));
    }
}

#[test]
fn what_is_not_executed_stays_whatever_the_node_holds() {
    let ours = long_log(120);
    let mut rig = Rig::with(small(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.handle(Event::SnapshotKept {
        stream,
        index: u64::MAX,
    });
    for operation in &ours {
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        while rig.disk_step() || rig.wake_step() {}
    }
    assert_eq!(rig.core.status().compacted_through, 0);
    rig.settle();
    assert!(rig.core.status().compacted_through > 60);
    assert_eq!(rig.printed, (1..=120).collect::<Vec<_>>());
}

#[test]
fn the_disk_is_bounded_while_operations_come_for_ever() {
    let mut rig = Rig::with(small(), 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let mut previous = Place::default();
    let mut most = 0;
    for round in 0..2_000_u64 {
        let operation = follows(previous, 1, vec![7; 60_000]);
        previous = operation.place();
        rig.feed(stream, &[operation], previous.index);
        rig.settle();
        if round % 20 == 19 {
            let index = previous.index - 10;
            rig.handle(Event::SnapshotKept { stream, index });
            rig.settle();
        }
        most = most.max(rig.disk.used_bytes());
    }
    // What is needed, what is written to and prepared, and two segments to be used again.
    assert!(most < 7 * (2 << 20), "{most} bytes");
}

#[test]
fn on_a_full_disk_what_trails_is_dropped_and_the_log_goes_on() {
    let config = Config {
        trailing_bytes: Some(1 << 30),
        ..small()
    };
    let ours = long_log(300);
    let (mut rig, stream) = filled(config, &ours[..150]);
    rig.handle(Event::SnapshotKept { stream, index: 150 });
    rig.settle();
    assert_eq!(rig.core.status().compacted_through, 0);
    // A block is left, for the small file that says where the log begins.
    rig.disk.limit_to(rig.disk.used_bytes() + 4096);
    for operation in &ours[150..] {
        rig.feed(stream, std::slice::from_ref(operation), operation.index);
        for _ in 0..20 {
            let _ = rig.disk_step() || rig.execute_step() || rig.wake_step();
        }
        // A node's snapshots follow what is executed.
        let index = rig.core.progress().durable_executed;
        rig.handle(Event::SnapshotKept { stream, index });
    }
    let full: Vec<bool> = rig
        .take_others()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Notice(Notice::DiskFull { full, .. }) => Some(full),
            _ => None,
        })
        .collect();
    assert!(full.starts_with(&[true, false]), "{full:?}");
    assert!(rig.core.status().compacted_through > 100);
    assert_eq!(indexes(&rig), (300, 300, 300, 300));
    rig.restart(true);
    assert_eq!(indexes(&rig), (300, 300, 300, 300));
}

/// A step of the story below.
enum Step {
    Feed(std::ops::Range<usize>),
    Kept(u64),
    Restart,
    Restore(usize),
}

/// Killed, or without power, behind each operation of the disk, at whatever it does then.
#[test]
fn dying_at_any_point_of_compaction_and_restore_leaves_what_was_or_what_comes() {
    let ours = long_log(190);
    let story = [
        Step::Feed(0..80),
        Step::Kept(70),
        Step::Feed(80..100),
        Step::Restart,
        Step::Kept(95),
        Step::Feed(100..101),
        Step::Restore(180),
        Step::Feed(180..182),
        Step::Restart,
        Step::Feed(182..190),
        Step::Kept(190),
    ];
    let mut operations = 0;
    for steps_to_live in (0..).step_by(3) {
        for power_failure in [false, true] {
            let mut life = Life {
                rig: Rig::with(small(), steps_to_live),
                steps_to_live: Some(steps_to_live),
                power_failure,
                durable: 0,
                first: 1,
            };
            for step in &story {
                life.go(&ours, step);
            }
            assert_eq!(life.rig.core.position().last, ours[189].place());
            assert_eq!(life.rig.core.progress().durable_executed, 190);
            let first = life.rig.core.status().compacted_through;
            let at = usize::try_from(first).unwrap();
            if let Some(expected) = ours.get(at) {
                assert_eq!(fetch(&mut life.rig, first + 1), Ok(vec![expected.clone()]));
            }
            if life.steps_to_live.is_some() {
                operations = steps_to_live;
            }
        }
        if operations > 0 {
            break;
        }
    }
    assert!(operations > 150, "{operations} operations of the disk");
}

struct Life {
    rig: Rig,
    /// Operations of the disk until it dies, once.
    steps_to_live: Option<u64>,
    power_failure: bool,
    /// What the node was told is durable.
    durable: u64,
    /// The log began here.
    first: u64,
}

impl Life {
    fn go(&mut self, log: &[Operation], step: &Step) {
        match step {
            Step::Restart => self.die(),
            Step::Kept(index) => {
                let stream = self.stream(log, usize::try_from(*index).unwrap());
                self.rig.handle(Event::SnapshotKept {
                    stream,
                    index: *index,
                });
                self.settle();
            }
            Step::Feed(range) => {
                // Again from where it is, if it died on the way.
                while self.rig.core.progress().durable_executed < range.end as u64 {
                    let stream = self.stream(log, range.start);
                    let last = usize::try_from(self.rig.core.progress().last).unwrap();
                    for operation in log.get(last..range.end).unwrap_or_default() {
                        self.rig
                            .feed(stream, std::slice::from_ref(operation), operation.index);
                        if !self.settle() {
                            break;
                        }
                    }
                    self.settle();
                }
            }
            Step::Restore(to) => {
                while self.rig.core.progress().last < *to as u64 {
                    self.stream(log, *to);
                }
            }
        }
    }

    /// A stream of a node whose log begins behind `base`, if need be with a snapshot of there.
    fn stream(&mut self, log: &[Operation], base: usize) -> StreamId {
        loop {
            let stream = self.rig.opened();
            let (last, commit) = (
                self.rig.core.position().last.index,
                self.rig.core.position().commit.index,
            );
            let action = if last < base as u64 {
                restore(log[base - 1].place())
            } else {
                StartAction::ResumeFrom(last + 1)
            };
            self.rig.handle(Event::Start {
                stream,
                action,
                commit,
            });
            if last >= base as u64 {
                return stream;
            }
            piece(&mut self.rig, stream, 0, STATE);
            if self.settle() {
                return stream;
            }
        }
    }

    /// Until nothing moves any more; false if it died before.
    fn settle(&mut self) -> bool {
        loop {
            if self.steps_to_live == Some(0) {
                self.steps_to_live = None;
                self.die();
                return false;
            }
            let disk = self.rig.disk_step();
            if disk {
                self.steps_to_live = self.steps_to_live.map(|left| left - 1);
            }
            if !disk && !self.rig.execute_step() && !self.rig.wake_step() {
                self.durable = self.rig.core.progress().durable_executed;
                return true;
            }
        }
    }

    fn die(&mut self) {
        let before = self.rig.core.progress();
        self.rig.restart(self.power_failure);
        let (now, status) = (self.rig.core.progress(), self.rig.core.status());
        assert!(now.durable_executed >= before.durable_executed.max(self.durable));
        assert!(status.compacted_through <= now.durable_executed);
        assert!(
            status.compacted_through + 1 >= self.first,
            "what was dropped stays dropped"
        );
        self.first = status.compacted_through + 1;
    }
}
