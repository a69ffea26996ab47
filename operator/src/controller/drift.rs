//! Whether an object has to be written: it is not there, somebody changed it, or something else is asked for.

use kube::Resource as _;
use serde_json::Value;

use crate::crd::RaftCluster;
use crate::resources::Resource;
use crate::resources::meta::{APPLIED, MANAGER, digest};

/// What has to be done with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Make it so.
    Apply,
    /// Delete it.
    Remove,
    /// It is somebody else's, and stays as it is.
    Foreign,
}

/// What was applied last and what the API server made of it. If both are still the same, then applying it again would change
/// nothing, even where the server writes a value in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    desired: String,
    result: String,
}

impl Applied {
    /// Of what was asked for, and the answer.
    pub fn new(desired: &Value, result: &Value) -> Self {
        Self {
            desired: digest(desired),
            result: digest(&essence(result)),
        }
    }

    /// Whether it was this that was asked for.
    pub fn is_of(&self, desired: &Value) -> bool {
        self.desired == digest(desired)
    }
}

/// What to do with an object that is observed, for the RaftCluster of that identity.
pub fn verdict(
    resource: &Resource,
    observed: Option<&Value>,
    owner: &str,
    applied: Option<&Applied>,
) -> Verdict {
    match (&resource.body, observed) {
        (Some(_), None) => Verdict::Apply,
        (_, Some(observed)) if is_leaving(observed) => Verdict::Keep,
        (None, Some(observed)) if is_ours(observed, owner) => Verdict::Remove,
        (None, _) => Verdict::Keep,
        (Some(_), Some(observed)) if !is_ours(observed, owner) => Verdict::Foreign,
        (Some(body), Some(observed)) => {
            let same_request = annotation(observed, APPLIED) == Some(&digest(body));
            let known = applied == Some(&Applied::new(body, observed));
            if known || (same_request && contains(&essence(observed), &essence(body))) {
                Verdict::Keep
            } else {
                Verdict::Apply
            }
        }
    }
}

/// Owned by that very RaftCluster; or by nobody any more, where deletion left it behind.
pub fn is_ours(observed: &Value, owner: &str) -> bool {
    match controller(observed) {
        Some(controller) => controller["uid"] == owner,
        None => observed["metadata"]["labels"]["app.kubernetes.io/managed-by"] == MANAGER,
    }
}

/// Owned by an earlier RaftCluster of that name, whose identity was another one: it was deleted, and this goes with it.
pub fn is_of_predecessor(observed: &Value, name: &str, owner: &str) -> bool {
    controller(observed).is_some_and(|controller| {
        controller["kind"] == *RaftCluster::kind(&())
            && controller["name"] == name
            && controller["uid"] != owner
    })
}

fn controller(observed: &Value) -> Option<&Value> {
    let owners = observed.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

fn is_leaving(observed: &Value) -> bool {
    observed
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
}

fn annotation<'a>(observed: &'a Value, name: &str) -> Option<&'a str> {
    observed.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Without what others keep in it, and without its type, which lists leave out.
fn essence(observed: &Value) -> Value {
    let mut essence = observed.clone();
    if let Some(object) = essence.as_object_mut() {
        for key in ["status", "apiVersion", "kind"] {
            object.remove(key);
        }
    }
    if let Some(metadata) = essence.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
        metadata.remove("generation");
    }
    essence
}

/// Whether all that is wanted is so. What else there is are defaults, or others' affairs.
pub fn contains(observed: &Value, wanted: &Value) -> bool {
    match (observed, wanted) {
        (Value::Object(observed), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let found = observed.get(key);
            found.map_or(is_empty(wanted), |found| contains(found, wanted))
        }),
        (Value::Array(observed), Value::Array(wanted)) => {
            observed.len() == wanted.len()
                && observed
                    .iter()
                    .zip(wanted)
                    .all(|(found, wanted)| contains(found, wanted))
        }
        (observed, wanted) => observed == wanted,
    }
}

/// The API server leaves empty values out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::tests::cluster;
    use crate::resources::{Kind, services};

    fn applied(resource: &Resource) -> Value {
        let mut observed = resource.body.clone().unwrap();
        observed["metadata"]["annotations"] = json!({APPLIED: digest(resource.body.as_ref().unwrap())});
        observed["metadata"]["resourceVersion"] = json!("5");
        observed["spec"]["clusterIP"] = json!("10.0.0.1");
        observed
    }

    #[test]
    fn only_what_differs_is_written() {
        let [_, service, _] = services::all(&cluster("replicas: 3"), false);
        let good = applied(&service);
        let changed = |change: fn(&mut Value)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed
        };
        for (observed, expected) in [
            (None, Verdict::Apply),
            (Some(good.clone()), Verdict::Keep),
            (
                Some(changed(|o| {
                    o.as_object_mut().unwrap().remove("kind");
                })),
                Verdict::Keep,
            ),
            (
                Some(changed(|o| o["spec"]["ports"][0]["port"] = json!(1))),
                Verdict::Apply,
            ),
            (
                Some(changed(|o| o["metadata"]["labels"] = json!({}))),
                Verdict::Apply,
            ),
            (
                Some(changed(|o| o["metadata"]["annotations"] = json!({}))),
                Verdict::Apply,
            ),
            (
                Some(changed(|o| o["metadata"]["other"] = json!("x"))),
                Verdict::Keep,
            ),
            (
                Some(changed(|o| {
                    o["metadata"]["ownerReferences"][0]["uid"] = json!("u-2");
                })),
                Verdict::Foreign,
            ),
            (
                Some(changed(|o| {
                    o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                })),
                Verdict::Keep,
            ),
        ] {
            assert_eq!(
                verdict(&service, observed.as_ref(), "u-1", None),
                expected,
                "{observed:?}"
            );
        }
    }

    #[test]
    fn a_value_that_the_server_writes_differently_is_written_once() {
        let [_, service, _] = services::all(&cluster("replicas: 3"), false);
        let mut observed = applied(&service);
        observed["spec"]["type"] = json!("cluster-ip");
        let known = Applied::new(service.body.as_ref().unwrap(), &observed);
        observed["metadata"]["resourceVersion"] = json!("6");
        assert_eq!(
            verdict(&service, Some(&observed), "u-1", Some(&known)),
            Verdict::Keep
        );
        observed["spec"]["type"] = json!("NodePort");
        assert_eq!(
            verdict(&service, Some(&observed), "u-1", Some(&known)),
            Verdict::Apply
        );
    }

    /// A quick `kubectl replace --force` was told that the names belong to somebody else.
    #[test]
    fn what_an_earlier_one_of_the_name_left_is_known() {
        let [_, service, _] = services::all(&cluster("replicas: 3"), false);
        let observed = applied(&service);
        let mut of_another_kind = observed.clone();
        of_another_kind["metadata"]["ownerReferences"][0]["kind"] = json!("Deployment");
        let mut orphan = observed.clone();
        orphan["metadata"]["ownerReferences"] = json!([]);
        for (observed, name, owner, expected) in [
            (&observed, "demo", "u-1", false),
            (&observed, "demo", "u-2", true),
            (&observed, "other", "u-2", false),
            (&of_another_kind, "demo", "u-2", false),
            (&orphan, "demo", "u-2", false),
        ] {
            assert_eq!(is_of_predecessor(observed, name, owner), expected, "{observed}");
        }
    }

    #[test]
    fn nothing_is_removed_that_is_not_ours() {
        let resource = Resource {
            kind: Kind::Service,
            name: "demo".into(),
            body: None,
        };
        let [_, service, _] = services::all(&cluster("replicas: 3"), false);
        let observed = applied(&service);
        assert_eq!(verdict(&resource, Some(&observed), "u-1", None), Verdict::Remove);
        assert_eq!(verdict(&resource, Some(&observed), "u-2", None), Verdict::Keep);
        assert_eq!(verdict(&resource, None, "u-1", None), Verdict::Keep);
        let foreign = json!({"metadata": {"name": "demo"}});
        assert_eq!(verdict(&resource, Some(&foreign), "u-1", None), Verdict::Keep);
        assert_eq!(verdict(&service, Some(&foreign), "u-1", None), Verdict::Foreign);
    }
}
