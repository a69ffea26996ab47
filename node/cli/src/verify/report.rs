//! What `verify` found, for people and for programs.

use raftlog_proto::v1::LoggedOperation;
use serde::Serialize;

use crate::text;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Everybody was there, and nothing differs.
    pub(super) equal: bool,
    /// Up to here all replicators agree that agree at all.
    pub(super) equal_up_to: u64,
    pub(super) replicators: Vec<ReplicatorView>,
    pub(super) nodes: Vec<NodeView>,
    pub(super) differences: Vec<DifferenceView>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplicatorView {
    pub(super) endpoint: String,
    /// Its node's number; 0 while unknown.
    pub(super) node: u32,
    pub(super) first_index: u64,
    pub(super) commit_index: u64,
    pub(super) agrees: bool,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct NodeView {
    pub(super) endpoint: String,
    pub(super) node: u32,
    pub(super) commit_index: u64,
    /// With the replicators, at its commit index; none where that could not be said.
    pub(super) agrees: Option<bool>,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// The first operation at which replicators differ.
#[derive(Debug, Serialize)]
pub(super) struct DifferenceView {
    pub(super) index: u64,
    /// It is the first that can be compared: they may differ earlier.
    pub(super) at_the_latest: bool,
    /// The first side is a majority of all replicators.
    pub(super) majority: bool,
    pub(super) sides: Vec<Side>,
}

/// Replicators that hold the same.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    pub(super) nodes: Vec<u32>,
    pub(super) replicators: Vec<String>,
    /// What they hold there.
    pub(super) at: Option<At>,
}

/// One operation, for people to compare.
#[derive(Debug, Serialize)]
pub(super) struct At {
    pub(super) term: u64,
    #[serde(skip)]
    pub(super) hash: u64,
    running_hash: String,
    operation: String,
}

impl At {
    pub(super) fn new(operation: &LoggedOperation) -> Self {
        Self {
            term: operation.term,
            hash: operation.running_hash,
            running_hash: format!("{:016x}", operation.running_hash),
            operation: text::printable(&operation.data),
        }
    }
}

impl Report {
    pub(super) fn new(
        replicators: Vec<ReplicatorView>,
        nodes: Vec<NodeView>,
        differences: Vec<DifferenceView>,
    ) -> Self {
        let agreeing = replicators.iter().filter(|replicator| replicator.agrees);
        Self {
            equal: replicators.iter().all(|replicator| replicator.agrees)
                && nodes.iter().all(|node| node.agrees == Some(true)),
            equal_up_to: agreeing
                .map(|replicator| replicator.commit_index)
                .min()
                .unwrap_or(0),
            replicators,
            nodes,
            differences,
        }
    }

    fn agreeing_up_to(&self, index: u64) -> usize {
        let agreeing = self.replicators.iter().filter(|replicator| replicator.agrees);
        agreeing
            .filter(|replicator| replicator.commit_index >= index)
            .count()
    }

    pub(super) fn render(&self) -> String {
        let asked = self.replicators.len();
        let mut lines = Vec::new();
        let agreeing = self.agreeing_up_to(0);
        if agreeing > 0 {
            let furthest = self.replicators.iter().filter(|replicator| replicator.agrees);
            let furthest = furthest.map(|replicator| replicator.commit_index).max();
            let further = match furthest {
                Some(index) if index > self.equal_up_to => {
                    format!(
                        ", up to index {index} on {} of {asked}",
                        self.agreeing_up_to(index)
                    )
                }
                _ => String::new(),
            };
            let nodes = self.nodes.iter().filter(|node| node.agrees == Some(true)).count();
            lines.push(format!(
                "equal up to index {} on {agreeing} of {asked} replicators{further}; {nodes} of {} nodes agree",
                self.equal_up_to,
                self.nodes.len()
            ));
        }
        for difference in &self.differences {
            lines.push(difference.what());
            lines.extend(difference.sides.iter().map(Side::line));
        }
        for node in self.nodes.iter().filter(|node| node.agrees == Some(false)) {
            lines.push(format!(
                "node {} at {} holds something else at or before index {}",
                node.node, node.endpoint, node.commit_index
            ));
        }
        lines.extend(self.not_compared());
        lines.join("\n")
    }

    fn not_compared(&self) -> Vec<String> {
        let replicators = self.replicators.iter().filter_map(|replicator| {
            let why = replicator.problem.as_ref()?;
            Some(format!(
                "replicator at {} was not compared: {why}",
                replicator.endpoint
            ))
        });
        let nodes = self.nodes.iter().filter_map(|node| {
            let why = node.problem.as_ref()?;
            Some(format!("node at {} was not compared: {why}", node.endpoint))
        });
        replicators.chain(nodes).collect()
    }

    /// The worst, in one line, with what to do about it.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(difference) = self.differences.first() {
            return Some(format!("{}: {}", difference.what(), self.remedy(difference)));
        }
        if let Some(node) = self.nodes.iter().find(|node| node.agrees == Some(false)) {
            let number = node.node;
            return Some(format!(
                "node {number} at {} holds something else than the replicators at or before index {}: stop it and run \
                 raftctl member replace {number}",
                node.endpoint, node.commit_index
            ));
        }
        let not_compared = self.not_compared();
        let (first, more) = (not_compared.first()?, not_compared.len() - 1);
        let others = if more == 0 {
            String::new()
        } else {
            format!(" (and {more} more)")
        };
        Some(format!(
            "not everything could be compared: {first}{others}; try again when all are there"
        ))
    }

    fn remedy(&self, difference: &DifferenceView) -> String {
        if !difference.majority {
            return "no majority says which is right: stop the cluster from executing more, and compare with what your \
                    own records say"
                .to_owned();
        }
        let wrong = difference.sides.iter().skip(1).flat_map(|side| &side.nodes);
        let advice = wrong.map(|&number| {
            let node = self.nodes.iter().find(|node| node.node == number);
            if node.is_some_and(|node| node.agrees == Some(true)) {
                format!("stop the replicator of node {number}, delete its data folder and start it again")
            } else {
                format!("stop node {number} and its replicator and run raftctl member replace {number}")
            }
        });
        advice.collect::<Vec<_>>().join("; ")
    }
}

impl DifferenceView {
    fn what(&self) -> String {
        let before = if self.at_the_latest {
            "at the latest at"
        } else {
            "from"
        };
        let sides = self.sides.iter().map(|side| {
            let nodes: Vec<String> = side.nodes.iter().map(u32::to_string).collect();
            nodes.join(", ")
        });
        let sides: Vec<String> = sides.collect();
        let among = sides.join(" and those of nodes ");
        let wrong = match sides.get(1..) {
            Some(wrong) if self.majority => format!(", in the minority: {}", wrong.join(", ")),
            _ => String::new(),
        };
        format!(
            "the replicators of nodes {among} differ {before} index {} on{wrong}",
            self.index
        )
    }
}

impl Side {
    fn line(&self) -> String {
        let held = self.at.as_ref().map_or_else(
            || "hold something that could not be read".to_owned(),
            |at| {
                format!(
                    "term {}, running hash {}: {}",
                    at.term, at.running_hash, at.operation
                )
            },
        );
        format!("  {}: {held}", self.replicators.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicator(node: u32, commit_index: u64, agrees: bool) -> ReplicatorView {
        ReplicatorView {
            endpoint: format!("r:{node}"),
            node,
            first_index: 1,
            commit_index,
            agrees,
            problem: None,
        }
    }

    fn node(node: u32, agrees: Option<bool>) -> NodeView {
        NodeView {
            endpoint: format!("n:{node}"),
            node,
            commit_index: 9,
            agrees,
            problem: agrees.is_none().then(|| "no answer".to_owned()),
        }
    }

    fn difference(majority: bool) -> DifferenceView {
        let side = |nodes: &[u32]| Side {
            nodes: nodes.to_vec(),
            replicators: nodes.iter().map(|node| format!("r:{node}")).collect(),
            at: None,
        };
        DifferenceView {
            index: 7,
            at_the_latest: false,
            majority,
            sides: vec![side(&[1, 2]), side(&[3])],
        }
    }

    #[test]
    fn what_is_equal() {
        let nodes = || (1..=3).map(|number| node(number, Some(true))).collect();
        let all = (1..=3).map(|number| replicator(number, 9, true)).collect();
        let report = Report::new(all, nodes(), vec![]);
        assert_eq!(
            report.render(),
            "equal up to index 9 on 3 of 3 replicators; 3 of 3 nodes agree"
        );
        assert!(report.equal && report.problem().is_none());
        let behind = vec![
            replicator(1, 9, true),
            replicator(2, 4, true),
            replicator(3, 9, true),
        ];
        let report = Report::new(behind, nodes(), vec![]);
        assert_eq!(
            report.render(),
            "equal up to index 4 on 3 of 3 replicators, up to index 9 on 2 of 3; 3 of 3 nodes agree"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_a_remedy() {
        let replicators = || {
            vec![
                replicator(1, 9, true),
                replicator(2, 9, true),
                replicator(3, 9, false),
            ]
        };
        for (nodes, majority, words) in [
            (
                [Some(true); 3],
                true,
                &["index 7", "minority: 3", "replicator of node 3, delete"][..],
            ),
            ([Some(true), Some(true), Some(false)], true, &["member replace 3"]),
            ([Some(true); 3], false, &["no majority"]),
        ] {
            let nodes = nodes
                .into_iter()
                .zip(1..)
                .map(|(agrees, number)| node(number, agrees));
            let report = Report::new(replicators(), nodes.collect(), vec![difference(majority)]);
            let problem = report.problem().unwrap();
            assert!(!report.equal && !problem.contains('\n'));
            for word in words {
                assert!(problem.contains(word), "{problem} should say {word}");
            }
        }
        let nodes = vec![node(1, Some(true)), node(2, None), node(3, Some(true))];
        let all = (1..=3).map(|number| replicator(number, 9, true)).collect();
        let report = Report::new(all, nodes, vec![]);
        let problem = report.problem().unwrap();
        assert!(
            !report.equal && problem.contains("n:2") && problem.contains("no answer"),
            "{problem}"
        );
    }
}
