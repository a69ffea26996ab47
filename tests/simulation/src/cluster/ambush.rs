//! An ambush on the leader: faults one after the other, in an order that tempts a cluster to elect somebody else while that one
//! still leads, or believes that it does. Each of the rules about reads, leases and stickiness is for one of these histories,
//! which faults that come independently of each other hardly ever add up to.
//!
//! How long each stage takes, who is part of it, and which of its faults come about is left to chance.

use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use rand::RngExt;
use rand::seq::SliceRandom as _;

use super::Cluster;
use super::processes::Process;
use crate::coverage::Seen;
use crate::happening::{AmbushStage, Happening, Target};

/// How somebody else may come to lead too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plot {
    /// The leader itself says so, and hears late, if at all, what comes of it.
    HandOver,
    /// What the leader hears was said long ago.
    LateAnswers,
    /// Those who have heard it start again, and others have not heard it for longer.
    Restart,
    /// Nothing else befalls it than not to be heard.
    CutOff,
}

/// What is kept from being heard, or is heard late.
#[derive(Debug)]
pub(super) struct Ambush {
    plot: Plot,
    leader: NodeNumber,
    cut: Vec<(NodeNumber, NodeNumber)>,
    /// What is sent to the leader takes that much longer.
    slow: Duration,
    /// Clients wait until somebody else leads: those who hear less of the leader do not fall behind.
    is_quiet: bool,
}

impl Cluster {
    pub(super) fn begin_ambush(&mut self) {
        let Some(leader) = self.leader().filter(|_| self.ambush.is_none()) else {
            return;
        };
        self.count(Seen::Ambushed);
        let plots = [Plot::HandOver, Plot::LateAnswers, Plot::Restart, Plot::CutOff];
        let plot = plots[self.random.random_range(0..plots.len())];
        let is_quiet = plot == Plot::Restart || self.one_in(2);
        self.tell(|| format!("{plot:?} of pod {leader}, clients are quiet: {is_quiet}"));
        self.ambush = Some(Ambush {
            plot,
            leader,
            cut: Vec::new(),
            slow: Duration::ZERO,
            is_quiet,
        });
        // Until then what clients have submitted is done.
        self.stage_in(AmbushStage::Hide, self.options.election_timeout * 2);
    }

    pub(super) fn go_on_with_ambush(&mut self, stage: AmbushStage) {
        let Some(ambush) = self.ambush.take() else { return };
        match stage {
            AmbushStage::Hide => self.hide_leader(ambush),
            AmbushStage::Spring => self.spring_ambush(ambush),
            AmbushStage::End => self.network.mend(&ambush.cut),
        }
    }

    fn stage_in(&mut self, stage: AmbushStage, longest: Duration) {
        let at = self.soon(longest);
        self.agenda.add(at, Target::World, Happening::Ambush(stage));
    }

    /// Some do not hear the leader any more, which goes on leading; and it hears late from the others.
    fn hide_leader(&mut self, mut ambush: Ambush) {
        let leader = ambush.leader;
        let mut deaf: Vec<NodeNumber> = self.numbers().filter(|&other| other != leader).collect();
        deaf.shuffle(&mut self.random);
        let least = usize::from(ambush.plot == Plot::Restart);
        let most = (deaf.len() / 2).max(least);
        deaf.truncate(self.random.random_range(least..=most));
        ambush.cut = deaf.iter().map(|&other| (leader, other)).collect();
        self.network.cut(&ambush.cut);
        if ambush.plot == Plot::LateAnswers || ambush.plot == Plot::HandOver && self.one_in(2) {
            ambush.slow = self.span(self.options.election_timeout * 2);
        }
        let slow = ambush.slow;
        self.tell(|| format!("pods {deaf:?} do not hear pod {leader}, which hears others after {slow:?}"));
        self.ambush = Some(ambush);
        self.stage_in(AmbushStage::Spring, self.options.election_timeout * 3 / 2);
    }

    /// Nobody hears the leader any more.
    fn spring_ambush(&mut self, mut ambush: Ambush) {
        let leader = ambush.leader;
        self.tell(|| format!("nobody hears pod {leader}"));
        if ambush.plot == Plot::HandOver {
            self.ask_to_hand_over(leader, None);
        }
        let others: Vec<NodeNumber> = self.numbers().filter(|&other| other != leader).collect();
        let is_deaf = self.one_in(2);
        for &other in &others {
            let heard_it = !ambush.cut.contains(&(leader, other));
            let mut cut = vec![(leader, other)];
            cut.extend(is_deaf.then_some((other, leader)));
            self.network.cut(&cut);
            ambush.cut.extend(cut);
            if heard_it && ambush.plot == Plot::Restart {
                self.count(Seen::NodeKilled);
                self.kill_node(other, false);
                self.start_one_soon(other, Process::Node, self.options.election_timeout / 8);
            }
        }
        self.ambush = Some(ambush);
        self.stage_in(AmbushStage::End, self.options.election_timeout * 6);
    }

    /// How much longer a message to that node takes.
    pub(super) fn slowness(&self, to: NodeNumber) -> Duration {
        let slow = |ambush: &Ambush| (ambush.leader == to).then_some(ambush.slow);
        self.ambush.as_ref().and_then(slow).unwrap_or_default()
    }

    /// Clients have nothing new to submit.
    pub(super) fn are_clients_quiet(&self) -> bool {
        self.ambush.as_ref().is_some_and(|ambush| ambush.is_quiet)
    }

    /// Somebody else leads: what is acknowledged from now on the leader before does not know.
    pub(super) fn ambush_succeeds(&mut self, number: NodeNumber) {
        if let Some(ambush) = &mut self.ambush
            && ambush.leader != number
        {
            ambush.is_quiet = false;
            self.everybody_wishes();
        }
    }
}
