//! What a member's disk says of it: the log over the snapshot that it begins in, its fold, the hard state, and whether the
//! end is in doubt.
//!
//! The base is the oldest snapshot that is whole and holds all that the log was compacted of: the newer one behind it is no
//! loss then, should it turn out to be damaged. Records at or below the base are passed over. What the log held there once may
//! have been another past than the snapshot's, given up since; so records behind the base count only once it is known that the
//! log had come to the base's own entry.

use raftlog_raft::entry::{Entry, HardState, Payload};
use raftlog_raft::feature::Supports;
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::MemberId;
use raftlog_raft::log::Log;
use raftlog_raft::membership::Configuration;
use raftlog_raft::message::LogPosition;
use raftlog_raft::planted::{Bug, Planted};
use raftlog_storage::identity::Identity;
use raftlog_storage::snapshots::{Damage, Snapshots};
use raftlog_storage::{Append, Disk, OpenError, Visit, Wal, WalOptions};

use super::api::Bounds;
use super::first_fold;
use super::room::Room;
use super::snapshot;
use super::store::Store;
use super::survivor;
use super::weights::Weights;

/// What was recovered.
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) hard_state: HardState,
    /// Some configuration of this log lists this member.
    pub(super) listed: bool,
    /// Acknowledged entries may be missing at the end.
    pub(super) suspect: bool,
    /// Appends that the log has taken since.
    pub(super) tickets: u64,
    /// The fold where the log begins.
    pub(super) base_fold: Fold,
    /// What the log weighs.
    pub(super) weights: Weights,
    /// Snapshots that are damaged, and that it can do without.
    pub(super) damages: Vec<Damage>,
}

/// What a member is told about reading its disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// What it keeps at most.
    pub(super) bounds: Bounds,
    /// Feature levels: a folder of another one is left as it is.
    pub(super) supports: Supports,
    /// A bug, in tests.
    pub(super) planted: Planted,
}

impl Default for Settings {
    /// Those of a program.
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            supports: Supports::default(),
            planted: Planted::default(),
        }
    }
}

/// Reads snapshots and log of that identity, and has the log go on where it is to.
pub(super) fn recover(
    disk: &mut dyn Disk,
    identity: &Identity,
    settings: Settings,
    room: &Room,
) -> Result<(Store, Recovered), OpenError> {
    let (mut store, mut recovered) = read(disk, identity, settings, room)?;
    begin_new_cluster(disk, identity, &mut store, &mut recovered)?;
    let configuration = &recovered.log.fold().configuration;
    let alone = configuration.is_voter(identity.member) && configuration.voters().count() == 1;
    if recovered.suspect && alone {
        let folder = disk.folder();
        return Err(OpenError::Identity(format!(
            "the end of the log in {folder} is damaged, and no other voter has a copy: operations that were acknowledged \
             may be lost; restore the folder from a copy, or go on with what is left by 'raft-node recover --data-dir \
             {folder} --as-single-voter'"
        )));
    }
    Ok((store, recovered))
}

/// Reads snapshots and log of that identity, as they are.
pub(super) fn read(
    disk: &mut dyn Disk,
    identity: &Identity,
    settings: Settings,
    room: &Room,
) -> Result<(Store, Recovered), OpenError> {
    let Settings {
        bounds,
        supports,
        planted,
    } = settings;
    let (folder, owner) = (disk.folder(), identity.log_owner().get());
    let (snapshots, damages) = Snapshots::open(disk)?;
    let compacted = Wal::<Entry>::compacted_through_of(disk, owner)?;
    let (base, fold) = find_base(disk, &snapshots, compacted, &damages, supports)?.unwrap_or_else(|| {
        let bootstrap = Configuration::new(0, identity.bootstrap.clone());
        (LogPosition::default(), first_fold(bootstrap, bounds))
    });
    let log = Log::over(base, fold.clone(), bounds.recent_bytes_max);
    let weights = room.weights(base.index);
    let mut replay = Replay::new(identity.member, log, weights, compacted);
    let options = WalOptions {
        planted,
        ..WalOptions::new(owner)
    };
    let opened = Wal::open(disk, options, &mut |visit| replay.take_in(visit));
    // What comes behind the entry that raised the level may make no sense to this version, and is no damage.
    let level = replay.log.fold().feature_level;
    supports
        .check(level)
        .map_err(|why| snapshot::unsupported(&folder, &why))?;
    let (wal, recovery) = opened?;
    if !planted.has(Bug::LogDeletedIdentityKept) {
        Identity::check_log(Some(identity), &recovery, &folder)?;
    }
    if let Some(problem) = replay.misfit {
        let file = snapshots.file(base.index);
        return Err(OpenError::Identity(format!(
            "{file} does not fit the log behind it: {problem}; {REPLACE}"
        )));
    }
    let mut store = Store { wal, snapshots };
    let mut tickets = if replay.joined {
        0
    } else {
        give_up_other_past(disk, &mut store, base)?
    };
    let (mut log, mut base_fold, mut weights) = (replay.log, fold, replay.weights);
    if let Some((position, fold)) = find_later_base(disk, &store.snapshots, &mut log, supports)? {
        tickets = tickets.max(give_up_other_past(disk, &mut store, position)?);
        log = Log::over(position, fold.clone(), bounds.recent_bytes_max);
        base_fold = fold;
        weights.start_from(position.index);
    }
    let base = log.base().position.index;
    let left = log.last().index - base;
    weights.stretch_to(store.wal.bytes_per_record_from(base + 1).saturating_mul(left));
    let listed = replay.listed || log.fold().configuration.member(identity.member).is_some();
    let recovered = Recovered {
        log,
        hard_state: replay.hard_state,
        listed,
        suspect: recovery.suspect_tail,
        tickets,
        base_fold,
        weights,
        damages,
    };
    Ok((store, recovered))
}

/// A member that goes on alone begins its new cluster with an entry of its own: the identity has said so since it was stored,
/// the entry follows at the next start. What a damaged end of the log may have lost is given up with that.
fn begin_new_cluster(
    disk: &mut dyn Disk,
    identity: &Identity,
    store: &mut Store,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    let Some(from) = identity.recovered else {
        return Ok(());
    };
    let (folder, last) = (disk.folder(), recovered.log.last());
    if last.index > from.after {
        return Ok(());
    }
    // Where it was restored from a saved snapshot, its identity says where it is to be reached.
    let restored = identity.bootstrap.iter().find(|own| own.id == identity.member);
    let left = match restored {
        Some(own) => Some(Configuration::new(from.after + 1, vec![own.clone()])),
        None => survivor::left_alone(identity, recovered.log.fold(), from.after + 1),
    };
    let (true, Some(configuration)) = (last.index == from.after, left) else {
        return Err(OpenError::Identity(format!(
            "the log in {folder} ends with entry {}, where the cluster was recovered behind entry {}: restore the folder \
             from a copy, or start with an empty one as a new member",
            last.index, from.after
        )));
    };
    let term = recovered.hard_state.term.max(last.term) + 1;
    let payload = Payload::Recovered {
        parent: from.cluster,
        configuration,
    };
    let entry = recovered.log.fold().next_entry(from.after + 1, term, payload);
    recovered.hard_state = HardState {
        term,
        commit: entry.log_index,
        ..HardState::default()
    };
    let mut state = Vec::new();
    recovered.hard_state.encode(&mut state);
    recovered.weights.push(&entry);
    recovered.log.push(entry.clone());
    recovered.tickets = store.wal.append(Append {
        truncate_from: None,
        records: vec![entry],
        state: Some(state.into()),
    });
    finish_writing(disk, store)?;
    // Not before: until then, the folder is one whose end is in doubt.
    store.wal.repaired();
    finish_writing(disk, store)?;
    (recovered.suspect, recovered.listed) = (false, true);
    Ok(())
}

/// What to do where a member cannot come back by itself.
pub(super) const REPLACE: &str = "check the disk, move the data folder away, start the node with an empty one, and run 'raftctl member replace'";

/// The oldest snapshot that is whole and holds everything up to `compacted`, which the log no longer does; `None` where the log
/// holds all, or nothing was ever in it.
fn find_base(
    disk: &mut dyn Disk,
    snapshots: &Snapshots,
    compacted: u64,
    damages: &[Damage],
    supports: Supports,
) -> Result<Option<(LogPosition, Fold)>, OpenError> {
    let mut why = damages
        .iter()
        .find(|damage| damage.index >= compacted)
        .map(|damage| {
            format!(
                "{} is corrupt at offset {}: {}",
                damage.file, damage.offset, damage.problem
            )
        });
    for manifest in snapshots
        .manifests()
        .filter(|manifest| manifest.index >= compacted)
    {
        match snapshot::read_fold(snapshots, disk, manifest, supports) {
            Ok(fold) => return Ok(Some((snapshot::position(manifest), fold))),
            Err(OpenError::Corrupt {
                file,
                offset,
                problem,
            }) => {
                why.get_or_insert_with(|| format!("{file} is corrupt at offset {offset}: {problem}"));
            }
            Err(error) => return Err(error),
        }
    }
    if compacted == 0 {
        return Ok(None);
    }
    let why = why.unwrap_or_else(|| {
        format!(
            "{} is missing, or one of a later entry",
            snapshots.file(compacted)
        )
    });
    Err(OpenError::Identity(format!(
        "{why}; the log no longer holds its first {compacted} entries, and no other snapshot here does: {REPLACE}"
    )))
}

/// A snapshot from elsewhere counts as soon as it is saved, before the log begins behind it: where the log does not hold the entry
/// that the newest one ends with, it begins there now. Where it does, that entry is committed, as everything in a snapshot is.
fn find_later_base(
    disk: &mut dyn Disk,
    snapshots: &Snapshots,
    log: &mut Log,
    supports: Supports,
) -> Result<Option<(LogPosition, Fold)>, OpenError> {
    let Some(newest) = snapshots.newest() else {
        return Ok(None);
    };
    if log.term_at(newest.index) == Some(newest.term) {
        log.settle(newest.index.max(log.settled()));
        return Ok(None);
    }
    let fold = snapshot::read_fold(snapshots, disk, newest, supports)?;
    Ok(Some((snapshot::position(newest), fold)))
}

/// The log never came to the base's entry: it is shorter, or holds another past, which nobody needs. The process ended between
/// saving a snapshot from elsewhere and cutting the log. Each step is on disk before the next. Returns how many appends
/// that took.
fn give_up_other_past(disk: &mut dyn Disk, store: &mut Store, base: LogPosition) -> Result<u64, OpenError> {
    let mut tickets = 0;
    if store.wal.last_index() >= base.index {
        tickets = store.wal.append(Append {
            truncate_from: Some(base.index),
            ..Append::default()
        });
        finish_writing(disk, store)?;
    }
    store.wal.compact(base.index);
    finish_writing(disk, store)?;
    Ok(tickets)
}

pub(super) fn finish_writing(disk: &mut dyn Disk, store: &mut Store) -> Result<(), OpenError> {
    while let Some((id, op)) = store.next_op() {
        let result = disk.execute(&op);
        store
            .complete(id, result)
            .map_err(|fatal| OpenError::Identity(fatal.0))?;
    }
    if store.wal.is_pending() {
        return Err(OpenError::Identity(format!(
            "the disk of {} is full: make room and start again",
            disk.folder()
        )));
    }
    Ok(())
}

/// The log as it comes back, record by record.
struct Replay {
    member: MemberId,
    base: LogPosition,
    log: Log,
    /// The log on disk, as far as it was read, is one that holds the base's entry.
    joined: bool,
    /// The base's own record, or the first behind it, does not fit it. That may be one of another past, whose beginning was dropped
    /// and whose end is to be cut off; if it is not, it is damage.
    misfit: Option<String>,
    hard_state: HardState,
    listed: bool,
    weights: Weights,
}

impl Replay {
    /// Of a log that begins behind `compacted`, where it held what the snapshots hold.
    fn new(member: MemberId, log: Log, weights: Weights, compacted: u64) -> Self {
        let base = log.base().position;
        Self {
            member,
            base,
            joined: base.index == compacted,
            misfit: None,
            hard_state: HardState::default(),
            listed: log.fold().configuration.member(member).is_some(),
            log,
            weights,
        }
    }

    /// The log checks what it is given: what does not fit is refused, and the storage says where it stood.
    fn take_in(&mut self, visit: Visit<Entry>) -> Result<(), String> {
        match visit {
            Visit::State(bytes) => {
                self.hard_state =
                    HardState::decode(bytes).map_err(|error| format!("the hard state is {error}"))?;
                let log = &mut self.log;
                log.settle(self.hard_state.commit.min(log.last().index).max(log.settled()));
                log.evict(log.last().index);
            }
            Visit::Truncate(from) => self.truncate(from)?,
            Visit::Record(entry) if entry.log_index <= self.base.index => {
                if entry.log_index == self.base.index {
                    self.join(&entry);
                }
            }
            Visit::Record(entry) => self.append(entry)?,
        }
        self.listed |= self.log.fold().configuration.member(self.member).is_some();
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> Result<(), String> {
        let settled = self.log.settled();
        if from <= settled && settled > self.base.index {
            return Err(format!(
                "the log is cut at {from} though it was committed up to {settled}"
            ));
        }
        if from <= self.base.index {
            self.joined = false;
        }
        if from <= self.base.index + 1 {
            self.misfit = None;
        }
        let from = from.max(self.base.index + 1);
        self.weights.truncate(from);
        self.log.truncate(from);
        Ok(())
    }

    /// The log has come to the index of the base.
    fn join(&mut self, entry: &Entry) {
        let base = self.log.base();
        let (held, theirs) = (
            (entry.operation_index, entry.running_hash),
            (base.operation_index, base.running_hash),
        );
        self.joined = entry.term == self.base.term;
        self.misfit = (self.joined && held != theirs).then(|| {
            format!(
                "it ends with operation {}, running hash {:016x}, where the log has operation {}, running hash {:016x}",
                theirs.0, theirs.1, held.0, held.1
            )
        });
    }

    fn append(&mut self, entry: Entry) -> Result<(), String> {
        if !self.joined || self.misfit.is_some() {
            return Ok(());
        }
        let last = self.log.last();
        let fits = if entry.log_index != last.index + 1 || entry.term < last.term {
            Err(format!(
                "entry {} of term {} follows entry {} of term {}",
                entry.log_index, entry.term, last.index, last.term
            ))
        } else {
            self.weights.push(&entry);
            self.log.append(entry).map_err(|mismatch| mismatch.to_string())
        };
        match fits {
            Err(problem) if last == self.base && self.base.index > 0 => {
                self.misfit = Some(problem);
                Ok(())
            }
            fits => fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(log_index: u64, term: u64) -> Entry {
        Entry {
            log_index,
            term,
            operation_index: 0,
            running_hash: 0,
            payload: Payload::Noop,
        }
    }

    fn state(commit: u64) -> Visit<Entry> {
        let mut bytes = Vec::new();
        HardState {
            term: 3,
            commit,
            ..HardState::default()
        }
        .encode(&mut bytes);
        Visit::State(bytes.into())
    }

    /// Over a base at that index, of term 2 if there is one, where the log on disk was compacted at `compacted`.
    fn replay_over(base: u64, compacted: u64) -> Replay {
        let position = LogPosition {
            index: base,
            term: if base > 0 { 2 } else { 0 },
        };
        let log = Log::over(position, Fold::default(), 0);
        Replay::new(MemberId::new(1).unwrap(), log, Weights::new(base, 1), compacted)
    }

    fn replay(base: u64) -> Replay {
        replay_over(base, base)
    }

    /// Its name, where the log was compacted, what it holds; whether it joins the base, its last entry, whether that misfits.
    type Case = (&'static str, u64, Vec<Vec<Visit<Entry>>>, bool, u64, bool);

    /// The log after the base comes from records of the base's own past only.
    #[test]
    fn records_of_another_past_than_the_bases_do_not_count() {
        let records = |range: std::ops::RangeInclusive<u64>, term| {
            range
                .map(move |index| Visit::Record(entry(index, term)))
                .collect::<Vec<_>>()
        };
        let misfit_at = |index| {
            let bad = Entry {
                running_hash: 1,
                ..entry(index, 2)
            };
            vec![Visit::Record(bad)]
        };
        let misfit = || misfit_at(8);
        // Over a base at entry 7 of term 2.
        let cases: [Case; 10] = [
            ("nothing", 7, vec![], true, 7, false),
            ("all behind it", 7, vec![records(8..=9, 2)], true, 9, false),
            ("from before it", 3, vec![records(4..=9, 2)], true, 9, false),
            ("shorter", 3, vec![records(4..=6, 2)], false, 7, false),
            ("another past", 3, vec![records(4..=9, 1)], false, 7, false),
            (
                "another past, then its own",
                3,
                vec![records(4..=9, 1), vec![Visit::Truncate(5)], records(5..=8, 2)],
                true,
                8,
                false,
            ),
            (
                "its own, then cut",
                3,
                vec![records(4..=9, 2), vec![Visit::Truncate(8)], records(8..=8, 3)],
                true,
                8,
                false,
            ),
            ("damage", 7, vec![misfit(), records(9..=9, 2)], true, 7, true),
            (
                "another entry of the base's term",
                3,
                vec![records(4..=6, 2), misfit_at(7)],
                true,
                7,
                true,
            ),
            (
                "the end of another past",
                7,
                vec![
                    misfit(),
                    records(9..=9, 2),
                    vec![Visit::Truncate(8)],
                    records(8..=9, 2),
                ],
                true,
                9,
                false,
            ),
        ];
        for (name, compacted, visits, joined, last, misfit) in cases {
            let mut replay = replay_over(7, compacted);
            let result: Result<(), String> = visits
                .into_iter()
                .flatten()
                .try_for_each(|visit| replay.take_in(visit));
            assert_eq!(result, Ok(()), "{name}");
            assert_eq!(
                (replay.joined, replay.log.last().index, replay.misfit.is_some()),
                (joined, last, misfit),
                "{name}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let cases: [(&str, Vec<Visit<Entry>>, bool); 7] = [
            (
                "a log",
                vec![state(0), Visit::Record(entry(1, 1)), Visit::Record(entry(2, 3))],
                true,
            ),
            (
                "a cut",
                vec![
                    Visit::Record(entry(1, 1)),
                    Visit::Truncate(1),
                    Visit::Record(entry(1, 2)),
                ],
                true,
            ),
            ("a gap", vec![Visit::Record(entry(2, 1))], false),
            (
                "back to a term",
                vec![Visit::Record(entry(1, 2)), Visit::Record(entry(2, 1))],
                false,
            ),
            (
                "a cut of what is committed",
                vec![Visit::Record(entry(1, 1)), state(1), Visit::Truncate(1)],
                false,
            ),
            (
                "another hash",
                vec![Visit::Record(Entry {
                    running_hash: 1,
                    ..entry(1, 1)
                })],
                false,
            ),
            ("half a state", vec![Visit::State(vec![1, 2, 3].into())], false),
        ];
        for (name, visits, good) in cases {
            let mut replay = replay(0);
            let result: Result<(), String> = visits.into_iter().try_for_each(|visit| replay.take_in(visit));
            assert_eq!(result.is_ok(), good, "{name}: {result:?}");
        }
    }
}
