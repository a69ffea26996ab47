//! Which replicators execute more slowly than operations are committed. Under load each is behind for a moment now and then.

use std::collections::BTreeMap;
use std::time::Instant;

use super::lasting::Lasting;
use super::view::PodView;

/// A replicator that is more operations behind lags.
pub const LAG_OPERATIONS: u64 = 1_000;

/// Since when each pod's replicator lags, by node number.
#[derive(Debug, Clone, Default)]
pub struct Lag {
    lasting: Lasting<u32>,
}

impl Lag {
    /// The name of a pod whose replicator has been behind for long.
    pub fn note(&mut self, pods: &BTreeMap<u32, PodView>, now: Instant) -> Option<String> {
        let behind = pods.iter().filter(|(_, pod)| is_behind(pod));
        let node = self.lasting.note(behind.map(|(node, _)| *node), now)?;
        pods.get(node).map(|pod| pod.name.clone())
    }
}

fn is_behind(pod: &PodView) -> bool {
    let status = pod.node.as_ref();
    let executed = status.and_then(|status| {
        let replicator = status.replicator.as_ref()?;
        replicator.connected.then_some(replicator.executed_index)
    });
    status
        .zip(executed)
        .is_some_and(|(status, executed)| status.commit_index.saturating_sub(executed) > LAG_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raftlog_proto::v1::ReplicatorStatus;

    use super::super::plan::tests::World;
    use super::*;

    #[test]
    fn one_that_is_behind_for_a_moment_does_not_lag() {
        let mut lag = Lag::default();
        let mut world = World::formed(3);
        let began = Instant::now();
        let told = [
            (0, 2, 5_000, true, None),
            (20, 2, 5_000, true, None),
            // It caught up once: the time begins anew.
            (25, 2, 1_010, true, None),
            (30, 2, 1_011, true, None),
            (59, 2, 9_000, true, None),
            (60, 2, 9_000, true, Some("demo-1")),
            (61, 2, 9_000, false, None),
        ];
        for (seconds, node, commit_index, connected, expected) in told {
            world.status(node, |status| {
                status.commit_index = commit_index;
                status.replicator = Some(ReplicatorStatus {
                    connected,
                    executed_index: 10,
                    ..ReplicatorStatus::default()
                });
            });
            let now = began + Duration::from_secs(seconds);
            let lags = lag.note(&world.observed.pods, now);
            assert_eq!(lags.as_deref(), expected, "after {seconds} s");
        }
    }
}
