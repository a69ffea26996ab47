//! What nodes say of themselves, seen from inside a machine's network.

use std::process::{Child, Stdio};

use crate::gather::Gathered;
use crate::machines::Machines;

/// A change of what a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// In milliseconds of the Unix epoch.
    pub at_ms: i64,
    /// The pod.
    pub pod: String,
    /// The answer of `/readyz`; 0 where there was none.
    pub code: u16,
    /// leader, follower and so on.
    pub role: String,
    /// Its term.
    pub term: u64,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Sight {
    child: Child,
    seen: Gathered<Seen>,
}

impl Sight {
    /// Looks at pods, each given as `NAME=IP:PORT`, with `program`, which is look-at-nodes.
    ///
    /// # Panics
    /// Where the program cannot be run.
    pub fn new(machines: &Machines, machine: &str, program: &str, pods: &[String]) -> Self {
        let mut child = machines
            .inside(machine, program)
            .args(pods)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        let seen = Gathered::default();
        seen.gather(child.stdout.take(), parse);
        Self { child, seen }
    }

    /// The first change since then of which that is so.
    pub fn first(&self, since: i64, is: impl Fn(&Seen) -> bool) -> Result<Seen, String> {
        let seen = self.seen.so_far();
        let found = seen.iter().find(|seen| seen.at_ms >= since && is(seen)).cloned();
        found.ok_or_else(|| format!("seen so far: {seen:#?}"))
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Seen> {
    let mut words = line.split(' ');
    Some(Seen {
        at_ms: words.next()?.parse().ok()?,
        pod: words.next()?.to_owned(),
        code: words.next()?.parse().ok()?,
        role: words.next()?.to_owned(),
        term: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_understood() {
        let expected = Seen {
            at_ms: 1_000,
            pod: "demo-0".into(),
            code: 503,
            role: "leader".into(),
            term: 7,
        };
        assert_eq!(parse("1000 demo-0 503 leader 7"), Some(expected));
        assert_eq!(parse("1000 demo-0"), None);
    }
}
