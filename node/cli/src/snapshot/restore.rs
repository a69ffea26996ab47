//! `snapshot restore`: says what a file holds and what is lost, asks, and makes a data folder of it.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use raftlog_client::Endpoint;
use raftlog_raft::membership::Member;
use raftlog_server::{
    confirm::{Answer, confirm},
    node::{Alone, SavedSnapshot},
};
use raftlog_storage::{FileDisk, LOCK_FILE};
use serde::Serialize;

use super::open;
use crate::{
    args::{Common, RestoreArgs},
    failure::Failure,
    output::{Format, Output},
};

/// What a file system puts into a new volume.
const LOST_AND_FOUND: &str = "lost+found";

#[derive(Serialize)]
struct Restored {
    data_dir: String,
    node: u32,
    member_id: String,
    cluster_id: String,
    /// The last operation that is there.
    index: u64,
}

/// Makes a data folder of a file.
pub(super) fn restore(common: &Common, arguments: &RestoreArgs) -> Result<(), Failure> {
    let folder = &arguments.data_dir;
    let saved = open(&arguments.file)?;
    let node = node_of(arguments, &saved)?;
    refuse_what_is_used(folder)?;
    if common.output == Format::Table {
        let mut output = Output::stdout();
        output.line(&told(arguments, &saved, &node))?;
        output.flush()?;
    }
    if !arguments.yes {
        ask(common, folder)?;
    }
    let alone = write(folder, &saved, node).map_err(|why| {
        Failure::failed(format!(
            "{why}; what there is of {} is of no use: empty it before it is tried again",
            folder.display()
        ))
    })?;
    print(common, arguments, &saved, alone)
}

fn write(folder: &Path, saved: &SavedSnapshot, node: Member) -> Result<Alone, String> {
    let mut disk = FileDisk::open(folder).map_err(|error| error.to_string())?;
    let restored = saved.restore(&mut disk, node, &mut rand::rng());
    restored.map_err(|error| error.to_string())
}

/// The node that is to go on, at the addresses that were given or those that it had.
fn node_of(arguments: &RestoreArgs, saved: &SavedSnapshot) -> Result<Member, Failure> {
    let known = saved.configuration.node(arguments.id);
    let address = |given: &Option<Endpoint>, known: Option<&String>, flag: &str| {
        let given = given.as_ref().map(ToString::to_string);
        given.or_else(|| known.cloned()).ok_or_else(|| {
            Failure::usage(format!(
                "{} does not say where node {} is reached: give {flag} HOST:PORT",
                arguments.file.display(),
                arguments.id
            ))
        })
    };
    let (peer, client) = (
        known.map(|node| &node.peer_address),
        known.map(|node| &node.client_address),
    );
    Ok(Member {
        id: known.map_or(saved.member, |node| node.id),
        node: arguments.id,
        peer_address: address(&arguments.peer_address, peer, "--peer-address")?,
        client_address: address(&arguments.client_address, client, "--client-address")?,
        voter: true,
    })
}

/// Nothing is ever written over.
fn refuse_what_is_used(folder: &Path) -> Result<(), Failure> {
    let cannot =
        |error: io::Error| Failure::failed(format!("cannot look into {}: {error}", folder.display()));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(cannot)?,
    };
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        if name != LOCK_FILE && name != LOST_AND_FOUND {
            return Err(Failure::failed(format!(
                "{} is not empty (it has {}): name an empty folder, or one that is not there yet",
                folder.display(),
                name.display()
            )));
        }
    }
    Ok(())
}

fn ask(common: &Common, folder: &Path) -> Result<(), Failure> {
    let undone = |why: &str| Failure::usage(format!("{} was not made: {why}", folder.display()));
    if common.output != Format::Table {
        return Err(undone("give --yes to do it, or -o table to be told what is lost"));
    }
    match confirm() {
        Ok(Answer::Yes) => Ok(()),
        Ok(Answer::No) => Err(undone("the answer was not 'yes'")),
        Ok(Answer::NobodyToAsk) => Err(undone("give --yes to do what is told above")),
        Err(error) => Err(Failure::failed(format!("cannot talk to the terminal: {error}"))),
    }
}

/// What is here, what is lost, and what would be done.
fn told(arguments: &RestoreArgs, saved: &SavedSnapshot, node: &Member) -> String {
    let RestoreArgs { file, data_dir, .. } = arguments;
    let SavedSnapshot {
        cluster,
        place,
        last,
        sessions,
        ..
    } = saved;
    let members = saved.configuration.members().iter();
    let left: Vec<String> = members
        .map(|member| format!("node {} ({})", member.node, member.peer_address))
        .collect();
    let Member {
        node: number,
        peer_address,
        client_address,
        ..
    } = node;
    format!(
        "{}: operations 1 to {} of cluster {cluster}; the last entry is {} of term {}.\n\
         Lost: every operation behind index {}, acknowledged or not. How many there are can't be told from here.\n\
         Forgotten: {sessions} sessions; an operation that a client submits again may be appended twice.\n\
         Left behind: {}. None of them may ever run with its old data again: a majority of them would go on as the old cluster \
         beside the new one. If a node is left, 'raft-node recover' keeps more than this does.\n\
         To be done: {} becomes the data folder of node {number}, at {peer_address} and for clients at {client_address}, the only \
         voter of a new cluster, which goes on with operation {}.",
        file.display(),
        place.index,
        last.index,
        last.term,
        place.index,
        left.join(", "),
        data_dir.display(),
        place.index + 1,
    )
}

fn print(
    common: &Common,
    arguments: &RestoreArgs,
    saved: &SavedSnapshot,
    alone: Alone,
) -> Result<(), Failure> {
    let restored = Restored {
        data_dir: arguments.data_dir.display().to_string(),
        node: arguments.id,
        member_id: alone.member.to_string(),
        cluster_id: alone.cluster.to_string(),
        index: saved.place.index,
    };
    Output::stdout().whole(
        common.output,
        &restored,
        || {
            format!(
                "Done. Node {} is the only voter of cluster {}, as member {}. Start it with --id {} --data-dir {}; start the other \
                 nodes with empty data folders, and add them by 'raftctl member add HOST:PORT' and 'raftctl member promote NODE'. \
                 Replicators may keep their data folders: what they have executed beyond is given up.",
                restored.node, restored.cluster_id, restored.member_id, restored.node, restored.data_dir
            )
        },
        || restored.cluster_id.clone(),
    )
}
