//! How long commits take, where nothing goes wrong.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::Raft;
use raftlog_raft::ids::NodeNumber;
use raftlog_raft::time::Time;
use raftlog_server::node::RequestId;

use super::Cluster;
use crate::client::Request;
use crate::happening::{Happening, Target};

/// A cluster forms, elects and hands over within that time.
const PATIENCE: Duration = Duration::from_mins(5);
/// What is asked for last is answered within that time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Operations to be committed, asked for at their leader.
#[derive(Debug, Clone, Copy)]
pub struct Commits {
    /// Where.
    pub leader: NodeNumber,
    /// How many.
    pub operations: usize,
    /// Bytes of each, at least what makes it different from the others.
    pub bytes: usize,
    /// From one to the next it takes up to twice so long, whether or not the one before is committed. Where absent, the
    /// next one comes when the one before is committed.
    pub every: Option<Duration>,
}

impl Cluster {
    /// Has one node lead, and operations committed there. How long each took, from when the leader had it until the leader
    /// would answer.
    pub fn measure(mut self, commits: Commits) -> Result<Vec<Duration>, String> {
        self.have_lead(commits.leader)?;
        match commits.every {
            None => {
                for _ in 0..commits.operations {
                    let asked = self.ask(commits.leader, self.now, commits.bytes);
                    self.run_until(ANSWERED_WITHIN, |cluster| !cluster.requests.contains_key(&asked))?;
                }
            }
            Some(every) => {
                let mut at = self.now;
                for _ in 0..commits.operations {
                    at = at + self.span(every * 2);
                    self.ask(commits.leader, at, commits.bytes);
                }
                self.run_until((at - self.now) + ANSWERED_WITHIN, |cluster| {
                    cluster.requests.is_empty()
                })?;
            }
        }
        let measured = std::mem::take(&mut self.measured).into_iter();
        measured
            .collect::<Result<_, _>>()
            .map_err(|refusal| format!("node {} did not commit: {refusal:?}", commits.leader))
    }

    fn ask(&mut self, leader: NodeNumber, at: Time, bytes: usize) -> RequestId {
        self.last_request += 1;
        let id = self.last_request;
        // No two are the same, so that it shows if one is appended twice.
        let mut data = format!("{id} ").into_bytes();
        data.resize(data.len().max(bytes), b'x');
        let data = Bytes::from(data);
        self.requests.insert(id, Request::Measured { data, asked: at });
        let target = Target::Node(leader, None);
        self.agenda.add(at, target, Happening::Submit(id));
        id
    }

    /// Until it leads, has committed in its term, and all others have what it has.
    fn have_lead(&mut self, wanted: NodeNumber) -> Result<(), String> {
        let until = self.now + PATIENCE;
        while self.now < until {
            self.run_until(PATIENCE, Self::has_settled_leader)?;
            match self.leader() {
                Some(leader) if leader == wanted => return Ok(()),
                Some(leader) => self.ask_to_hand_over(leader, Some(wanted)),
                None => {}
            }
            // What was asked for takes its time.
            let later = self.now + self.options.election_timeout;
            self.run_until(PATIENCE, |cluster| cluster.now >= later)?;
        }
        Err(format!("node {wanted} does not come to lead"))
    }

    fn has_settled_leader(&self) -> bool {
        let raft = |number: NodeNumber| self.pods[&number].node.as_ref()?.node.raft();
        let Some(leader) = self.leader().and_then(raft) else {
            return false;
        };
        let is_behind = |other: &Raft| other.commit() < leader.commit() || other.term() != leader.term();
        let all = self
            .numbers()
            .all(|number| raft(number).is_some_and(|other| !is_behind(other)));
        all && leader.log().term_at(leader.commit()) == Some(leader.term())
    }

    fn run_until(&mut self, patience: Duration, mut is_so: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let until = self.now + patience;
        while !is_so(self) {
            let next = self.agenda.next().filter(|(at, _)| *at <= until);
            let Some((at, entry)) = next else {
                return Err(format!("nothing came of it within {patience:?}"));
            };
            self.step(at, entry);
            if let Some(violation) = self.violation.take() {
                return Err(violation.to_string());
            }
        }
        Ok(())
    }
}
