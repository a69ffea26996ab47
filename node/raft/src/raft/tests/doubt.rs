//! Members whose running hashes differ: whoever is in the minority stops, and nobody else does.

use super::*;
use crate::message::Comparison;

const SECOND: Duration = Duration::from_secs(1);

/// The same log, but for one operation and all that follows from it.
fn doctored(entries: &[Entry], changed: u64) -> Vec<Entry> {
    let mut fold = Fold::default();
    let mut doctored = Vec::new();
    for entry in entries {
        let mut payload = entry.payload.clone();
        if let (true, Payload::Operation(operation)) = (entry.log_index == changed, &mut payload) {
            operation.data = "another".into();
        }
        let entry = fold.next_entry(entry.log_index, entry.term, payload);
        fold.apply(&entry);
        doctored.push(entry);
    }
    doctored
}

impl Cluster {
    /// A leader and ten operations.
    fn with_operations(voters: u64) -> (Self, u64) {
        let mut cluster = Self::new(voters);
        let leader = cluster.elect();
        for request in 1..=10 {
            cluster.submit(leader, request);
        }
        cluster.run(SECOND);
        (cluster, leader)
    }

    /// Something else lies on a member's disk from there on, and adds up. It starts with that.
    fn doctor(&mut self, n: u64, changed: u64) {
        let disk = self.disks.get_mut(&n).unwrap();
        disk.entries = doctored(&disk.entries, changed);
        self.restart(n);
    }

    /// A bit flips in what a member believes its log adds up to.
    fn flip_hash(&mut self, n: u64) {
        let raft = self.members.get_mut(&n).unwrap();
        raft.log.flip_hash();
    }

    fn stopped(&self) -> Vec<u64> {
        self.stopped.keys().copied().collect()
    }

    fn assert_goes_on(&mut self, request: RequestId) {
        self.run(20 * SECOND);
        let leader = self.elect();
        self.submit(leader, request);
        self.run(SECOND);
        assert!(self.index_of(request) > 0);
    }
}

#[test]
fn a_follower_in_the_minority_stops_and_says_where_it_differs() {
    for changed in [2, 5, 11] {
        let (mut cluster, leader) = Cluster::with_operations(5);
        let damaged = cluster.followers(leader)[1];
        cluster.doctor(damaged, changed);
        cluster.run(2 * SECOND);
        assert_eq!(cluster.stopped(), [damaged], "{changed}: {:?}", cluster.stopped);
        let why = &cluster.stopped[&damaged];
        let last = cluster.disks[&damaged].entries.last().unwrap();
        let other = cluster.members[&leader].log().fold().running_hash;
        for part in [
            format!("{:016x}", last.running_hash),
            format!("{other:016x}"),
            "up to index 10 (log entry 11".to_owned(),
            format!("raftctl member replace {damaged}"),
        ] {
            assert!(why.contains(&part), "{why} should say {part}");
        }
        assert!(!why.contains('\n'));
        cluster.assert_goes_on(11);
    }
}

#[test]
fn one_that_comes_back_to_longer_logs_stops_too() {
    let (mut cluster, leader) = Cluster::with_operations(3);
    let damaged = cluster.followers(leader)[0];
    cluster.cut_off.insert(damaged);
    for request in 11..=20 {
        cluster.submit(leader, request);
    }
    // Nobody has in memory what it holds, but on disk.
    let others: Vec<u64> = (1..=3).filter(|&n| n != damaged).collect();
    for &n in &others {
        cluster.raft(n).log.forget_recent();
    }
    cluster.cut_off.clear();
    cluster.doctor(damaged, 4);
    cluster.run(5 * SECOND);
    assert_eq!(cluster.stopped(), [damaged], "{:?}", cluster.stopped);
    cluster.assert_goes_on(21);
}

#[test]
fn a_leader_in_the_minority_stops_and_nobody_else() {
    let (mut cluster, leader) = Cluster::with_operations(5);
    cluster.flip_hash(leader);
    cluster.submit(leader, 11);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.stopped(), [leader], "{:?}", cluster.stopped);
    cluster.assert_goes_on(12);
    assert_eq!(cluster.stopped(), [leader]);
}

#[test]
fn a_leader_whose_last_hash_flips_stops_without_a_submission() {
    let (mut cluster, leader) = Cluster::with_operations(3);
    cluster.flip_hash(leader);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.stopped(), [leader], "{:?}", cluster.stopped);
    cluster.assert_goes_on(11);
}

#[test]
fn a_doctored_member_that_comes_to_lead_stops() {
    let (mut cluster, leader) = Cluster::with_operations(3);
    let damaged = cluster.followers(leader)[0];
    cluster.cut_off.insert(leader);
    cluster.doctor(damaged, 3);
    let now = cluster.now;
    cluster.raft(damaged).elect(now, ElectedBy::Transfer);
    cluster.flush(damaged);
    cluster.deliver();
    assert_eq!(cluster.members[&damaged].role(), RoleName::Leader);
    cluster.run(SECOND);
    assert_eq!(
        cluster.stopped(),
        [],
        "of three, two that differ are no majority of anything"
    );
    cluster.cut_off.clear();
    cluster.run(10 * SECOND);
    assert_eq!(cluster.stopped(), [damaged], "{:?}", cluster.stopped);
    cluster.assert_goes_on(11);
}

#[test]
fn an_entry_that_is_damaged_in_a_leaders_memory_stops_the_leader() {
    let (mut cluster, leader) = Cluster::with_operations(3);
    let behind = cluster.followers(leader)[0];
    cluster.cut_off.insert(behind);
    cluster.submit(leader, 11);
    cluster.raft(leader).log.flip_data();
    cluster.cut_off.clear();
    cluster.run(5 * SECOND);
    assert_eq!(cluster.stopped(), [leader]);
    let why = &cluster.stopped[&leader];
    assert!(why.contains("index 11 (log entry 12) does not add up"), "{why}");
    cluster.assert_goes_on(12);
}

#[test]
fn without_a_majority_of_equals_nobody_stops() {
    let (mut cluster, leader) = Cluster::with_operations(2);
    let other = cluster.followers(leader)[0];
    cluster.doctor(other, 3);
    cluster.run(30 * SECOND);
    assert_eq!(cluster.stopped(), []);
    assert!(cluster.members.values().any(|raft| raft.refused().is_some()));
}

#[test]
fn a_learner_in_the_minority_stops_and_counts_for_nobody() {
    let (mut cluster, leader) = Cluster::with_operations(1);
    cluster.add_learner(leader, 2);
    cluster.add_learner(leader, 3);
    for n in [2, 3] {
        cluster.doctor(n, 4);
    }
    cluster.run(2 * SECOND);
    assert_eq!(cluster.stopped(), [2, 3], "{:?}", cluster.stopped);
    cluster.submit(leader, 11);
    assert_eq!(cluster.index_of(11), 11);
}

#[test]
fn whatever_a_leader_says_nobody_stops_on_its_word() {
    let lies: [fn(&mut AppendEntries); 3] = [
        |append| append.previous_hash = append.previous_hash.map(|hash| hash ^ 1),
        |append| {
            append
                .entries
                .iter_mut()
                .for_each(|entry| entry.running_hash ^= 1 << 40);
        },
        |append| {
            for entry in &mut append.entries {
                if let Payload::Operation(operation) = &mut entry.payload {
                    operation.data = "lie".into();
                }
            }
        },
    ];
    for (at, lie) in lies.iter().enumerate() {
        let (mut cluster, leader) = Cluster::with_operations(5);
        let victims = cluster.followers(leader);
        for request in 11..=13 {
            let proposed = Proposed::Operation(Operation {
                data: "op".into(),
                session: None,
            });
            let now = cluster.now;
            let proposal = Proposal {
                id: request,
                stream: None,
                proposed,
            };
            cluster.raft(leader).propose(now, proposal);
            cluster.flush(leader);
            for message in &mut cluster.queue {
                if let Body::AppendEntries(append) = &mut message.body {
                    lie(append);
                }
            }
            cluster.deliver();
        }
        cluster.run(20 * SECOND);
        for victim in victims {
            assert!(
                !cluster.stopped.contains_key(&victim),
                "lie {at}: {:?}",
                cluster.stopped
            );
        }
        let sure = cluster.members.values().filter(|raft| raft.refused().is_none());
        assert!(sure.count() >= 4, "lie {at}: they go on");
    }
}

#[test]
fn doubts_are_asked_about_once_a_heartbeat() {
    let (mut cluster, leader) = Cluster::with_operations(3);
    let other = cluster.followers(leader)[0];
    cluster.sent.clear();
    let position = cluster.members[&other].log().last();
    let lie = Comparison {
        position,
        running_hash: 1,
    };
    for _ in 0..100 {
        let now = cluster.now;
        cluster.raft(other).message(
            now,
            Message {
                from: id(leader),
                to: id(other),
                term: 0,
                level: FeatureLevel::FIRST,
                body: Body::Compare(lie),
            },
        );
        cluster.flush(other);
    }
    let asked = cluster
        .sent
        .iter()
        .filter(|message| matches!(message.body, Body::Compare(_)))
        .count();
    assert_eq!(asked, 2, "each of the others once");
    cluster.deliver();
    assert_eq!(cluster.stopped(), []);
}
