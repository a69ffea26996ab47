//! What a member of a cluster is told about how to behave.

use std::time::Duration;

use crate::feature::Supports;
use crate::ids::{MemberId, NodeNumber};
use crate::planted::Planted;

/// No leader's election timeout is longer: more is not believed, as a voter sticks to what it has heard for ever.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// By how much, in millionths, one member's clock may run slower than another's: what a lease is shorter than the time for
/// which voters stick to their leader. 10 %, so each of two clocks may be wrong by 5 %, where those of computers are wrong by
/// less than 0.1 %. A leader whose clock is slower still, or stands still while it is not running (a virtual machine that is
/// paused without being told), may take an expired lease for a valid one: a read may then miss what another leader has
/// acknowledged meanwhile. Nothing else relies on it: no operation is lost, changed or appended twice by any clock.
pub const CLOCK_DRIFT_MAX_MILLIONTHS: u32 = 100_000;

/// Settings of one member. Bytes are weights as of [`crate::entry::Entry::weight`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this member is.
    pub id: MemberId,
    /// Its node number, for lines while no configuration lists it.
    pub node: NodeNumber,
    /// Lower end of the election timeout: what voters stick to a leader for, and what leases are derived from.
    pub election_timeout_min: Duration,
    /// Upper end: when a leader without a quorum steps down.
    pub election_timeout_max: Duration,
    /// How often a leader sends a heartbeat to every follower.
    pub heartbeat_interval: Duration,
    /// Entries under way to one follower: enough to fill a link, little enough to resend.
    pub in_flight_bytes_max: usize,
    /// Entries in one AppendEntries; a single larger entry goes alone.
    pub append_bytes_max: usize,
    /// Entries that a leader takes in before the first of them commits, and that its own disk may be behind; beyond it
    /// refuses.
    pub uncommitted_bytes_max: usize,
    /// Settled entries kept in memory for followers and the replicator; older ones are read from disk.
    pub recent_bytes_max: usize,
    /// ReadIndex requests that wait at one member; beyond it refuses.
    pub reads_max: usize,
    /// Whether it answers reads by its lease while it leads and has one. Without, each read takes a round to a majority, and
    /// no read relies on clocks.
    pub lease_reads: bool,
    /// The feature levels that it supports; programs leave it as it is.
    pub supports: Supports,
    /// A bug, in tests of the simulator.
    pub planted: Planted,
}

impl Config {
    /// The defaults of the programs, for that member.
    pub fn new(id: MemberId) -> Self {
        Self {
            id,
            node: 0,
            election_timeout_min: Duration::from_millis(1_500),
            election_timeout_max: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(1),
            in_flight_bytes_max: 4 << 20,
            append_bytes_max: 1 << 20,
            uncommitted_bytes_max: 16 << 20,
            recent_bytes_max: 8 << 20,
            reads_max: 10_000,
            lease_reads: true,
            supports: Supports::default(),
            planted: Planted::default(),
        }
    }

    /// How long a lease lasts from the send time of the round that a majority has answered.
    pub fn lease(&self) -> Duration {
        let kept = 1_000_000 - CLOCK_DRIFT_MAX_MILLIONTHS;
        // Voters do not stick for longer than the limit, whatever a leader states.
        self.election_timeout_min.min(ELECTION_TIMEOUT_MAX) * kept / 1_000_000
    }
}
