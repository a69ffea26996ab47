//! How a new node comes to belong to a cluster: every initial peer is asked what it is; the lowest node forms the cluster
//! once all of them are there and none of them belongs to one; whoever is listed in a formed one takes that.
//!
//! The first start needs everybody on purpose: a node that has lost its disk is a new member and must never help to form a
//! second cluster beside the one it belonged to.

use std::collections::BTreeMap;
use std::time::Duration;

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use raftlog_raft::membership::Member;
use raftlog_raft::time::Time;

use super::api::PeerReport;

const ASK_EVERY_MIN: Duration = Duration::from_millis(200);
const ASK_EVERY_MAX: Duration = Duration::from_secs(2);

/// A node that belongs to no cluster yet.
#[derive(Debug)]
pub(super) struct Formation {
    me: Member,
    peers: BTreeMap<NodeNumber, String>,
    /// Without initial peers, somebody else forms the cluster.
    by_itself: bool,
    /// What was removed from a cluster does not become another one with others that were.
    was_removed: bool,
    /// What was said in the current round of questions.
    reports: BTreeMap<NodeNumber, PeerReport>,
    /// What was said in the one before, for people.
    last_reports: BTreeMap<NodeNumber, PeerReport>,
    due: Time,
    ask_every: Duration,
}

/// What a node's formation comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing yet.
    Wait,
    /// Form a cluster of these members; its identity is to be made.
    Form(Vec<Member>),
    /// Take the place in a cluster that lists this member.
    Join(ClusterId, Vec<Member>),
}

impl Formation {
    /// `peers` are the initial voters, this node among them; none where it waits to be bootstrapped or added.
    pub(super) fn new(me: Member, mut peers: BTreeMap<NodeNumber, String>, now: Time) -> Self {
        let by_itself = !peers.is_empty();
        peers.remove(&me.node);
        Self {
            me,
            peers,
            by_itself,
            was_removed: false,
            reports: BTreeMap::new(),
            last_reports: BTreeMap::new(),
            due: now,
            ask_every: ASK_EVERY_MIN,
        }
    }

    /// A member with this data folder was removed: it forms no cluster.
    pub(super) fn forms_none(&mut self) {
        self.was_removed = true;
    }

    /// When [`Formation::ask`] is due.
    pub(super) fn due(&self) -> Time {
        if self.by_itself { self.due } else { Time::NEVER }
    }

    /// Starts a new round: whom to ask. A round counts as a whole, as what a peer said long ago may be true no more.
    pub(super) fn ask(&mut self, now: Time) -> Vec<(NodeNumber, String)> {
        self.due = now + self.ask_every;
        self.ask_every = (self.ask_every * 2).min(ASK_EVERY_MAX);
        if !self.reports.is_empty() {
            self.last_reports = std::mem::take(&mut self.reports);
        }
        self.peers
            .iter()
            .map(|(&node, address)| (node, address.clone()))
            .collect()
    }

    /// A peer has answered.
    pub(super) fn report(&mut self, node: NodeNumber, report: PeerReport) {
        if self.peers.contains_key(&node) {
            self.reports.insert(node, report);
        }
    }

    /// What the answers of this round come to.
    pub(super) fn decide(&self) -> Decision {
        for report in self.reports.values() {
            // An initial member that missed Bootstrap is listed, and so is one that was added since.
            if let PeerReport::Formed {
                cluster_id,
                member_ids,
                bootstrap,
            } = report
                && member_ids.contains(&self.me.id)
                && !bootstrap.is_empty()
            {
                return Decision::Join(*cluster_id, bootstrap.clone());
            }
        }
        let mut members = vec![self.me.clone()];
        for &node in self.peers.keys() {
            match self.reports.get(&node) {
                Some(PeerReport::Unformed {
                    member_id,
                    peer_address,
                    client_address,
                }) if members.iter().all(|member| member.id != *member_id) => {
                    members.push(Member {
                        id: *member_id,
                        node,
                        peer_address: peer_address.clone(),
                        client_address: client_address.clone(),
                        voter: true,
                    });
                }
                _ => return Decision::Wait,
            }
        }
        let lowest = self.peers.keys().all(|&node| self.me.node < node);
        if lowest && self.by_itself && !self.was_removed {
            Decision::Form(members)
        } else {
            Decision::Wait
        }
    }

    /// What it waits for, for people.
    pub(super) fn waiting_for(&self) -> String {
        if !self.by_itself {
            return "belongs to no cluster and was given no --peer; it waits to be bootstrapped or added"
                .to_owned();
        }
        let reports = if self.reports.len() < self.peers.len() {
            &self.last_reports
        } else {
            &self.reports
        };
        let mut missing = Vec::new();
        let mut doubled = Vec::new();
        let mut removed = Vec::new();
        let mut seen: Vec<(NodeNumber, MemberId)> = vec![(self.me.node, self.me.id)];
        for (&node, address) in &self.peers {
            match reports.get(&node) {
                Some(PeerReport::Formed {
                    cluster_id,
                    member_ids,
                    ..
                }) => {
                    return self.not_listed(*cluster_id, node, member_ids);
                }
                Some(PeerReport::Unformed { member_id, .. }) => {
                    if let Some((other, _)) = seen.iter().find(|(_, id)| id == member_id) {
                        doubled.push(format!("nodes {other} and {node} both are member {member_id}"));
                    }
                    seen.push((node, *member_id));
                }
                Some(PeerReport::WasRemoved) => removed.push(format!("Node {node}")),
                _ => missing.push(format!("Node {node} at {address}")),
            }
        }
        if self.was_removed {
            return "belongs to no cluster: it was removed from one, as the folder removed-... beside its data tells, so it forms \
                    none with its peers; it waits to be added as a new member"
                .to_owned();
        }
        if !removed.is_empty() {
            return format!(
                "belongs to no cluster, and forms none with who was removed from one: {}; it waits to be added as a new member",
                removed.join(", ")
            );
        }
        if !doubled.is_empty() {
            return format!(
                "{}: one of the data folders is a copy; empty it",
                doubled.join(", ")
            );
        }
        if !missing.is_empty() {
            return format!(
                "belongs to no cluster yet; the first start needs all initial peers, and these are missing: {}",
                missing.join(", ")
            );
        }
        let lowest = self
            .peers
            .keys()
            .min()
            .map_or(self.me.node, |&node| node.min(self.me.node));
        format!("belongs to no cluster yet; all initial peers are there, and Node {lowest} forms the cluster")
    }

    fn not_listed(&self, cluster: ClusterId, node: NodeNumber, members: &[MemberId]) -> String {
        let me = self.me.id;
        if members.contains(&me) {
            return format!(
                "Node {node} lists member {me} in cluster {cluster}; it waits to receive the log"
            );
        }
        format!(
            "Node {node} belongs to cluster {cluster}, which does not list member {me}: this data folder is new or was \
             emptied, so this is not the voter that it may have been; it waits to be added as a new member"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: NodeNumber) -> Member {
        Member {
            id: MemberId::new(u64::from(node) * 11).unwrap(),
            node,
            peer_address: format!("node{node}:5002"),
            client_address: format!("node{node}:5001"),
            voter: true,
        }
    }

    fn unformed(node: NodeNumber) -> PeerReport {
        let Member {
            id,
            peer_address,
            client_address,
            ..
        } = member(node);
        PeerReport::Unformed {
            member_id: id,
            peer_address,
            client_address,
        }
    }

    fn cluster() -> ClusterId {
        ClusterId::new(99).unwrap()
    }

    fn formed(nodes: &[NodeNumber]) -> PeerReport {
        let bootstrap: Vec<Member> = nodes.iter().map(|&node| member(node)).collect();
        let member_ids = bootstrap.iter().map(|member| member.id).collect();
        PeerReport::Formed {
            cluster_id: cluster(),
            member_ids,
            bootstrap,
        }
    }

    /// Node 1 was added to a cluster of 2 and 3.
    fn added() -> PeerReport {
        PeerReport::Formed {
            cluster_id: cluster(),
            member_ids: (1..=3).map(|node| member(node).id).collect(),
            bootstrap: vec![member(2), member(3)],
        }
    }

    fn untold() -> PeerReport {
        PeerReport::Formed {
            cluster_id: cluster(),
            member_ids: vec![member(1).id],
            bootstrap: Vec::new(),
        }
    }

    fn formation(node: NodeNumber, reports: &[(NodeNumber, PeerReport)]) -> Formation {
        let peers = (1..=3).map(|node| (node, format!("node{node}:5002"))).collect();
        let mut formation = Formation::new(member(node), peers, Time(0));
        assert_eq!(formation.ask(Time(0)).len(), 2, "it does not ask itself");
        for (node, report) in reports {
            formation.report(*node, report.clone());
        }
        formation
    }

    #[test]
    fn who_forms_and_who_waits() {
        let all: Vec<Member> = (1..=3).map(member).collect();
        let join = Decision::Join(cluster(), all.clone());
        let cases = [
            (
                "all there, lowest",
                1,
                vec![(2, unformed(2)), (3, unformed(3))],
                Decision::Form(all),
            ),
            (
                "all there, not lowest",
                2,
                vec![(1, unformed(1)), (3, unformed(3))],
                Decision::Wait,
            ),
            ("one silent", 1, vec![(2, unformed(2))], Decision::Wait),
            (
                "one away",
                1,
                vec![(2, unformed(2)), (3, PeerReport::Unreachable)],
                Decision::Wait,
            ),
            (
                "formed, and lists this one",
                2,
                vec![(1, formed(&[1, 2, 3]))],
                join.clone(),
            ),
            (
                "formed, and lists this one since",
                1,
                vec![(2, added()), (3, PeerReport::Unreachable)],
                Decision::Join(cluster(), vec![member(2), member(3)]),
            ),
            (
                "formed, and does not tell with whom",
                1,
                vec![(2, untold())],
                Decision::Wait,
            ),
            (
                "formed, though others are not",
                1,
                vec![(2, unformed(2)), (3, formed(&[1, 2, 3]))],
                join,
            ),
            (
                "formed without this one",
                1,
                vec![(2, unformed(2)), (3, formed(&[2, 3]))],
                Decision::Wait,
            ),
            (
                "the same identity twice",
                1,
                vec![(2, unformed(2)), (3, unformed(2))],
                Decision::Wait,
            ),
            (
                "own identity elsewhere",
                1,
                vec![(2, unformed(1)), (3, unformed(3))],
                Decision::Wait,
            ),
        ];
        for (name, node, reports, decision) in cases {
            assert_eq!(formation(node, &reports).decide(), decision, "{name}");
        }
    }

    #[test]
    fn nobody_forms_a_cluster_with_who_was_removed_from_one() {
        let others = [(2, unformed(2)), (3, unformed(3))];
        let mut lowest = formation(1, &others);
        assert!(matches!(lowest.decide(), Decision::Form(_)));
        lowest.forms_none();
        assert_eq!(lowest.decide(), Decision::Wait);
        let said = lowest.waiting_for();
        assert!(
            said.contains("removed-") && said.contains("waits to be added"),
            "{said}"
        );
        let beside = formation(1, &[(2, unformed(2)), (3, PeerReport::WasRemoved)]);
        assert_eq!(beside.decide(), Decision::Wait);
        let said = beside.waiting_for();
        assert!(said.contains("removed from one: Node 3"), "{said}");
        // What it was removed from, or another, may list it again.
        let mut added_again = formation(1, &[(2, added()), (3, PeerReport::WasRemoved)]);
        added_again.forms_none();
        assert!(matches!(added_again.decide(), Decision::Join(..)));
    }

    #[test]
    fn a_round_counts_as_a_whole() {
        let mut formation = formation(1, &[(2, unformed(2))]);
        formation.ask(formation.due());
        formation.report(3, unformed(3));
        assert_eq!(
            formation.decide(),
            Decision::Wait,
            "Node 2 may have changed since"
        );
    }

    #[test]
    fn it_says_what_it_waits_for() {
        let cases = [
            (
                vec![(2, unformed(2)), (3, PeerReport::Unreachable)],
                "missing: Node 3 at node3:5002",
            ),
            (
                vec![(2, unformed(2)), (3, unformed(3))],
                "Node 1 forms the cluster",
            ),
            (
                vec![(2, formed(&[2, 3])), (3, formed(&[2, 3]))],
                "waits to be added as a new member",
            ),
            (vec![(2, unformed(2)), (3, unformed(2))], "is a copy"),
        ];
        for (reports, text) in cases {
            let said = formation(1, &reports).waiting_for();
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn questions_become_rarer() {
        let mut formation = formation(1, &[]);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            let before = formation.due();
            formation.ask(before);
            gaps.push((formation.due() - before).as_millis());
        }
        assert_eq!(gaps, [400, 800, 1600, 2000, 2000, 2000]);
    }
}
