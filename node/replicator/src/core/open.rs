//! Start: what the data folder holds is read, checked, and gone on from.

use std::collections::VecDeque;

use raftlog_raft::ids::{MemberId, NodeNumber, OperationIndex};
use raftlog_storage::identity::{Identity, Program};
use raftlog_storage::{Disk, Op, OpenError, Outcome, Visit, Wal, WalOptions};

use super::config::Config;
use super::durable::Durable;
use super::held::Held;
use super::operation::{Operation, Place};
use super::replicator::Replicator;

/// What the log adds up to while it is read.
///
/// Of a log that was compacted only later records are told, but all states that are on disk: some speak of places before the
/// first record. The place right before that is in one of them, which may come behind the record; until then the record
/// waits to be checked.
#[derive(Default)]
struct Recovering {
    /// Consecutive, from the commit place on or else from the place before the first record; where that is not known yet, from the first
    /// record. Empty until there is a record, and behind a snapshot that was restored.
    places: VecDeque<Place>,
    /// The first record, while it is not known what it has to follow.
    unfounded: Option<Operation>,
    state: Durable,
}

impl Replicator {
    /// Opens the folder behind `disk`, or takes it if it is empty. `random` gives a new folder its identity.
    ///
    /// # Errors
    /// A folder of another node or program, a corrupt log, a failing disk: each says so in one line.
    pub fn open(config: Config, disk: &mut dyn Disk, random: &mut dyn rand::Rng) -> Result<Self, OpenError> {
        let folder = disk.folder();
        let found = Identity::load(disk)?;
        if let Some(identity) = &found {
            identity.check(Program::Replicator, config.node, &folder)?;
        }
        let owner = found
            .as_ref()
            .map_or_else(|| MemberId::random(random), |identity| identity.member);
        let options = WalOptions {
            segment_bytes: config.segment_bytes,
            planted: config.planted,
            ..WalOptions::new(owner.get())
        };
        let volume_bytes = match disk.execute(&Op::Volume)? {
            Outcome::Volume(bytes) => bytes,
            other => unreachable!("the size of the volume was asked for, not {other:?}"),
        };
        let mut recovering = Recovering::default();
        let (mut wal, recovery) = Wal::open(disk, options, &mut |visit| recovering.visit(visit))?;
        Identity::check_log(found.as_ref(), &recovery, &folder)?;
        let identity = recovering.identity(found.as_ref(), config.node, owner);
        if found.as_ref() != Some(&identity) {
            disk.execute(&identity.store())?;
        }
        // A final batch that is lost does no harm: the node sends it again.
        wal.repaired();
        let state = recovering.state.clone();
        let held = recovering
            .held(recovery.compacted_through)
            .map_err(|problem| OpenError::Corrupt {
                file: format!("{folder}/log-start"),
                offset: 0,
                problem,
            })?;
        Ok(Self::recovered(
            config,
            (identity, volume_bytes),
            wal,
            held,
            state,
        ))
    }
}

impl Recovering {
    /// What the folder is to say that it belongs to. The process may have died after it wrote the log and before it stored
    /// what the log says.
    fn identity(&self, found: Option<&Identity>, node: NodeNumber, owner: MemberId) -> Identity {
        let found = found.cloned();
        let found = found.unwrap_or_else(|| Identity::new(Program::Replicator, node, owner));
        Identity {
            cluster: self.state.cluster.or(found.cluster),
            paired: self.state.member.or(found.paired),
            ..found
        }
    }

    fn visit(&mut self, visit: Visit<Operation>) -> Result<(), String> {
        match visit {
            Visit::Truncate(from) => self.truncate(from),
            Visit::Record(operation) => self.record(&operation),
            Visit::State(bytes) => self.state(Durable::decode(bytes)?),
        }
    }

    fn truncate(&mut self, from: OperationIndex) -> Result<(), String> {
        let commit = self.state.commit.index;
        if from <= commit {
            return Err(format!(
                "operations from {from} on are dropped, though {commit} was committed"
            ));
        }
        while self.places.pop_back_if(|last| last.index >= from).is_some() {}
        self.unfounded.take_if(|first| first.index >= from);
        Ok(())
    }

    fn record(&mut self, operation: &Operation) -> Result<(), String> {
        let previous = match self.places.back() {
            Some(last) => Some(*last),
            None => self.place_before(operation.index),
        };
        match previous {
            Some(previous) => follows(operation, previous)?,
            None => self.unfounded = Some(operation.clone()),
        }
        if self.places.is_empty() {
            self.places.extend(previous);
        }
        self.places.push_back(operation.place());
        Ok(())
    }

    /// The place right before `index`, where the state knows it.
    fn place_before(&self, index: OperationIndex) -> Option<Place> {
        let Durable { base, commit, .. } = self.state;
        let known = [Place::default(), base, commit];
        known
            .into_iter()
            .find(|place| place.index.checked_add(1) == Some(index))
    }

    fn state(&mut self, state: Durable) -> Result<(), String> {
        let Durable {
            base,
            commit,
            executed,
            mark,
            ..
        } = state;
        let mark = mark.unwrap_or(executed);
        let before = std::mem::replace(&mut self.state, state);
        let is_between = |place: Place| base.index <= place.index && place.index <= commit.index;
        let in_order = is_between(executed) && is_between(mark);
        if !in_order || before.base.index > base.index || before.commit.index > commit.index {
            return Err(format!(
                "the state says base {}, executed index {}, mark {} and commit index {} after base {} and commit index {}",
                base.index, executed.index, mark.index, commit.index, before.base.index, before.commit.index
            ));
        }
        let last = self.places.back().map_or(0, |last| last.index);
        if base.index > last {
            // A snapshot was restored: what the log goes on from is the base.
            self.places.clear();
            self.unfounded = None;
        }
        if let Some(first) = &self.unfounded
            && let Some(previous) = self.place_before(first.index)
        {
            follows(first, previous)?;
            // The first record's own place may be gone by now, as later ones were committed.
            let adjoins = |first: &Place| first.index == previous.index + 1;
            if self.places.front().is_some_and(adjoins) {
                self.places.push_front(previous);
            }
            self.unfounded = None;
        }
        for (what, place) in [
            ("base", base),
            ("executed", executed),
            ("mark", mark),
            ("commit", commit),
        ] {
            self.check(what, place)?;
        }
        while self.places.len() > 1
            && self
                .places
                .front()
                .is_some_and(|place| place.index < commit.index)
        {
            self.places.pop_front();
        }
        Ok(())
    }

    /// What the state speaks of is in the log, or before what is known of it.
    fn check(&self, what: &str, place: Place) -> Result<(), String> {
        let (Some(first), Some(last)) = (self.places.front(), self.places.back()) else {
            return Ok(());
        };
        let found = place.index.checked_sub(first.index);
        let found = found.and_then(|at| self.places.get(usize::try_from(at).ok()?));
        if place.index >= first.index && found != Some(&place) {
            return Err(format!(
                "the state says {what} index {}, where the log has another operation, or none as it ends at {}",
                place.index, last.index
            ));
        }
        Ok(())
    }

    /// The end of the log, which begins after `compacted_through`.
    fn held(mut self, compacted_through: OperationIndex) -> Result<Held, String> {
        let Durable { base, commit, .. } = self.state;
        if let Some(first) = self.unfounded {
            return Err(format!(
                "the log begins with operation {}, and nothing says what comes before",
                first.index
            ));
        }
        if base.index < compacted_through {
            return Err(format!(
                "operations up to {compacted_through} were dropped, the state says {}",
                base.index
            ));
        }
        if self.places.is_empty() {
            self.places.push_back(base);
        }
        if self.places.front() != Some(&commit) {
            return Err(format!(
                "the state says commit index {}, the log does not have it",
                commit.index
            ));
        }
        Ok(Held::recovered(self.places))
    }
}

/// Refuses an operation that does not follow.
fn follows(operation: &Operation, previous: Place) -> Result<(), String> {
    if previous.index.checked_add(1) != Some(operation.index) {
        return Err(format!(
            "operation {} follows operation {}",
            operation.index, previous.index
        ));
    }
    if operation.running_hash != operation.expected_hash(previous) {
        return Err(format!(
            "the running hash of operation {} does not fit its data",
            operation.index
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations 1 to 9.
    fn log() -> Vec<Operation> {
        let mut log: Vec<Operation> = Vec::new();
        for index in 1..=9 {
            let previous = log.last().map_or(Place::default(), Operation::place);
            let mut operation = Operation {
                index,
                term: 1,
                running_hash: 0,
                data: "op".into(),
            };
            operation.running_hash = operation.expected_hash(previous);
            log.push(operation);
        }
        log
    }

    fn place(index: u64) -> Place {
        let at = index.checked_sub(1).map(|at| usize::try_from(at).unwrap());
        at.map_or(Place::default(), |at| log()[at].place())
    }

    fn state(base: u64, executed: u64, commit: u64) -> Visit<Operation> {
        let state = Durable {
            base: place(base),
            executed: place(executed),
            commit: place(commit),
            ..Durable::default()
        };
        Visit::State(state.encode())
    }

    fn record(index: usize) -> Visit<Operation> {
        Visit::Record(log()[index - 1].clone())
    }

    fn other(index: usize) -> Visit<Operation> {
        let operation = &log()[index - 1];
        Visit::Record(Operation {
            running_hash: 7,
            ..operation.clone()
        })
    }

    /// Commit place and last index that the visits of a log add up to, which begins after an index.
    fn recover(visits: Vec<Visit<Operation>>, compacted_through: u64) -> Result<(Place, u64), String> {
        let mut recovering = Recovering::default();
        for visit in visits {
            recovering.visit(visit)?;
        }
        let commit = recovering.state.commit;
        let held = recovering.held(compacted_through)?;
        assert_eq!(held.place(commit.index), Some(commit));
        Ok((commit, held.last().index))
    }

    #[test]
    fn what_a_log_adds_up_to() {
        for (name, visits, through, (commit, last)) in [
            ("nothing", vec![], 0, (0, 0)),
            ("no state", vec![record(1), record(2)], 0, (0, 2)),
            (
                "all of it",
                vec![record(1), record(2), state(0, 1, 2), record(3)],
                0,
                (2, 3),
            ),
            (
                "its beginning is dropped, the place was known before",
                vec![state(0, 1, 2), state(4, 4, 4), record(5), record(6), record(7)],
                4,
                (4, 7),
            ),
            (
                "its beginning is dropped, the place was known later",
                vec![
                    state(0, 1, 2),
                    record(5),
                    record(6),
                    state(0, 2, 5),
                    state(4, 5, 6),
                    record(7),
                ],
                4,
                (6, 7),
            ),
            (
                "its beginning is dropped, the place was known only after later operations were committed",
                vec![
                    state(0, 1, 2),
                    record(5),
                    record(6),
                    record(7),
                    state(0, 2, 7),
                    record(8),
                    state(4, 7, 8),
                ],
                4,
                (8, 8),
            ),
            (
                "the process died before the beginning was dropped",
                vec![record(1), record(2), record(3), state(2, 3, 3)],
                0,
                (3, 3),
            ),
            (
                "the process died before a later beginning was",
                vec![record(5), state(4, 5, 5), record(6), state(5, 6, 6)],
                4,
                (6, 6),
            ),
            ("all is dropped", vec![state(0, 3, 3), state(5, 5, 5)], 5, (5, 5)),
            (
                "a snapshot was restored",
                vec![
                    record(1),
                    record(2),
                    state(0, 1, 1),
                    Visit::Truncate(2),
                    state(7, 7, 7),
                ],
                0,
                (7, 7),
            ),
            (
                "a snapshot was restored and followed",
                vec![
                    state(0, 1, 1),
                    state(7, 7, 7),
                    record(8),
                    record(9),
                    state(7, 8, 8),
                ],
                7,
                (8, 9),
            ),
            (
                "a tail was replaced where the log begins",
                vec![other(5), Visit::Truncate(5), record(5), state(4, 4, 4)],
                4,
                (4, 5),
            ),
        ] {
            assert_eq!(recover(visits, through), Ok((place(commit), last)), "{name}");
        }
    }

    #[test]
    fn what_no_replicator_wrote_is_refused() {
        for (name, visits, through) in [
            ("a gap", vec![record(1), record(3)], 0),
            ("a hash that does not fit", vec![record(1), other(2)], 0),
            ("it begins in the middle", vec![record(5), record(6)], 4),
            ("it begins with something else", vec![other(5), state(4, 4, 4)], 4),
            (
                "it begins with something else again",
                vec![state(4, 4, 4), other(5)],
                4,
            ),
            ("the state does not say where it begins", vec![state(2, 2, 2)], 4),
            ("commit beyond the end", vec![record(1), state(0, 0, 2)], 0),
            ("commit beyond what is dropped", vec![state(4, 4, 6)], 4),
            (
                "commit goes back",
                vec![record(1), record(2), state(0, 0, 2), state(0, 0, 1)],
                0,
            ),
            ("the beginning goes back", vec![state(4, 4, 4), state(2, 4, 4)], 4),
            ("executed beyond commit", vec![record(1), state(0, 1, 0)], 0),
            (
                "begins beyond executed",
                vec![record(1), record(2), state(2, 1, 2)],
                0,
            ),
            (
                "a cut of what is committed",
                vec![record(1), state(0, 0, 1), Visit::Truncate(1)],
                0,
            ),
        ] {
            let problem = recover(visits, through).err();
            assert!(problem.is_some_and(|problem| !problem.contains('\n')), "{name}");
        }
    }
}
