//! A node that belongs to a cluster: consensus, its log on disk and the feed to its replicator, wired together.

mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use raftlog_raft::effect::{self, Effect, Persist, RequestId};
use raftlog_raft::entry::Entry;
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::log::{Base, Log};
use raftlog_raft::membership::Configuration;
use raftlog_raft::membership::change::ChangeRefusal;
use raftlog_raft::message::{Comparison, LogPosition};
use raftlog_raft::planted::Bug;
use raftlog_raft::time::Time;
use raftlog_raft::{Raft, RoleName};
use raftlog_storage::snapshots::SnapshotEvent;
use raftlog_storage::{Append, WalEvent};

use super::RETRY_FULL_DISK;
use super::api::{
    Committed, Disks, FromReplicator, Kept, Leader, MemberProgress, MembershipRefusal, Output, Proposal,
    Query, Refusal, Role, Status, ToReplicator, TransferRefusal, Transferred,
};
use super::feed::{Feed, Step, View};
use super::install_snapshot::SnapshotId;
use super::notice::Notice;
use super::queries::Queries;
use super::receiving::Receiving;
use super::recovery::REPLACE;
use super::removal::{Logged, Removal};
use super::room::Room;
use super::sending::Sending;
use super::snapshot::{self, Contents};
use super::store::Store;
use super::taking::{self, Taking};
use super::weights::Weights;

/// ReadIndex requests of the replicator that wait at once; beyond it refuses.
const REPLICATOR_READS_MAX: usize = 1_024;
/// Between two marks of what is executed: an entry each, for all that was executed meanwhile.
const MARK_INTERVAL: Duration = Duration::from_millis(100);
/// The replicator beside a follower is told of what is committed at most so often: each time costs both processes a wake-up, at every
/// follower, which one client's next operation waits for where they share cores.
const FOLLOWER_FEED_INTERVAL: Duration = Duration::from_millis(5);
/// Request numbers of the runtime are below this one; those of the replicator's reads start here.
const REPLICATOR_READS: RequestId = 1 << 63;

/// A node in its cluster.
#[derive(Debug)]
pub(super) struct Formed {
    cluster: ClusterId,
    bootstrap: Arc<Configuration>,
    configuration: Arc<Configuration>,
    raft: Raft,
    feed: Feed,
    taking: Taking,
    weights: Weights,
    room: Room,
    /// The read of a snapshot that the feed waits for.
    state_read: Option<u64>,
    /// Reads of snapshots for clients.
    downloads: BTreeMap<u64, RequestId>,
    sending: Sending,
    receiving: Receiving,
    /// Snapshots up to there have been compared with the log.
    compared: LogIndex,
    comparing: bool,
    /// How a snapshot contradicts the log.
    contradiction: Option<String>,
    /// The log's ticket of the core's first one, less one.
    ticket_offset: u64,
    /// Reads of the log under way, oldest first.
    reads: VecDeque<(u64, Reader)>,
    last_read: u64,
    /// Reads of the replicator's clients: the core's number and the replicator's own.
    replicator_reads: BTreeMap<RequestId, u64>,
    last_replicator_read: RequestId,
    queries: Queries,
    retry_full_disk: Time,
    /// When the log may say again how far is executed.
    next_mark: Time,
    /// When a replicator beside a follower may be told again.
    next_feed: Time,
    /// When it has to be told what it was not told because of that.
    feed_due: Time,
    /// What it has to know of before a client of its own reads.
    read_up_to: OperationIndex,
    /// Whether some configuration has ever listed this member: if the committed one does not, it was removed.
    pub(super) listed: bool,
    removal: Removal,
    /// The end of the log was damaged, and the log was not told that all is back.
    suspect: bool,
}

/// Who reads the log back.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Member(MemberId),
    Feed,
    Taking,
    /// Another member compares what it has with what is here.
    Comparison(MemberId, Comparison),
    /// A snapshot, which ends there, is compared with the log.
    Snapshot(Base),
}

/// What comes with a log.
#[derive(Debug)]
pub(super) struct Past {
    /// Appends that were issued by the log before the core's first.
    pub(super) tickets: u64,
    pub(super) weights: Weights,
    pub(super) taking: Taking,
    pub(super) room: Room,
    pub(super) removal: Removal,
}

/// Whether a snapshot could take the place of what the log holds. It ends with an operation, so that what elections alone have
/// filled needs room for the first one.
fn can_be_compacted(log: &Log) -> bool {
    log.fold().operation_index > 0 && log.last().index > log.base().position.index
}

impl Formed {
    pub(super) fn new(cluster: ClusterId, bootstrap: Configuration, raft: Raft, past: Past) -> Self {
        let Past {
            tickets,
            weights,
            taking,
            room,
            removal,
        } = past;
        Self {
            cluster,
            bootstrap: Arc::new(bootstrap),
            configuration: Arc::new(raft.configuration().clone()),
            listed: raft.configuration().member(raft.id()).is_some(),
            removal,
            suspect: raft.is_suspect(),
            raft,
            feed: Feed::new(cluster),
            taking,
            weights,
            room,
            state_read: None,
            downloads: BTreeMap::new(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            compared: 0,
            comparing: false,
            contradiction: None,
            ticket_offset: tickets,
            reads: VecDeque::new(),
            last_read: 0,
            replicator_reads: BTreeMap::new(),
            last_replicator_read: REPLICATOR_READS,
            queries: Queries::default(),
            retry_full_disk: Time::NEVER,
            next_mark: Time::default(),
            next_feed: Time::default(),
            feed_due: Time::NEVER,
            read_up_to: 0,
        }
    }

    pub(super) fn raft(&mut self) -> &mut Raft {
        &mut self.raft
    }

    pub(super) fn watch(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(super) fn bootstrap(&self) -> &Configuration {
        &self.bootstrap
    }

    /// A voter's committed configuration does not list this member. While it runs, that is no reason to do anything but to say so: it
    /// may have been added again since, and a leader brings the configuration that tells.
    pub(super) fn told_of_removal(&mut self, version: LogIndex) {
        self.removal.told(version);
    }

    /// What the disk is to say of that, if it is to change now; 0 for nothing.
    pub(super) fn removal_to_keep(&mut self, now: Time) -> Option<LogIndex> {
        if self.removal.is_nothing() {
            return None;
        }
        let committed = self.raft.committed_configuration();
        let lists = committed.member(self.raft.id()).is_some();
        let since =
            Some(committed.version).filter(|version| lists && *version <= self.raft.persisted_index());
        let logged = Logged {
            latest: self.raft.configuration().version,
            member_since: since.unwrap_or_default(),
        };
        self.removal.next(now, logged)
    }

    pub(super) fn removal_kept(&mut self, now: Time, is_on_disk: bool) {
        self.removal.stored(now, is_on_disk);
    }

    /// The version of the configuration that removed this member, if one did. With the end of its log in doubt it may have been added
    /// again since, and count in a majority.
    pub(super) fn gone_since(&self) -> Option<LogIndex> {
        let told = self.removal.version(self.raft.configuration().version);
        let gone = told.filter(|_| self.listed).or_else(|| self.gone_as_logged());
        gone.filter(|_| !self.raft.is_suspect())
    }

    /// The same, as far as the own log tells.
    fn gone_as_logged(&self) -> Option<LogIndex> {
        let (configuration, committed) = (self.raft.configuration(), self.raft.committed_configuration());
        let gone = self.listed && committed.member(self.raft.id()).is_none() && configuration == committed;
        gone.then_some(committed.version)
    }

    pub(super) fn deadline(&self) -> Time {
        let others = self
            .retry_full_disk
            .min(self.taking.deadline())
            .min(self.mark_deadline())
            .min(self.feed_due);
        self.raft.deadline().min(others).min(self.queries.deadline())
    }

    /// What time has brought; of the log, too.
    pub(super) fn tick(
        &mut self,
        now: Time,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Option<WalEvent<Entry>> {
        let mut event = None;
        if now >= self.retry_full_disk {
            self.retry_full_disk = now + RETRY_FULL_DISK;
            event = store.retry();
        }
        self.taking.tick(now);
        self.queries.expire(now, self.feed.executed_by_now(), outputs);
        self.raft.tick(now);
        event
    }

    pub(super) fn submit(&mut self, now: Time, proposals: Vec<Proposal>) {
        for proposal in proposals {
            self.raft.propose(now, proposal);
        }
    }

    pub(super) fn query(&mut self, now: Time, query: Query, outputs: &mut Vec<Output>) {
        let (id, allow_stale) = (query.id, query.allow_stale);
        match self.queries.begin(query) {
            Ok(()) if allow_stale => {}
            Ok(()) => self.raft.read_index(now, id),
            Err(refusal) => outputs.push(Output::QueryAnswered {
                id,
                result: Err(refusal),
            }),
        }
    }

    pub(super) fn replicator_said(
        &mut self,
        now: Time,
        said: FromReplicator,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) {
        match said {
            FromReplicator::Opened => self.feed.opened(),
            FromReplicator::Position(position) => self.feed.position(position),
            FromReplicator::Progress(progress) => self.feed.progress(progress),
            FromReplicator::Executor(status) => self.feed.executor(status),
            FromReplicator::ReadIndex { id } if self.replicator_reads.len() < REPLICATOR_READS_MAX => {
                self.last_replicator_read += 1;
                self.replicator_reads.insert(self.last_replicator_read, id);
                self.raft.read_index(now, self.last_replicator_read);
            }
            FromReplicator::ReadIndex { id } => {
                outputs.push(Output::Replicator(ToReplicator::ReadAnswer { id, index: None }));
            }
            FromReplicator::QueryAnswer {
                id,
                index,
                term,
                result,
            } => match self.queries.answered(id, (index, term), result) {
                Ok(answer) => outputs.extend(answer),
                Err(why) => self.refuse_replicator(why, store, outputs),
            },
            FromReplicator::Snapshot(chunk) => {
                let progress = taking_progress(&self.raft, &self.weights, &self.feed);
                let came = self.taking.state_came(chunk, progress, &mut store.snapshots, now);
                if let Err(why) = came {
                    self.refuse_replicator(why, store, outputs);
                }
            }
            FromReplicator::RestoreTaken => self.feed.restore_taken(),
            FromReplicator::Closed => {
                self.feed.closed();
                self.taking.stream_closed(&mut store.snapshots);
                self.replicator_reads.clear();
                self.queries.replicator_lost(outputs);
            }
        }
    }

    /// Whether the next piece of its snapshot may come.
    pub(super) fn takes_state(&self) -> bool {
        self.taking.takes_state()
    }

    /// What it says cannot be: the stream ends.
    fn refuse_replicator(&mut self, why: String, store: &mut Store, outputs: &mut Vec<Output>) {
        self.feed.closed();
        self.taking.stream_closed(&mut store.snapshots);
        outputs.push(Output::Replicator(ToReplicator::Close { why }));
    }

    pub(super) fn wal_event(&mut self, now: Time, event: WalEvent<Entry>, store: &Store) {
        match event {
            WalEvent::Persisted(ticket) => {
                if let Some(ticket) = ticket
                    .checked_sub(self.ticket_offset)
                    .filter(|&ticket| ticket > 0)
                {
                    self.raft.persisted(now, ticket);
                }
            }
            WalEvent::Read { id, records } => self.has_read(now, id, records),
            WalEvent::Full(full) => {
                self.raft.set_disk_full(now, full);
                self.look_at_room(now, store);
            }
            WalEvent::Repaired => {}
        }
    }

    /// A full disk is asked again from time to time.
    pub(super) fn look_at_room(&mut self, now: Time, store: &Store) {
        self.retry_full_disk = if store.is_full_disk() {
            now + RETRY_FULL_DISK
        } else {
            Time::NEVER
        };
    }

    fn has_read(&mut self, now: Time, id: u64, entries: Vec<Entry>) {
        let Some(at) = self.reads.iter().position(|(read, _)| *read == id) else {
            return;
        };
        match self.reads.remove(at) {
            Some((_, Reader::Member(member))) => self.raft.entries_read(now, member, entries),
            Some((_, Reader::Feed)) => self.feed.entries_read(entries),
            Some((_, Reader::Taking)) => self.taking.entries_read(&entries),
            Some((_, Reader::Comparison(member, theirs))) => {
                if let Some(entry) = entries.first() {
                    self.raft.hash_read(now, member, theirs, entry.running_hash);
                }
            }
            Some((_, Reader::Snapshot(base))) => self.snapshot_compared(base, entries.first()),
            None => {}
        }
    }

    /// Carries out what the core and the feed want, until they want nothing more. The error is why the node must not go on.
    pub(super) fn flush(
        &mut self,
        now: Time,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        loop {
            if let Some(why) = self.raft.damaged().or(self.contradiction.as_deref()) {
                return Err(why.to_owned());
            }
            let mut answered = false;
            for effect in self.raft.flush(now) {
                answered |= self.carry_out(now, effect, store, outputs);
            }
            if self.suspect && !self.raft.is_suspect() {
                self.suspect = false;
                store.wal.repaired();
            }
            answered |= self.poll_transfers(now, store, outputs)?;
            answered |= self.poll_feed(now, store, outputs);
            answered |= now >= self.next_mark && self.mark_execution(now);
            self.queries.poll(self.feed.executed_by_now(), outputs);
            answered |= self.poll_taking(now, store, outputs);
            if !answered {
                break;
            }
        }
        self.weights.has_written_besides(store.wal.bytes_besides());
        self.compare_snapshots(now, store);
        self.compact(store, outputs);
        self.ask_for_snapshot(store);
        self.limit(now, outputs);
        if self.raft.configuration() != &*self.configuration {
            self.configuration = Arc::new(self.raft.configuration().clone());
            self.listed |= self.configuration.member(self.raft.id()).is_some();
        }
        Ok(())
    }

    /// Whether something was answered at once, so that there may be more to do.
    fn carry_out(&mut self, now: Time, effect: Effect, store: &mut Store, outputs: &mut Vec<Output>) -> bool {
        match effect {
            Effect::Persist(persist) => self.persist(persist, store),
            Effect::Send(message) => outputs.push(Output::Send(message)),
            Effect::Answer(id, result) => outputs.push(self.answer(id, &result)),
            Effect::Transferred(id, result) => outputs.push(self.transferred(id, result)),
            Effect::MembershipChanged(id, result) => {
                let result = result.map_err(|refusal| self.change_refused(refusal));
                outputs.push(Output::MembershipChanged { id, result });
            }
            Effect::ReadReady(id, index) => {
                if let Some(id) = self.replicator_reads.remove(&id) {
                    self.read_up_to = self.read_up_to.max(index.unwrap_or(0));
                    outputs.push(Output::Replicator(ToReplicator::ReadAnswer { id, index }));
                } else {
                    let index = index.ok_or_else(|| self.leader());
                    outputs.extend(self.queries.read_ready(id, index));
                }
            }
            Effect::ReadEntries {
                member,
                first,
                last,
                bytes_max,
            } => {
                return self.read(now, Reader::Member(member), first, last, bytes_max, store);
            }
            Effect::ReadHash { member, theirs } => {
                let index = theirs.position.index;
                return self.read(now, Reader::Comparison(member, theirs), index, index, 1, store);
            }
            Effect::SendSnapshot { member } => self.order_snapshot(member, store, outputs),
            Effect::Notice(notice) => outputs.push(Output::Notice(Notice::Consensus(notice))),
        }
        false
    }

    fn persist(&mut self, persist: Persist, store: &mut Store) {
        if let Some(from) = persist.truncate_from {
            self.feed.truncated(self.raft.log().operation_index_at(from - 1));
            self.weights.truncate(from);
        }
        persist.entries.iter().for_each(|entry| self.weights.push(entry));
        let state = persist.hard_state.map(|state| {
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            bytes.into()
        });
        let ticket = store.wal.append(Append {
            state,
            truncate_from: persist.truncate_from,
            records: persist.entries,
        });
        assert_eq!(
            ticket,
            persist.ticket + self.ticket_offset,
            "the core and the log count alike"
        );
    }

    fn read(
        &mut self,
        now: Time,
        reader: Reader,
        first: u64,
        last: u64,
        bytes_max: usize,
        store: &mut Store,
    ) -> bool {
        self.last_read += 1;
        self.reads.push_back((self.last_read, reader));
        match store.wal.read(self.last_read, first, last, bytes_max) {
            Some(entries) => {
                self.has_read(now, self.last_read, entries);
                true
            }
            None => false,
        }
    }

    fn poll_feed(&mut self, now: Time, store: &mut Store, outputs: &mut Vec<Output>) -> bool {
        let view = View {
            snapshot: newest_contents(store),
            may_wait: now < self.next_feed && !self.is_execution_awaited(),
            ..view(&self.raft)
        };
        let had_news = self.feed.has_news(view);
        let waits = had_news && view.may_wait;
        self.feed_due = if waits { self.next_feed } else { Time::NEVER };
        let mut answered = false;
        for step in self.feed.poll(view) {
            match step {
                Step::Say(said) => {
                    let starts = matches!(said, ToReplicator::Start { .. });
                    outputs.push(Output::Replicator(said));
                    if starts {
                        self.say_kept(outputs);
                    }
                }
                Step::ReadState(at, offset) => self.read_state(at, offset, store),
                Step::Read(first, last, bytes_max) => {
                    answered |= self.read(now, Reader::Feed, first, last, bytes_max, store);
                }
            }
        }
        if had_news && !self.feed.has_news(self::view(&self.raft)) {
            self.next_feed = now + FOLLOWER_FEED_INTERVAL;
        }
        answered
    }

    /// Results come from the leader's replicator, a query waits until this one has executed what it has to see, and a client that reads there
    /// until it knows of it.
    fn is_execution_awaited(&self) -> bool {
        let is_read = self.feed.commit_said().is_some_and(|said| said < self.read_up_to);
        self.raft.role() == RoleName::Leader || !self.queries.is_empty() || is_read
    }

    /// What the replicator beside this leader has executed that the log does not say yet.
    fn unmarked(&self) -> Option<OperationIndex> {
        if !self.feed.is_on_leader() {
            return None;
        }
        let through = self.feed.executed_for_all(view(&self.raft))?;
        let is_due = through > self.raft.execution_mark() && !self.raft.is_marking_execution();
        is_due.then_some(through)
    }

    fn mark_deadline(&self) -> Time {
        self.unmarked().map_or(Time::NEVER, |_| self.next_mark)
    }

    /// Has the log say how far is executed. Whether it will.
    fn mark_execution(&mut self, now: Time) -> bool {
        let marks = self
            .unmarked()
            .is_some_and(|through| self.raft.mark_execution(now, through));
        if marks {
            self.next_mark = now + MARK_INTERVAL;
        }
        marks
    }

    /// Whoever leads next need not execute again what is executed by now, as far as this leader knows.
    pub(super) fn transfer_leadership(&mut self, now: Time, id: RequestId, target: Option<NodeNumber>) {
        self.mark_execution(now);
        self.raft.transfer_leadership(now, id, target);
    }

    fn read_state(&mut self, at: LogIndex, offset: u64, store: &mut Store) {
        self.last_read += 1;
        self.state_read = Some(self.last_read);
        // One read at a time is never too many.
        if store.snapshots.read(self.last_read, at, offset).is_err() {
            self.state_read = None;
            self.feed.state_read(None);
        }
    }

    /// Something happened to the snapshots on disk.
    pub(super) fn snapshot_event(
        &mut self,
        now: Time,
        event: SnapshotEvent,
        store: &Store,
        outputs: &mut Vec<Output>,
    ) {
        let node = self.raft.config().node;
        let (id, data) = match event {
            SnapshotEvent::Saved(index) => {
                if let Some((index, took)) = self.taking.saved(index, now) {
                    let bytes = store.snapshots.newest().map_or(0, |newest| newest.whole.bytes);
                    outputs.push(Output::Notice(Notice::SnapshotTaken {
                        node,
                        index,
                        bytes,
                        took,
                    }));
                }
                return;
            }
            SnapshotEvent::Full(_) => return self.look_at_room(now, store),
            SnapshotEvent::Synced(_) => return,
            SnapshotEvent::Read { id, data } => (id, Some(data)),
            SnapshotEvent::Gone { id } => (id, None),
            SnapshotEvent::Damaged { id, damage } => {
                let what = format!("goes on without a snapshot: {damage}");
                outputs.push(Output::Notice(Notice::Plain { node, what }));
                (id, None)
            }
        };
        if self.state_read == Some(id) {
            self.state_read = None;
            self.feed.state_read(data);
        } else if let Some(id) = self.downloads.remove(&id) {
            outputs.push(Output::SnapshotRead { id, data });
        }
    }

    /// Somebody wants a snapshot of what is executed by now.
    pub(super) fn take_snapshot(&mut self, now: Time, id: RequestId, within: Duration) {
        self.taking.asked(now, id, within, self.feed.executed_by_now());
    }

    /// Somebody wants data of that snapshot.
    pub(super) fn read_snapshot(
        &mut self,
        id: RequestId,
        snapshot: SnapshotId,
        offset: u64,
        store: &mut Store,
        outputs: &mut Vec<Output>,
    ) {
        let is_there = store
            .snapshots
            .manifests()
            .any(|manifest| SnapshotId::of(manifest) == snapshot);
        self.last_read += 1;
        let read = self.last_read;
        if is_there && store.snapshots.read(read, snapshot.index, offset).is_ok() {
            self.downloads.insert(read, id);
        } else {
            outputs.push(Output::SnapshotRead { id, data: None });
        }
    }

    fn poll_taking(&mut self, now: Time, store: &mut Store, outputs: &mut Vec<Output>) -> bool {
        let answers = self.taking.answers(&store.snapshots);
        outputs.extend(
            answers
                .into_iter()
                .map(|(id, result)| Output::SnapshotTaken { id, result }),
        );
        if self.receiving.is_under_way() {
            return false;
        }
        let mut progress = taking_progress(&self.raft, &self.weights, &self.feed);
        // What a follower is receiving would be let go of, and the next one begin at its first byte, again and again.
        progress.may_wait = self.sending.is_under_way() && !self.is_short_of_room();
        let mut answered = false;
        for step in self.taking.poll(progress, &mut store.snapshots, now) {
            match step {
                taking::Step::Say(said) => outputs.push(Output::Replicator(said)),
                taking::Step::Read(first, last, bytes_max) => {
                    answered |= self.read(now, Reader::Taking, first, last, bytes_max, store);
                }
                taking::Step::Refuse(why) => self.refuse_replicator(why, store, outputs),
            }
        }
        answered
    }

    /// Whether the log weighs so much that there is no room for what lies between two snapshots.
    fn is_short_of_room(&self) -> bool {
        self.weights.all() >= self.room.log_bytes_max() / 6 * 5
    }

    /// A snapshot may have come from a damaged member, and its last entry have left memory here or come later: before the log
    /// begins behind it, it is compared with the entry on disk.
    fn compare_snapshots(&mut self, now: Time, store: &mut Store) {
        let held = self.raft.commit().min(self.raft.persisted_index());
        let known = self.raft.log().base().position.index.max(self.compared);
        let is_next = |base: &Base| (known + 1..=held).contains(&base.position.index);
        let next = store.snapshots.manifests().flat_map(snapshot::base).find(is_next);
        if let Some(base) = next.filter(|_| !self.comparing) {
            self.comparing = true;
            let index = base.position.index;
            self.read(now, Reader::Snapshot(base), index, index, 1, store);
        }
    }

    /// The entry with which a snapshot ends came back from disk; none does where the log begins behind it by now.
    fn snapshot_compared(&mut self, theirs: Base, entry: Option<&Entry>) {
        self.comparing = false;
        let Some(entry) = entry else { return };
        let Base {
            position: LogPosition { index, term },
            operation_index,
            running_hash,
        } = theirs;
        if (entry.term, entry.operation_index, entry.running_hash) == (term, operation_index, running_hash) {
            self.compared = index;
            return;
        }
        self.contradiction = Some(format!(
            "the snapshot up to entry {index} contradicts the log: there it has term {term}, operation {operation_index} and running \
             hash {running_hash:016x}, and the log has term {}, operation {} and running hash {:016x}: one of the two is damaged; {REPLACE}",
            entry.term, entry.operation_index, entry.running_hash
        ));
    }

    /// Lets go of what is in the older of two snapshots; the newer one has proved itself when it has become that. Where room is
    /// short the newest has to do.
    fn compact(&mut self, store: &mut Store, outputs: &mut Vec<Output>) {
        if self.room.log_bytes_max() == u64::MAX {
            // All of the log is to be kept, whatever snapshots somebody has asked for.
            return;
        }
        let mut kept = store.snapshots.manifests();
        let target = match (kept.next(), kept.next()) {
            (Some(_), Some(newest)) if self.is_short_of_room() => newest,
            (Some(older), Some(_)) => older,
            (Some(only), None) if self.is_short_of_room() => only,
            _ => return,
        };
        let index = target.index;
        let held = self.raft.commit().min(self.raft.persisted_index());
        let may_go = held.min(self.taking.folded()).min(self.compared);
        if index <= self.raft.log().base().position.index || index > may_go {
            return;
        }
        let Ok(base) = snapshot::base(target) else { return };
        self.raft.compact_to(base);
        let beyond = self.raft.config().planted.has(Bug::CompactedBeyondSnapshot);
        store.wal.compact(if beyond { held } else { index });
        self.weights.compact(index);
        if self.feed.executed().is_some() {
            self.say_kept(outputs);
        }
    }

    /// Where room is short though all that can be compacted is, as the replicator does not execute, a snapshot of the leader's
    /// takes the place of log; the replicator is restored from it when it goes on. So it is where that waits for a newer one.
    fn ask_for_snapshot(&mut self, store: &Store) {
        let newest = store.snapshots.newest().map_or(0, |newest| newest.index);
        let wants = self.is_short_of_room() || self.feed.waits_for_snapshot();
        let behind = wants.then_some(newest);
        self.raft.want_snapshot(behind);
    }

    fn say_kept(&self, outputs: &mut Vec<Output>) {
        let index = self.raft.log().base().operation_index;
        if index > 0 {
            outputs.push(Output::Replicator(ToReplicator::SnapshotKept { index }));
        }
    }

    /// A log that cannot be compacted, as its replicator does not execute, does not grow for ever.
    fn limit(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let log = self.raft.log();
        let full = self.weights.all() >= self.room.log_bytes_max() && can_be_compacted(log);
        if full == self.raft.log_full() {
            return;
        }
        self.raft.set_log_full(now, full);
        let what = if full {
            format!(
                "has {} bytes of log, as much as it keeps, and its replicator has to execute more before a snapshot can take \
                 their place: it hands leadership over, or refuses submissions until then",
                self.weights.all()
            )
        } else {
            "has let go of log that is in a snapshot, and has room for more".to_owned()
        };
        let node = self.raft.config().node;
        outputs.push(Output::Notice(Notice::Plain { node, what }));
    }

    fn answer(&self, id: RequestId, result: &Result<effect::Committed, effect::Refusal>) -> Output {
        let result = match *result {
            Ok(effect::Committed {
                operation_index,
                log_index,
                term,
            }) => Ok(Committed {
                operation_index,
                log_index,
                term,
            }),
            Err(refusal) => Err(match refusal {
                effect::Refusal::NotLeader { .. } => Refusal::NotLeader {
                    leader: self.leader(),
                },
                effect::Refusal::NotAppended(why) => Refusal::NotAppended(why),
                effect::Refusal::Backpressure => Refusal::Backpressure,
                effect::Refusal::DiskFull => Refusal::DiskFull,
                effect::Refusal::LogFull => Refusal::LogFull,
                effect::Refusal::InvalidOperation(why) => Refusal::InvalidOperation(why.to_owned()),
                effect::Refusal::SessionExpired => Refusal::SessionExpired,
                effect::Refusal::SequenceForgotten => Refusal::SequenceForgotten,
                effect::Refusal::LeadershipLost => Refusal::LeadershipLost,
            }),
        };
        Output::Answer { id, result }
    }

    fn transferred(&self, id: RequestId, result: Result<MemberId, effect::TransferRefusal>) -> Output {
        use effect::TransferRefusal as Core;
        let result = match result {
            Ok(member) => match self.leader_of(member) {
                Some(leader) => Ok(Transferred {
                    leader,
                    term: self.raft.term(),
                }),
                None => Err(TransferRefusal::Failed(
                    "the new leader is not in the configuration".to_owned(),
                )),
            },
            Err(Core::NotLeader { .. }) => Err(TransferRefusal::NotLeader {
                leader: self.leader(),
            }),
            Err(Core::NoTarget) => Err(TransferRefusal::BadTarget(
                "no other voter of that number".to_owned(),
            )),
            Err(Core::Busy) => Err(TransferRefusal::Failed(
                "another transfer is under way".to_owned(),
            )),
            Err(Core::TimedOut) => Err(TransferRefusal::Failed(
                "the target did not take over within the minimum election timeout".to_owned(),
            )),
        };
        Output::Transferred { id, result }
    }

    fn change_refused(&self, refusal: ChangeRefusal) -> MembershipRefusal {
        match refusal {
            ChangeRefusal::NotLeader { .. } => MembershipRefusal::NotLeader {
                leader: self.leader(),
            },
            ChangeRefusal::NotNow(why) => MembershipRefusal::NotNow(why),
            ChangeRefusal::OtherVersion(version) => MembershipRefusal::OtherVersion(version),
            ChangeRefusal::Invalid(why) => MembershipRefusal::Invalid(why),
            ChangeRefusal::NotCaughtUp(id) => MembershipRefusal::NotCaughtUp(id),
            ChangeRefusal::WouldLoseQuorum { responsive, voters } => {
                MembershipRefusal::WouldLoseQuorum { responsive, voters }
            }
            ChangeRefusal::LeadershipLost => MembershipRefusal::LeadershipLost,
        }
    }

    fn leader(&self) -> Option<Leader> {
        self.raft.leader().and_then(|id| self.leader_of(id))
    }

    fn leader_of(&self, id: MemberId) -> Option<Leader> {
        let member = self.raft.configuration().member(id)?;
        Some(Leader {
            member_id: id,
            node: member.node,
            client_address: member.client_address.clone(),
        })
    }

    /// Fills in what a node in its cluster knows.
    pub(super) fn describe(&self, now: Time, store: &Store, status: &mut Status) {
        let (raft, log) = (&self.raft, self.raft.log());
        status.cluster_id = Some(self.cluster);
        status.bootstrap = Some(Arc::clone(&self.bootstrap));
        status.configuration = Arc::clone(&self.configuration);
        status.parent = log.fold().parent;
        status.role = match raft.role() {
            RoleName::Follower => Role::Follower,
            RoleName::PreCandidate => Role::PreCandidate,
            RoleName::Candidate => Role::Candidate,
            RoleName::Leader => Role::Leader,
            RoleName::Learner => Role::Learner,
        };
        status.term = raft.term();
        status.feature_level = Some(raft.committed_feature_level());
        status.leader = self.leader();
        status.leader_is_live = raft.has_live_leader(now);
        status.commit_index = log.operation_index_at(raft.commit());
        status.last_index = log.fold().operation_index;
        status.execution_mark = raft.execution_mark();
        status.persisted_index = log.operation_index_at(raft.persisted_index());
        status.commit_log_index = raft.commit();
        status.last_log_index = log.last().index;
        status.running_hash = log.fold().running_hash;
        status.commit_hash = log.running_hash_at(raft.commit());
        status.is_member = raft.committed_configuration().member(raft.id()).is_some();
        status.progress = self.member_progress(now);
        status.replicator = self.feed.view();
        status.elected_by = raft.elected_by();
        status.kept = Kept {
            first_index: log.base().operation_index + 1,
            snapshot_index: newest_contents(store).map_or(0, |(_, contents)| contents.place.index),
            snapshot_bytes: store
                .snapshots
                .manifests()
                .map(|manifest| manifest.whole.bytes)
                .sum(),
            log_bytes: self.weights.all(),
            log_full: raft.log_full(),
        };
        status.reads = raft.read_counts();
        status.disks = Disks {
            full: raft.disk_full(),
            stalled: raft.disk_stalled(),
            lack_room: raft.lack_of_room(now).is_some(),
        };
        status.memory_bytes = u64::try_from(log.recent_bytes()).unwrap_or(u64::MAX);
        status.was_removed = self.gone_since().is_some();
        status.waiting_for = self.problem();
    }

    /// What keeps this member from taking part in full, for people.
    fn problem(&self) -> Option<String> {
        let supports = self.raft.config().supports;
        if let Some(Err(why)) = self.raft.left_behind_by().map(|level| supports.check(level)) {
            return Some(format!("cannot follow its leader: {why}"));
        }
        if let Some(why) = self.raft.refused() {
            return Some(format!(
                "refuses the entries of its leader: {why}: one of the two is damaged; compare the replicas by \
                 'raftctl verify' before restarting either"
            ));
        }
        if self.raft.is_suspect() {
            return Some(
                "the end of its log was damaged; it does not vote until a leader has brought back what is committed"
                    .to_owned(),
            );
        }
        if let Some(version) = self.gone_since() {
            return Some(format!(
                "was removed from the cluster with configuration {version}: stop it for good, or start it again, which moves \
                 its data aside, and add it as a new member"
            ));
        }
        let held = self.raft.log().fold().operation_index;
        if self.feed.waits_for_snapshot() {
            return Some("its replicator's executor needs a snapshot that is newer than this node's, and waits for one of the leader's".to_owned());
        }
        self.feed.waits_for().map(|index| {
            format!("its replicator has committed up to index {index}, of which this node holds {held}")
        })
    }

    fn member_progress(&self, now: Time) -> Vec<MemberProgress> {
        let of = |(member_id, progress): (MemberId, &raftlog_raft::Progress)| MemberProgress {
            member_id,
            node: self
                .configuration
                .member(member_id)
                .map_or(0, |member| member.node),
            match_log_index: progress.matched,
            last_contact: now - progress.acknowledged_at,
            in_flight_bytes: u64::try_from(progress.in_flight_bytes()).unwrap_or(u64::MAX),
            caught_up: self.raft.keeps_up(now, member_id),
            supports: progress.supports,
        };
        self.raft.progress().map(of).collect()
    }
}

/// What the feed may show of the log. Its snapshots only the store knows.
fn view(raft: &Raft) -> View<'_> {
    let planted = raft.config().planted;
    View {
        log: raft.log(),
        commit: raft.commit(),
        persisted: if planted.has(Bug::ExecutedBeyondPersisted) {
            raft.log().last().index
        } else {
            raft.persisted_index()
        },
        snapshot: None,
        may_wait: false,
        planted,
        executes_in: raft.executes_in(),
        mark: raft.execution_mark(),
    }
}

fn taking_progress<'a>(raft: &'a Raft, weights: &'a Weights, feed: &Feed) -> taking::Progress<'a> {
    taking::Progress {
        log: raft.log(),
        weights,
        committed: raft.commit().min(raft.persisted_index()),
        executed: feed.executed(),
        may_wait: false,
    }
}

/// The newest snapshot, and what is in it.
fn newest_contents(store: &Store) -> Option<(LogIndex, Contents)> {
    let newest = store.snapshots.newest()?;
    Some((newest.index, Contents::of(newest).ok()?))
}
