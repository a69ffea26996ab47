//! Who is reached by Services. Kubernetes takes a pod for unready, and out of them, while any of its containers is; but a node serves
//! without its state machine, and one operation that ends all of these must not leave a cluster without an address.

use super::super::view::{Observed, PodView};
use super::Desired;

/// Kubernetes itself forgets after that time that a container crashed.
const FORGOTTEN_SECONDS: i64 = 600;
/// Once may be an accident; whoever crashes again comes and goes.
const CRASHES_AFTER_RESTARTS: i32 = 2;

/// Whether Services are to reach pods that Kubernetes takes for unready, too.
pub(super) fn unready_too(desired: &Desired<'_>, observed: &Observed) -> bool {
    let mut wanted = observed.pods.range(..=desired.replicas());
    wanted.any(|(_, pod)| !pod.deleting && comes_and_goes(pod))
}

/// It serves while Kubernetes does not say so, now or any moment.
fn comes_and_goes(pod: &PodView) -> bool {
    let crashes = pod.state_machine.as_ref().is_some_and(|machine| {
        machine.restarts >= CRASHES_AFTER_RESTARTS
            && machine
                .ended_seconds
                .is_some_and(|seconds| seconds < FORGOTTEN_SECONDS)
    });
    pod.waits_for_state_machine_only() || crashes
}
