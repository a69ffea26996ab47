//! How much memory nodes and replicators take while clients write as fast as they can, and snapshots are taken.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Stage, publish};
use crate::{
    arguments::MemoryArgs,
    failure::Failure,
    measure::{Sample, measure},
    plan::{Load, Point},
    system::{Cluster as _, Kind, Place, raftlog::Raftlog},
};

/// The most resident memory that a process had.
#[derive(Debug, Serialize)]
struct Peak {
    process: String,
    peak_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    members: u16,
    clients: u16,
    payload: usize,
    written: Sample,
    /// By all nodes, since the load began.
    snapshots_taken: u64,
    peaks: Vec<Peak>,
}

/// Measures once.
pub(crate) async fn run(arguments: &MemoryArgs) -> Result<(), Failure> {
    let load = &arguments.load;
    let folders = &load.settings.folders;
    let stage = Stage::new(folders, load.members)?;
    let programs = load.own.programs.as_deref();
    let raftlog = Raftlog::find(Kind::Raftlog, programs, load.settings.executor_output);
    let place = Place {
        snapshot_every: arguments.snapshot_every,
        ..stage.place()
    };
    let mut running = raftlog.map_err(Failure::new)?.run(&place).await?;
    let point = Point {
        load: Load::Clients(load.clients),
        payload: load.payload,
        ..Point::default()
    };
    let written = measure(&mut running, point, &load.settings).await?;
    let peaks = running.servers().usage_of_each()?.into_iter();
    let peaks = peaks.map(|(process, usage)| Peak {
        process,
        peak_bytes: usage.peak_bytes_largest,
    });
    let found = Found {
        members: load.members,
        clients: load.clients,
        payload: load.payload,
        snapshots_taken: written.snapshots_taken,
        written,
        peaks: peaks.collect(),
    };
    drop(running);
    publish("memory", folders, &table(&found), &found, &[])?;
    stage.end(folders);
    Ok(())
}

fn table(found: &Found) -> String {
    let Found {
        members,
        clients,
        payload,
        written,
        snapshots_taken,
        peaks,
    } = found;
    let mut text = format!(
        "{members} members, {clients} clients, {payload} bytes: {:.0} operations/s; {snapshots_taken} snapshots were taken\n\n\
         | process | peak MiB |\n| --- | --- |\n",
        written.operations_per_second
    );
    for Peak { process, peak_bytes } in peaks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {process} | {} |", peak_bytes >> 20);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn every_process_has_a_row() {
        let text = table(&Found {
            members: 1,
            clients: 1,
            payload: 16,
            written: sample(1000.0, 1.0),
            snapshots_taken: 3,
            peaks: vec![Peak {
                process: "node1".to_owned(),
                peak_bytes: 42 << 20,
            }],
        });
        assert!(text.contains("| node1 | 42 |"), "{text}");
        assert!(text.contains("3 snapshots"), "{text}");
    }
}
