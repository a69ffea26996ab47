//! Leases (thesis 6.4.1): when a leader reads without a round, and what voters do that it may.

use super::*;

/// Rounds that are sent at one time differ by microseconds in their numbers, and so do leases.
const MOMENT: Duration = Duration::from_millis(1);

/// What one member answers to a read, if it does so at once.
fn read_at_once(cluster: &mut Cluster, n: u64) -> Option<u64> {
    let request = 1_000 + u64::try_from(cluster.reads.len()).unwrap();
    let now = cluster.now;
    cluster.raft(n).read_index(now, request);
    cluster.flush(n);
    let answer = cluster.reads.remove(&request)?;
    Some(answer.expect("there is a leader"))
}

/// Whether that leader answers reads by its lease.
fn has_lease(cluster: &mut Cluster, leader: u64) -> bool {
    let now = cluster.now;
    cluster.raft(leader).has_lease(now)
}

fn lease(cluster: &Cluster, leader: u64) -> Duration {
    cluster.members[&leader].config().lease()
}

/// A cluster whose leader has just had a round answered by everybody.
fn with_fresh_lease(voters: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::new(voters);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    (cluster, leader)
}

fn told_to_take_over(message: &Message) -> bool {
    message.body == Body::TimeoutNow
}

/// Starts a member again, whose own minimum election timeout is a fifth of what it was.
fn restart_less_patient(cluster: &mut Cluster, n: u64) {
    let mut config = cluster.members[&n].config().clone();
    config.election_timeout_min /= 5;
    config.election_timeout_max /= 5;
    let raft = member(n, cluster.voters, config, &cluster.disks[&n], cluster.now);
    cluster.members.insert(n, raft);
}

#[test]
fn t6_4_1_under_a_lease_reads_take_no_round() {
    let (mut cluster, leader) = with_fresh_lease(3);
    cluster.sent.clear();
    assert_eq!(read_at_once(&mut cluster, leader), Some(1));
    assert_eq!(cluster.sent, [], "nobody was asked");
    let follower = cluster.followers(leader)[0];
    assert_eq!(read_at_once(&mut cluster, follower), None);
    cluster.deliver();
    assert_eq!(cluster.reads.pop_first().map(|(_, index)| index), Some(Some(1)));
    assert_eq!(cluster.sent.len(), 2, "the question and its answer");
    let counts = cluster.members[&leader].read_counts();
    assert_eq!((counts.by_lease, counts.by_round), (2, 0));
}

#[test]
fn t6_4_1_a_lease_ends_before_anybody_else_can_be_elected() {
    let (mut cluster, leader) = with_fresh_lease(3);
    cluster.cut_off.insert(leader);
    let (began, lease) = (cluster.now, lease(&cluster, leader));
    cluster.now = began + lease.saturating_sub(MOMENT);
    assert_eq!(read_at_once(&mut cluster, leader), Some(1));
    cluster.now = began + lease;
    assert_eq!(read_at_once(&mut cluster, leader), None, "it has to ask");
    // The others would vote, and campaign, only later, be their clocks faster by all that is allowed.
    let patience = cluster.members[&leader].config().election_timeout_min;
    assert_eq!(
        lease,
        patience * (1_000_000 - crate::config::CLOCK_DRIFT_MAX_MILLIONTHS) / 1_000_000
    );
    for follower in cluster.followers(leader) {
        let raft = cluster.raft(follower);
        assert!(raft.election_deadline >= began + patience);
        assert!(raft.sticks(began + patience.saturating_sub(Duration::from_micros(1))));
    }
}

/// The answer to a round takes its time: what counts is when the round was sent.
#[test]
fn t6_4_1_a_lease_is_counted_from_the_send_time() {
    let (mut cluster, leader) = with_fresh_lease(3);
    let slow = Duration::from_secs(1);
    cluster.now = cluster.now + slow;
    let sent_at = cluster.now;
    cluster.raft(leader).tick(sent_at);
    cluster.flush(leader);
    cluster.now = sent_at + slow;
    cluster.deliver();
    cluster.now = sent_at + lease(&cluster, leader).saturating_sub(MOMENT);
    assert!(has_lease(&mut cluster, leader));
    cluster.now = sent_at + lease(&cluster, leader);
    assert!(!has_lease(&mut cluster, leader));
}

/// The numbers of rounds run ahead of the clock when many are sent in one microsecond.
#[test]
fn t6_4_1_many_rounds_at_one_time_do_not_prolong_a_lease() {
    let (mut cluster, leader) = with_fresh_lease(3);
    for request in 2..50 {
        cluster.submit(leader, request);
    }
    cluster.now = cluster.now + lease(&cluster, leader);
    assert!(!has_lease(&mut cluster, leader));
}

#[test]
fn t6_4_1_without_leases_each_read_takes_a_round() {
    let mut cluster = Cluster::with(3, |config| config.lease_reads = false);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    assert_eq!(read_at_once(&mut cluster, leader), None);
    cluster.deliver();
    assert_eq!(cluster.reads.pop_first().map(|(_, index)| index), Some(Some(1)));
    let counts = cluster.members[&leader].read_counts();
    assert_eq!((counts.by_lease, counts.by_round), (0, 1));
}

/// The leader's log may lack the commit of what an earlier leader has acknowledged.
#[test]
fn t6_4_1_there_is_no_lease_before_the_terms_first_commit() {
    let (mut cluster, first) = with_fresh_lease(3);
    cluster.cut_off.insert(first);
    cluster.lost = |message| matches!(&message.body, Body::AppendEntries(a) if !a.entries.is_empty());
    let leader = cluster.elect();
    cluster.run(Duration::from_secs(1));
    let now = cluster.now;
    assert!(cluster.members[&leader].has_live_leader(now) || cluster.leader() == Some(leader));
    assert_eq!(
        read_at_once(&mut cluster, leader),
        None,
        "its round was answered, and no more"
    );
    cluster.lost = |_| false;
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.reads.pop_first().map(|(_, index)| index), Some(Some(1)));
    assert!(has_lease(&mut cluster, leader));
}

/// The message may arrive whenever it likes, and who gets it is elected by voters that stick to their leader otherwise.
#[test]
fn t6_4_1_whoever_told_another_to_campaign_has_no_lease_any_more() {
    let (mut cluster, leader) = with_fresh_lease(3);
    cluster.lost = told_to_take_over;
    let now = cluster.now;
    cluster.raft(leader).transfer_leadership(now, 7, None);
    assert!(!has_lease(&mut cluster, leader), "at once");
    cluster.flush(leader);
    cluster.deliver();
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.transferred[&7], Err(TransferRefusal::TimedOut));
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(
        read_at_once(&mut cluster, leader),
        None,
        "for the rest of the term"
    );
    cluster.deliver();
    assert_eq!(cluster.reads.pop_first().map(|(_, index)| index), Some(Some(1)));
}

#[test]
fn t6_4_1_a_single_voter_has_a_lease_and_learners_do_not_count() {
    let (mut cluster, leader) = with_fresh_lease(1);
    cluster.now = cluster.now + Duration::from_secs(100);
    assert!(has_lease(&mut cluster, leader), "nobody else can be elected");
    let (mut cluster, leader) = with_fresh_lease(3);
    cluster.add_learner(leader, 4);
    cluster.add_learner(leader, 5);
    cluster.apart = cluster.followers(leader).into_iter().collect();
    cluster.run(Duration::from_millis(1_500));
    assert_eq!(cluster.members[&leader].role(), RoleName::Leader);
    assert!(
        !has_lease(&mut cluster, leader),
        "learners have answered, voters have not"
    );
}

#[test]
fn t6_4_1_a_joint_configuration_needs_both_majorities_for_a_lease() {
    for old_half_answers in [true, false] {
        let (mut cluster, leader) = with_fresh_lease(3);
        cluster.add_learner(leader, 4);
        cluster.add_learner(leader, 5);
        let old = cluster.followers(leader);
        cluster.apart = if old_half_answers {
            [4, 5].into()
        } else {
            old.iter().copied().collect()
        };
        let changes = [
            Change::Promote(id(4)),
            Change::Promote(id(5)),
            Change::Remove(id(old[0])),
            Change::Remove(id(old[1])),
        ];
        cluster.change(leader, 9, &changes);
        assert!(cluster.members[&leader].configuration().is_joint());
        cluster.run(Duration::from_millis(1_500));
        assert_eq!(cluster.members[&leader].role(), RoleName::Leader);
        assert!(
            !has_lease(&mut cluster, leader),
            "one half alone: {old_half_answers}"
        );
        cluster.apart.clear();
        let leader = cluster.elect();
        cluster.run(Duration::from_secs(1));
        assert!(
            has_lease(&mut cluster, leader),
            "of whichever configuration came of it"
        );
    }
}

/// To campaign is to vote: a member with a shorter timeout of its own must not do it earlier than it may vote.
#[test]
fn t6_4_1_who_is_less_patient_than_the_leader_stated_does_not_campaign_either() {
    let (mut cluster, leader) = with_fresh_lease(3);
    for follower in cluster.followers(leader) {
        restart_less_patient(&mut cluster, follower);
    }
    // They hear the leader once more, and then not again.
    cluster.run(Duration::from_secs(1));
    let patience = cluster.members[&leader].config().election_timeout_min;
    let heard_last = cluster
        .members
        .values()
        .filter_map(|raft| raft.heard_at)
        .max()
        .unwrap();
    cluster.cut_off.insert(leader);
    let campaigned = |cluster: &Cluster| {
        let mut notices = cluster.notices.iter();
        notices.any(|notice| matches!(notice, Notice::Campaigns { term, .. } if *term > 1))
    };
    cluster.run(patience.saturating_sub(cluster.now - heard_last + Duration::from_micros(1)));
    assert!(!campaigned(&cluster), "the leader may have read until just now");
    cluster.run(patience);
    assert!(campaigned(&cluster));
}

/// Who answered and then started again would stick only for its own, shorter timeout, if it had forgotten the leader's.
#[test]
fn t6_4_1_a_round_is_answered_once_what_it_states_is_on_disk() {
    let mut cluster = Cluster::new(3);
    let slow = 3;
    cluster.stalled.insert(slow, Vec::new());
    let leader = cluster.elect();
    assert_ne!(leader, slow, "its vote for itself is not on disk");
    cluster.run(Duration::from_secs(1));
    let answers = |cluster: &Cluster| {
        let sent = cluster.sent.iter().filter(|message| message.from == id(slow));
        sent.filter(|message| matches!(&message.body, Body::AppendEntriesResponse(r) if r.round > 0))
            .count()
    };
    assert_eq!(cluster.members[&slow].leader(), Some(id(leader)));
    assert_eq!(answers(&cluster), 0);
    // Were it to start again now, it would know nothing, and vote.
    assert_eq!(cluster.disks[&slow].hard_state.stated_minimum, Duration::ZERO);
    cluster.resume_disk(slow);
    assert!(answers(&cluster) > 0);
    cluster.restart(slow);
    let now = cluster.now;
    assert!(cluster.members[&slow].sticks(now));
}
