//! Two versions in one cluster: the later one is a member that supports [`FeatureLevel::REHEARSED`].

use proptest::prelude::*;

use super::*;
use Change::{AddLearner, Remove};

const SECOND: Duration = Duration::from_secs(1);
const FIRST: FeatureLevel = FeatureLevel::FIRST;
const REHEARSED: FeatureLevel = FeatureLevel::REHEARSED;

impl Cluster {
    /// Of that many members those are of the later version.
    fn of_versions(voters: u64, later: &[u64]) -> Self {
        Self::with(voters, |config| {
            if later.contains(&config.id.get()) {
                config.supports = Supports::REHEARSAL;
            }
        })
    }

    /// Restarts a member as of that version.
    fn install_version(&mut self, n: u64, supports: Supports) {
        let config = Config {
            supports,
            ..self.members[&n].config().clone()
        };
        let raft = member(n, self.voters, config, &self.disks[&n], self.now);
        self.members.insert(n, raft);
    }

    fn levels(&self) -> Vec<FeatureLevel> {
        self.members.values().map(Raft::committed_feature_level).collect()
    }

    /// Where in a member's log the level is raised.
    fn raised_at(&self, n: u64) -> Option<u64> {
        let raises = |entry: &&Entry| matches!(entry.payload, Payload::FeatureLevel(_));
        let entry = self.disks[&n].entries.iter().find(raises)?;
        Some(entry.log_index)
    }

    fn left_behind(&self) -> Vec<String> {
        let told = |notice: &&Notice| matches!(notice, Notice::LeftBehind { .. });
        self.notices
            .iter()
            .filter(told)
            .map(ToString::to_string)
            .collect()
    }
}

#[test]
fn a_level_is_raised_when_the_last_member_supports_it() {
    let mut cluster = Cluster::of_versions(3, &[1, 2]);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.levels(), [FIRST; 3], "3 is of the earlier version");
    cluster.install_version(3, Supports::REHEARSAL);
    cluster.run(5 * SECOND);
    let leader = cluster.elect();
    cluster.submit(leader, 2);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.levels(), [REHEARSED; 3]);
    let at = cluster.raised_at(leader).unwrap();
    let folds: Vec<&Fold> = cluster.members.values().map(|raft| raft.log().fold()).collect();
    for fold in &folds {
        assert_eq!(
            fold.rehearsed,
            cluster.members[&leader].log().last().index - at,
            "from its entry on"
        );
        assert_eq!(*fold, folds[0]);
    }
    let raised: Vec<String> = cluster.notices.iter().map(ToString::to_string).collect();
    let line = format!(
        "Leader Node {leader} raises the cluster's feature level from 1 to 2, as every member supports it"
    );
    assert_eq!(raised.iter().filter(|told| **told == line).count(), 1);
    for n in 1..=3 {
        cluster.restart(n);
        assert_eq!(cluster.members[&n].feature_level(), REHEARSED, "its log says so");
    }
}

#[test]
fn a_single_member_raises_the_level_by_itself() {
    let mut cluster = Cluster::of_versions(1, &[1]);
    cluster.elect();
    assert_eq!(cluster.levels(), [REHEARSED]);
    assert_eq!(cluster.raised_at(1), Some(2), "behind what its term began with");
}

#[test]
fn programs_have_nothing_to_raise() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    cluster.run(5 * SECOND);
    assert_eq!(cluster.levels(), [FeatureLevel::LATEST; 3]);
    assert_eq!(cluster.raised_at(1), None);
}

#[test]
fn a_learner_counts_and_whoever_is_removed_does_not() {
    let mut cluster = Cluster::of_versions(3, &[1, 2]);
    let leader = cluster.elect();
    cluster.start(4, Config::new(id(4)));
    cluster.change(leader, 1, &[AddLearner(listed(4))]);
    cluster.run(2 * SECOND);
    let leader = if leader == 3 {
        let now = cluster.now;
        cluster.raft(3).transfer_leadership(now, 9, Some(1));
        cluster.flush(3);
        cluster.deliver();
        cluster.run(2 * SECOND);
        1
    } else {
        leader
    };
    cluster.change(leader, 2, &[Remove(id(3))]);
    cluster.run(5 * SECOND);
    assert!(cluster.changed[&2].is_ok());
    assert_eq!(
        cluster.members[&leader].feature_level(),
        FIRST,
        "the learner is left"
    );
    let supported = |n| cluster.members[&leader].supported_by(id(n));
    assert_eq!(
        (supported(4), supported(leader)),
        (Some(Supports::UNSTATED), Some(Supports::REHEARSAL))
    );
    cluster.change(leader, 3, &[Remove(id(4))]);
    cluster.run(5 * SECOND);
    assert_eq!(cluster.members[&leader].committed_feature_level(), REHEARSED);
}

#[test]
fn nothing_is_raised_while_a_member_has_not_been_heard() {
    let mut cluster = Cluster::of_versions(3, &[1, 2, 3]);
    cluster.cut_off.insert(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.members[&leader].feature_level(), FIRST);
    assert_eq!(cluster.members[&leader].supported_by(id(3)), None);
    cluster.cut_off.clear();
    cluster.run(10 * SECOND);
    assert_eq!(cluster.levels(), [REHEARSED; 3]);
}

/// A member went back to the earlier version after it had said that it supports the later one.
#[test]
fn who_cannot_follow_takes_nothing_in_and_votes_for_nobody() {
    let mut cluster = Cluster::of_versions(3, &[1, 2, 3]);
    cluster.lost = |message| match &message.body {
        Body::AppendEntries(append) => {
            let raises = |entry: &Entry| matches!(entry.payload, Payload::FeatureLevel(_));
            message.to == id(3) && append.entries.iter().any(raises)
        }
        _ => message.to == id(3) && matches!(message.body, Body::RequestVote(_)),
    };
    let leader = cluster.elect();
    assert_ne!(leader, 3);
    let raised_at = cluster.raised_at(leader).unwrap();
    cluster.install_version(3, Supports::default());
    cluster.lost = |_| false;
    cluster.submit(leader, 1);
    cluster.run(20 * SECOND);
    assert!(cluster.answers[&1].is_ok(), "the others are a majority");
    let behind = &cluster.members[&3];
    assert!(behind.log().last().index < raised_at && behind.feature_level() == FIRST);
    assert_eq!(behind.left_behind_by(), Some(REHEARSED));
    let line = "Node 3 cannot follow any more: the cluster is at feature level 2, which never goes back, and this version supports \
                level 1: run one that supports level 2";
    assert_eq!(cluster.left_behind(), [line], "told once");
    let other = cluster.followers(leader).into_iter().find(|&n| n != 3).unwrap();
    cluster.cut_off.insert(leader);
    cluster.run(20 * SECOND);
    assert_eq!(
        cluster.leader(),
        None,
        "{other} gets no vote of 3, nor 3 one of {other}"
    );
    cluster.install_version(3, Supports::REHEARSAL);
    assert_eq!(cluster.elect(), other);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.members[&3].committed_feature_level(), REHEARSED);
    assert_eq!(cluster.members[&3].left_behind_by(), None);
}

#[test]
fn a_level_is_rewound_with_the_entry_that_brought_it() {
    let mut cluster = Cluster::of_versions(3, &[1, 2, 3]);
    cluster.lost = |message| match &message.body {
        Body::AppendEntries(append) => append
            .entries
            .iter()
            .any(|entry| matches!(entry.payload, Payload::FeatureLevel(_))),
        _ => false,
    };
    let old = cluster.elect();
    cluster.cut_off.insert(old);
    let raft = &cluster.members[&old];
    assert_eq!(
        (raft.feature_level(), raft.committed_feature_level()),
        (REHEARSED, FIRST)
    );
    // The others go on by earlier rules.
    for n in cluster.followers(old) {
        cluster.install_version(n, Supports::default());
    }
    cluster.lost = |_| false;
    let new = cluster.elect();
    cluster.submit(new, 1);
    cluster.cut_off.clear();
    cluster.run(5 * SECOND);
    assert_eq!(cluster.members[&old].feature_level(), FIRST);
    assert_eq!(
        cluster.members[&old].log().fold(),
        cluster.members[&new].log().fold()
    );
    assert_eq!(
        cluster.left_behind(),
        [""; 0],
        "nobody is asked for more than it supports"
    );
}

proptest! {
    /// Wherever the level is raised, cut and raised again: the fold is that of the log that is left, and a fold that comes from
    /// a snapshot goes on alike.
    #[test]
    fn rules_change_at_the_entry_that_raises_the_level(before in 0..10u64, behind in 0..10u64, cut in 1..21u64) {
        let payloads = |at: u64| if at == before + 1 { Payload::FeatureLevel(REHEARSED) } else { Payload::Noop };
        let mut log = Log::new(Fold::new(configuration(3)), 1 << 20);
        let extend = |log: &mut Log| {
            for at in log.last().index + 1..=before + 1 + behind {
                log.push(log.fold().next_entry(at, 1, payloads(at)));
            }
        };
        extend(&mut log);
        let whole = log.fold().clone();
        prop_assert_eq!((whole.feature_level, whole.rehearsed), (REHEARSED, behind));
        log.truncate(cut.min(log.last().index));
        let left = log.last().index;
        let expected = if left > before { (REHEARSED, left - before - 1) } else { (FIRST, 0) };
        prop_assert_eq!((log.fold().feature_level, log.fold().rehearsed), expected);
        let mut bytes = Vec::new();
        log.fold().encode(&mut bytes);
        let restored = Fold::decode(bytes.into(), left).unwrap();
        prop_assert_eq!(&restored, log.fold());
        let mut over = Log::over(log.last(), restored, 1 << 20);
        for log in [&mut log, &mut over] {
            extend(log);
            prop_assert_eq!(log.fold(), &whole);
        }
    }
}

#[test]
fn a_level_is_only_ever_raised() {
    let mut log = Log::new(Fold::new(configuration(3)), 1 << 20);
    for (to, good) in [(REHEARSED, true), (REHEARSED, false), (FIRST, false)] {
        let entry = log
            .fold()
            .next_entry(log.last().index + 1, 1, Payload::FeatureLevel(to));
        assert_eq!(log.append(entry).is_ok(), good);
    }
}
