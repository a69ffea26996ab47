//! What the replicator is told about execution, as variables.

use serde_json::Value;

use super::pod::{flag_bytes, variable};
use super::state_machine;
use crate::crd::duration::DurationText;
use crate::crd::executor::{Executor, RetrySpec};
use crate::crd::replicator::{ExecuteOn, HistorySpec, ReplicatorSpec};

/// Nothing that is the replicator's default anyway, but for what an executor needs: pods of clusters that ask for nothing of it stay
/// as they are when the operator is new, and replicators of earlier versions know it all.
pub(super) fn environment(spec: &ReplicatorSpec) -> Vec<Value> {
    let mut environment = of_executor(&spec.executor());
    if spec.execute_on != ExecuteOn::default() {
        environment.push(variable("REPLICATOR_EXECUTE_ON", spec.execute_on.name()));
    }
    environment.extend(of_history(&spec.retention));
    environment
}

/// The replicator refuses flags of another executor than its own. Of several, which an earlier schema may have let pass, the one
/// with the most state counts.
fn of_executor(executor: &Executor) -> Vec<Value> {
    let kind = |name| variable("REPLICATOR_EXECUTOR", name);
    if let Some(machine) = &executor.state_machine {
        return vec![
            kind("state-machine"),
            variable("REPLICATOR_STATE_MACHINE", &state_machine::url(machine)),
        ];
    }
    if let Some(exec) = &executor.exec {
        let command = Value::from(exec.command.clone()).to_string();
        let mut environment = vec![
            kind("exec"),
            variable("REPLICATOR_EXEC_COMMAND", &verbatim(&command)),
            variable("REPLICATOR_EXEC_MODE", exec.mode.name()),
        ];
        environment.extend(of_attempts(&exec.timeout, &exec.retry));
        return environment;
    }
    if let Some(http) = &executor.http {
        let mut environment = vec![
            kind("http"),
            variable("REPLICATOR_HTTP_URL", &verbatim(&http.url)),
        ];
        environment.extend(of_attempts(&http.timeout, &http.retry));
        return environment;
    }
    vec![kind("log")]
}

fn of_attempts(timeout: &DurationText, retry: &RetrySpec) -> Vec<Value> {
    let backoff = format!("{}..{}", retry.backoff.min, retry.backoff.max);
    let mut environment = vec![
        variable("REPLICATOR_ATTEMPT_TIMEOUT", timeout.as_str()),
        variable("REPLICATOR_RETRY_BACKOFF", &backoff),
        variable("REPLICATOR_ON_FAILURE", retry.on_failure.name()),
    ];
    if let Some(attempts) = retry.max_attempts {
        environment.push(variable("REPLICATOR_ATTEMPTS_MAX", &attempts.to_string()));
    }
    environment
}

fn of_history(history: &HistorySpec) -> Vec<Value> {
    let operations = history.operations.map(|operations| operations.to_string());
    let age = history.age.as_ref().map(|age| age.as_str().to_owned());
    let bytes = history.bytes.as_deref().map(flag_bytes);
    [
        ("REPLICATOR_RETAIN_OPERATIONS", operations),
        ("REPLICATOR_RETAIN_AGE", age),
        ("REPLICATOR_RETAIN_BYTES", bytes),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(variable(name, &value?)))
    .collect()
}

/// As it was written: Kubernetes puts values in the place of `$(NAME)`, and takes `$$` for `$`.
fn verbatim(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    fn told(spec: &str) -> Vec<(String, String)> {
        let environment = environment(&cluster(spec).spec.replicator);
        let text = |variable: &Value, field: &str| variable[field].as_str().unwrap().to_owned();
        environment
            .iter()
            .map(|variable| (text(variable, "name"), text(variable, "value")))
            .collect()
    }

    #[test]
    fn each_executor_is_told_what_it_needs_and_nothing_of_the_others() {
        for (spec, expected) in [
            ("replicas: 3", &[("REPLICATOR_EXECUTOR", "log")][..]),
            (
                "replicator: {executor: {log: {}}, executeOn: everyNode, retention: {}}",
                &[("REPLICATOR_EXECUTOR", "log")],
            ),
            (
                "replicator: {executor: {http: {url: 'https://a.b/c?d=$(E)'}}, executeOn: leader}",
                &[
                    ("REPLICATOR_EXECUTOR", "http"),
                    ("REPLICATOR_HTTP_URL", "https://a.b/c?d=$$(E)"),
                    ("REPLICATOR_ATTEMPT_TIMEOUT", "30s"),
                    ("REPLICATOR_RETRY_BACKOFF", "100ms..30s"),
                    ("REPLICATOR_ON_FAILURE", "stop"),
                    ("REPLICATOR_EXECUTE_ON", "leader"),
                ],
            ),
            (
                "replicator: {executor: {http: {url: 'http://a', timeout: 1500ms, retry: {maxAttempts: 7, backoff: {min: 1s, max: \
                 2m}, onFailure: Skip}}}}",
                &[
                    ("REPLICATOR_EXECUTOR", "http"),
                    ("REPLICATOR_HTTP_URL", "http://a"),
                    ("REPLICATOR_ATTEMPT_TIMEOUT", "1500ms"),
                    ("REPLICATOR_RETRY_BACKOFF", "1s..2m"),
                    ("REPLICATOR_ON_FAILURE", "skip"),
                    ("REPLICATOR_ATTEMPTS_MAX", "7"),
                ],
            ),
            (
                "replicator: {executor: {exec: {command: [/bin/sh, '-c', 'echo \"$A\"'], mode: Lines, retry: {onFailure: Skip}}}}",
                &[
                    ("REPLICATOR_EXECUTOR", "exec"),
                    ("REPLICATOR_EXEC_COMMAND", r#"["/bin/sh","-c","echo \"$$A\""]"#),
                    ("REPLICATOR_EXEC_MODE", "lines"),
                    ("REPLICATOR_ATTEMPT_TIMEOUT", "30s"),
                    ("REPLICATOR_RETRY_BACKOFF", "100ms..30s"),
                    ("REPLICATOR_ON_FAILURE", "skip"),
                ],
            ),
            (
                "replicator: {executor: {stateMachine: {image: kv}}}",
                &[
                    ("REPLICATOR_EXECUTOR", "state-machine"),
                    (
                        "REPLICATOR_STATE_MACHINE",
                        "unix:///run/raftlog/state-machine.sock",
                    ),
                ],
            ),
            (
                "replicator: {executor: {stateMachine: {image: kv, port: 7001}}, retention: {operations: 5, age: 24h, bytes: 64Mi}}",
                &[
                    ("REPLICATOR_EXECUTOR", "state-machine"),
                    ("REPLICATOR_STATE_MACHINE", "http://127.0.0.1:7001"),
                    ("REPLICATOR_RETAIN_OPERATIONS", "5"),
                    ("REPLICATOR_RETAIN_AGE", "24h"),
                    ("REPLICATOR_RETAIN_BYTES", "64MiB"),
                ],
            ),
        ] {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(told(spec), expected, "{spec}");
        }
    }
}
