//! Snapshots from a leader: Raft 7.

use proptest::prelude::*;

use super::*;
use crate::log::Base;
use crate::raft::Installed;

type Snapshot = (LogPosition, Fold);

impl Cluster {
    /// What a member's log adds up to at an index.
    fn snapshot_of(&self, n: u64, index: u64) -> Snapshot {
        let disk = &self.disks[&n];
        let (mut position, mut fold) = disk.beginning(self.voters);
        for entry in disk.entries_behind(position.index) {
            if entry.log_index <= index {
                fold.apply(entry);
                position = LogPosition {
                    index: entry.log_index,
                    term: entry.term,
                };
            }
        }
        assert_eq!(position.index, index);
        (position, fold)
    }

    /// A member lets go of all that is committed.
    fn compact(&mut self, n: u64) -> Snapshot {
        let commit = self.members[&n].commit();
        let (position, fold) = self.snapshot_of(n, commit);
        self.raft(n).compact_to(Base::new(position, &fold));
        (position, fold)
    }

    /// Saves a snapshot that has come, and starts from it, as a node does. `None`: the core has no use for it.
    fn install(&mut self, n: u64, (position, fold): Snapshot) -> Option<Installed> {
        let now = self.now;
        let ticket = self.raft(n).make_way_for_snapshot(now, position)?;
        self.flush(n);
        assert!(self.members[&n].is_persisted(ticket));
        self.disks.get_mut(&n).unwrap().snapshot = Some((position, fold.clone()));
        let installed = self.raft(n).snapshot_installed(now, position, fold).unwrap();
        if installed == Installed::Log {
            self.disks.get_mut(&n).unwrap().entries.clear();
        }
        self.flush(n);
        self.deliver();
        Some(installed)
    }

    fn needs_snapshot(&self, leader: u64) -> Vec<u64> {
        let progress = self.members[&leader].progress();
        let needs = progress.filter(|(_, progress)| progress.needs_snapshot());
        needs.map(|(id, _)| id.get()).collect()
    }
}

/// A cluster whose leader has let go of entries that a follower lacks: the leader, the follower, the snapshot.
fn left_behind() -> (Cluster, u64, u64, Snapshot) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let behind = cluster.followers(leader)[0];
    cluster.cut_off.insert(behind);
    for request in 1..=5 {
        cluster.submit(leader, request);
    }
    let snapshot = cluster.compact(leader);
    cluster.submit(leader, 6);
    cluster.cut_off.clear();
    cluster.sent.clear();
    (cluster, leader, behind, snapshot)
}

/// That one gets heartbeats and no entries, without a storm of messages, and the snapshot is ordered for it.
#[test]
fn s7_who_lacks_what_is_in_a_snapshot_is_sent_it() {
    let (mut cluster, leader, behind, (position, _)) = left_behind();
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.leader(), Some(leader), "heartbeats reach it");
    assert!(cluster.sent.len() < 100, "{} messages", cluster.sent.len());
    assert_eq!(cluster.needs_snapshot(leader), [behind]);
    assert!(cluster.members[&behind].commit() < position.index);
    let ordered = &cluster.snapshots_ordered;
    assert!(ordered.iter().all(|order| *order == (leader, behind)));
    assert!((8..=10).contains(&ordered.len()), "{ordered:?}");
}

#[test]
fn s7_a_snapshot_is_ordered_once_a_heartbeat_and_for_nobody_who_is_not_there() {
    let (mut cluster, leader, behind, _) = left_behind();
    cluster.cut_off.insert(behind);
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.snapshots_ordered, []);
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(1));
    // Every read has a message to every follower.
    for request in 1..=50 {
        let now = cluster.now;
        cluster.raft(leader).read_index(now, request);
        cluster.flush(leader);
        cluster.deliver();
    }
    assert_eq!(cluster.snapshots_ordered, [(leader, behind)]);
}

#[test]
fn a_follower_whose_log_is_about_to_be_full_gets_a_snapshot_that_makes_room() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = cluster.followers(leader)[0];
    for request in 1..=5 {
        cluster.submit(leader, request);
    }
    cluster.run(Duration::from_secs(2));
    let wants = |cluster: &mut Cluster, behind| {
        cluster.snapshots_ordered.clear();
        cluster.raft(follower).want_snapshot(behind);
        cluster.run(Duration::from_secs(1));
        for request in 1..=20 {
            let now = cluster.now;
            cluster.raft(leader).read_index(now, request + 1_000 * now.0);
            cluster.flush(leader);
            cluster.deliver();
        }
        cluster.snapshots_ordered.clone()
    };
    assert_eq!(wants(&mut cluster, Some(0)), [], "the leader has none");
    let snapshot = cluster.compact(leader);
    let (position, _) = snapshot;
    assert_eq!(wants(&mut cluster, Some(position.index)), [], "it would not help");
    assert_eq!(
        wants(&mut cluster, Some(position.index - 1)),
        [(leader, follower)]
    );
    cluster.submit(leader, 6);
    assert_eq!(cluster.index_of(6), 6, "nothing waits for it");
    let log = cluster.members[&follower].log().last();
    assert_eq!(
        cluster.install(follower, snapshot.clone()),
        Some(Installed::Nothing)
    );
    assert_eq!(cluster.members[&follower].log().last(), log, "the log stays");
    assert_eq!(wants(&mut cluster, None), []);
    assert_eq!(cluster.install(follower, snapshot), None, "there is room");
}

#[test]
fn s7_a_follower_goes_on_behind_the_snapshot_at_once() {
    let (mut cluster, leader, behind, snapshot) = left_behind();
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.install(behind, snapshot), Some(Installed::Log));
    let (log, leaders) = (cluster.members[&behind].log(), cluster.members[&leader].log());
    assert_eq!((log.last(), log.fold()), (leaders.last(), leaders.fold()));
    assert_eq!(cluster.needs_snapshot(leader), []);
    cluster.submit(leader, 7);
    assert_eq!(
        cluster.members[&behind].commit(),
        cluster.members[&leader].commit()
    );
    cluster.restart(behind);
    cluster.cut_off.insert(leader);
    cluster.elect();
    let last = |n: &u64| cluster.members[n].log().last();
    assert_eq!(
        last(&behind),
        last(&cluster.followers(leader)[1]),
        "the two elect one of them"
    );
}

/// While the snapshot was on its way the leader let go of even more.
#[test]
fn s7_a_follower_that_is_still_behind_is_sent_a_later_snapshot() {
    let (mut cluster, leader, behind, snapshot) = left_behind();
    cluster.run(Duration::from_secs(1));
    let later = cluster.compact(leader);
    cluster.install(behind, snapshot);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.needs_snapshot(leader), [behind]);
    assert_eq!(cluster.install(behind, later), Some(Installed::Log));
    assert_eq!(cluster.needs_snapshot(leader), []);
}

#[test]
fn s7_a_leader_installs_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let fold = Fold::new(configuration(3));
    let (now, position) = (cluster.now, LogPosition { index: 9, term: 1 });
    assert_eq!(cluster.install(leader, (position, fold.clone())), None);
    let last = cluster.members[&leader].log().last();
    let installed = cluster.raft(leader).snapshot_installed(now, position, fold);
    assert_eq!(installed, Ok(Installed::Nothing));
    assert_eq!(cluster.members[&leader].log().last(), last);
}

/// A joint configuration that is in the snapshot is in force, as one in the log would be.
#[test]
fn s7_the_configuration_is_that_of_the_snapshot() {
    let mut raft = member(3, 3, Config::new(id(3)), &Disk::default(), Time(0));
    let joint = configuration(3).toward(&configuration(2), 4);
    assert!(joint.is_joint());
    let fold = Fold::new(joint.clone());
    let position = LogPosition { index: 5, term: 2 };
    raft.term_heard(Time(1), 2);
    let installed = raft.snapshot_installed(Time(1), position, fold);
    assert_eq!(installed, Ok(Installed::Log));
    assert_eq!(
        (raft.configuration(), raft.committed_configuration()),
        (&joint, &joint)
    );
}

/// Others may have voted for the log that it had: with less, or other, entries it must not be elected.
#[test]
fn s5_4_1_a_candidate_whose_log_gives_way_is_none_any_more() {
    for own in [vec![1, 1, 1], vec![1]] {
        let entries = entries_of(&own);
        let disk = Disk::holding(HardState::default(), entries);
        let mut raft = member(1, 3, Config::new(id(1)), &disk, Time(0));
        let now = raft.deadline();
        raft.tick(now);
        raft.term_heard(now, 2);
        let now = raft.deadline();
        raft.tick(now);
        assert_eq!(raft.role(), RoleName::PreCandidate);
        let (position, fold) = snapshot_at(&[2, 2, 2], 2);
        raft.make_way_for_snapshot(now, position).unwrap();
        raft.snapshot_installed(now, position, fold).unwrap();
        assert_eq!(raft.role(), RoleName::Follower, "{own:?}");
    }
}

#[test]
fn s5_1_a_term_is_heard_from_what_is_no_message_too() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (now, term) = (cluster.now, cluster.members[&leader].term());
    for (heard, expected) in [
        (term, term),
        (u64::MAX, term),
        (term - 1, term),
        (term + 1, term + 1),
    ] {
        cluster.raft(leader).term_heard(now, heard);
        assert_eq!(cluster.members[&leader].term(), expected);
    }
    assert_eq!(cluster.members[&leader].role(), RoleName::Follower);
}

#[test]
fn a_snapshot_that_contradicts_the_log_is_refused() {
    // While its fold was read back, what it ends with may have been committed here by another leader's word.
    let cases = [
        ("other operations", 2, 1, 0),
        ("another term", 2, 3, 0),
        ("a term that is none yet", 9, 9, 0),
        ("other operations than are committed", 2, 1, 3),
        ("another term than is committed", 2, 3, 3),
    ];
    for (name, index, term, commit) in cases {
        let (position, fold) = (LogPosition { index, term }, Fold::new(configuration(3)));
        let state = HardState {
            commit,
            ..HardState::default()
        };
        let disk = Disk::holding(state, entries_of(&[1, 1, 1]));
        let mut raft = member(1, 3, Config::new(id(1)), &disk, Time(0));
        assert!(
            raft.snapshot_installed(Time(1), position, fold).is_err(),
            "{name}"
        );
        assert_eq!((raft.commit(), raft.log().last().index), (commit, 3), "{name}");
    }
}

/// Operations of these terms, as a log of three voters has them.
fn entries_of(terms: &[u64]) -> Vec<Entry> {
    let mut fold = Fold::new(configuration(3));
    let mut entries = Vec::new();
    for (at, &term) in (1..).zip(terms) {
        let payload = Payload::Operation(Operation {
            data: "op".into(),
            session: None,
        });
        let entry = fold.next_entry(at, term, payload);
        fold.apply(&entry);
        entries.push(entry);
    }
    entries
}

fn snapshot_at(terms: &[u64], index: usize) -> Snapshot {
    let mut fold = Fold::new(configuration(3));
    for entry in &entries_of(&terms[..index]) {
        fold.apply(entry);
    }
    let position = LogPosition {
        index: index as u64,
        term: terms[index - 1],
    };
    (position, fold)
}

/// Terms of a log, from `first` on.
fn terms(first: u64, lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(0..2_u64, lengths).prop_map(move |steps| {
        let mut term = first;
        let step = |step| {
            term += step;
            term
        };
        steps.into_iter().map(step).collect()
    })
}

/// A follower with a log, its disk, and how much of it is committed.
fn follower(own: &[u64], committed: usize) -> (Raft, Disk) {
    let hard_state = HardState {
        term: 20,
        commit: committed as u64,
        ..HardState::default()
    };
    let disk = Disk::holding(hard_state, entries_of(own));
    (member(1, 3, Config::new(id(1)), &disk, Time(0)), disk)
}

fn write(raft: &mut Raft, disk: &mut Disk) {
    let tickets: Vec<Ticket> = raft
        .flush(Time(1))
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(persist) => {
                disk.write(persist);
                Some(persist.ticket)
            }
            _ => None,
        })
        .collect();
    for ticket in tickets {
        raft.persisted(Time(1), ticket);
    }
}

proptest! {
    /// Whatever the two logs have in common, and wherever the follower goes down on the way.
    #[test]
    fn s7_a_follower_holds_the_leaders_log_up_to_the_snapshot(
        common in terms(1, 0..6), own in terms(7, 0..6), leaders in terms(7, 0..6),
        differ in 0..2_u64, committed in 0..6_usize, at in 1..12_usize,
    ) {
        // The other branch has other terms; which of the two is the later one is all the same.
        let odd = |terms: Vec<u64>, odd: u64| terms.into_iter().map(move |term| term * 2 + odd).collect::<Vec<_>>();
        let own: Vec<u64> = common.iter().copied().chain(odd(own, differ)).collect();
        let leaders: Vec<u64> = common.iter().copied().chain(odd(leaders, 1 - differ)).collect();
        let at = at.min(leaders.len());
        prop_assume!(at > 0);
        let committed = committed.min(common.len());
        let (position, fold) = snapshot_at(&leaders, at);
        let (mut raft, mut disk) = follower(&own, committed);
        raft.term_heard(Time(1), 40);
        let again = |disk: &Disk| member(1, 3, Config::new(id(1)), disk, Time(0));

        let Some(ticket) = raft.make_way_for_snapshot(Time(1), position) else {
            prop_assert!(at <= committed);
            return Ok(());
        };
        write(&mut raft, &mut disk);
        prop_assert!(raft.is_persisted(ticket));
        // It goes down before the snapshot is saved: nothing that may be committed is gone.
        let down = again(&disk);
        let kept = own.len().min(if own.get(at - 1) == Some(&leaders[at - 1]) { usize::MAX } else { at - 1 });
        prop_assert_eq!(down.log().last().index, kept as u64);

        disk.snapshot = Some((position, fold.clone()));
        // It goes down before it starts from the snapshot.
        let down = again(&disk);
        prop_assert!(down.commit() >= position.index);

        let installed = raft.snapshot_installed(Time(1), position, fold.clone()).unwrap();
        let keeps_tail = kept >= at;
        prop_assert_eq!(installed, if keeps_tail { Installed::Commit } else { Installed::Log });
        // What is in a snapshot that is saved is on disk, with nothing else to be written.
        prop_assert!(raft.persisted_index() >= raft.log().base().position.index);
        write(&mut raft, &mut disk);
        for raft in [&raft, &down, &again(&disk)] {
            prop_assert_eq!(raft.commit(), position.index);
            prop_assert_eq!(raft.log().term_at(position.index), Some(position.term));
            prop_assert_eq!(raft.log().operation_index_at(position.index), fold.operation_index);
            prop_assert_eq!(raft.log().last().index, if keeps_tail { own.len() as u64 } else { position.index });
            prop_assert_eq!(raft.persisted_index(), raft.log().last().index);
        }
        prop_assert_eq!(raft.log().fold(), down.log().fold());
    }
}

/// A member whose log begins after entry 7, of term 3.
fn after_a_snapshot() -> Raft {
    let position = LogPosition { index: 7, term: 3 };
    let log = Log::over(position, Fold::new(configuration(3)), 1 << 20);
    let random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    Raft::new(Config::new(id(1)), HardState::default(), log, random, Time(0))
}

#[test]
fn a_member_whose_log_begins_in_a_snapshot_has_committed_that_far() {
    let raft = after_a_snapshot();
    assert_eq!((raft.commit(), raft.term(), raft.persisted_index()), (7, 3, 7));
}

/// A leader that does not know how far a follower is sends what the follower has in a snapshot, again.
#[test]
fn entries_that_are_in_a_snapshot_are_passed_over() {
    let mut raft = after_a_snapshot();
    let entry = |log_index| Entry {
        log_index,
        term: 3,
        operation_index: 0,
        running_hash: 0,
        payload: Payload::Noop,
    };
    let request = AppendEntries {
        previous: LogPosition { index: 4, term: 2 },
        entries: (5..=9).map(entry).collect(),
        commit: 8,
        round: 1,
        heartbeat: false,
        minimum_election_timeout: Duration::from_millis(1_500),
        read_answers: Vec::new(),
        previous_hash: None,
    };
    let message = Message {
        from: id(2),
        to: id(1),
        term: 3,
        level: FeatureLevel::FIRST,
        body: Body::AppendEntries(request),
    };
    raft.message(Time(1), message);
    let effects = raft.flush(Time(1));
    let refused = |effect: &Effect| matches!(effect, Effect::Notice(Notice::EntriesRefused { .. }));
    assert!(!effects.iter().any(refused), "{effects:?}");
    assert_eq!((raft.log().last().index, raft.commit()), (9, 8));
}
