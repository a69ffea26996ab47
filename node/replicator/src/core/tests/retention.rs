//! What stays of the log for whoever watches it.

use std::time::Duration;

use super::rig::{NODE, Rig, follows, log};
use super::snapshots::{fetch, filled, long_log};
use crate::core::{Config, Event, FetchError, Place, Retention, StartAction};

/// Operations that a segment has room for.
const PER_SEGMENT: u64 = 34;
const AGE: Duration = Duration::from_secs(32);

fn config(retention: Retention) -> Config {
    Config {
        cache_bytes: 64 << 10,
        retention,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    }
}

fn tick(rig: &mut Rig, unix_millis: u64) {
    rig.handle(Event::Tick { unix_millis });
    rig.settle();
}

fn dropped(rig: &Rig) -> u64 {
    rig.core.status().compacted_through
}

#[test]
fn history_is_dropped_beyond_any_limit_and_what_is_needed_is_not() {
    let ours = long_log(150);
    let mib = |mib: u64| Some(mib << 20);
    for (name, operations, bytes, kept, (least, most)) in [
        ("operations", Some(60), None, u64::MAX, (57, 90)),
        ("none of them", Some(0), None, u64::MAX, (100, 149)),
        ("more than there are", Some(150), None, u64::MAX, (0, 0)),
        ("bytes", None, mib(5), u64::MAX, (33, 66)),
        ("more than there are", None, mib(12), u64::MAX, (0, 0)),
        (
            "both, of which bytes are beyond",
            Some(140),
            mib(5),
            u64::MAX,
            (33, 66),
        ),
        (
            "both, of which operations are",
            Some(60),
            mib(12),
            u64::MAX,
            (57, 90),
        ),
        ("the node needs it", Some(0), mib(0), 20, (0, 0)),
        ("the node needs some of it", Some(0), mib(0), 100, (67, 100)),
    ] {
        let retention = Retention {
            operations,
            bytes,
            age: None,
        };
        let (mut rig, stream) = filled(config(retention), &ours);
        rig.handle(Event::SnapshotKept { stream, index: kept });
        rig.settle();
        let through = dropped(&rig);
        assert!(
            (least..=most).contains(&through),
            "{name}: dropped through {through}"
        );
        assert!(!rig.core.status().history_cut_short, "{name}");
        let first = through + 1;
        if through > 0 {
            assert_eq!(
                fetch(&mut rig, through),
                Err(FetchError::Compacted { first }),
                "{name}"
            );
        }
        let at = usize::try_from(through).unwrap();
        assert_eq!(fetch(&mut rig, first), Ok(vec![ours[at].clone()]), "{name}");
        rig.restart(true);
        assert_eq!(dropped(&rig), through, "{name}");
        let before = at.checked_sub(1).map_or(Place::default(), |at| ours[at].place());
        assert_eq!(rig.core.status().before_first, before, "{name}");
    }
}

#[test]
fn the_volume_bounds_what_no_limit_does() {
    // 36 MB on a volume of 64 MiB.
    for (retention, is_cut_short) in [
        (
            Retention {
                operations: Some(u64::MAX),
                ..Retention::default()
            },
            true,
        ),
        (
            Retention {
                bytes: Some(u64::MAX),
                ..Retention::default()
            },
            true,
        ),
        (
            Retention {
                age: Some(AGE),
                ..Retention::default()
            },
            true,
        ),
        (
            Retention {
                bytes: Some(8 << 20),
                ..Retention::default()
            },
            false,
        ),
    ] {
        let mut rig = Rig::with(config(retention), 1);
        let stream = rig.started(StartAction::ResumeFrom(1), 0);
        let mut previous = Place::default();
        let mut most = 0;
        for _ in 0..600 {
            let operation = follows(previous, 1, vec![7; 60_000]);
            previous = operation.place();
            rig.feed(stream, &[operation], previous.index);
            rig.settle();
            let index = previous.index;
            rig.handle(Event::SnapshotKept { stream, index });
            rig.settle();
            most = most.max(rig.disk.used_bytes());
        }
        let status = rig.core.status();
        assert_eq!(status.history_room_bytes, 16 << 20);
        assert_eq!(status.history_cut_short, is_cut_short, "{retention:?}");
        // What is kept, the segments that are written to and prepared, one that is not beyond as a whole, and two to be used again.
        let least = if is_cut_short { 16 << 20 } else { 8 << 20 };
        assert!(status.wal_bytes >= least, "{retention:?}: {status:?}");
        assert!(most <= (16 << 20) + 5 * (2 << 20), "{retention:?}: {most} bytes");
    }
}

#[test]
fn what_is_old_is_dropped_also_while_nothing_comes() {
    let ours = long_log(150);
    let retention = Retention {
        age: Some(AGE),
        ..Retention::default()
    };
    for (name, restart, clocks) in [
        ("it runs on", None, [11_000, 41_999, 42_000]),
        ("it is started again", Some(false), [11_000, 41_999, 42_000]),
        ("after a power failure", Some(true), [11_000, 41_999, 42_000]),
        (
            "with a clock that was set back",
            Some(true),
            [3_000, 41_999, 42_000],
        ),
    ] {
        let (mut rig, stream) = filled(config(retention), &ours[..80]);
        rig.handle(Event::SnapshotKept {
            stream,
            index: u64::MAX,
        });
        tick(&mut rig, 10_000);
        for operation in &ours[80..] {
            rig.feed(stream, std::slice::from_ref(operation), operation.index);
            rig.settle();
        }
        tick(&mut rig, 20_000);
        if let Some(power_failure) = restart {
            rig.restart(power_failure);
            let stream = rig.started(StartAction::ResumeFrom(151), 150);
            rig.handle(Event::SnapshotKept {
                stream,
                index: u64::MAX,
            });
        }
        for (clock, is_aged) in clocks.into_iter().zip([false, false, true]) {
            tick(&mut rig, clock);
            let through = dropped(&rig);
            assert_eq!(through > 0, is_aged, "{name}, at {clock}: {through}");
            assert!(through <= 80, "{name}, at {clock}: {through}");
        }
        assert!(dropped(&rig) > 80 - PER_SEGMENT, "{name}");
        tick(&mut rig, 99_000);
        assert!(dropped(&rig) > 100, "{name}");
        let through = dropped(&rig);
        rig.restart(true);
        assert_eq!(dropped(&rig), through, "{name}");
    }
}

#[test]
fn ages_begin_where_nobody_asked_for_them_before() {
    let ours = long_log(150);
    let retention = Retention {
        age: Some(AGE),
        ..Retention::default()
    };
    // Without ages, as a replicator of an earlier version leaves its folder.
    let limit = Retention {
        operations: Some(1_000),
        ..Retention::default()
    };
    let (mut rig, _) = filled(config(limit), &ours);
    tick(&mut rig, 5_000);
    rig.config.retention = retention;
    for (clock, is_dropped) in [(100_000, false), (131_999, false), (132_000, true)] {
        if clock == 100_000 {
            rig.restart(true);
            let stream = rig.started(StartAction::ResumeFrom(151), 150);
            rig.handle(Event::SnapshotKept {
                stream,
                index: u64::MAX,
            });
        }
        tick(&mut rig, clock);
        assert_eq!(dropped(&rig) > 0, is_dropped, "{clock}");
    }
}

#[test]
fn a_clock_writes_nothing_where_nothing_is_committed() {
    let retention = Retention {
        age: Some(AGE),
        ..Retention::default()
    };
    let (mut rig, _) = filled(config(retention), &log(&[1, 1, 1]));
    tick(&mut rig, 10_000);
    for second in 11..200 {
        rig.handle(Event::Tick {
            unix_millis: second * 1_000,
        });
        assert!(!rig.wake && rig.disk_queue.is_empty(), "{second}");
    }
}
