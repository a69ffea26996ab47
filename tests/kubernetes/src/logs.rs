//! What containers have said.

use std::collections::BTreeSet;

use crate::installation::Installation;

/// The different lines that a container was seen to say. Logs are cut: what was seen once stays seen.
#[derive(Debug)]
pub struct Log {
    of: String,
    container: &'static str,
    lines: BTreeSet<String>,
}

impl Log {
    /// Of that container in `of`, such as `pod/demo-0`.
    pub fn new(of: String, container: &'static str) -> Self {
        Self {
            of,
            container,
            lines: BTreeSet::new(),
        }
    }

    /// Looks at what there is. Before a container has begun, that is nothing.
    pub fn look(&mut self, installed: &Installation) -> &BTreeSet<String> {
        let arguments = ["logs", &self.of, "--container", self.container];
        let said = installed.try_kubectl(&arguments).unwrap_or_default();
        self.lines.extend(said.lines().map(str::to_owned));
        &self.lines
    }
}
