//! A pod's container for a state machine, taken from what the kubelet tells of it. It may end, or never begin, for whatever reason its
//! author had: the node beside it serves all the same.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use super::view::{Problem, container_problem, one_line, seconds_since};
use crate::resources::state_machine::NAME;

/// One that has run for so long has begun well.
const SETTLED_SECONDS: i64 = 10;

/// The container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateMachineView {
    /// Whether Kubernetes takes it for ready: it runs, and has passed its startup probe.
    pub ready: bool,
    /// Whether Kubernetes takes all other containers of its pod for ready.
    pub others_ready: bool,
    /// How often it was started again.
    pub restarts: i32,
    /// How long it has run without an end, if it runs.
    pub runs_seconds: Option<i64>,
    /// How long ago it ended last, where Kubernetes knows of that.
    pub ended_seconds: Option<i64>,
    /// Why it does not run.
    pub problem: Option<Problem>,
}

impl StateMachineView {
    /// Of the pod, if the kubelet tells of such a container.
    pub(super) fn new(pod: &Pod, age_seconds: i64, now: Timestamp) -> Option<Self> {
        let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
        let status = statuses.iter().find(|status| status.name == NAME)?;
        let mut others = statuses.iter().filter(|status| status.name != NAME);
        let others_ready = others.all(|status| status.ready);
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        let ended = last_end(status);
        Some(Self {
            ready: status.ready,
            others_ready,
            restarts: status.restart_count,
            runs_seconds: running.map(|running| seconds_since(running.started_at.as_ref(), now)),
            ended_seconds: ended.map(|ended| seconds_since(ended.finished_at.as_ref(), now)),
            problem: problem(status, age_seconds),
        })
    }

    /// Whether it has run for long enough to be trusted with it that the next pod restarts.
    pub fn is_settled(&self) -> bool {
        self.ready
            && self
                .runs_seconds
                .is_some_and(|seconds| seconds >= SETTLED_SECONDS)
    }
}

/// How it ended last, or is ending now.
fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = status.last_state.as_ref();
    now.or_else(|| before.and_then(|state| state.terminated.as_ref()))
}

/// Why it does not run; if it has run, how it ended, as that says more than that Kubernetes waits before the next start.
fn problem(status: &ContainerStatus, age_seconds: i64) -> Option<Problem> {
    const BACK_OFF: &str = "CrashLoopBackOff";
    let ends = status
        .state
        .as_ref()
        .is_some_and(|state| state.terminated.is_some());
    let waits = container_problem(status, age_seconds);
    let crashes = ends || waits.as_ref().is_some_and(|problem| problem.reason == BACK_OFF);
    match last_end(status).filter(|_| crashes) {
        Some(end) => Some(Problem {
            reason: BACK_OFF.into(),
            message: one_line(&format!("container {NAME}: {}", describe(status, end))),
            of_container: true,
        }),
        None => waits,
    }
}

fn describe(status: &ContainerStatus, end: &ContainerStateTerminated) -> String {
    let how = match (end.signal, end.reason.as_deref()) {
        (Some(signal), _) => format!("ended by signal {signal}"),
        (None, Some("OOMKilled")) => "was killed, as it took more memory than its limit".to_owned(),
        (None, Some(reason)) if reason != "Error" && reason != "Completed" => {
            format!("ended with exit code {} ({reason})", end.exit_code)
        }
        (None, _) => format!("ended with exit code {}", end.exit_code),
    };
    let restarts = match status.restart_count {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        count => format!(", restarted {count} times"),
    };
    match end.message.as_deref().map(last_words) {
        Some(words) if !words.is_empty() => format!("{how}{restarts}: {words}"),
        _ => format!("{how}{restarts}"),
    }
}

/// The end of what it printed, which says most.
fn last_words(text: &str) -> String {
    const CHARACTERS_MAX: usize = 160;
    let words: Vec<&str> = text.split_whitespace().collect();
    let joined = words.join(" ");
    let count = joined.chars().count();
    if count <= CHARACTERS_MAX {
        return joined;
    }
    let end: String = joined
        .chars()
        .skip(count.saturating_sub(CHARACTERS_MAX))
        .collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_000_000_100;

    /// Of a pod whose two other containers are or are not ready.
    fn view(machine: &Value, others_ready: bool) -> StateMachineView {
        let status = |name: &str, ready: bool| json!({"name": name, "image": "x", "imageID": "", "ready": ready, "restartCount": 0});
        let mut own = status(NAME, false);
        own.as_object_mut()
            .unwrap()
            .extend(machine.as_object().unwrap().clone());
        let pod = json!({
            "metadata": {"name": "demo-0"},
            "status": {"containerStatuses": [status("node", others_ready), status("replicator", true), own]},
        });
        let now = Timestamp::from_second(NOW).unwrap();
        StateMachineView::new(&serde_json::from_value(pod).unwrap(), 100, now).unwrap()
    }

    fn at(seconds_ago: i64) -> String {
        Timestamp::from_second(NOW - seconds_ago).unwrap().to_string()
    }

    #[test]
    fn a_pod_without_one_has_none() {
        let node = json!({"name": "node", "image": "x", "imageID": "", "ready": true, "restartCount": 0});
        for pod in [
            json!({"metadata": {"name": "demo-0"}}),
            json!({"metadata": {"name": "demo-0"}, "status": {"containerStatuses": [node]}}),
        ] {
            let view = StateMachineView::new(&serde_json::from_value(pod).unwrap(), 0, Timestamp::UNIX_EPOCH);
            assert_eq!(view, None);
        }
    }

    #[test]
    fn one_that_crashes_is_told_by_how_it_ended() {
        let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "back-off 40s restarting failed container"}});
        let ended = |fields: Value| {
            let mut terminated = json!({"exitCode": 1, "reason": "Error", "finishedAt": at(9)});
            terminated
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            json!({"terminated": terminated})
        };
        let long = "x".repeat(5_000);
        for (state, last, restarts, reason, says) in [
            (
                waits("CrashLoopBackOff"),
                ended(json!({"message": "thread main panicked:\n  no such account"})),
                4,
                "CrashLoopBackOff",
                "container state-machine: ended with exit code 1, restarted 4 times: thread main panicked: no such account",
            ),
            (
                ended(json!({"exitCode": 137, "reason": "OOMKilled"})),
                json!({}),
                0,
                "CrashLoopBackOff",
                "was killed, as it took more memory than its limit",
            ),
            (
                waits("CrashLoopBackOff"),
                ended(json!({"exitCode": 139, "signal": 11})),
                1,
                "CrashLoopBackOff",
                "ended by signal 11, restarted once",
            ),
            (
                waits("CrashLoopBackOff"),
                ended(json!({"exitCode": 0, "reason": "Completed", "message": long})),
                2,
                "CrashLoopBackOff",
                "ended with exit code 0, restarted 2 times: …x",
            ),
            (
                waits("ImagePullBackOff"),
                json!({}),
                0,
                "ImagePullBackOff",
                "back-off 40s",
            ),
            (
                waits("CrashLoopBackOff"),
                json!({}),
                3,
                "CrashLoopBackOff",
                "back-off 40s",
            ),
        ] {
            let machine = json!({"state": state, "lastState": last, "restartCount": restarts});
            let view = view(&machine, true);
            let problem = view.problem.unwrap();
            assert_eq!(problem.reason, reason);
            assert!(
                problem.message.contains(says) && problem.message.chars().count() <= 300,
                "{says}: {}",
                problem.message
            );
            assert!(problem.of_container && view.runs_seconds.is_none());
        }
    }

    #[test]
    fn one_that_runs_has_no_problem_and_settles() {
        for (seconds, ready, settled) in [
            (0, true, false),
            (9, true, false),
            (10, true, true),
            (20, false, false),
        ] {
            let last = json!({"terminated": {"exitCode": 1, "finishedAt": at(30)}});
            let machine =
                json!({"state": {"running": {"startedAt": at(seconds)}}, "lastState": last, "ready": ready});
            let view = view(&machine, true);
            assert_eq!(
                (view.runs_seconds, view.ended_seconds, view.problem.as_ref()),
                (Some(seconds), Some(30), None)
            );
            assert_eq!(view.is_settled(), settled, "{seconds} s");
        }
    }

    #[test]
    fn what_the_others_do_is_told_apart() {
        for others_ready in [true, false] {
            let view = view(
                &json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
                others_ready,
            );
            assert_eq!(view.others_ready, others_ready);
            assert_eq!(view.problem, None, "it only just begins");
        }
    }
}
