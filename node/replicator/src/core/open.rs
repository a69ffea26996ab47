//! Start: what the data folder holds is read, checked, and gone on from.

use raftlog_raft::ids::{MemberId, NodeNumber};
use raftlog_storage::identity::{Identity, Program};
use raftlog_storage::{Disk, OpenError, Visit, Wal, WalOptions};

use super::config::Config;
use super::durable::Durable;
use super::held::Held;
use super::operation::Operation;
use super::replicator::Replicator;

/// What the log adds up to while it is read.
struct Recovering {
    held: Held,
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
            ..WalOptions::new(owner.get())
        };
        let mut recovering = Recovering {
            held: Held::new(),
            state: Durable::default(),
        };
        let (mut wal, recovery) = Wal::open(disk, options, &mut |visit| recovering.visit(visit))?;
        Identity::check_log(found.as_ref(), &recovery, &folder)?;
        let identity = recovering.identity(found.as_ref(), config.node, owner);
        if found.as_ref() != Some(&identity) {
            disk.execute(&identity.store())?;
        }
        // A final batch that is lost does no harm: the node sends it again.
        wal.repaired();
        let Recovering { held, state } = recovering;
        Ok(Self::recovered(config, identity, wal, held, state))
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

    fn truncate(&mut self, from: u64) -> Result<(), String> {
        let commit = self.state.commit.index;
        if from <= commit {
            return Err(format!(
                "operations from {from} on are dropped, though {commit} was committed"
            ));
        }
        self.held.truncate(from);
        Ok(())
    }

    fn record(&mut self, operation: &Operation) -> Result<(), String> {
        let last = self.held.last();
        if operation.index != last.index + 1 {
            return Err(format!(
                "operation {} follows operation {}",
                operation.index, last.index
            ));
        }
        if operation.running_hash != operation.expected_hash(last) {
            return Err(format!(
                "the running hash of operation {} does not fit its data",
                operation.index
            ));
        }
        self.held.push_place(operation.place());
        Ok(())
    }

    fn state(&mut self, state: Durable) -> Result<(), String> {
        if self.held.place(state.commit.index) != Some(state.commit)
            || state.executed.index > state.commit.index
        {
            return Err(format!(
                "the state says commit index {} and executed index {}, the log ends at {}",
                state.commit.index,
                state.executed.index,
                self.held.last().index
            ));
        }
        self.held.forget_places_below(state.commit.index);
        self.state = state;
        Ok(())
    }
}
