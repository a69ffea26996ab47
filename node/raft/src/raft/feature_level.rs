//! The feature level (see [`crate::feature`]): a leader raises it once it knows that all can follow, and a member that cannot
//! follow says so and takes nothing in.

use super::Raft;
use crate::effect::Notice;
use crate::entry::{Entry, Payload};
use crate::feature::{FeatureLevel, Supports};
use crate::ids::MemberId;
use crate::message::Body;
use crate::planted::Bug;

impl Raft {
    /// Whose rules hold for the next entry of the log. What an entry may be, and what it does, asks for it.
    pub fn feature_level(&self) -> FeatureLevel {
        self.log.fold().feature_level
    }

    /// The same for what is committed: there is no way back behind that level any more. What members say to one another, and
    /// whatever else is not in the log, asks for it.
    pub fn committed_feature_level(&self) -> FeatureLevel {
        self.log.settled_feature_level()
    }

    /// The level of its leader, where this member does not support it.
    pub fn left_behind_by(&self) -> Option<FeatureLevel> {
        self.left_behind_by
    }

    /// What that member supports: this one, or another one that has told this leader.
    pub fn supported_by(&self, id: MemberId) -> Option<Supports> {
        if id == self.config.id {
            return Some(self.config.supports);
        }
        self.leading()?.peers.get(&id)?.supports
    }

    /// Raises the level as far as all members support, learners and those that are about to leave included: each of them has the
    /// log to follow. Who has not said anything to this leader yet may be of any version.
    pub(super) fn raise_feature_level(&mut self) {
        let level = self.feature_level();
        // Whoever takes over would do it as well.
        if self.config.supports.max() <= level || !self.term_has_commit() || self.is_transferring() {
            return;
        }
        let Some(common) = self.level_of_all().filter(|&common| common > level) else {
            return;
        };
        self.append_own(Payload::FeatureLevel(common));
        self.notice(Notice::RaisesFeatureLevel {
            node: self.me(),
            from: level,
            to: common,
        });
    }

    /// The highest level that every member supports, if all have told.
    fn level_of_all(&self) -> Option<FeatureLevel> {
        let own = self.config.supports.max();
        if self.has(Bug::LevelRaisedEarly) {
            return Some(own);
        }
        let others = self.configuration().members().iter();
        let mut supported = others.map(|member| Some(self.supported_by(member.id)?.max()));
        supported.try_fold(own, |level, max| Some(level.min(max?)))
    }

    /// Whether this member knows the rules of all that is said there. If not it answers nothing, votes for nobody and takes
    /// nothing in: by its own rules that might be wrong.
    pub(super) fn understands(&mut self, level: FeatureLevel, body: &Body) -> bool {
        let level = highest_level(level, body);
        let supports = self.config.supports;
        if level <= supports.max() {
            return true;
        }
        if self.left_behind_by.replace(level) != Some(level) {
            let node = self.me();
            self.notice(Notice::LeftBehind {
                node,
                level,
                supports,
            });
        }
        false
    }
}

/// The highest level in a message by the rules of `level`: entries may raise it.
fn highest_level(level: FeatureLevel, body: &Body) -> FeatureLevel {
    let raised = |entry: &Entry| match entry.payload {
        Payload::FeatureLevel(raised) => Some(raised),
        _ => None,
    };
    match body {
        Body::AppendEntries(append) => append.entries.iter().filter_map(raised).fold(level, Ord::max),
        _ => level,
    }
}
