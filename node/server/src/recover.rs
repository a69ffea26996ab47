//! `raft-node recover`: says what a folder holds and what may be lost, asks, and has its node go on alone.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use raftlog_storage::{FileDisk, OpenError, aside};

use crate::confirm::{Answer, confirm};
use crate::flags::RecoverFlags;
use crate::node::{Alone, Survivor};

/// Why nothing was done.
pub(crate) enum Unrecovered {
    /// It was called wrongly, or nobody said yes.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl From<OpenError> for Unrecovered {
    fn from(error: OpenError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for Unrecovered {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("cannot talk to the terminal: {error}"))
    }
}

pub(crate) fn recover(flags: &RecoverFlags) -> Result<(), Unrecovered> {
    if !flags.as_single_voter {
        let why = "recover makes this node the only voter of a new cluster: say so by --as-single-voter";
        return Err(Unrecovered::Usage(why.to_owned()));
    }
    let folder = &flags.data_dir;
    if !folder.is_dir() {
        let why = format!(
            "there is no data folder {}: give the node's own --data-dir",
            folder.display()
        );
        return Err(Unrecovered::Failed(why));
    }
    let mut disk = FileDisk::open(folder)?;
    let survivor = Survivor::examine(&mut disk).map_err(|error| with_aside(folder, &error))?;
    let mut stdout = io::stdout();
    if survivor.is_recovered() {
        survivor.complete(&mut disk)?;
        writeln!(
            stdout,
            "{} was recovered already.\n{}",
            folder.display(),
            next(&survivor, survivor.now())
        )?;
        return Ok(());
    }
    writeln!(stdout, "{}", told(folder, &survivor))?;
    if !flags.yes {
        ask(folder)?;
    }
    let alone = survivor.go_on_alone(&mut disk, &mut rand::rng())?;
    writeln!(stdout, "Done.\n{}", next(&survivor, alone))?;
    Ok(())
}

/// What is wrong with the folder; and where data of a member may be that was removed.
fn with_aside(folder: &Path, error: &OpenError) -> Unrecovered {
    let holds_removed = aside::holds_removed(folder).unwrap_or_default();
    let hint = if holds_removed {
        "; the data of a member that was removed are in a folder removed-... within it, which can be recovered as a data folder"
    } else {
        ""
    };
    Unrecovered::Failed(format!("{error}{hint}"))
}

/// On a terminal, somebody has to say so.
fn ask(folder: &Path) -> Result<(), Unrecovered> {
    let undone = |why: &str| Unrecovered::Usage(format!("{} was left as it is: {why}", folder.display()));
    match confirm()? {
        Answer::Yes => Ok(()),
        Answer::No => Err(undone("the answer was not 'yes'")),
        Answer::NobodyToAsk => Err(undone("give --yes to do what is told above")),
    }
}

/// What is here, what may be lost, and what would be done.
fn told(folder: &Path, survivor: &Survivor) -> String {
    let Survivor {
        members,
        last,
        operations,
        committed,
        sessions,
        suspect,
        ..
    } = survivor;
    let node = survivor.node();
    let Alone { cluster, member } = survivor.now();
    let others: Vec<String> = members
        .members()
        .iter()
        .filter(|other| other.node != node)
        .map(|other| format!("node {} ({})", other.node, other.peer_address))
        .collect();
    let mut text = format!(
        "{}: node {node}, member {member} of cluster {cluster}.\n\
         Held: operations 1 to {operations}; the last entry is {} of term {}. Known to be committed: operations 1 to {committed}.\n\
         May be lost: every operation that was acknowledged without having reached this disk. How many there are can't be told from \
         here. Recover the folder whose last entry has the highest term, and of these the highest index, among all that are left.\n",
        folder.display(),
        last.index,
        last.term,
    );
    if let Some(version) = survivor.removed_by() {
        let _ = writeln!(
            text,
            "May be lost, too: all that came behind configuration {version}, which removed this member. Who stayed has it: recover one of \
             them, if there is any left."
        );
    }
    if *suspect {
        text +=
            "May be lost, too: what this node itself acknowledged last, as the end of its log was damaged.\n";
    }
    if operations > committed {
        let first = committed + 1;
        let _ = writeln!(
            text,
            "Kept: operations {first} to {operations}, which may or may not have been acknowledged; they become committed."
        );
    }
    let _ = write!(
        text,
        "Forgotten: {sessions} sessions; an operation that a client submits again may be appended twice.\n\
         Left behind: {}. None of them may ever run with its old data again: a majority of them would go on as the old \
         cluster beside the new one.\n\
         To be done: node {node} becomes the only voter of a new cluster, under new identities, and goes on with operation {}.",
        if others.is_empty() {
            "nobody".to_owned()
        } else {
            others.join(", ")
        },
        operations + 1,
    );
    text
}

/// What comes after it.
fn next(survivor: &Survivor, alone: Alone) -> String {
    format!(
        "Node {} is the only voter of cluster {}, as member {}. Start it as before; start the other nodes with empty data folders, and \
         add them by 'raftctl member add HOST:PORT' and 'raftctl member promote NODE'.",
        survivor.node(),
        alone.cluster,
        alone.member
    )
}
