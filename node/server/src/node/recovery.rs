//! What a member's disk says of it: the log with its fold, the hard state, and whether the end is in doubt.

use raftlog_raft::entry::{Entry, HardState};
use raftlog_raft::fold::Fold;
use raftlog_raft::log::Log;
use raftlog_raft::membership::Configuration;
use raftlog_storage::identity::Identity;
use raftlog_storage::{Disk, OpenError, Visit, Wal, WalOptions};

/// What was recovered.
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) hard_state: HardState,
    /// Some configuration of this log lists this member.
    pub(super) listed: bool,
    /// Acknowledged entries may be missing at the end.
    pub(super) suspect: bool,
}

/// Reads the log of that identity.
pub(super) fn recover(
    disk: &mut dyn Disk,
    identity: &Identity,
    recent_bytes_max: usize,
) -> Result<(Wal<Entry>, Recovered), OpenError> {
    let folder = disk.folder();
    let fold = Fold::new(Configuration::new(0, identity.bootstrap.clone()));
    let mut log = Log::new(fold, recent_bytes_max);
    let mut hard_state = HardState::default();
    let mut listed = log.fold().configuration.member(identity.member).is_some();
    let options = WalOptions::new(identity.member.get());
    let (wal, recovery) = Wal::open(disk, options, &mut |visit| {
        take_in(visit, &mut log, &mut hard_state)?;
        listed |= log.fold().configuration.member(identity.member).is_some();
        Ok(())
    })?;
    Identity::check_log(Some(identity), &recovery, &folder)?;
    let configuration = &log.fold().configuration;
    let alone = configuration.is_voter(identity.member) && configuration.voters().count() == 1;
    if recovery.suspect_tail && alone {
        return Err(OpenError::Identity(format!(
            "the end of the log in {folder} is damaged, and no other voter has a copy: operations that were acknowledged \
             may be lost; restore the folder from a copy, or start with an empty one and lose all"
        )));
    }
    Ok((
        wal,
        Recovered {
            log,
            hard_state,
            listed,
            suspect: recovery.suspect_tail,
        },
    ))
}

/// The log checks what it is given: what does not fit is refused, and the storage says where it stood.
fn take_in(visit: Visit<Entry>, log: &mut Log, hard_state: &mut HardState) -> Result<(), String> {
    match visit {
        Visit::State(bytes) => {
            *hard_state = HardState::decode(bytes).map_err(|error| format!("the hard state is {error}"))?;
            log.settle(hard_state.commit.min(log.last().index).max(log.settled()));
            log.evict(log.last().index);
        }
        Visit::Truncate(from) => {
            if from <= log.settled() {
                return Err(format!(
                    "the log is cut at {from} though it was committed up to {}",
                    log.settled()
                ));
            }
            log.truncate(from);
        }
        Visit::Record(entry) => {
            if entry.log_index != log.last().index + 1 || entry.term < log.last().term {
                return Err(format!(
                    "entry {} of term {} follows entry {} of term {}",
                    entry.log_index,
                    entry.term,
                    log.last().index,
                    log.last().term
                ));
            }
            log.append(entry).map_err(|mismatch| mismatch.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftlog_raft::entry::Payload;

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
            let (mut log, mut hard_state) = (Log::new(Fold::default(), 0), HardState::default());
            let result: Result<(), String> = visits
                .into_iter()
                .try_for_each(|visit| take_in(visit, &mut log, &mut hard_state));
            assert_eq!(result.is_ok(), good, "{name}: {result:?}");
        }
    }
}
