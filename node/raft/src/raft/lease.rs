//! A leader's lease (thesis 6.4.1): for a while after a majority has answered a round, nobody else can have been elected, so
//! that reads need no round of their own.
//!
//! Who answers a round has heard it. From then on, for the minimum election timeout that the leader states in every round, it
//! grants nobody a vote and does not campaign itself, be its own timeout shorter, and also if it starts again meanwhile: it
//! answers only once that timeout is on its disk. Every other leader needs the vote of one of that majority. All of them heard
//! the round after it was sent, so the lease is counted from its **send** time, on the leader's own clock; and it is shorter
//! than the minimum election timeout by [`crate::config::CLOCK_DRIFT_MAX_MILLIONTHS`], in case that clock is the slower one.
//!
//! Only a transfer passes over all this: a leader that has told somebody to campaign has no lease for the rest of its term, as
//! that message may arrive whenever it likes.

use super::{Raft, Role};
use crate::planted::Bug;
use crate::time::Time;

impl Raft {
    /// Whether this member leads under a lease: nobody else can have been elected until now.
    pub fn has_lease(&self, now: Time) -> bool {
        now < self.lease_end()
    }

    /// When the lease ends; long ago without one.
    fn lease_end(&self) -> Time {
        let none = Time(0);
        let Some(leading) = self.leading() else {
            return none;
        };
        // Before the term's first commit the commit index may be behind.
        if !self.config.lease_reads || leading.has_handed_over || !self.term_has_commit() {
            return none;
        }
        let me = self.config.id;
        let vouches_since = |id| {
            let progress = leading.peers.get(&id);
            progress.map_or(0, |progress| leading.sent_at(progress.acknowledged_round).0)
        };
        // It vouches for itself as long as it leads.
        let since = self.configuration().quorum_value(|member| {
            if member.id == me {
                u64::MAX
            } else {
                vouches_since(member.id)
            }
        });
        if since == 0 {
            return none;
        }
        Time(since) + self.config.lease()
    }

    /// No lease any more for the rest of this term: somebody was told to campaign.
    pub(super) fn give_up_lease(&mut self) {
        if let Role::Leader(leading) = &mut self.role {
            leading.has_handed_over = !self.config.planted.has(Bug::LeaseAfterTimeoutNow);
        }
    }
}
