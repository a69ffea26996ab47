//! Snapshots between members: what the core orders and followers ask for on the one side, what a leader sends on the other.

use raftlog_raft::fold::Fold;
use raftlog_raft::ids::MemberId;
use raftlog_raft::time::Time;
use raftlog_raft::{Installed, RoleName};
use raftlog_storage::snapshots::{Manifest, SnapshotEvent};

use super::Formed;
use crate::node::api::Output;
use crate::node::install_snapshot::{
    InstallSnapshot, InstallSnapshotResponse, SnapshotAnswer, SnapshotId, SnapshotPart,
};
use crate::node::notice::Notice;
use crate::node::receiving::Step;
use crate::node::recovery::REPLACE;
use crate::node::sending::Outcome;
use crate::node::snapshot;
use crate::node::store::Store;

impl Formed {
    /// The core says that a follower lacks what this log no longer holds.
    pub(super) fn order_snapshot(&mut self, member: MemberId, store: &Store, outputs: &mut Vec<Output>) {
        let base = self.raft.log().base().position.index;
        let Some((part, begins)) = self.sending.ordered(member, base, &store.snapshots) else {
            return;
        };
        if let (SnapshotPart::Offer(manifest), true) = (&part, begins) {
            let node = self.node_of(member);
            let what = format!("sends a snapshot {} to Node {node}", Self::extent(manifest));
            outputs.push(self.plain(what));
        }
        outputs.push(self.snapshot_to(member, part));
    }

    /// A leader says something about its snapshot. The error is why this node must not go on.
    pub(in crate::node) fn install_snapshot_heard(
        &mut self,
        now: Time,
        message: InstallSnapshot,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        let steps = self
            .receiving
            .heard(now, message, &mut self.raft, &mut store.snapshots);
        if self.receiving.is_under_way() {
            self.taking.displaced();
        }
        steps
            .into_iter()
            .try_for_each(|step| self.take_step(now, step, store, outputs))
    }

    /// A follower says something about this leader's.
    pub(in crate::node) fn install_snapshot_answered(
        &mut self,
        now: Time,
        response: InstallSnapshotResponse,
        outputs: &mut Vec<Output>,
    ) {
        let InstallSnapshotResponse {
            from,
            term,
            id,
            answer,
            ..
        } = response;
        self.raft.term_heard(now, term);
        let node = self.node_of(from);
        let what = match self.sending.answered(from, id, answer) {
            Outcome::UnderWay => return,
            Outcome::Done => format!("is done with sending a snapshot to Node {node}"),
            Outcome::Refused(why) => format!("sent a snapshot to Node {node}, which refuses it: {why}"),
        };
        outputs.push(self.plain(what));
    }

    /// What was under way of a snapshot to that member may be lost.
    pub(in crate::node) fn snapshot_stream_broken(&mut self, member: MemberId) {
        self.sending.broken(member);
    }

    /// Something happened to the snapshots on disk.
    pub(in crate::node) fn transfer_event(
        &mut self,
        now: Time,
        event: &SnapshotEvent,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        let (read, data) = match event {
            SnapshotEvent::Read { id, data } => (*id, Some(data.clone())),
            SnapshotEvent::Gone { id } | SnapshotEvent::Damaged { id, .. } => (*id, None),
            _ => (0, None),
        };
        if let Some((member, part)) = self.sending.has_read(read, data) {
            outputs.push(self.snapshot_to(member, part));
        }
        match self.receiving.snapshot_event(event, &store.snapshots) {
            Some(step) => self.take_step(now, step, store, outputs),
            None => Ok(()),
        }
    }

    /// Goes on with what waited for the disk; whether there may be more to do.
    pub(super) fn poll_transfers(
        &mut self,
        now: Time,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<bool, String> {
        if self.raft.role() == RoleName::Leader {
            self.sending.poll(&mut store.snapshots);
        } else {
            self.sending.stop();
        }
        let Some(step) = self.receiving.poll(now, &self.raft, &mut store.snapshots) else {
            return Ok(false);
        };
        self.take_step(now, step, store, outputs)?;
        Ok(true)
    }

    fn take_step(
        &mut self,
        now: Time,
        step: Step,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        match step {
            Step::Answer(to, id, answer) => outputs.push(self.snapshot_answer(to, id, answer)),
            Step::Install(from, manifest, fold) => {
                self.start_from(now, from, &manifest, *fold, store, outputs)?;
            }
            Step::Stop(why) => return Err(why),
        }
        Ok(())
    }

    /// The leader's snapshot is on disk: the log begins or goes on behind it.
    fn start_from(
        &mut self,
        now: Time,
        leader: MemberId,
        manifest: &Manifest,
        fold: Fold,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        let position = snapshot::position(manifest);
        let committed = self.raft.log().operation_index_at(self.raft.commit());
        let own = fold.clone();
        let installed = self.raft.snapshot_installed(now, position, fold);
        let installed = installed.and_then(|installed| match installed {
            Installed::Log if store.wal.last_index() >= position.index => {
                Err(format!("the log on disk holds another entry {}", position.index))
            }
            installed => Ok(installed),
        });
        let installed = installed.map_err(|why| {
            let file = store.snapshots.file(position.index);
            format!("{file} contradicts the log: {why}: one of the two is damaged; {REPLACE}")
        })?;
        if installed == Installed::Log {
            // What is appended from now on is on disk only with it.
            store.wal.compact(position.index);
            // The replicator may have been fed what was not committed, and is not in the snapshot.
            self.feed.truncated(committed);
            self.weights.start_from(position.index);
            self.taking.start_from(own, position.index);
            let node = self.node_of(leader);
            let what = format!(
                "starts from a snapshot {} of Leader {node}",
                Self::extent(manifest)
            );
            outputs.push(self.plain(what));
        }
        // That it was wanted, the core was told no longer, once it was here.
        if installed == Installed::Nothing && self.is_short_of_room() {
            let node = self.node_of(leader);
            let what = format!(
                "keeps a snapshot {} of Leader {node} in the place of its log, as its replicator does not execute",
                Self::extent(manifest)
            );
            outputs.push(self.plain(what));
        }
        outputs.push(self.snapshot_answer(leader, SnapshotId::of(manifest), SnapshotAnswer::Installed));
        Ok(())
    }

    fn snapshot_to(&self, to: MemberId, part: SnapshotPart) -> Output {
        Output::InstallSnapshot(InstallSnapshot {
            from: self.raft.id(),
            to,
            term: self.raft.term(),
            part,
        })
    }

    fn snapshot_answer(&self, to: MemberId, id: SnapshotId, answer: SnapshotAnswer) -> Output {
        Output::InstallSnapshotResponse(InstallSnapshotResponse {
            from: self.raft.id(),
            to,
            term: self.raft.term(),
            id,
            answer,
        })
    }

    /// How far a snapshot goes, for people.
    fn extent(manifest: &Manifest) -> String {
        let contents = snapshot::Contents::of(manifest);
        contents.map_or_else(
            |_| format!("up to entry {}", manifest.index),
            |contents| format!("up to index {}", contents.place.index),
        )
    }

    fn node_of(&self, id: MemberId) -> u32 {
        self.configuration.member(id).map_or(0, |member| member.node)
    }

    fn plain(&self, what: String) -> Output {
        let node = self.raft.config().node;
        Output::Notice(Notice::Plain { node, what })
    }
}
