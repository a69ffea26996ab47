//! The operator, installed by its chart into a namespace of the test's own, which enforces restricted Pod Security.

use std::thread;

use crate::command::{run, try_run};
use crate::requirements::Images;

/// The release.
pub const RELEASE: &str = "raft-operator";
/// The definition of RaftClusters, which a cluster has once.
const DEFINITION: &str = "raftclusters.raftlog.io";

/// An operator that looks after its own namespace. All of it is removed when it is dropped.
#[derive(Debug)]
pub struct Installation {
    namespace: String,
}

impl Installation {
    /// Installs it, and waits until it runs.
    ///
    /// # Panics
    /// When that does not work.
    pub fn new(test: &str, images: &Images) -> Self {
        let namespace = format!("raft-test-{test}-{}", std::process::id());
        run("kubectl", &["create", "namespace", &namespace]);
        // From here on, it is removed whatever happens.
        let installation = Self { namespace };
        let namespace = &installation.namespace;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        run("kubectl", &["label", "namespace", namespace, restricted]);
        let (repository, tag) = images.operator.rsplit_once(':').unwrap_or((&images.operator, ""));
        let there = try_run("kubectl", &["get", "customresourcedefinition", DEFINITION]).is_ok();
        let values = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            format!("defaultImages.node={}", images.node),
            format!("defaultImages.replicator={}", images.replicator),
            format!("watchNamespaces={{{namespace}}}"),
            // A definition that was there is not the test's to take away.
            format!("crds.install={}", !there),
            "crds.keep=false".to_owned(),
        ];
        let mut arguments = vec![
            "install",
            RELEASE,
            "charts/raft-operator",
            "--namespace",
            namespace,
        ];
        arguments.extend(["--wait", "--timeout", "2m"]);
        for value in &values {
            arguments.extend(["--set", value]);
        }
        run("helm", &arguments);
        installation
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
