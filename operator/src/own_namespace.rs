//! The namespace that the operator itself runs in: the NetworkPolicy of a cluster lets it in from there, and from nowhere else.

use std::fs;
use std::sync::OnceLock;

/// Where a pod finds its own namespace.
pub(crate) const FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

static NAMESPACE: OnceLock<Option<String>> = OnceLock::new();

/// Finds it out, once: what is given comes before what the pod's service account says.
pub(crate) fn learn(given: Option<&str>) {
    let namespace = choose(given, fs::read_to_string(FILE).ok().as_deref());
    if namespace.is_none() {
        tracing::info!(
            "The operator's own namespace is not known, so NetworkPolicies of RaftClusters let no operator in; \
             where it runs in a pod, give --pod-namespace"
        );
    }
    // The first word stands.
    let _ = NAMESPACE.set(namespace);
}

/// None where it was not learnt, or where it runs in no pod.
pub(crate) fn get() -> Option<&'static str> {
    NAMESPACE.get()?.as_deref()
}

fn choose(given: Option<&str>, file: Option<&str>) -> Option<String> {
    let mut said = [given, file].into_iter().flatten().map(str::trim);
    said.find(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_first() {
        for (given, file, expected) in [
            (Some("a"), Some("b"), Some("a")),
            (None, Some("b\n"), Some("b")),
            (Some(""), Some("b"), Some("b")),
            (None, Some("\n"), None),
            (None, None, None),
        ] {
            assert_eq!(choose(given, file).as_deref(), expected, "{given:?}, {file:?}");
        }
    }
}
