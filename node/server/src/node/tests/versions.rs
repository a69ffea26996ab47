//! Folders and clusters of another version than the node that meets them. The later of the two versions supports
//! [`FeatureLevel::REHEARSED`], which no program does.

use super::*;

const REFUSAL: &str = "the cluster is at feature level 2, which never goes back, and this version supports level 1: run one that \
                       supports level 2";

fn start(disk: &MemoryDisk, supports: Supports) -> Result<Alone, OpenError> {
    let peers = BTreeMap::from([(1, "node1:5001".to_owned())]);
    let mut alone = Alone::open_version(disk.clone(), peers, SnapshotPolicy::default(), supports)?;
    alone.run(Duration::from_secs(10));
    Ok(alone)
}

fn level(alone: &Alone) -> Option<FeatureLevel> {
    alone.node.status(alone.now).feature_level
}

#[test]
fn a_folder_of_an_earlier_version_is_raised_by_itself_and_never_goes_back() {
    let earlier = start(&MemoryDisk::new(1 << 30), Supports::default()).unwrap();
    assert_eq!(level(&earlier), Some(FeatureLevel::FIRST));
    let later = start(&earlier.disk, Supports::REHEARSAL).unwrap();
    assert_eq!(level(&later), Some(FeatureLevel::REHEARSED));
    let line = "Leader Node 1 raises the cluster's feature level from 1 to 2, as every member supports it";
    assert!(
        later.notices.iter().any(|told| told == line),
        "{:?}",
        later.notices
    );
    let refused = start(&later.disk, Supports::default()).err().unwrap().to_string();
    assert_eq!(
        refused,
        format!("cannot use data folder {}: {REFUSAL}", later.disk.folder())
    );
    let again = start(&later.disk, Supports::REHEARSAL).unwrap();
    assert_eq!(level(&again), Some(FeatureLevel::REHEARSED));
    assert!(!again.notices.iter().any(|told| told == line), "it is so already");
}

#[test]
fn a_version_that_has_dropped_a_folders_level_says_which_one_has_to_come_before() {
    let alone = start(&MemoryDisk::new(1 << 30), Supports::default()).unwrap();
    let (min, max) = (FeatureLevel::REHEARSED, FeatureLevel::REHEARSED);
    let refused = start(&alone.disk, Supports::new(min, max).unwrap());
    let refused = refused.err().unwrap().to_string();
    assert!(
        refused.contains("first run one that supports both 1 and 2 on all nodes"),
        "{refused}"
    );
}

/// A new node of an earlier version is added to a cluster that is beyond it.
#[test]
fn an_invitation_to_a_cluster_of_a_higher_level_is_declined() {
    let invite = |supports| {
        let (disk, policy) = (MemoryDisk::new(1 << 30), SnapshotPolicy::default());
        let mut alone = Alone::open_version(disk, BTreeMap::new(), policy, supports).unwrap();
        for _ in 0..3 {
            let invitation = Input::Invited {
                cluster_id: ClusterId::new(9).unwrap(),
                bootstrap: others(),
                level: FeatureLevel::REHEARSED,
            };
            alone.node.handle(alone.now, invitation);
            alone.run(Duration::from_millis(100));
        }
        alone
    };
    let alone = invite(Supports::default());
    let status = alone.node.status(alone.now);
    let why = format!("cannot join cluster 0000000000000009: {REFUSAL}");
    assert_eq!(
        (status.cluster_id, status.waiting_for.as_ref()),
        (None, Some(&why))
    );
    let told = alone
        .notices
        .iter()
        .filter(|told| **told == format!("Node 1 {why}"));
    assert_eq!(told.count(), 1, "{:?}", alone.notices);
    let alone = invite(Supports::REHEARSAL);
    assert_eq!(alone.node.cluster_id(), ClusterId::new(9));
}
