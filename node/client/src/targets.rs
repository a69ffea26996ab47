//! Which endpoint the next attempt goes to: pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::endpoint::Endpoint;

/// How long an address that a leader gave and that could not be used is left alone.
const SHUN_FOR: Duration = Duration::from_secs(30);

/// The most addresses that are remembered as unusable.
const SHUNNED_MAX: usize = 64;

/// The endpoints, and which of them comes next. Any of them forwards to the leader; the leader itself saves that hop.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    endpoints: Vec<Endpoint>,
    cursor: usize,
    leader: Option<Endpoint>,
    shunned: BTreeMap<Endpoint, Instant>,
    follow: bool,
}

impl Targets {
    /// `endpoints` must not be empty. Without `follow` the leader's address is never used because it is the leader's.
    pub(crate) fn new(endpoints: Vec<Endpoint>, follow: bool) -> Self {
        assert!(!endpoints.is_empty(), "a client needs at least one endpoint");
        Self {
            endpoints,
            cursor: 0,
            leader: None,
            shunned: BTreeMap::new(),
            follow,
        }
    }

    /// How many different endpoints attempts go to.
    pub(crate) fn count(&self) -> usize {
        self.endpoints.len() + usize::from(self.leader.is_some())
    }

    /// All the endpoints that were given.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Where the next attempt goes.
    pub(crate) fn current(&self) -> Endpoint {
        self.leader
            .clone()
            .unwrap_or_else(|| self.endpoints[self.cursor % self.endpoints.len()].clone())
    }

    /// An attempt at `target` failed: the next one goes elsewhere, unless another call has moved on already.
    pub(crate) fn failed(&mut self, target: &Endpoint) {
        if self.current() == *target {
            self.advance();
        }
    }

    /// The next endpoint in turn.
    pub(crate) fn advance(&mut self) {
        if self.leader.take().is_none() {
            self.cursor = (self.cursor + 1) % self.endpoints.len();
        }
    }

    /// A call through `target` was answered by the leader at `leader`: the address worth trying to connect to, if any.
    pub(crate) fn answered(&self, target: &Endpoint, leader: &str, now: Instant) -> Option<Endpoint> {
        if !self.follow || *target != self.current() || leader.is_empty() {
            return None;
        }
        let leader = Endpoint::parse(leader).ok()?;
        let shunned = self
            .shunned
            .get(&leader)
            .is_some_and(|since| now.duration_since(*since) < SHUN_FOR);
        (leader != *target && !shunned).then_some(leader)
    }

    /// The leader's address connected at once: use it while it works.
    pub(crate) fn followed(&mut self, leader: Endpoint) {
        if let Some(position) = self.endpoints.iter().position(|endpoint| *endpoint == leader) {
            self.cursor = position;
            self.leader = None;
        } else {
            self.leader = Some(leader);
        }
    }

    /// The leader's address did not connect at once, or is not that cluster's leader: stay, and be forwarded.
    pub(crate) fn shun(&mut self, leader: Endpoint, now: Instant) {
        self.shunned
            .retain(|_, since| now.duration_since(*since) < SHUN_FOR);
        if self.shunned.len() < SHUNNED_MAX {
            self.shunned.insert(leader, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    fn targets(follow: bool) -> Targets {
        Targets::new(Endpoint::parse_list("a:1,b:1,c:1").unwrap(), follow)
    }

    #[test]
    fn failures_go_round() {
        let mut targets = targets(true);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let target = targets.current();
            targets.failed(&target);
            seen.push(target.to_string());
        }
        assert_eq!(seen, ["a:1", "b:1", "c:1", "a:1"]);
    }

    #[test]
    fn two_calls_that_fail_at_one_endpoint_move_on_once() {
        let mut targets = targets(true);
        let target = targets.current();
        targets.failed(&target);
        targets.failed(&target);
        assert_eq!(targets.current(), endpoint("b:1"));
    }

    #[test]
    fn which_leader_addresses_are_worth_trying() {
        let now = Instant::now();
        for (follow, leader, expected) in [
            (true, "b:1", Some("b:1")),
            (true, "elsewhere:5001", Some("elsewhere:5001")),
            (true, "a:1", None),
            (true, "", None),
            (true, "not an address", None),
            (false, "b:1", None),
        ] {
            let wanted = targets(follow).answered(&endpoint("a:1"), leader, now);
            assert_eq!(wanted, expected.map(endpoint), "{follow} {leader}");
        }
    }

    #[test]
    fn a_leader_is_followed_until_it_fails() {
        let mut targets = targets(true);
        targets.followed(endpoint("elsewhere:5001"));
        assert_eq!(targets.current(), endpoint("elsewhere:5001"));
        assert_eq!(targets.count(), 4);
        targets.failed(&endpoint("elsewhere:5001"));
        assert_eq!(targets.current(), endpoint("a:1"), "back to where it was");
        targets.followed(endpoint("c:1"));
        assert_eq!(targets.current(), endpoint("c:1"));
        assert_eq!(targets.count(), 3);
    }

    #[test]
    fn an_unusable_leader_address_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut targets = targets(true);
        targets.shun(endpoint("b:1"), now);
        assert_eq!(targets.answered(&endpoint("a:1"), "b:1", now), None);
        assert_eq!(
            targets.answered(&endpoint("a:1"), "b:1", now + SHUN_FOR),
            Some(endpoint("b:1"))
        );
    }

    #[test]
    fn the_memory_of_unusable_addresses_is_bounded() {
        let now = Instant::now();
        let mut targets = targets(true);
        for port in 1..=200 {
            targets.shun(endpoint(&format!("x:{port}")), now);
        }
        assert_eq!(targets.shunned.len(), SHUNNED_MAX);
    }
}
