//! Disks that complete nothing, and disks without room.

use super::*;
use crate::log::Base;

const SECOND: Duration = Duration::from_secs(1);

impl Cluster {
    pub(super) fn stall(&mut self, n: u64) {
        self.stalled.insert(n, Vec::new());
    }

    fn set_disk_full(&mut self, n: u64, full: bool) {
        let now = self.now;
        self.raft(n).set_disk_full(now, full);
        self.flush(n);
        self.deliver();
    }

    fn set_log_full(&mut self, n: u64, full: bool) {
        let now = self.now;
        self.raft(n).set_log_full(now, full);
        self.flush(n);
        self.deliver();
    }

    fn told(&self, part: &str) -> usize {
        let lines = self.notices.iter().map(ToString::to_string);
        lines.filter(|line| line.contains(part)).count()
    }
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_without_an_election_timeout() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.members[&leader].term();
    cluster.stall(leader);
    cluster.submit(leader, 1);
    assert_eq!(cluster.index_of(1), 1, "the others' disks make a majority");
    let minimum = cluster.members[&leader].config().election_timeout_min;
    let almost = Duration::from_millis(1_499);
    assert!(almost < minimum);
    cluster.run(almost);
    assert_eq!(cluster.leader(), Some(leader), "any disk takes its time");
    cluster.run(Duration::from_millis(1));
    let new = cluster.leader().unwrap();
    assert_ne!(new, leader);
    let next = &cluster.members[&new];
    assert_eq!(
        (next.elected_by(), next.term()),
        (Some(ElectedBy::Transfer), term + 1)
    );
    assert!(cluster.members[&leader].disk_stalled());
    assert_eq!(cluster.told("its own disk is behind"), 1, "{:?}", cluster.notices);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), Some(new));
    cluster.resume_disk(leader);
    assert!(!cluster.members[&leader].disk_stalled());
    assert_eq!(cluster.told("its disk completed a write after"), 1);
}

#[test]
fn a_leader_whose_disk_stalls_steps_down_if_nobody_takes_over() {
    let mut cluster = Cluster::new(3);
    cluster.lost = |message| message.body == Body::TimeoutNow;
    let leader = cluster.elect();
    cluster.stall(leader);
    cluster.submit(leader, 1);
    cluster.run(3 * SECOND);
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.told("stepped down"), 1, "{:?}", cluster.notices);
    cluster.run(10 * SECOND);
    assert!(cluster.leader().is_some_and(|new| new != leader));
}

#[test]
fn where_nobody_could_do_better_a_leader_stays() {
    for voters in [1, 2, 3, 5] {
        let mut cluster = Cluster::new(voters);
        let leader = cluster.elect();
        let term = cluster.members[&leader].term();
        for n in 1..=voters {
            cluster.stall(n);
        }
        cluster.submit(leader, 1);
        cluster.run(60 * SECOND);
        for n in 1..=voters {
            cluster.resume_disk(n);
        }
        assert_eq!(cluster.index_of(1), 1, "of {voters}");
        cluster.run(10 * SECOND);
        assert_eq!(
            (cluster.leader(), cluster.members[&leader].term()),
            (Some(leader), term)
        );
    }
}

#[test]
fn disks_that_all_take_longer_than_the_timeout_give_no_reason_to_change_the_leader() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    let term = cluster.members[&leader].term();
    for round in 1..=10 {
        for n in 1..=5 {
            cluster.stall(n);
        }
        cluster.submit(leader, round);
        cluster.run(5 * SECOND);
        // The leader's own is always the last, a second after the others.
        for n in cluster.followers(leader) {
            cluster.resume_disk(n);
        }
        assert_eq!(cluster.index_of(round), round);
        cluster.run(SECOND);
        cluster.resume_disk(leader);
    }
    assert_eq!(
        (cluster.leader(), cluster.members[&leader].term()),
        (Some(leader), term)
    );
}

#[test]
fn a_member_whose_disk_stalls_stands_in_no_election() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    let slow = cluster.followers(leader)[0];
    cluster.stall(slow);
    cluster.submit(leader, 1);
    cluster.run(2 * SECOND);
    assert!(cluster.members[&slow].disk_stalled());
    let (now, term) = (cluster.now, cluster.members[&leader].term());
    cluster.sent.clear();
    cluster
        .raft(leader)
        .transfer_leadership(now, 7, Some(NodeNumber::try_from(slow).unwrap()));
    cluster.flush(leader);
    cluster.deliver();
    let take_over = Message {
        from: id(leader),
        to: id(slow),
        term,
        level: FeatureLevel::FIRST,
        body: Body::TimeoutNow,
    };
    cluster.raft(slow).message(now, take_over);
    cluster.flush(slow);
    cluster.cut_off.insert(leader);
    cluster.run(20 * SECOND);
    let asked = |m: &&Message| m.from == id(slow) && matches!(m.body, Body::RequestVote(_));
    assert_eq!(cluster.sent.iter().find(asked), None);
    let next = cluster.leader().unwrap();
    assert_ne!(next, slow);
    cluster.resume_disk(slow);
    cluster.cut_off.insert(next);
    // Three of five are left, and of these two lack nothing either.
    cluster.run(20 * SECOND);
    assert!(cluster.leader().is_some());
    assert_eq!(
        cluster.members[&slow].log().last(),
        cluster.members[&cluster.leader().unwrap()].log().last()
    );
}

#[test]
fn the_votes_of_others_make_no_leader_whose_own_disk_stalls() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    let target = cluster.followers(leader)[0];
    cluster.stall(target);
    let now = cluster.now;
    let node = NodeNumber::try_from(target).unwrap();
    cluster.raft(leader).transfer_leadership(now, 7, Some(node));
    cluster.flush(leader);
    cluster.deliver();
    assert_eq!(cluster.members[&target].role(), RoleName::Candidate);
    cluster.run(20 * SECOND);
    let next = cluster.leader().unwrap();
    assert_ne!(next, target);
}

#[test]
fn a_stalled_voter_promises_no_vote() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.stall(followers[0]);
    cluster.submit(leader, 1);
    cluster.run(2 * SECOND);
    let term = cluster.members[&leader].term();
    cluster.cut_off.insert(leader);
    cluster.run(60 * SECOND);
    assert_eq!(cluster.leader(), None);
    assert_eq!(
        cluster.members[&followers[1]].term(),
        term,
        "terms do not run up while there can be no election"
    );
    cluster.resume_disk(followers[0]);
    cluster.run(10 * SECOND);
    assert!(cluster.leader().is_some());
}

#[test]
fn disks_that_all_take_longer_than_the_timeout_still_elect_a_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.cut_off.insert(leader);
    let followers = cluster.followers(leader);
    // Each write takes seven seconds.
    for _ in 0..10 {
        for &n in &followers {
            cluster.stall(n);
        }
        cluster.run(7 * SECOND);
        for &n in &followers {
            cluster.resume_disk(n);
        }
        if cluster.leader().is_some() {
            return;
        }
    }
    panic!("no leader after 70 s: {:?}", cluster.notices);
}

#[test]
fn a_leader_with_a_full_disk_hands_over_to_a_member_that_has_room() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    let full = cluster.followers(leader)[0];
    cluster.set_disk_full(full, true);
    cluster.run(2 * SECOND);
    cluster.submit(leader, 1);
    assert_eq!(cluster.index_of(1), 1, "a minority without room holds nobody up");
    cluster.set_disk_full(leader, true);
    let next = cluster.leader().unwrap();
    assert!(next != leader && next != full);
    assert_eq!(cluster.members[&next].elected_by(), Some(ElectedBy::Transfer));
    assert_eq!(cluster.told("its own disk is full"), 1);
    cluster.submit(next, 2);
    assert_eq!(cluster.index_of(2), 2);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), Some(next));
}

#[test]
fn a_majority_of_full_disks_refuses_and_room_accepts() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    for &n in &followers {
        cluster.set_disk_full(n, true);
    }
    cluster.run(2 * SECOND);
    cluster.submit(leader, 1);
    assert_eq!(
        cluster.answers[&1],
        Err(Refusal::DiskFull),
        "it would never be committed"
    );
    cluster.set_disk_full(leader, true);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), Some(leader), "nobody to hand over to");
    cluster.set_disk_full(followers[0], false);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.leader(), Some(leader), "one of three has room");
    cluster.submit(leader, 2);
    assert_eq!(cluster.answers[&2], Err(Refusal::DiskFull));
    cluster.set_disk_full(leader, false);
    cluster.submit(leader, 3);
    assert_eq!(cluster.index_of(3), 1);
}

/// It is the same where replicators do not execute, so that logs cannot be compacted.
#[test]
fn a_leader_with_a_full_log_hands_over_and_a_majority_of_full_logs_refuses() {
    let mut cluster = Cluster::new(3);
    let first = cluster.elect();
    cluster.set_log_full(first, true);
    let second = cluster.leader().unwrap();
    assert_ne!(second, first);
    assert_eq!(cluster.told("its own log is full"), 1);
    cluster.submit(second, 1);
    assert_eq!(cluster.index_of(1), 1, "a minority holds nobody up");
    let third = *cluster.followers(second).iter().find(|&&n| n != first).unwrap();
    cluster.set_log_full(third, true);
    cluster.run(2 * SECOND);
    cluster.submit(second, 2);
    assert_eq!(cluster.answers[&2], Err(Refusal::LogFull));
    cluster.set_log_full(third, false);
    cluster.run(2 * SECOND);
    cluster.submit(second, 3);
    assert_eq!(cluster.index_of(3), 2);
}

/// Entries under way to that member that were sent from there on.
fn entries_to(cluster: &Cluster, n: u64, from: usize) -> usize {
    let sent = cluster.sent[from..].iter().filter(|message| message.to == id(n));
    let batches = sent.filter_map(|message| match &message.body {
        Body::AppendEntries(append) => Some(append.entries.len()),
        _ => None,
    });
    batches.sum()
}

/// A follower whose replicator did not execute took all that the leader of a majority with room went on to append, and its log
/// outgrew every bound.
#[test]
fn a_follower_with_a_full_log_is_sent_entries_only_where_a_majority_needs_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (full, other) = (cluster.followers(leader)[0], cluster.followers(leader)[1]);
    cluster.set_log_full(full, true);
    cluster.run(2 * SECOND);
    let held = cluster.members[&full].log().last();
    let from = cluster.sent.len();
    for request in 1..=20 {
        cluster.submit(leader, request);
        assert!(cluster.answers[&request].is_ok(), "a majority has room");
    }
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), Some(leader), "it hears its leader");
    assert_eq!(cluster.members[&full].log().last(), held);
    assert_eq!(entries_to(&cluster, full, from), 0);

    // What was taken in before the other went away, and the beginnings of terms, are committed with it.
    cluster.cut_off.insert(other);
    cluster.run(4 * SECOND);
    let last = |cluster: &Cluster, n| cluster.members[&n].log().last();
    assert_eq!(last(&cluster, full), last(&cluster, leader));
    cluster.submit(leader, 21);
    assert_eq!(cluster.answers[&21], Err(Refusal::LogFull));

    cluster.set_log_full(full, false);
    cluster.cut_off.clear();
    cluster.run(4 * SECOND);
    cluster.submit(leader, 22);
    assert!(cluster.answers[&22].is_ok());
    assert_eq!(last(&cluster, full), last(&cluster, leader));
    let sent = entries_to(&cluster, full, from);
    assert!(sent < 25, "each about once: {sent}");
}

/// The third voter answered heartbeats and committed nothing: its disk had stalled, or it was starting from a snapshot. The leader
/// spared the only one that could commit what it had taken in.
#[test]
fn who_does_not_keep_up_is_no_reason_to_spare_a_follower() {
    for lacks_log in [false, true] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        let (full, other) = (cluster.followers(leader)[0], cluster.followers(leader)[1]);
        if lacks_log {
            cluster.cut_off.insert(other);
            for request in 100..120 {
                cluster.submit(leader, request);
            }
            cluster.run(4 * SECOND);
            let commit = cluster.members[&leader].commit();
            let log = cluster.members[&leader].log();
            let base = Base {
                position: log.last(),
                operation_index: log.fold().operation_index,
                running_hash: log.fold().running_hash,
            };
            assert_eq!(commit, base.position.index);
            cluster.raft(leader).compact_to(base);
        }
        cluster.set_log_full(full, true);
        cluster.cut_off.clear();
        cluster.run(2 * SECOND);
        if !lacks_log {
            cluster.stall(other);
        }
        cluster.submit(leader, 1);
        cluster.run(60 * SECOND);
        assert!(cluster.answers.contains_key(&1), "lacks log: {lacks_log}");
        // More would outgrow every bound of the full log.
        cluster.submit(leader, 2);
        assert_eq!(
            cluster.answers[&2],
            Err(Refusal::LogFull),
            "lacks log: {lacks_log}"
        );
    }
}

#[test]
fn a_member_that_is_away_is_not_counted_on_for_room() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.set_disk_full(leader, true);
    cluster.run(SECOND);
    let leader = cluster.leader().unwrap();
    let away = *followers.iter().find(|&&n| n != leader).unwrap();
    cluster.cut_off.insert(away);
    cluster.run(4 * SECOND);
    assert_eq!(cluster.leader(), Some(leader));
    cluster.submit(leader, 1);
    assert_eq!(cluster.answers[&1], Err(Refusal::DiskFull));
    cluster.cut_off.clear();
    cluster.run(2 * SECOND);
    cluster.submit(leader, 2);
    assert_eq!(cluster.index_of(2), 1);
}
