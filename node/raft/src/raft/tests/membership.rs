//! Membership changes (Raft 6; thesis 4).

use rand::RngExt;

use super::*;
use Change::{AddLearner, Demote, Promote, Remove};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn t4_2_1_a_learner_receives_the_log_and_never_counts() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    cluster.add_learner(leader, 4);
    assert_eq!(cluster.roster(4), "voters 1, 2, 3 and learners 4");
    assert_eq!(cluster.members[&4].role(), RoleName::Learner);
    assert_eq!(cluster.disks[&4].entries, cluster.disks[&leader].entries);
    let followers = cluster.followers(leader);
    cluster.cut_off.extend(&followers);
    cluster.submit(leader, 2);
    assert!(!cluster.answers.contains_key(&2), "one voter and a learner");
    let term = cluster.members[&4].term();
    cluster.cut_off.insert(leader);
    cluster.run(20 * SECOND);
    assert_eq!(cluster.members[&4].term(), term, "it does not campaign");
}

#[test]
fn s6_a_configuration_is_in_force_from_its_append() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let gone = cluster.followers(leader)[0];
    cluster.cut_off.extend(&cluster.followers(leader));
    cluster.change(leader, 1, &[Remove(id(gone))]);
    assert!(cluster.changed.is_empty());
    assert!(cluster.members[&leader].configuration().is_joint());
    assert_eq!(
        cluster.members[&leader].committed_configuration(),
        &configuration(3)
    );
}

#[test]
fn s6_a_joint_configuration_commits_by_both_majorities() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.add_learner(leader, 4);
    cluster.add_learner(leader, 5);
    cluster.cut_off.extend(&cluster.followers(leader));
    cluster.change(leader, 1, &[Promote(id(4)), Promote(id(5))]);
    cluster.run(SECOND);
    assert!(
        !cluster.changed.contains_key(&1),
        "three of five, but one of three"
    );
    assert!(cluster.members[&4].configuration().is_joint());
    cluster.cut_off.clear();
    cluster.run(2 * SECOND);
    assert!(cluster.changed[&1].is_ok());
    for n in 1..=5 {
        assert_eq!(cluster.roster(n), "voters 1, 2, 3, 4, 5", "at member {n}");
        assert!(!cluster.members[&n].configuration().is_joint());
    }
    // Now two of five may be away.
    cluster.cut_off.extend(&cluster.followers(leader));
    cluster.submit(leader, 1);
    assert!(cluster.answers[&1].is_ok());
}

#[test]
fn s6_elections_need_both_majorities() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.add_learner(leader, 4);
    cluster.add_learner(leader, 5);
    let followers = cluster.followers(leader);
    cluster.cut_off.extend(&followers);
    cluster.change(leader, 1, &[Promote(id(4)), Promote(id(5))]);
    // The new ones know of the joint configuration; without the old ones they elect nobody.
    cluster.run(4 * SECOND);
    assert_eq!(
        cluster.leader(),
        None,
        "one of the three old voters is not enough"
    );
    cluster.cut_off.clear();
    cluster.cut_off.insert(leader);
    let next = cluster.elect();
    cluster.run(3 * SECOND);
    cluster.cut_off.clear();
    cluster.run(3 * SECOND);
    assert!(!cluster.members[&next].configuration().is_joint());
    for n in 1..=5 {
        assert_eq!(cluster.roster(n), cluster.roster(next), "at member {n}");
    }
}

#[test]
fn s6_whoever_leads_next_leaves_a_committed_joint_configuration() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.add_learner(leader, 4);
    // All receive the joint configuration, and nobody what comes after it.
    cluster.lost = carries_the_last_configuration;
    cluster.change(leader, 1, &[Promote(id(4))]);
    let joint = cluster.followers(leader)[0];
    assert!(cluster.members[&joint].configuration().is_joint());
    cluster.lost = |_| false;
    cluster.cut_off.insert(leader);
    let next = cluster.elect();
    assert_ne!(next, leader);
    cluster.run(SECOND);
    assert!(!cluster.members[&next].configuration().is_joint());
    assert_eq!(cluster.roster(next), "voters 1, 2, 3, 4");
    assert!(cluster.members[&next].commit() >= cluster.members[&next].configuration().version);
}

#[test]
fn s6_a_configuration_is_rewound_with_the_entry_that_brought_it() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.cut_off.insert(old);
    cluster.change(old, 1, &[AddLearner(listed(4))]);
    assert_eq!(cluster.roster(old), "voters 1, 2, 3 and learners 4");
    let new = cluster.elect();
    cluster.submit(new, 1);
    cluster.cut_off.clear();
    cluster.run(3 * SECOND);
    assert_eq!(cluster.changed[&1], Err(ChangeRefusal::LeadershipLost));
    assert_eq!(cluster.roster(old), "voters 1, 2, 3");
    assert_eq!(cluster.members[&old].configuration(), &configuration(3));
}

#[test]
fn t4_1_no_change_before_the_term_has_a_commit() {
    let mut cluster = Cluster::new(3);
    cluster.lost = |message| matches!(message.body, Body::AppendEntries(_));
    let leader = loop {
        cluster.run(Duration::from_millis(100));
        if let Some(leader) = cluster.leader() {
            break leader;
        }
    };
    cluster.change(leader, 1, &[AddLearner(listed(4))]);
    assert!(matches!(cluster.changed[&1], Err(ChangeRefusal::NotNow(_))));
    cluster.lost = |_| false;
    let leader = cluster.elect();
    cluster.run(SECOND);
    cluster.change(leader, 2, &[AddLearner(listed(4))]);
    assert!(cluster.changed[&2].is_ok());
}

#[test]
fn s6_one_change_after_the_other_and_the_same_one_again_waits() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.cut_off.extend(&cluster.followers(leader));
    cluster.change(leader, 1, &[AddLearner(listed(4))]);
    cluster.change(leader, 2, &[AddLearner(listed(5))]);
    assert!(matches!(cluster.changed[&2], Err(ChangeRefusal::NotNow(_))));
    cluster.change_from(leader, 3, 0, &[AddLearner(listed(4))], false);
    assert_eq!(cluster.changed.len(), 1, "the two of Node 4 wait");
    cluster.cut_off.clear();
    cluster.run(2 * SECOND);
    assert!(cluster.changed[&1].is_ok());
    assert_eq!(cluster.changed[&1], cluster.changed[&3]);
}

#[test]
fn a_change_names_the_version_it_expects_and_can_be_repeated() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.change_from(leader, 1, 0, &[AddLearner(listed(4))], false);
    let version = cluster.changed[&1].as_ref().unwrap().version;
    assert_eq!(version, 2, "after the no-op of the term");
    cluster.change_from(leader, 2, 0, &[AddLearner(listed(4))], false);
    assert_eq!(cluster.changed[&1], cluster.changed[&2]);
    assert_eq!(
        cluster.members[&leader].log().last().index,
        2,
        "nothing was appended"
    );
    cluster.change_from(leader, 3, 0, &[AddLearner(listed(5))], false);
    assert_eq!(cluster.changed[&3], Err(ChangeRefusal::OtherVersion(version)));
    cluster.change_from(leader, 4, version, &[Promote(id(9))], false);
    assert!(matches!(cluster.changed[&4], Err(ChangeRefusal::Invalid(_))));
    let follower = cluster.followers(leader)[0];
    cluster.change_from(follower, 5, version, &[AddLearner(listed(5))], false);
    let leader = Some(id(leader));
    assert_eq!(cluster.changed[&5], Err(ChangeRefusal::NotLeader { leader }));
}

#[test]
fn a_dry_run_judges_and_changes_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let now = cluster.now;
    let last = cluster.members[&leader].log().last();
    for (request, changes, good) in [
        (1, vec![Remove(id(leader))], true),
        (2, vec![Promote(id(9))], false),
        (3, vec![Promote(id(1))], true),
    ] {
        let change = MembershipChange {
            id: request,
            expected_version: 0,
            changes,
            force: false,
            dry_run: true,
        };
        cluster.raft(leader).change_membership(now, &change);
        cluster.flush(leader);
        assert_eq!(cluster.changed[&request].is_ok(), good, "{change:?}");
    }
    let planned = cluster.changed[&1].as_ref().unwrap();
    assert_eq!(planned.members().len(), 2);
    assert_eq!(cluster.members[&leader].log().last(), last);
}

#[test]
fn t4_2_1_who_is_not_caught_up_is_not_promoted_unless_forced() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.change(leader, 1, &[AddLearner(listed(4))]);
    assert!(cluster.changed[&1].is_ok(), "nobody waits for the learner");
    cluster.start(4, Config::new(id(4)));
    cluster.run(2 * SECOND);
    cluster.cut_off.insert(4);
    cluster.submit(leader, 1);
    cluster.run(5 * SECOND);
    cluster.change(leader, 2, &[Promote(id(4))]);
    assert_eq!(cluster.changed[&2], Err(ChangeRefusal::NotCaughtUp(id(4))));
    let version = cluster.members[&leader].configuration().version;
    cluster.change_from(leader, 3, version, &[Promote(id(4))], true);
    assert!(cluster.changed[&3].is_ok(), "three of four are there");
}

#[test]
fn t4_2_1_rounds_of_catching_up_get_shorter() {
    let at = |millis: u64| Time(millis * 1_000);
    let limit = SECOND;
    let mut progress = Progress::new(0, at(0));
    let mut answer = |matched, last, millis| {
        progress.answered(1, at(millis));
        progress.agreed(matched, matched);
        progress.track_catching_up(last, at(millis), limit);
        progress.is_caught_up(at(millis), limit)
    };
    assert!(!answer(0, 100, 0), "the first round goes to 100");
    assert!(!answer(99, 150, 2_900));
    assert!(
        !answer(100, 150, 3_000),
        "and took three seconds; the second goes to 150"
    );
    assert!(answer(150, 160, 3_500), "which took half a second");
    assert!(answer(155, 500, 4_400), "the third is not too old");
    assert!(!answer(159, 500, 4_600), "now it is");
    assert!(!answer(160, 500, 4_700), "it took more than a second");
    assert!(answer(500, 500, 5_000));
    assert!(answer(500, 900, 60_000), "it lacked nothing until just now");
    progress.forget(900);
    assert!(
        !progress.is_caught_up(at(60_000), limit),
        "it may have come back without its disk"
    );
}

#[test]
fn what_would_lose_quorum_is_refused_unless_forced() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    let (dead, alive) = (followers[0], followers[1]);
    cluster.cut_off.insert(dead);
    cluster.run(5 * SECOND);
    cluster.change(leader, 1, &[Remove(id(alive))]);
    let refusal = ChangeRefusal::WouldLoseQuorum {
        responsive: 1,
        voters: 2,
    };
    assert_eq!(cluster.changed[&1], Err(refusal));
    cluster.change(leader, 2, &[Remove(id(dead))]);
    assert!(cluster.changed[&2].is_ok());
    let version = cluster.members[&leader].configuration().version;
    cluster.change_from(leader, 3, version, &[Remove(id(alive))], true);
    assert!(cluster.changed[&3].is_ok());
    assert_eq!(cluster.roster(leader), format!("voters {leader}"));
    cluster.submit(leader, 1);
    assert!(cluster.answers[&1].is_ok(), "one voter is a quorum of one");
}

/// The leader stepped down for want of a majority, and there was no way back: the new voter had not been told that it is one,
/// and only a leader would have told it. It is so also with one that no majority needs, as the next change may make one need
/// it: from then on it would count as a voter that may come back (seed 2847 of the simulator).
#[test]
fn nobody_is_forced_to_be_a_voter_that_does_not_know_of_it() {
    for voters in [1, 3] {
        let mut cluster = Cluster::new(voters);
        let leader = cluster.elect();
        let new = voters + 1;
        cluster.change(leader, 1, &[AddLearner(listed(new))]);
        let version = cluster.members[&leader].configuration().version;
        cluster.change_from(leader, 2, version, &[Promote(id(new))], true);
        assert_eq!(cluster.changed[&2], Err(ChangeRefusal::NotCaughtUp(id(new))));
        // It answers, and its disk does not.
        cluster.start(new, Config::new(id(new)));
        cluster.stall(new);
        cluster.run(2 * SECOND);
        cluster.change_from(leader, 3, version, &[Promote(id(new))], true);
        assert_eq!(cluster.changed[&3], Err(ChangeRefusal::NotCaughtUp(id(new))));
        cluster.resume_disk(new);
        cluster.change_from(leader, 4, version, &[Promote(id(new))], true);
        assert!(cluster.changed[&4].is_ok(), "{:?}", cluster.changed);
    }
}

#[test]
fn s6_a_leader_that_removes_itself_leads_until_the_end_and_hands_over() {
    for change in [Remove, Demote] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        let started = cluster.now;
        cluster.change(leader, 1, &[change(id(leader))]);
        assert!(cluster.changed[&1].is_ok(), "{:?}", cluster.changed);
        assert_eq!(cluster.now, started, "without any timeout");
        let next = cluster.leader().expect("somebody took over");
        assert_ne!(next, leader);
        assert_eq!(cluster.members[&next].elected_by(), Some(ElectedBy::Transfer));
        cluster.run(10 * SECOND);
        assert_eq!(cluster.members[&leader].role(), RoleName::Learner);
        assert_eq!(cluster.leader(), Some(next));
        cluster.submit(next, 1);
        assert!(cluster.answers[&1].is_ok());
    }
}

#[test]
fn s6_a_removed_leader_that_can_hand_over_to_nobody_steps_down() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.lost = |message| matches!(message.body, Body::TimeoutNow);
    cluster.change(leader, 1, &[Remove(id(leader))]);
    assert_eq!(cluster.leader(), Some(leader), "the target was not told");
    cluster.submit(leader, 1);
    assert!(matches!(cluster.answers[&1], Err(Refusal::NotAppended(_))));
    cluster.run(Duration::from_millis(1_500));
    assert_eq!(cluster.leader(), None);
    assert_ne!(cluster.elect(), leader);
}

/// The leader that was to leave alone had the last configuration. It did not campaign for want of a vote in it, and voted for
/// nobody who lacked it: the cluster never led again (seed 3221 of the simulator).
#[test]
fn t4_2_2_who_leaves_campaigns_until_that_is_committed() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let stays = cluster.followers(leader)[0];
    cluster.lost = carries_the_last_configuration;
    cluster.change(leader, 1, &[Remove(id(leader))]);
    assert_eq!(cluster.roster(leader), format!("voters {stays}"));
    assert!(cluster.members[&stays].configuration().is_joint());
    cluster.cut_off.insert(leader);
    cluster.run(4 * SECOND);
    assert_eq!(cluster.leader(), None);
    cluster.lost = |_| false;
    cluster.cut_off.clear();
    cluster.run(20 * SECOND);
    assert_eq!(cluster.leader(), Some(stays));
    let committed = cluster.members[&stays].committed_configuration();
    assert_eq!(committed.member(id(leader)), None);
}

fn carries_the_last_configuration(message: &Message) -> bool {
    match &message.body {
        Body::AppendEntries(request) => request.entries.iter().any(|entry| match &entry.payload {
            Payload::Configuration(configuration) => !configuration.is_joint(),
            _ => false,
        }),
        _ => false,
    }
}

#[test]
fn t4_2_3_a_removed_member_disturbs_nobody() {
    let mut cluster = Cluster::new(4);
    let leader = cluster.elect();
    let gone = cluster.followers(leader)[0];
    cluster.cut_off.insert(gone);
    cluster.change(leader, 1, &[Remove(id(gone))]);
    assert!(cluster.changed[&1].is_ok());
    let term = cluster.members[&leader].term();
    cluster.run(10 * SECOND);
    cluster.cut_off.clear();
    cluster.sent.clear();
    cluster.run(60 * SECOND);
    let asks = |message: &&Message| message.from == id(gone) && matches!(message.body, Body::RequestVote(_));
    assert!(
        cluster.sent.iter().filter(asks).count() > 10,
        "it still campaigns"
    );
    assert_eq!(cluster.members[&leader].term(), term);
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_removed_member_that_is_there_is_told() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let gone = cluster.followers(leader)[0];
    cluster.change(leader, 1, &[Remove(id(gone))]);
    let told = cluster.members[&gone].committed_configuration();
    assert_eq!(told.member(id(gone)), None);
    assert_eq!(told.members().len(), 2);
    cluster.run(5 * SECOND);
    cluster.sent.clear();
    cluster.run(5 * SECOND);
    assert!(
        cluster.sent.iter().all(|message| message.to != id(gone)),
        "and then left alone"
    );
    assert_eq!(
        cluster.members[&gone].role(),
        RoleName::Learner,
        "it does not campaign"
    );
}

/// The commit index is written along with other things, and nothing comes after the entry that removes a member: without its
/// commit on disk, a removed member that restarted waited for a leader for ever and did not know why.
#[test]
fn a_removed_member_knows_it_after_a_restart() {
    for gone in 1..=3 {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        cluster.change(leader, 1, &[Remove(id(gone))]);
        cluster.run(SECOND);
        cluster.restart(gone);
        let told = cluster.members[&gone].committed_configuration();
        assert_eq!(told.member(id(gone)), None, "{gone} of leader {leader}");
    }
}

#[test]
fn s6_several_members_are_replaced_at_once() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    for request in 1..=5 {
        cluster.submit(leader, request);
    }
    for n in 4..=6 {
        cluster.add_learner(leader, n);
    }
    let out: Vec<Change> = (1..=3).map(|n| Remove(id(n))).collect();
    let changes: Vec<Change> = (4..=6).map(|n| Promote(id(n))).chain(out).collect();
    cluster.change(leader, 9, &changes);
    assert!(cluster.changed[&9].is_ok(), "{:?}", cluster.changed);
    cluster.cut_off.extend(1..=3);
    let next = cluster.elect();
    assert_eq!(cluster.roster(next), "voters 4, 5, 6");
    cluster.submit(next, 10);
    assert_eq!(cluster.index_of(10), 6);
}

#[test]
fn a_configuration_survives_a_restart() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.add_learner(leader, 4);
    cluster.change(leader, 1, &[Promote(id(4)), Remove(id(leader))]);
    cluster.run(2 * SECOND);
    let before = cluster.roster(4);
    for n in 1..=4 {
        cluster.restart(n);
        assert_eq!(cluster.roster(n), before, "at member {n}");
    }
    let next = cluster.elect();
    assert_ne!(next, leader);
}

/// Members come, go, crash and are cut off as a seed says. Whatever happens, no term has two leaders and nothing committed
/// changes; and when all is well again, there is a leader, no change is open, and something can be committed.
#[test]
fn changes_at_any_moment_break_nothing() {
    let seeds = match std::env::var("RAFT_TEST_SEED") {
        Ok(seed) => seed
            .parse()
            .map(|seed| seed..=seed)
            .expect("RAFT_TEST_SEED is a number"),
        Err(_) => 1..=100,
    };
    let mut done = 0;
    for seed in seeds {
        println!(
            "RAFT_TEST_SEED={seed} cargo test -p raftlog-raft -- changes_at_any_moment_break_nothing --nocapture"
        );
        done += Churn::new(seed).run();
    }
    assert!(done > 0, "no change was ever made");
}

const EVER: u64 = 7;

struct Churn {
    random: ChaCha8Rng,
    cluster: Cluster,
    request: RequestId,
    leaders: BTreeMap<Term, u64>,
    committed: BTreeMap<LogIndex, Entry>,
}

impl Churn {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let voters = random.random_range(1..=4);
        let mut cluster = Cluster::new(voters);
        for n in voters + 1..=EVER {
            cluster.start(n, Config::new(id(n)));
        }
        Self {
            random,
            cluster,
            request: 0,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// How many changes were made.
    fn run(mut self) -> usize {
        for _ in 0..150 {
            self.step();
            self.check();
        }
        self.cluster.cut_off.clear();
        self.cluster.apart.clear();
        self.cluster.run(30 * SECOND);
        self.check();
        let leader = self.cluster.elect();
        self.cluster.submit(leader, RequestId::MAX);
        self.cluster.run(2 * SECOND);
        assert!(self.cluster.answers[&RequestId::MAX].is_ok());
        assert!(!self.cluster.members[&leader].configuration().is_joint());
        self.check();
        self.cluster
            .changed
            .values()
            .filter(|result| result.is_ok())
            .count()
    }

    fn step(&mut self) {
        let n = self.random.random_range(1..=EVER);
        self.request += 1;
        match self.random.random_range(0..10) {
            0 => {
                self.cluster.cut_off.insert(n);
            }
            1 => self.cluster.apart = (1..=EVER).filter(|_| self.random.random()).collect(),
            2 => {
                self.cluster.cut_off.remove(&n);
                self.cluster.apart.clear();
            }
            3 => {
                self.cluster.restart(n);
                // Whoever sent to it sees its stream break.
                for other in 1..=EVER {
                    self.cluster.raft(other).peer_stream_broken(id(n));
                }
            }
            4..=6 => self.change(),
            7 => self.cluster.submit(n, self.request),
            8 => {
                let now = self.cluster.now;
                let request = self.request;
                self.cluster.raft(n).transfer_leadership(now, request, None);
                self.cluster.flush(n);
                self.cluster.deliver();
            }
            _ => {}
        }
        let millis = self.random.random_range(0..2_500);
        self.cluster.run(Duration::from_millis(millis));
    }

    fn change(&mut self) {
        let leads = |n: &u64| self.cluster.members[n].role() == RoleName::Leader;
        let leaders: Vec<u64> = (1..=EVER).filter(leads).collect();
        if leaders.is_empty() {
            return;
        }
        let leader = leaders[self.random.random_range(0..leaders.len())];
        let mut changes = Vec::new();
        for _ in 0..self.random.random_range(1..=6) {
            let n = self.random.random_range(1..=EVER);
            changes.push(match self.random.random_range(0..5) {
                0 => AddLearner(listed(n)),
                1 | 2 => Promote(id(n)),
                3 => Demote(id(n)),
                _ => Remove(id(n)),
            });
        }
        self.cluster.change(leader, self.request, &changes);
    }

    fn check(&mut self) {
        for (&n, raft) in &self.cluster.members {
            if raft.role() == RoleName::Leader {
                let leads = *self.leaders.entry(raft.term()).or_insert(n);
                assert_eq!(leads, n, "two leaders of term {}", raft.term());
            }
            for entry in &self.cluster.disks[&n].entries {
                if entry.log_index <= raft.commit() {
                    let known = self
                        .committed
                        .entry(entry.log_index)
                        .or_insert_with(|| entry.clone());
                    assert_eq!(known, entry, "at member {n}");
                }
            }
        }
    }
}
