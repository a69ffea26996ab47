//! A leader's side of membership changes (Raft 6; thesis 4): one at a time, by a joint configuration where voters change,
//! which is left as soon as it is committed.

use std::collections::BTreeSet;

use super::{Progress, Raft, Role};
use crate::effect::{Effect, Notice, RequestId, Roster};
use crate::entry::Payload;
use crate::ids::{LogIndex, MemberId};
use crate::membership::Configuration;
use crate::membership::change::{ChangeRefusal, MembershipChange};
use crate::planted::Bug;
use crate::time::Time;

/// Calls that wait for one change at most; they are repetitions of the same one.
const WAITING_MAX: usize = 64;

/// What a change comes to.
enum Plan {
    /// Nothing is left to be changed.
    Done,
    /// It is this far from the configuration in force, which is committed and not joint.
    Change(Configuration),
    /// The open change is the same one.
    Wait,
}

impl Raft {
    /// Changes who belongs to the cluster. Answered by [`Effect::MembershipChanged`] once the last configuration of the
    /// change is committed.
    pub fn change_membership(&mut self, now: Time, change: &MembershipChange) {
        self.expire(now);
        let id = change.id;
        let target = match self.plan(now, change) {
            Err(refusal) => Err(refusal),
            Ok(Plan::Wait) if !change.dry_run => return self.wait_for_change(id),
            Ok(Plan::Wait | Plan::Done) => Ok(self.configuration().left(self.configuration().version)),
            Ok(Plan::Change(target)) if change.dry_run => Ok(target),
            Ok(Plan::Change(target)) => return self.begin_change(now, id, &target),
        };
        self.effects.push(Effect::MembershipChanged(id, target));
    }

    fn plan(&self, now: Time, change: &MembershipChange) -> Result<Plan, ChangeRefusal> {
        if self.leading().is_none() {
            return Err(ChangeRefusal::NotLeader { leader: self.leader });
        }
        if !self.term_has_commit() {
            // What a leader before began may still come to light as committed, or as not (thesis 4.1).
            return Err(ChangeRefusal::NotNow(
                "the leader has not committed anything in its term yet",
            ));
        }
        let configuration = self.configuration();
        let open = configuration.is_joint() || configuration.version > self.commit;
        let target = configuration.changed(&change.changes);
        if target.as_ref() == Ok(&configuration.left(configuration.version)) {
            return Ok(if open { Plan::Wait } else { Plan::Done });
        }
        if open && !self.has(Bug::ChangeDuringChange) {
            return Err(ChangeRefusal::NotNow("another change is under way"));
        }
        if self.is_transferring() {
            return Err(ChangeRefusal::NotNow("leadership is being handed over"));
        }
        if change.expected_version != configuration.version {
            return Err(ChangeRefusal::OtherVersion(configuration.version));
        }
        let target = target.map_err(ChangeRefusal::Invalid)?;
        // Who is only looked at with all that it takes before has not been added yet.
        if !(change.force && change.dry_run) {
            self.check_new_voters(&target, |id| self.knows_of_it(id))?;
        }
        if !change.force {
            self.check_new_voters(&target, |id| self.keeps_up(now, id))?;
            self.check_quorum_of(now, &target)?;
        }
        Ok(Plan::Change(target))
    }

    /// Refuses a new voter that is not ready. One that lacks much of the log would hold up the commits that it is needed for (thesis
    /// 4.2.1).
    fn check_new_voters(
        &self,
        target: &Configuration,
        is_ready: impl Fn(MemberId) -> bool,
    ) -> Result<(), ChangeRefusal> {
        let missing = target
            .voters()
            .map(|member| member.id)
            .filter(|&id| !self.configuration().is_voter(id))
            .find(|&id| !is_ready(id));
        missing.map_or(Ok(()), |id| Err(ChangeRefusal::NotCaughtUp(id)))
    }

    /// Whether that member has on disk that it is one. Who has not may vote for nobody, or give up its identity at its next start
    /// as it was removed before: once a majority needs it, the cluster could never lead again.
    fn knows_of_it(&self, id: MemberId) -> bool {
        let progress = self.leading().and_then(|leading| leading.peers.get(&id));
        progress.is_some_and(|progress| progress.matched >= self.configuration().version)
    }

    /// Whether that member holds the leader's log, but for what has just come.
    pub fn keeps_up(&self, now: Time, id: MemberId) -> bool {
        let progress = self.leading().and_then(|leading| leading.peers.get(&id));
        progress.is_some_and(|progress| {
            progress.is_responsive(now, self.config.election_timeout_max)
                && progress.is_caught_up(now, self.config.election_timeout_min)
        })
    }

    fn check_quorum_of(&self, now: Time, target: &Configuration) -> Result<(), ChangeRefusal> {
        let within = self.config.election_timeout_max;
        check_quorum(target, |id| {
            let progress = self.leading().and_then(|leading| leading.peers.get(&id));
            id == self.config.id || progress.is_some_and(|progress| progress.is_responsive(now, within))
        })
    }

    fn begin_change(&mut self, now: Time, id: RequestId, target: &Configuration) {
        self.notice(Notice::ChangesMembership {
            node: self.me(),
            before: Roster::of(self.configuration()),
            after: Roster::of(target),
        });
        let next = self.configuration().toward(target, self.next_index());
        self.append_configuration(now, next);
        self.wait_for_change(id);
    }

    fn wait_for_change(&mut self, id: RequestId) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if leading.changes.len() < WAITING_MAX {
            leading.changes.push(id);
        } else {
            let busy = ChangeRefusal::NotNow("too many calls wait for the change that is under way");
            self.effects.push(Effect::MembershipChanged(id, Err(busy)));
        }
    }

    fn next_index(&self) -> LogIndex {
        self.log.last().index + 1
    }

    /// In force from here on: new members are sent the log from now on.
    fn append_configuration(&mut self, now: Time, configuration: Configuration) {
        let members: Vec<MemberId> = configuration.members().iter().map(|member| member.id).collect();
        let last = self.append_own(Payload::Configuration(configuration));
        let me = self.config.id;
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        for id in members.into_iter().filter(|&id| id != me) {
            let new = || Progress::new(last, now);
            leading.peers.entry(id).or_insert_with(new);
        }
    }

    /// The commit index has moved from `before`: goes on with the change that is open, whoever began it.
    pub(super) fn advance_membership(&mut self, now: Time, before: LogIndex) {
        let configuration = self.configuration();
        let version = configuration.version;
        if version > self.commit {
            return;
        }
        if configuration.is_joint() {
            let last = configuration.left(self.next_index());
            self.append_configuration(now, last);
        } else if version > before {
            self.finish_change();
            if self.is_leader_without_vote() {
                self.resign(now);
            }
        }
    }

    /// The commit index has moved from `before`: that a configuration is committed goes to disk at once. Otherwise it would go
    /// there with the next entries, and for a member that it removed there are none.
    pub(super) fn remember_configuration(&mut self, before: LogIndex) {
        let version = self.configuration().version;
        if before < version && version <= self.commit {
            self.hard_state_changed = true;
        }
    }

    fn finish_change(&mut self) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let waiting = std::mem::take(&mut leading.changes);
        let configuration = self.configuration().clone();
        self.notice(Notice::ChangedMembership {
            node: self.me(),
            version: configuration.version,
            members: Roster::of(&configuration),
        });
        for id in waiting {
            self.effects
                .push(Effect::MembershipChanged(id, Ok(configuration.clone())));
        }
    }

    /// Whether this member leads though it is no voter of the committed configuration: in the joint one it did its part.
    pub(super) fn is_leader_without_vote(&self) -> bool {
        let configuration = self.configuration();
        self.leading().is_some() && configuration.version <= self.commit && !self.is_voter()
    }

    /// Members that were removed are sent the log until they have been told that their removal is committed, or do not
    /// answer: so they know, and need not ask in vain.
    pub(super) fn forget_departed(&mut self, now: Time) {
        let (commit, version) = (self.commit, self.configuration().version);
        let within = self.config.election_timeout_max;
        let members: BTreeSet<MemberId> = self
            .configuration()
            .members()
            .iter()
            .map(|member| member.id)
            .collect();
        if let Role::Leader(leading) = &mut self.role {
            leading.peers.retain(|id, progress| {
                let told =
                    version <= commit && progress.matched >= version && progress.commit_sent >= version;
                members.contains(id) || !told && now < progress.acknowledged_at + within
            });
        }
    }
}

/// Whether those of the new voters for whom `counts` holds are a majority.
fn check_quorum(target: &Configuration, counts: impl Fn(MemberId) -> bool) -> Result<(), ChangeRefusal> {
    if target.is_quorum(&counts) {
        return Ok(());
    }
    Err(ChangeRefusal::WouldLoseQuorum {
        responsive: target.voters().filter(|member| counts(member.id)).count(),
        voters: target.voters().count(),
    })
}
