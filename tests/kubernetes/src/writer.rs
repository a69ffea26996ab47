//! Clients that write all the time; in the end it is checked that what they were told is so.

use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use serde_json::Value;

use crate::gather::Gathered;
use crate::history::{Acknowledged, faults, longest_gap_ms};
use crate::raft_cluster::RaftCluster;
use crate::toolbox::Toolbox;
use crate::wait::eventually;

/// Time between an acknowledgement and the next operation of the same client.
const INTERVAL: &str = "20ms";
/// Each has a node of its own, which forwards what it does not lead: where one is gone, its client waits for it, and the others
/// show how long nothing is committed.
pub const CLIENTS: u32 = 4;

/// Several test clients of raftctl, in a toolbox, each in a session of its own. They end when this is dropped.
#[derive(Debug)]
pub struct Writer<'a> {
    toolbox: &'a Toolbox<'a>,
    cluster: &'a RaftCluster<'a>,
    children: Vec<Child>,
    told: Gathered<Acknowledged>,
    complaints: Gathered<String>,
}

impl<'a> Writer<'a> {
    /// Begins to write, and waits until that works.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start(toolbox: &'a Toolbox<'a>, cluster: &'a RaftCluster<'a>) -> Self {
        let mut writer = Self {
            toolbox,
            cluster,
            children: Vec::new(),
            told: Gathered::default(),
            complaints: Gathered::default(),
        };
        for client in 1..=CLIENTS {
            let mut child = writer
                .client(client)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run kubectl: {error}"));
            writer
                .told
                .gather(child.stdout.take(), move |line| parse(client, line));
            writer
                .complaints
                .gather(child.stderr.take(), |line| Some(line.to_owned()));
            writer.children.push(child);
        }
        writer.goes_on();
        writer
    }

    fn client(&self, number: u32) -> Command {
        let own = |addresses: &str| addresses.split(',').next_back().unwrap_or_default().to_owned();
        self.toolbox.command(&[
            "--endpoints",
            &own(&self.cluster.endpoints(number)),
            "--replicators",
            &own(&self.cluster.replicators(number)),
            "client",
            "--client-id",
            &format!("checker-{number}"),
            "--interval",
            INTERVAL,
            "--log-format",
            "json",
        ])
    }

    /// What they were told so far.
    pub fn told(&self) -> Vec<Acknowledged> {
        self.told.so_far().clone()
    }

    /// Waits until something was acknowledged that is submitted from now on.
    pub fn goes_on(&self) {
        let before = self.told().len();
        eventually("an acknowledgement", || {
            let complaints = self.complaints.so_far();
            // Those that were under way already are no news.
            let news = self.told().len() > before.saturating_add(self.children.len());
            news.then_some(())
                .ok_or_else(|| format!("its last complaint is {:?}", complaints.last()))
        });
    }

    /// The longest time without an acknowledgement since then, in milliseconds.
    pub fn longest_gap_ms(&self, since: i64) -> i64 {
        self.goes_on();
        longest_gap_ms(&self.told(), since)
    }

    /// Ends it, and compares what it and others before it were told with what each of the first so many replicators holds.
    ///
    /// # Panics
    /// Where that differs.
    pub fn check(mut self, earlier: &[Acknowledged], nodes: u32) -> Vec<Acknowledged> {
        self.end();
        let told = [earlier, &self.told()].concat();
        self.toolbox.until_verified(self.cluster, nodes);
        for node in 1..=nodes {
            let held = self.toolbox.held(self.cluster, node);
            let faults = faults(CLIENTS, &told, &held);
            let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
            assert!(
                faults.is_empty(),
                "{} faults in what node {node} holds, {} operations:\n{shown}",
                faults.len(),
                held.len()
            );
        }
        told
    }

    fn end(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Of a line such as `{"timestamp": ..., "message": "[CLIENT] Leader node1:5001 accepted → Operation 'operation-1' committed at
/// index 1"}`.
fn parse(client: u32, line: &str) -> Option<Acknowledged> {
    let line: Value = serde_json::from_str(line).ok()?;
    let at: Timestamp = line.get("timestamp")?.as_str()?.parse().ok()?;
    let rest = line
        .get("message")?
        .as_str()?
        .strip_prefix("[CLIENT] Leader node")?;
    let (leader, rest) = rest.split_once(':')?;
    let (_, rest) = rest.split_once("Operation '")?;
    let (operation, index) = rest.split_once("' committed at index ")?;
    Some(Acknowledged {
        client,
        operation: operation.to_owned(),
        index: index.parse().ok()?,
        leader: leader.parse().ok()?,
        at_ms: at.as_millisecond(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_understood() {
        let line = r#"{"timestamp":"2001-09-09T01:46:40.250Z","level":"INFO","message":"[CLIENT] Leader node3:5001 accepted → Operation 'operation-7' committed at index 9"}"#;
        let expected = Acknowledged {
            client: 2,
            operation: "operation-7".into(),
            index: 9,
            leader: 3,
            at_ms: 1_000_000_000_250,
        };
        assert_eq!(parse(2, line), Some(expected));
        assert_eq!(
            parse(
                2,
                r#"{"timestamp":"2001-09-09T01:46:40Z","message":"Client sends"}"#
            ),
            None
        );
    }
}
