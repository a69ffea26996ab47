//! Lazy writing, a full disk, a disk that fails, and stopping.

use raftlog_storage::DiskErrorKind;

use super::rig::{NODE, Rig, fatal, follows, log};
use crate::core::{Config, Effect, Event, Notice, Operation, Place, Refusal, StartAction};

#[test]
fn neither_execution_nor_progress_waits_for_the_disk() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.settle();
    let before = rig.disk.syncs();
    rig.feed(stream, &log(&[1, 1, 1]), 3);
    while rig.execute_step() {}
    assert_eq!(
        (rig.progress.last, rig.progress.commit, rig.progress.executed),
        (3, 3, 3)
    );
    assert_eq!((rig.progress.durable_executed, rig.disk.syncs()), (0, before));
    // A moment later, all of it is written at once.
    rig.settle();
    assert_eq!((rig.progress.durable_executed, rig.disk.syncs()), (3, before + 1));
    assert!(!rig.wake, "nothing is left to do: idle costs nothing");
}

#[test]
fn much_is_written_without_waiting() {
    let config = Config {
        write_bytes: 10_000,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.settle();
    rig.feed(stream, &[follows(Place::default(), 1, vec![0; 20_000])], 0);
    while rig.disk_step() {}
    assert_eq!(rig.core.status().persisted, 1);
}

#[test]
fn the_executed_index_on_disk_never_outruns_the_executor() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &log(&[1, 1, 1]), 3);
    while rig.disk_step() || rig.wake_step() {}
    assert_eq!(rig.core.status().persisted, 3);
    assert_eq!(rig.progress.durable_executed, 0);
    rig.restart(false);
    assert_eq!(rig.core.position().executed.index, 0);
    assert_eq!(rig.core.position().commit.index, 3);
}

#[test]
fn a_full_disk_holds_up_the_feed_at_a_limit_and_goes_on_when_there_is_room() {
    let config = Config {
        unpersisted_bytes_max: 4 << 20,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.settle();
    rig.disk.limit_to(rig.disk.used_bytes());
    let mut previous = Place::default();
    let mut fed = Vec::new();
    while rig.core.takes_feed() {
        let operation = follows(previous, 1, vec![7; 100_000]);
        previous = operation.place();
        fed.push(previous.index);
        rig.feed(stream, &[operation], previous.index);
        while rig.disk_step() || rig.execute_step() {}
        assert!(fed.len() < 1_000, "the feed is held up");
    }
    assert!(rig.core.status().disk_full);
    assert!(
        rig.others
            .iter()
            .any(|e| matches!(e, Effect::Notice(Notice::DiskFull { full: true, .. })))
    );
    assert_eq!(rig.progress.executed, previous.index, "execution goes on");
    // As long as there is no room, it asks now and then.
    for _ in 0..3 {
        assert!(rig.wake_step());
        while rig.disk_step() {}
        assert!(rig.core.status().disk_full);
    }
    rig.disk.limit_to(64 << 20);
    rig.settle();
    assert!(!rig.core.status().disk_full && rig.core.takes_feed());
    assert_eq!(rig.progress.durable_executed, previous.index);
    rig.restart(true);
    assert_eq!(rig.core.position().executed, previous);
    assert_eq!(rig.printed, fed);
}

#[test]
fn a_failed_write_is_fatal() {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.settle();
    rig.feed(stream, &log(&[1]), 1);
    rig.disk.fail_next(DiskErrorKind::Failed);
    rig.settle();
    assert!(fatal(&rig.others).is_some(), "{:?}", rig.others);
}

#[test]
fn stopping_writes_all_that_is_known() {
    let ours = log(&[1, 1, 1]);
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &ours, 2);
    rig.take_others();
    rig.handle(Event::Stop);
    assert!(
        matches!(rig.others[..], [Effect::Close(s, Refusal::Stopping)] if s == stream),
        "{:?}",
        rig.others
    );
    // Another node is sent away, and what the executor has is waited for.
    rig.opened();
    while rig.disk_step() {}
    assert!(!rig.others.iter().any(|effect| matches!(effect, Effect::Stopped)));
    while rig.execute_step() || rig.disk_step() {}
    assert!(
        matches!(rig.others.last(), Some(Effect::Stopped)),
        "{:?}",
        rig.others
    );
    rig.restart(true);
    let position = rig.core.position();
    assert_eq!(
        (position.last, position.executed),
        (ours[2].place(), ours[1].place())
    );
}

#[test]
fn a_tail_that_was_replaced_stays_replaced() {
    let ours = log(&[1, 1, 1, 1]);
    let theirs = log(&[1, 1, 2, 2, 2]);
    // At whatever point of writing the old tail the new one comes.
    for steps in 0..4 {
        let mut rig = Rig::new();
        let stream = rig.started(StartAction::ResumeFrom(1), 0);
        rig.settle();
        rig.feed(stream, &ours, 2);
        for _ in 0..steps {
            let _ = rig.wake_step() || rig.disk_step();
        }
        rig.feed(stream, &theirs[2..], 2);
        rig.settle();
        rig.feed(stream, &[], 5);
        rig.settle();
        rig.restart(true);
        assert_eq!(rig.core.position().last, theirs[4].place(), "{steps} steps");
        assert_eq!(rig.core.position().commit, theirs[4].place());
    }
}

#[test]
fn a_folder_of_another_replicator_is_refused() {
    let (mut rig, _) = Rig::holding(&log(&[1]), 1);
    let error = crate::core::Replicator::open(Config::new(2), &mut rig.disk, &mut rig.random)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("belongs to node 1, not to node 2") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn a_log_without_its_identity_is_refused() {
    let (mut rig, _) = Rig::holding(&log(&[1]), 1);
    let names = rig.disk.names();
    let identity = names.iter().find(|name| name.to_string() == "identity").unwrap();
    let remove = raftlog_storage::Op::Remove { file: *identity };
    raftlog_storage::Disk::execute(&mut rig.disk, &remove).unwrap();
    assert!(crate::core::Replicator::open(Config::new(NODE), &mut rig.disk, &mut rig.random).is_err());
}

#[test]
fn what_is_not_on_disk_stays_in_memory() {
    let config = Config {
        cache_bytes: 0,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, 1);
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    let ours = log(&[1, 1, 1]);
    rig.feed(stream, &ours, 0);
    let weight: usize = ours.iter().map(Operation::weight).sum();
    assert_eq!(rig.core.status().cached_bytes, weight);
    assert_eq!(rig.core.status().unpersisted_bytes, weight);
    rig.settle();
    assert_eq!(
        (
            rig.core.status().cached_bytes,
            rig.core.status().unpersisted_bytes
        ),
        (0, 0)
    );
}
