//! Marks of execution, by who leads.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl Cluster {
    /// That much was executed beside a member; whether it says so in the log.
    fn mark(&mut self, n: u64, through: u64) -> bool {
        let now = self.now;
        let marks = self.raft(n).mark_execution(now, through);
        self.flush(n);
        self.deliver();
        marks
    }

    fn marks(&self) -> Vec<u64> {
        self.members.values().map(Raft::execution_mark).collect()
    }
}

#[test]
fn a_mark_counts_everywhere_once_it_is_committed_and_is_never_of_what_is_not() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = cluster.followers(leader)[0];
    for request in 1..=3 {
        cluster.submit(leader, request);
    }
    assert!(!cluster.mark(leader, 4), "nobody has committed that");
    assert!(!cluster.mark(follower, 1), "it does not lead");
    assert!(cluster.mark(leader, 2));
    assert!(!cluster.mark(leader, 2), "it says so already");
    assert!(!cluster.mark(leader, 1));
    assert_eq!(cluster.marks(), [2; 3]);
    // One at a time.
    cluster.cut_off = cluster.followers(leader).into_iter().collect();
    assert!(cluster.mark(leader, 3));
    assert_eq!(cluster.members[&leader].execution_mark(), 2);
    assert!(cluster.members[&leader].is_marking_execution());
    cluster.submit(leader, 4);
    assert!(!cluster.mark(leader, 3));
    cluster.cut_off.clear();
    cluster.run(SECOND);
    assert_eq!(cluster.marks(), [3; 3]);
    assert!(cluster.mark(leader, 4));
}

#[test]
fn who_leads_next_goes_on_behind_what_is_committed_and_a_mark_that_is_not_goes_with_the_tail() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    for request in 1..=3 {
        cluster.submit(old, request);
    }
    assert!(cluster.mark(old, 1));
    // What it says to nobody gives way.
    cluster.cut_off.insert(old);
    let term = cluster.members[&old].term();
    assert!(cluster.mark(old, 3) && cluster.members[&old].is_marking_execution());
    let new = cluster.elect();
    assert_eq!(cluster.members[&old].executes_in(), None, "it has no majority");
    assert_eq!(
        (
            cluster.marks(),
            cluster.members[&new].executes_in().is_some_and(|t| t > term)
        ),
        (vec![1; 3], true)
    );
    cluster.cut_off.clear();
    cluster.run(5 * SECOND);
    let fold = cluster.members[&old].log().fold();
    assert_eq!(fold.executed_through, 1, "rewound");
    // Across restarts of all, too.
    for n in 1..=3 {
        cluster.restart(n);
    }
    cluster.elect();
    assert_eq!(cluster.marks(), [1; 3]);
}

#[test]
fn nobody_executes_before_its_term_has_a_commit_or_while_it_hands_over() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    assert!(cluster.members[&leader].executes_in().is_some());
    assert!(
        cluster
            .members
            .values()
            .filter(|raft| raft.executes_in().is_some())
            .count()
            == 1
    );
    // The one that takes over commits nothing yet.
    cluster.lost = |message| matches!(message.body, Body::AppendEntriesResponse(_));
    let target = cluster.followers(leader)[0];
    let now = cluster.now;
    let node = NodeNumber::try_from(target).unwrap();
    cluster.raft(leader).transfer_leadership(now, 9, Some(node));
    assert_eq!(cluster.members[&leader].executes_in(), None, "it hands over");
    cluster.flush(leader);
    cluster.deliver();
    assert_eq!(cluster.leader(), Some(target));
    assert_eq!(cluster.members[&target].executes_in(), None);
    cluster.lost = |_| false;
    cluster.run(SECOND);
    assert!(cluster.members[&target].executes_in().is_some());
}
