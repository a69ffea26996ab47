//! The operator, installed by its chart into a namespace of the test's own, which enforces restricted Pod Security.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

use crate::command::{run, try_run, try_run_with};
use crate::requirements::Images;

/// The release.
pub const RELEASE: &str = "raft-operator";
/// Selects the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/name=raft-operator,app.kubernetes.io/component=operator";
/// The definition of RaftClusters, which a cluster has once.
const DEFINITION: &str = "raftclusters.raftlog.io";

/// Tests measure, break machines and share one definition: they come one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An operator that looks after its own namespace. All of it is removed when it is dropped.
#[derive(Debug)]
pub struct Installation {
    namespace: String,
    images: Images,
    owns_definition: bool,
    // Given back last.
    _turn: MutexGuard<'static, ()>,
}

impl Installation {
    /// Installs it, and waits until it runs.
    ///
    /// # Panics
    /// When that does not work.
    pub fn new(test: &str, images: &Images) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = format!("raft-test-{test}-{}", std::process::id());
        run("kubectl", &["create", "namespace", &namespace]);
        // From here on, it is removed whatever happens.
        let installation = Self {
            namespace,
            images: images.clone(),
            // A definition that was there is not the test's to take away.
            owns_definition: try_run("kubectl", &["get", "customresourcedefinition", DEFINITION]).is_err(),
            _turn: turn,
        };
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        run(
            "kubectl",
            &["label", "namespace", &installation.namespace, restricted],
        );
        installation.set(&[]);
        installation
    }

    /// Installs the chart, or upgrades it, with these values besides those that the test stands on.
    ///
    /// # Panics
    /// When that does not work.
    pub fn set(&self, values: &[&str]) {
        let (images, namespace) = (&self.images, &self.namespace);
        let (repository, tag) = images.operator.rsplit_once(':').unwrap_or((&images.operator, ""));
        let own = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            format!("defaultImages.node={}", images.node),
            format!("defaultImages.replicator={}", images.replicator),
            format!("watchNamespaces={{{namespace}}}"),
            format!("crds.install={}", self.owns_definition),
            "crds.keep=false".to_owned(),
        ];
        let mut arguments = vec!["upgrade", RELEASE, "charts/raft-operator", "--install"];
        arguments.extend(["--namespace", namespace, "--wait", "--timeout", "2m"]);
        for value in own.iter().map(String::as_str).chain(values.iter().copied()) {
            arguments.extend(["--set", value]);
        }
        run("helm", &arguments);
    }

    /// The images under test.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Whether the definition of RaftClusters came with it, so that a test may change it.
    pub fn owns_definition(&self) -> bool {
        self.owns_definition
    }

    /// Where it is, and where it looks.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What `kubectl` in its namespace says.
    ///
    /// # Panics
    /// Where it fails, with all that it says.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; or all that it says, where it fails.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["--namespace", self.namespace.as_str()];
        all.extend(arguments);
        try_run("kubectl", &all)
    }

    /// Applies a manifest, as `kubectl apply` does.
    pub fn apply(&self, manifest: &Value) -> Result<String, String> {
        let namespace = self.namespace.as_str();
        let arguments = ["--namespace", namespace, "apply", "--filename", "-"];
        try_run_with("kubectl", &arguments, &manifest.to_string())
    }

    /// An object of its namespace.
    pub fn object(&self, kind: &str, name: &str) -> Result<Value, String> {
        let text = self.try_kubectl(&["get", kind, name, "--output", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("{kind} {name}: {error}"))
    }

    /// The objects of its namespace that a selector selects.
    pub fn objects(&self, kind: &str, selector: &str) -> Result<Vec<Value>, String> {
        let text = self.try_kubectl(&["get", kind, "--selector", selector, "--output", "json"])?;
        let list: Value = serde_json::from_str(&text).map_err(|error| format!("{kind}: {error}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Says what there is, for whoever looks for the cause of a failure.
    fn tell(&self) {
        for arguments in [
            &["get", "raft,all,persistentvolumeclaims", "--output", "wide"][..],
            &["describe", "raft"],
            &["get", "events", "--sort-by", ".metadata.creationTimestamp"],
            &["logs", "deployment/raft-operator", "--tail", "100"],
        ] {
            let said = self.try_kubectl(arguments).unwrap_or_else(|why| why);
            println!("--- kubectl {}\n{said}", arguments.join(" "));
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
        // RaftClusters go before the definition does.
        for step in [
            self.try_kubectl(&["delete", "raft", "--all", "--timeout", "1m"]),
            try_run(
                "helm",
                &["uninstall", RELEASE, "--namespace", &self.namespace, "--wait"],
            ),
            try_run(
                "kubectl",
                &["delete", "namespace", &self.namespace, "--timeout", "3m"],
            ),
        ] {
            if let Err(why) = step {
                println!("cannot clean up: {why}");
            }
        }
    }
}
