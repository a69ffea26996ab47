//! What a run is made of. One seed draws everything (swarm testing: each run has other faults, and has them more or less
//! often), so that a seed alone repeats a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use raftlog_raft::planted::Planted;
use raftlog_raft::session::SESSIONS_MAX;
use raftlog_server::node::Bounds;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::distances::Distances;
use crate::fault::Fault;

/// A clock runs wrong by at most so much: of two of them, one is then slower than the other by just what leases allow.
const DRIFT_MILLIONTHS_MAX: u64 = 52_000;

/// The options of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Options {
    /// Everything that is left to chance during the run.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: NodeNumber,
    /// Further pods, which may become members later.
    pub spares: NodeNumber,
    /// How long faults go on.
    pub safety: Duration,
    /// MIN of the election timeout; MAX is twice that, a heartbeat comes every two thirds of it.
    pub election_timeout: Duration,
    /// Number of clients.
    pub clients: u32,
    /// Operations that a client has under way at most.
    pub window: usize,
    /// A client rests up to so long between two things it does.
    pub rest_max: Duration,
    /// The longest operation.
    pub operation_bytes_max: usize,
    /// One in so many wishes of a client is a read; 0: none.
    pub read_of: u32,
    /// A message takes up to so long.
    pub delay_max: Duration,
    /// Of so many messages one gets lost; 0: none.
    pub lost_of: u32,
    /// Of so many messages one comes twice; 0: none.
    pub duplicated_of: u32,
    /// Of so many messages one takes twenty times as long; 0: none.
    pub late_of: u32,
    /// An operation of a disk takes up to so long.
    pub disk_max: Duration,
    /// Messages between nodes and operations of disks take just so long, instead.
    pub distances: Option<Distances>,
    /// Size of each volume.
    pub volume_bytes: u64,
    /// A snapshot is taken after so many entries; 0: none.
    pub snapshot_every: u64,
    /// Or after so many bytes of them; the log may hold three times as much. 0: what fits the volume.
    pub snapshot_bytes: u64,
    /// Clocks run wrong by up to so many millionths; within what leases allow.
    pub drift_millionths: u64,
    /// Leaders answer reads by their leases.
    pub lease_reads: bool,
    /// MAX is only a quarter more than MIN: several campaign at once.
    pub narrow_timeouts: bool,
    /// Nodes start with less patience than others now and then, a leader's too.
    pub uneven_timeouts: bool,
    /// What nodes keep and send at most: with little, much is read back, sent piece by piece, and refused.
    pub bounds: Bounds,
    /// Bytes that a replicator takes in before any of them is on its disk.
    pub replicator_bytes_max: usize,
    /// Operations are executed by programs with a state of their own.
    pub state_machine: bool,
    /// Only the replicator of the node that leads executes.
    pub execute_on_leader: bool,
    /// The mean time between two faults of each kind.
    pub faults: BTreeMap<Fault, Duration>,
    /// A bug that the simulator is to find.
    pub planted: Planted,
    /// What nodes say to each other is part of what happens, for whoever reads it.
    pub tells_messages: bool,
}

impl Options {
    /// What can be left out of a run: the names of faults, and of what befalls messages and clocks.
    pub const PARTS: &[&str] = &[
        "power",
        "power-of-all",
        "node-kill",
        "replicator-kill",
        "crash-loop",
        "partition",
        "link-break",
        "suspension",
        "clock-jump",
        "clock-drift",
        "disk-stall",
        "disk-full",
        "write-error",
        "rot",
        "wipe",
        "slow-executor",
        "transfer",
        "fresh-leader",
        "membership",
        "log-loss",
        "forgery",
        "upgrade",
        "ambush",
        "machine-kill",
        "machine-wipe",
        "lost",
        "duplicated",
        "late",
        "drift",
    ];

    /// Those that the seed draws.
    pub fn draw(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x0070_7469_6f6e_7300);
        let mut one_of = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let bytes = |bytes| usize::try_from(bytes).expect("it fits in memory");
        let mut options = Self {
            seed,
            nodes: NodeNumber::try_from(one_of(&[1, 3, 3, 3, 5, 5])).expect("it is small"),
            spares: 0,
            safety: Duration::from_secs(one_of(&[60, 120, 300, 600])),
            election_timeout: Duration::from_millis(one_of(&[300, 1_500, 1_500])),
            clients: u32::try_from(one_of(&[1, 2, 4, 8])).expect("it is small"),
            window: usize::try_from(one_of(&[1, 1, 4, 16])).expect("it is small"),
            rest_max: Duration::from_millis(one_of(&[50, 500, 5_000])),
            operation_bytes_max: usize::try_from(one_of(&[16, 100, 100, 40_000])).expect("it is small"),
            read_of: u32::try_from(one_of(&[0, 2, 5])).expect("it is small"),
            delay_max: Duration::from_millis(one_of(&[1, 10, 50, 200])),
            lost_of: u32::try_from(one_of(&[0, 0, 20, 100])).expect("it is small"),
            duplicated_of: u32::try_from(one_of(&[0, 10, 100])).expect("it is small"),
            late_of: u32::try_from(one_of(&[0, 5, 20, 200])).expect("it is small"),
            disk_max: Duration::from_millis(one_of(&[1, 5, 50])),
            distances: None,
            volume_bytes: one_of(&[48 << 20, 96 << 20]),
            snapshot_every: one_of(&[0, 20, 20, 200]),
            snapshot_bytes: one_of(&[0, 0, 0, 30]),
            drift_millionths: one_of(&[0, 200, DRIFT_MILLIONTHS_MAX, DRIFT_MILLIONTHS_MAX]),
            lease_reads: one_of(&[0, 1, 1, 1]) == 1,
            uneven_timeouts: one_of(&[0, 1]) == 1,
            narrow_timeouts: one_of(&[0, 0, 1]) == 1,
            bounds: Bounds {
                recent_bytes_max: bytes(one_of(&[8 << 20, 8 << 20, 2_000])),
                append_bytes_max: bytes(one_of(&[1 << 20, 1])),
                in_flight_bytes_max: bytes(one_of(&[4 << 20, 4 << 20, 1_000])),
                uncommitted_bytes_max: bytes(one_of(&[16 << 20, 16 << 20, 1_000])),
                sessions_max: [SESSIONS_MAX, SESSIONS_MAX, SESSIONS_MAX, 2][bytes(one_of(&[0, 1, 2, 3]))],
            },
            replicator_bytes_max: bytes(one_of(&[16 << 20, 16 << 20, 2_000])),
            state_machine: false,
            // By chance of its own: what else a seed draws stays as it was.
            execute_on_leader: ChaCha8Rng::seed_from_u64(seed ^ 0x006c_6561_6465_7200).random_bool(0.3),
            faults: BTreeMap::new(),
            planted: Planted::default(),
            tells_messages: false,
        };
        if options.bounds.append_bytes_max == 1 {
            // Entries that overtake each other, which on a real connection they do not, are sent again and again: with
            // many of them under way nothing else would happen any more.
            options.bounds.in_flight_bytes_max = 1_000;
            // Read back one by one from a slow disk, a few thousand entries take minutes.
            options.disk_max = options.disk_max.min(Duration::from_millis(5));
        }
        // Time in the network has to leave some for elections.
        options.delay_max = options.delay_max.min(options.election_timeout / 10);
        // In operations: a slow executor is soon that far behind.
        options.snapshot_bytes *= options.operation_bytes_max as u64 + 100;
        if options.operation_bytes_max > 1_000 {
            // A log that every start has to read leaves little time for anything else.
            options.rest_max = options.rest_max.max(Duration::from_secs(2));
            options.clients = options.clients.min(2);
            options.window = options.window.min(4);
            if options.snapshot_every > 0 {
                // With small segments, so that some are dropped and used again.
                options.volume_bytes = 32 << 20;
            }
        }
        if options.rest_max < Duration::from_millis(500) {
            options.safety = options.safety.min(Duration::from_mins(2));
        }
        let draw = |fault: Fault, random: &mut ChaCha8Rng| {
            random.random_bool(0.4).then(|| {
                let often = [5, 20, 60][random.random_range(0..3)];
                (fault, Duration::from_secs(often) * fault.rarity())
            })
        };
        let of_machines = |fault: &Fault| matches!(fault, Fault::MachineKill | Fault::MachineWipe);
        for &fault in Fault::ALL.iter().filter(|fault| !of_machines(fault)) {
            options.faults.extend(draw(fault, &mut random));
        }
        if options.faults.contains_key(&Fault::Membership) {
            options.spares = random.random_range(0..=2);
        }
        // By chance of its own, as above. Each state machine has to have everything.
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x006d_6163_6869_6e65);
        options.state_machine = random.random_bool(0.4) && !options.execute_on_leader;
        if options.state_machine {
            for &fault in Fault::ALL.iter().filter(|fault| of_machines(fault)) {
                options.faults.extend(draw(fault, &mut random));
            }
        }
        options
    }

    /// Whether few sessions are kept: then clients have theirs opened, as named ones would be forgotten without a word.
    pub fn expires_sessions(&self) -> bool {
        self.bounds.sessions_max < SESSIONS_MAX
    }

    /// Which of [`Options::PARTS`] there are.
    pub fn parts(&self) -> Vec<&'static str> {
        let is_there = |part: &&&str| {
            let fault = self.faults.keys().any(|fault| fault.name() == **part);
            let is_other = match **part {
                "lost" => self.lost_of > 0,
                "duplicated" => self.duplicated_of > 0,
                "late" => self.late_of > 0,
                "drift" => self.drift_millionths > 0,
                _ => false,
            };
            fault || is_other
        };
        Self::PARTS.iter().filter(is_there).copied().collect()
    }

    /// Leaves out one of [`Options::PARTS`].
    pub(crate) fn leave_out(&mut self, part: &str) {
        self.faults.retain(|fault, _| fault.name() != part);
        match part {
            "lost" => self.lost_of = 0,
            "duplicated" => self.duplicated_of = 0,
            "late" => self.late_of = 0,
            "drift" => self.drift_millionths = 0,
            _ => {}
        }
    }

    /// A run without faults.
    pub fn calm(seed: u64) -> Self {
        Self {
            nodes: 3,
            spares: 0,
            safety: Duration::from_mins(1),
            election_timeout: Duration::from_millis(1_500),
            delay_max: Duration::from_millis(20),
            lost_of: 0,
            duplicated_of: 0,
            late_of: 0,
            drift_millionths: 0,
            uneven_timeouts: false,
            faults: BTreeMap::new(),
            ..Self::draw(seed)
        }
    }

    /// A run without faults and clients, of so many nodes that are so far from each other, as programs are configured unless told
    /// otherwise.
    pub fn far_apart(seed: u64, nodes: NodeNumber, distances: Distances) -> Self {
        Self {
            nodes,
            clients: 0,
            // Beyond it some nodes are left for good.
            safety: Duration::from_hours(24),
            distances: Some(distances),
            volume_bytes: 1 << 30,
            snapshot_every: 0,
            snapshot_bytes: 0,
            lease_reads: true,
            narrow_timeouts: false,
            bounds: Bounds::default(),
            replicator_bytes_max: 16 << 20,
            state_machine: false,
            ..Self::calm(seed)
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            nodes,
            spares,
            safety,
            election_timeout,
            clients,
            window,
            rest_max,
            operation_bytes_max,
            read_of,
            delay_max,
            lost_of,
            duplicated_of,
            late_of,
            disk_max,
            distances: _,
            volume_bytes,
            snapshot_every,
            snapshot_bytes,
            drift_millionths,
            lease_reads,
            uneven_timeouts,
            narrow_timeouts,
            bounds:
                Bounds {
                    recent_bytes_max: recent,
                    append_bytes_max: append,
                    in_flight_bytes_max: in_flight,
                    uncommitted_bytes_max: uncommitted,
                    sessions_max: sessions,
                },
            replicator_bytes_max,
            state_machine,
            execute_on_leader,
            faults,
            planted: _,
            tells_messages: _,
        } = self;
        write!(
            f,
            "seed={seed} nodes={nodes} spares={spares} safety={safety:?} election-timeout={election_timeout:?} clients={clients} \
             window={window} rest={rest_max:?} operation-bytes={operation_bytes_max} read-of={read_of} \
             delay={delay_max:?} lost-of={lost_of} duplicated-of={duplicated_of} late-of={late_of} disk={disk_max:?} \
             volume={volume_bytes} snapshot-every={snapshot_every} snapshot-bytes={snapshot_bytes} drift={drift_millionths} lease-reads={lease_reads} uneven-timeouts={uneven_timeouts} \
             narrow-timeouts={narrow_timeouts} \
             recent={recent} append={append} in-flight={in_flight} uncommitted={uncommitted} sessions={sessions} replicator={replicator_bytes_max} state-machine={state_machine} execute-on-leader={execute_on_leader} faults="
        )?;
        for (at, (fault, mean)) in faults.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}:{mean:?}", fault.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leases hold for as long as clocks run as true as they say; what lies beyond is not tested.
    #[test]
    fn clocks_run_wrong_by_all_that_leases_allow_and_no_more() {
        let slower = |drift: u64| 1_000_000 - 1_000_000 * (1_000_000 - drift) / (1_000_000 + drift);
        let allowed = u64::from(raftlog_raft::config::CLOCK_DRIFT_MAX_MILLIONTHS);
        let found = slower(DRIFT_MILLIONTHS_MAX);
        assert!(
            found <= allowed && found * 10 > allowed * 9,
            "{found} of {allowed}"
        );
    }

    #[test]
    fn a_seed_draws_the_same_options_again_and_another_seed_others() {
        assert_eq!(Options::draw(7), Options::draw(7));
        assert_ne!(Options::draw(7).to_string(), Options::draw(8).to_string());
        let on = |fault| {
            (0..50)
                .filter(|&seed| Options::draw(seed).faults.contains_key(&fault))
                .count()
        };
        for &fault in Fault::ALL {
            assert!(
                (5..45).contains(&on(fault)),
                "{fault:?} is neither always on nor always off"
            );
        }
    }
}
