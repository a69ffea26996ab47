//! `snapshot save|inspect|restore`.

mod inspect;
mod restore;
mod save;

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use raftlog_server::node::SavedSnapshot;

use crate::{
    args::{Common, SnapshotCommand},
    failure::Failure,
};

/// Saves a snapshot, looks at one, or goes on from one.
pub(crate) async fn run(common: &Common, command: SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Save { file, timeout } => {
            save::save(common, &file, timeout).await?;
            inspect::print(common, &file, &open(&file)?)
        }
        SnapshotCommand::Inspect { file } => inspect::print(common, &file, &open(&file)?),
        SnapshotCommand::Restore(arguments) => restore::restore(common, &arguments),
    }
}

/// Reads and checks all of a file.
fn open(file: &Path) -> Result<SavedSnapshot, Failure> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let bar = progress_bar("checking", length);
    let opened = SavedSnapshot::open(file, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    opened.map_err(Failure::failed)
}

/// On stderr, and only if that is a terminal.
fn progress_bar(what: &'static str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_message(what);
    match ProgressStyle::with_template("{msg} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
