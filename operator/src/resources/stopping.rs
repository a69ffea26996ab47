//! How long a pod may take to stop.

use std::time::Duration;

use crate::crd::spec::RaftSpec;

/// A node forwards for so long after it was told to stop.
const FORWARDS: Duration = Duration::from_secs(2);
/// Calls that are under way then may take so much longer.
const DRAINS: Duration = Duration::from_secs(1);
/// After its node, the replicator ends what it has begun.
const REPLICATOR_STOPS_SECONDS: u64 = 15;
/// Disks may be slow.
const GRACE_MIN_SECONDS: u64 = 30;

/// How long the replicator serves on, so that its node can bring to an end what it has begun: a leader looks for a successor
/// for electionTimeout.min at most, and forwards meanwhile.
pub fn replicator_lingers_seconds(raft: &RaftSpec) -> u64 {
    // What is no duration is refused by the node, which then has nothing to hand over.
    let hands_over = raft.election_timeout.min.parse().unwrap_or_default();
    whole_seconds(hands_over.max(FORWARDS).saturating_add(DRAINS))
}

/// How long all of it may take, before it is killed.
pub fn grace_seconds(raft: &RaftSpec) -> u64 {
    let stops = replicator_lingers_seconds(raft).saturating_add(REPLICATOR_STOPS_SECONDS);
    stops.max(GRACE_MIN_SECONDS)
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
        }
    }
}
