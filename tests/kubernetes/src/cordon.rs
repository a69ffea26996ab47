//! Machines that take no new pods for a while.

use crate::installation::Installation;

/// They take none until this is dropped.
#[derive(Debug)]
pub struct Cordon<'a> {
    installed: &'a Installation,
    machines: Vec<String>,
}

impl<'a> Cordon<'a> {
    /// Has them take none from now on.
    ///
    /// # Panics
    /// Where that is refused.
    pub fn of(installed: &'a Installation, machines: Vec<String>) -> Self {
        let cordon = Self { installed, machines };
        for machine in &cordon.machines {
            installed.kubectl(&["cordon", machine]);
        }
        cordon
    }

    /// The same of all machines: what runs there runs on, and a pod that is deleted stays away.
    ///
    /// # Panics
    /// Where they cannot be listed, or that is refused.
    pub fn of_all(installed: &'a Installation) -> Self {
        let all = installed.kubectl(&["get", "nodes", "--output=name"]);
        let name = |line: &str| line.trim_start_matches("node/").to_owned();
        Self::of(installed, all.lines().map(name).collect())
    }
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        for machine in &self.machines {
            if let Err(why) = self.installed.try_kubectl(&["uncordon", machine]) {
                println!("{machine} stays cordoned: {why}");
            }
        }
    }
}
