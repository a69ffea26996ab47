//! Leadership transfer (thesis 3.10): stop taking proposals, wait until the target has everything, tell it to campaign.

use super::{Raft, Role};
use crate::effect::{Effect, ElectedBy, Notice, RequestId, TransferRefusal};
use crate::ids::{MemberId, NodeNumber, Term};
use crate::message::Body;
use crate::time::Time;

const RESIGNED: &str = "it is no voter any more";

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Who asked; nobody, where a leader hands over on its own account.
    id: Option<RequestId>,
    target: MemberId,
    told: bool,
    pub(super) deadline: Time,
}

impl Raft {
    /// Hands leadership over to that node, or to the voter that has most of the log. Answered by
    /// [`Effect::Transferred`]; dropped after the minimum election timeout.
    pub fn transfer_leadership(&mut self, now: Time, id: RequestId, node: Option<NodeNumber>) {
        self.expire(now);
        match self.choose_target(node) {
            Ok(target) if target == self.config.id => self.effects.push(Effect::Transferred(id, Ok(target))),
            Ok(target) => self.start_transfer(now, Some(id), target, None),
            Err(refusal) => self.effects.push(Effect::Transferred(id, Err(refusal))),
        }
    }

    pub(super) fn start_transfer(
        &mut self,
        now: Time,
        id: Option<RequestId>,
        target: MemberId,
        why: Option<&'static str>,
    ) {
        let deadline = now + self.config.election_timeout_min;
        self.transfer = Some(Transfer {
            id,
            target,
            told: false,
            deadline,
        });
        self.notice(Notice::TransferStarted {
            node: self.me(),
            target: self.node_of(target),
            why,
        });
        self.advance_transfer();
    }

    pub(super) fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether leadership is being handed over to that member.
    pub(super) fn is_transferring_to(&self, id: MemberId) -> bool {
        self.transfer
            .as_ref()
            .is_some_and(|transfer| transfer.target == id)
    }

    /// A leader that is no voter of the committed configuration has nothing left to lead for (Raft 6).
    pub(super) fn resign(&mut self, now: Time) {
        self.make_way(now, RESIGNED);
    }

    /// The best voter takes over without an election timeout.
    pub(super) fn make_way(&mut self, now: Time, why: &'static str) {
        match self.choose_target(None) {
            Ok(target) => self.start_transfer(now, None, target, Some(why)),
            // A transfer that is under way ends in the same.
            Err(TransferRefusal::Busy) => {}
            Err(_) => self.step_down(now, why),
        }
    }

    pub(super) fn choose_target(&self, node: Option<NodeNumber>) -> Result<MemberId, TransferRefusal> {
        let Some(leading) = self.leading() else {
            return Err(TransferRefusal::NotLeader { leader: self.leader });
        };
        if self.transfer.is_some() {
            return Err(TransferRefusal::Busy);
        }
        let configuration = self.configuration();
        let target = if let Some(node) = node {
            configuration
                .node(node)
                .filter(|member| member.voter)
                .map(|member| member.id)
        } else {
            let recently = self.heard_recently(leading.heartbeat_due);
            let others = leading
                .peers
                .iter()
                .filter(|(id, _)| configuration.member(**id).is_some_and(|member| member.voter));
            others
                .max_by_key(|(id, p)| {
                    (
                        p.acknowledged_at >= recently,
                        !leading.without_room.contains_key(id),
                        p.matched,
                    )
                })
                .map(|(&id, _)| id)
        };
        target.ok_or(TransferRefusal::NoTarget)
    }

    /// A follower that did not answer the last two heartbeats is no good target.
    fn heard_recently(&self, heartbeat_due: Time) -> Time {
        let span = self.config.heartbeat_interval.saturating_mul(3);
        Time(
            heartbeat_due
                .0
                .saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// Tells the target to campaign as soon as it has everything.
    pub(super) fn advance_transfer(&mut self) {
        let last = self.log.last().index;
        let Role::Leader(leading) = &self.role else { return };
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let caught_up = leading
            .peers
            .get(&transfer.target)
            .is_some_and(|progress| progress.matched == last);
        if caught_up && !transfer.told {
            transfer.told = true;
            let target = transfer.target;
            self.give_up_lease();
            self.send(target, self.term, Body::TimeoutNow);
        }
    }

    /// The leader says: campaign now.
    pub(super) fn told_to_take_over(&mut self, now: Time, from: MemberId, term: Term) {
        let by_leader = term == self.term && self.leader == Some(from);
        if by_leader && matches!(self.role, Role::Follower(_)) && self.may_campaign() && !self.disk_stalled()
        {
            self.elect(now, ElectedBy::Transfer);
        }
    }

    /// This member follows a new leader: the transfer, if there was one, is over.
    pub(super) fn transfer_succeeded(&mut self, leader: MemberId) {
        if let Some(transfer) = self.transfer.take() {
            let result = if leader == transfer.target {
                Ok(leader)
            } else {
                Err(TransferRefusal::TimedOut)
            };
            self.answer_transfer(transfer.id, result);
        }
    }

    fn answer_transfer(&mut self, id: Option<RequestId>, result: Result<MemberId, TransferRefusal>) {
        if let Some(id) = id {
            self.effects.push(Effect::Transferred(id, result));
        }
    }

    /// A target that does not take over is given up, so that the leader takes proposals again.
    pub(super) fn expire_transfer(&mut self, now: Time) {
        if self
            .transfer
            .as_ref()
            .is_some_and(|transfer| now >= transfer.deadline)
            && let Some(transfer) = self.transfer.take()
        {
            self.answer_transfer(transfer.id, Err(TransferRefusal::TimedOut));
            if self.is_leader_without_vote() {
                self.step_down(now, RESIGNED);
            }
        }
    }
}
