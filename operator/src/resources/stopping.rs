//! How long a pod may take to stop.

use std::time::Duration;

use crate::crd::spec::RaftSpec;

/// A node forwards for so long after it was told to stop.
const FORWARDS: Duration = Duration::from_secs(2);
/// Calls that are under way then may take so much longer.
const DRAINS: Duration = Duration::from_secs(1);
/// After its node, the replicator ends what it has begun.
const STOPS_SECONDS: u64 = 15;
/// A replicator that was told to stop needs its state machine no longer than that.
const LETS_GO_SECONDS: u64 = 1;
/// Disks may be slow.
const GRACE_MIN_SECONDS: u64 = 30;

/// How long the replicator serves on, so that its node can bring to an end what it has begun: a leader looks for a successor
/// for electionTimeout.min at most, and forwards meanwhile.
pub fn replicator_lingers_seconds(raft: &RaftSpec) -> u64 {
    // What is no duration is refused by the node, which then has nothing to hand over.
    let hands_over = raft.election_timeout.min.parse().unwrap_or_default();
    whole_seconds(hands_over.max(FORWARDS).saturating_add(DRAINS))
}

/// How long a state machine serves on, so that the replicator can have applied what clients wait for: until that was told to stop.
/// A container of the user's knows nothing of the two others, and may end at once on SIGTERM.
pub fn machine_lingers_seconds(raft: &RaftSpec) -> u64 {
    replicator_lingers_seconds(raft).saturating_add(LETS_GO_SECONDS)
}

/// How long all of it may take, before it is killed.
pub fn grace_seconds(raft: &RaftSpec) -> u64 {
    stops_within(replicator_lingers_seconds(raft))
}

/// The same with a state machine, which has as long to stop as the replicator.
pub fn machine_grace_seconds(raft: &RaftSpec) -> u64 {
    stops_within(machine_lingers_seconds(raft))
}

fn stops_within(lingers: u64) -> u64 {
    lingers.saturating_add(STOPS_SECONDS).max(GRACE_MIN_SECONDS)
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(begun)
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn the_replicator_serves_until_its_node_has_gone() {
        for (min, lingers, grace) in [
            ("300ms", 3, 30),
            ("1500ms", 3, 30),
            ("2s", 3, 30),
            ("2001ms", 4, 30),
            ("5s", 6, 30),
            ("14s", 15, 30),
            ("15s", 16, 31),
            ("59m", 3_541, 3_556),
            ("soon", 3, 30),
        ] {
            let spec = format!("raft: {{electionTimeout: {{min: {min}, max: 60m}}}}");
            let raft = cluster(&spec).spec.raft;
            let times = (replicator_lingers_seconds(&raft), grace_seconds(&raft));
            assert_eq!(times, (lingers, grace), "{min}");
            let with_machine = (machine_lingers_seconds(&raft), machine_grace_seconds(&raft));
            assert_eq!(with_machine, (lingers + 1, (lingers + 16).max(30)), "{min}");
        }
    }
}
