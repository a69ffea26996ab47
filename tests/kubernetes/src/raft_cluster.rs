//! A RaftCluster, used as people use one: manifests, patches and what its status says.

use serde_json::{Value, json};

use crate::installation::Installation;
use crate::wait::eventually;

/// A RaftCluster in a namespace of a test's own.
#[derive(Debug)]
pub struct RaftCluster<'a> {
    installed: &'a Installation,
    name: String,
}

/// A condition, as it was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is true.
    pub is: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A spec for tests: volumes go with their owner, and are large enough to hold all operations, as no snapshot is taken.
pub fn small(replicas: u32) -> Value {
    json!({
        "replicas": replicas,
        "storage": {"size": "256Mi", "retention": {"whenDeleted": "Delete"}},
        "raft": {"snapshot": {"everyOperations": 0, "everyBytes": "64Mi"}},
    })
}

impl<'a> RaftCluster<'a> {
    /// Applies one with that spec.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn create(installed: &'a Installation, name: &str, spec: &Value) -> Self {
        Self::try_create(installed, name, spec).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Applies one with that spec, or says why it was refused.
    pub fn try_create(installed: &'a Installation, name: &str, spec: &Value) -> Result<Self, String> {
        installed.apply(&json!({
            "apiVersion": "raftlog.io/v1alpha1",
            "kind": "RaftCluster",
            "metadata": {"name": name},
            "spec": spec,
        }))?;
        Ok(Self {
            installed,
            name: name.to_owned(),
        })
    }

    /// Where it is.
    pub fn installation(&self) -> &'a Installation {
        self.installed
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod of a node number.
    pub fn pod(&self, node: u32) -> String {
        format!("{}-{}", self.name, node.saturating_sub(1))
    }

    /// Where the first so many nodes serve clients: each pod's own address.
    pub fn endpoints(&self, nodes: u32) -> String {
        self.addresses(nodes, 5001)
    }

    /// Where the first so many replicators are read from.
    pub fn replicators(&self, nodes: u32) -> String {
        self.addresses(nodes, 6001)
    }

    fn addresses(&self, nodes: u32, port: u16) -> String {
        let one = |node| format!("{}.{}-peers:{port}", self.pod(node), self.name);
        (1..=nodes).map(one).collect::<Vec<_>>().join(",")
    }

    /// Changes the spec by a merge patch.
    ///
    /// # Panics
    /// Where that is refused.
    pub fn patch(&self, spec: &Value) {
        self.try_patch(spec).unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same, or why it was refused.
    pub fn try_patch(&self, spec: &Value) -> Result<String, String> {
        let patch = json!({ "spec": spec }).to_string();
        self.installed
            .try_kubectl(&["patch", "raft", &self.name, "--type", "merge", "--patch", &patch])
    }

    /// All of it.
    pub fn object(&self) -> Result<Value, String> {
        self.installed.object("raft", &self.name)
    }

    /// A condition, if it is about the spec as it is now.
    pub fn condition(&self, kind: &str) -> Result<Condition, String> {
        condition(&self.object()?, kind)
    }

    /// Selects its pods.
    pub fn selector(&self) -> String {
        format!(
            "app.kubernetes.io/instance={},app.kubernetes.io/component=node",
            self.name
        )
    }

    /// Its pods.
    pub fn pods(&self) -> Result<Vec<Value>, String> {
        self.installed.objects("pods", &self.selector())
    }

    /// Waits until a condition is so.
    pub fn until(&self, kind: &str, is: bool) -> Condition {
        eventually(&format!("{kind} {is} of {}", self.name), || {
            let condition = self.condition(kind)?;
            (condition.is == is)
                .then_some(condition.clone())
                .ok_or_else(|| format!("{condition:?}"))
        })
    }

    /// Waits until it is Ready with so many replicas and has nothing more to do.
    pub fn until_ready(&self, replicas: u32) {
        eventually(&format!("{} Ready with {replicas} replicas", self.name), || {
            let object = self.object()?;
            let (ready, progressing) = (condition(&object, "Ready")?, condition(&object, "Progressing")?);
            let pods = object.pointer("/status/replicas").and_then(Value::as_u64);
            let settled = ready.is && !progressing.is && pods == Some(u64::from(replicas));
            settled
                .then_some(())
                .ok_or_else(|| format!("{pods:?} pods, {ready:?}, {progressing:?}"))
        });
    }

    /// Waits until the status tells that term or a later one: an operator that was cut off may have told nothing for a while.
    pub fn until_term(&self, term: u64) {
        eventually(&format!("term {term} of {}", self.name), || {
            let object = self.object()?;
            let told = object.pointer("/status/term").and_then(Value::as_u64);
            told.is_some_and(|told| told >= term)
                .then_some(())
                .ok_or_else(|| format!("{told:?}"))
        });
    }

    /// A text of the object.
    pub fn text(&self, pointer: &str) -> Result<String, String> {
        let object = self.object()?;
        let text = object.pointer(pointer).and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| format!("{} has no {pointer}", self.name))
    }

    /// Waits until an Event about it has that reason and its message that part; gives the message.
    pub fn until_event(&self, reason: &str, part: &str) -> String {
        eventually(
            &format!("an Event {reason} with '{part}' about {}", self.name),
            || {
                let selector = format!(
                    "involvedObject.kind=RaftCluster,involvedObject.name={}",
                    self.name
                );
                let messages = self.installed.try_kubectl(&[
                    "get",
                    "events",
                    "--field-selector",
                    &format!("{selector},reason={reason}"),
                    "--output",
                    "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}",
                ])?;
                let found = messages.lines().find(|message| message.contains(part));
                found
                    .map(str::to_owned)
                    .ok_or_else(|| format!("messages are:\n{messages}"))
            },
        )
    }

    /// Deletes it, and waits until it and its pods are gone.
    pub fn delete(&self) {
        self.installed
            .kubectl(&["delete", "raft", &self.name, "--timeout", "1m"]);
        let selector = format!("app.kubernetes.io/instance={}", self.name);
        eventually(&format!("the pods of {} to be gone", self.name), || {
            let pods =
                self.installed
                    .try_kubectl(&["get", "pods", "--selector", &selector, "--output", "name"])?;
            pods.is_empty().then_some(()).ok_or(pods)
        });
    }
}

/// Whether an object of any kind says that a condition is true.
pub fn is_true(object: &Value, kind: &str) -> bool {
    find(object, kind).is_some_and(|condition| condition["status"] == "True")
}

fn find<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    all.into_iter().flatten().find(|one| one["type"] == kind)
}

fn condition(object: &Value, kind: &str) -> Result<Condition, String> {
    let generation = object.pointer("/metadata/generation");
    let one = find(object, kind).ok_or_else(|| format!("there is no condition {kind}"))?;
    if one.get("observedGeneration") != generation {
        return Err(format!("{kind} is about an earlier spec"));
    }
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    Ok(Condition {
        is: one["status"] == "True",
        reason: text("reason"),
        message: text("message"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_counts_for_the_spec_that_it_is_about() {
        let object = |observed: u32| {
            json!({
                "metadata": {"generation": 2},
                "status": {"conditions": [{
                    "type": "Ready", "status": "True", "reason": "A", "message": "b", "observedGeneration": observed,
                }]},
            })
        };
        let told = condition(&object(2), "Ready").unwrap();
        assert!(told.is && told.reason == "A" && told.message == "b");
        assert!(
            condition(&object(1), "Ready")
                .unwrap_err()
                .contains("earlier spec")
        );
        assert!(
            condition(&object(2), "Degraded")
                .unwrap_err()
                .contains("no condition")
        );
    }
}
