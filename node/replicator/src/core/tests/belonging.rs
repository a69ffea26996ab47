//! What the folder says it belongs to, and when.

use raftlog_storage::DiskErrorKind;
use raftlog_storage::identity::Identity;

use super::rig::{Rig, cluster, log, member};
use crate::core::belonging::STORE_IDENTITY;
use crate::core::{Effect, Replicator, StartAction};

fn stored(rig: &mut Rig) -> Identity {
    Identity::load(&mut rig.disk).unwrap().unwrap()
}

/// Up to where the first batch is on disk and the identity is next.
fn with_its_first_batch() -> Rig {
    let mut rig = Rig::new();
    let stream = rig.started(StartAction::ResumeFrom(1), 0);
    rig.feed(stream, &log(&[1, 1, 1]), 3);
    while rig.disk_queue.front().is_none_or(|(id, _)| *id != STORE_IDENTITY) {
        assert_eq!(stored(&mut rig).cluster, None);
        assert!(rig.disk_step() || rig.execute_step() || rig.wake_step());
    }
    assert!(rig.core.status().persisted > 0);
    rig
}

#[test]
fn it_is_stored_behind_the_first_batch_and_a_lost_log_is_refused_then() {
    let mut rig = with_its_first_batch();
    rig.settle();
    let identity = stored(&mut rig);
    assert_eq!(
        (identity.cluster, identity.paired),
        (Some(cluster(1)), Some(member(11)))
    );
    rig.disk.wipe();
    rig.disk_queue.clear();
    raftlog_storage::Disk::execute(&mut rig.disk, &identity.store()).unwrap();
    let refused = Replicator::open(rig.config.clone(), &mut rig.disk, &mut rig.random).unwrap_err();
    assert!(refused.to_string().contains("but no log"), "{refused}");
}

#[test]
fn a_crash_between_first_batch_and_identity_is_made_up_for_at_the_next_start() {
    for power_failure in [false, true] {
        let mut rig = with_its_first_batch();
        rig.restart(power_failure);
        rig.started(StartAction::ResumeFrom(4), 3);
        rig.settle();
        assert_eq!(rig.core.progress().executed, 3);
        assert_eq!(stored(&mut rig).cluster, Some(cluster(1)));
    }
}

#[test]
fn a_full_disk_puts_it_off() {
    let mut rig = with_its_first_batch();
    rig.disk.fail_next(DiskErrorKind::Full);
    rig.settle();
    let failed = |effect: &Effect| matches!(effect, Effect::Fatal(_));
    assert!(!rig.take_others().iter().any(failed));
    rig.restart(false);
    assert_eq!(stored(&mut rig).cluster, Some(cluster(1)));
}
