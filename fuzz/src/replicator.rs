//! A replicator whose nodes and readers say anything.
//!
//! The kind of a chunk says what happens, by its lower four bits; 0x40 leaves what the disk and the executor are to do for
//! later, 0x80 says it on the stream before the current one.

use bytes::Bytes;
use raftlog_raft::fold::running_hash;
use raftlog_replicator::core::{
    Config, Effect, Event, ExecuteOn, FetchId, Operation, ReadIndexId, Replicator, Retention, StreamId,
};
use raftlog_replicator::fuzzing;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, Op, OpId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::time::Duration;

use crate::{Chunk, chunks};

/// The kinds of chunks, by their lower four bits.
pub mod kind {
    /// `ReplicateLogRequest` as the first of a new stream.
    pub const OPENED: u8 = 0;
    /// `ReplicateLogRequest` as a later one.
    pub const SAID: u8 = 1;
    /// An operation with these bytes that follows what is held, which nobody could guess, and all is committed.
    pub const FOLLOWS: u8 = 2;
    /// The stream ends.
    pub const CLOSED: u8 = 3;
    /// The time it asked for has passed.
    pub const WAKE: u8 = 4;
    /// A client reads: from, to and size as three bytes.
    pub const FETCH: u8 = 5;
    /// A client asks for a read index.
    pub const READ_INDEX: u8 = 6;
    /// It stops, and is opened again.
    pub const REOPEN: u8 = 7;
    /// It is that time, in seconds, as two bytes.
    pub const TICK: u8 = 8;
    /// The same, and from then on it executes on the leader only.
    pub const REOPEN_ON_LEADER: u8 = 9;
}

const VOLUME_BYTES: u64 = 64 << 20;

struct Rig {
    core: Replicator,
    disk: MemoryDisk,
    disk_queue: VecDeque<(OpId, Op)>,
    executing: VecDeque<Vec<Operation>>,
    /// The executor is to let go of what it has.
    taken_back: bool,
    streams: u64,
    next_id: u64,
}

/// The target.
pub fn replicator(data: &[u8]) {
    let disk = MemoryDisk::new(VOLUME_BYTES);
    let mut rig = Rig::open(disk, ExecuteOn::EveryNode).expect("an empty folder can be opened");
    for chunk in chunks(data) {
        let execute_on = match chunk.kind & 0x0f {
            kind::REOPEN => Some(ExecuteOn::EveryNode),
            kind::REOPEN_ON_LEADER => Some(ExecuteOn::Leader),
            _ => None,
        };
        if let Some(execute_on) = execute_on {
            match Rig::open(rig.disk, execute_on) {
                Ok(opened) => rig = opened,
                Err(error) => panic!("a replicator's own folder can be opened again: {error}"),
            }
            continue;
        }
        if let Some(event) = rig.event(&chunk) {
            rig.core.handle(event);
        }
        if !rig.carry_out(chunk.kind & 0x40 == 0) {
            return;
        }
    }
}

fn config(execute_on: ExecuteOn) -> Config {
    Config {
        execute_on,
        segment_bytes: Some(2 << 20),
        retention: Retention {
            operations: Some(1_000),
            age: Some(Duration::from_secs(60)),
            bytes: None,
        },
        ..Config::new(1)
    }
}

impl Rig {
    fn open(mut disk: MemoryDisk, execute_on: ExecuteOn) -> Result<Self, String> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let core = Replicator::open(config(execute_on), &mut disk, &mut random)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            core,
            disk,
            disk_queue: VecDeque::new(),
            executing: VecDeque::new(),
            taken_back: false,
            streams: 0,
            next_id: 0,
        })
    }

    fn event(&mut self, chunk: &Chunk) -> Option<Event> {
        let stream = StreamId(self.streams.saturating_sub(u64::from(chunk.kind >> 7)));
        let bytes = chunk.bytes.clone();
        self.next_id += 1;
        match chunk.kind & 0x0f {
            kind::OPENED => {
                self.streams += 1;
                fuzzing::opened(StreamId(self.streams), bytes)
            }
            kind::SAID => fuzzing::said(stream, bytes),
            kind::FOLLOWS => Some(self.follows(stream, bytes)).filter(|_| !chunk.bytes.is_empty()),
            kind::CLOSED => Some(Event::NodeClosed { stream }),
            kind::WAKE => Some(Event::Wake),
            kind::FETCH => {
                let at = |place: usize| u64::from(bytes.get(place).copied().unwrap_or_default());
                let (from, to) = (at(0).max(1), at(1));
                let bytes_max = usize::try_from(at(2)).unwrap_or_default();
                let id = FetchId(self.next_id);
                Some(Event::Fetch {
                    id,
                    from,
                    to,
                    bytes_max,
                })
            }
            kind::TICK => {
                let at = |place: usize| u64::from(bytes.get(place).copied().unwrap_or_default());
                let unix_millis = (at(0) << 8 | at(1)) * 1_000;
                Some(Event::Tick { unix_millis })
            }
            kind::READ_INDEX => Some(Event::ReadIndex {
                id: ReadIndexId(self.next_id),
            }),
            _ => None,
        }
    }

    fn follows(&self, stream: StreamId, data: Bytes) -> Event {
        let last = self.core.position().last;
        let (index, term) = (last.index.saturating_add(1), last.term.max(1));
        let operation = Operation {
            index,
            term,
            running_hash: running_hash(last.running_hash, index, term, &data),
            data,
        };
        Event::Feed {
            stream,
            operations: vec![operation],
            commit: index,
        }
    }

    /// Whether it goes on. Without `all`, disk and executor are slow.
    fn carry_out(&mut self, all: bool) -> bool {
        loop {
            let effects = self.core.effects();
            let nothing = effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Disk(id, op) => self.disk_queue.push_back((id, op)),
                    Effect::Execute(run) => self.executing.push_back(run.operations),
                    Effect::TakeBack => self.taken_back = true,
                    Effect::Fatal(_) | Effect::GivenUp { .. } | Effect::Stopped => return false,
                    _ => {}
                }
            }
            if !all {
                return true;
            }
            if let Some((id, op)) = self.disk_queue.pop_front() {
                let result = self.disk.execute(&op);
                self.core.handle(Event::Disk(id, result));
            } else if std::mem::take(&mut self.taken_back) {
                self.executing.clear();
                self.core.handle(Event::TakenBack);
            } else if let Some(last) = self.executing.pop_front().and_then(|run| run.last().cloned()) {
                self.core.handle(Event::Executed { through: last.index });
            } else if nothing {
                return true;
            }
        }
    }
}
