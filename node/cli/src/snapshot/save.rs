//! `snapshot save`: a node takes a snapshot, and what comes is written aside until it is whole.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use raftlog_client::{Client, Endpoint, Options};
use raftlog_proto::{error, reason, v1};
use raftlog_storage::snapshots::{Manifest, Saving, Whole};
use tonic::{Code, Status};

use super::progress_bar;
use crate::{args::Common, failure::Failure};

/// Snapshots that may be gone from the node before they are here.
const ATTEMPTS_MAX: u32 = 5;
/// Before a broken stream goes on.
const RETRY: Duration = Duration::from_millis(500);

/// Why the download of a snapshot ended before its end.
enum Cut {
    /// It is no more: another has to be taken.
    Gone(String),
    Failed(String),
}

/// Has a node take a snapshot, and puts it there.
pub(super) async fn save(common: &Common, file: &Path, timeout: Duration) -> Result<(), Failure> {
    check_target(file).map_err(Failure::failed)?;
    let options = Options {
        timeout,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    let mut attempts = 1;
    loop {
        let (taken, endpoint) = client.take_snapshot().await?;
        let manifest = manifest_of(taken).ok_or_else(|| {
            Failure::failed(format!(
                "{endpoint} answered without a snapshot: is it a node of this version?"
            ))
        })?;
        match download(&client, &endpoint, file, &manifest).await {
            Ok(()) => return Ok(()),
            Err(Cut::Gone(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(Cut::Gone(why)) => {
                return Err(Failure::failed(format!(
                    "cannot save {}: {endpoint} took newer snapshots {attempts} times before one was here ({why}); use a faster \
                     connection, or copy the newest file 'snapshot-*' of its data folder",
                    file.display()
                )));
            }
            Err(Cut::Failed(why)) => return Err(Failure::failed(why)),
        }
    }
}

/// What is written aside takes the place of what has the name: that is good for a file, and for nothing else.
fn check_target(file: &Path) -> Result<(), String> {
    match file.symlink_metadata() {
        Ok(found) if !found.is_file() => Err(format!(
            "cannot save {}: there is something else than a regular file; name another file",
            file.display()
        )),
        // What else is wrong with it is found when it is written.
        _ => Ok(()),
    }
}

fn manifest_of(taken: v1::TakeSnapshotResponse) -> Option<Manifest> {
    let snapshot = taken.snapshot?;
    Some(Manifest {
        index: snapshot.last_log_index,
        term: snapshot.last_log_term,
        metadata: snapshot.metadata,
        whole: Whole {
            bytes: snapshot.bytes,
            crc: snapshot.crc,
        },
    })
}

/// Downloads it, over as many streams as it takes, as long as something arrives.
async fn download(client: &Client, from: &Endpoint, file: &Path, manifest: &Manifest) -> Result<(), Cut> {
    let begun = tokio::task::block_in_place(|| Saving::begin(file, manifest));
    let (saving, offset) = begun.map_err(Cut::Failed)?;
    let mut download = Download {
        client,
        from,
        manifest,
        saving,
        offset,
        bar: progress_bar("saving", manifest.whole.bytes),
    };
    let patience = client.options().timeout;
    let mut arrived = Instant::now();
    while download.offset < manifest.whole.bytes {
        let before = download.offset;
        let ended = download.follow(patience).await;
        if download.offset > before {
            arrived = Instant::now();
        }
        let why = match ended {
            Ok(()) => continue,
            Err(End::Cut(cut)) => return Err(cut),
            Err(End::Broken(why)) => why,
        };
        if arrived.elapsed() >= patience {
            return Err(Cut::Failed(format!(
                "cannot save {}: nothing came of {from} for {} s: {why}; nothing was saved",
                file.display(),
                patience.as_secs_f64()
            )));
        }
        tokio::time::sleep(RETRY.min(patience)).await;
    }
    download.bar.finish_and_clear();
    let saving = download.saving;
    tokio::task::block_in_place(|| saving.finish()).map_err(Cut::Failed)
}

struct Download<'a> {
    client: &'a Client,
    from: &'a Endpoint,
    manifest: &'a Manifest,
    saving: Saving,
    /// What is here.
    offset: u64,
    bar: ProgressBar,
}

/// How a stream ended.
enum End {
    Cut(Cut),
    /// Another may go on.
    Broken(String),
}

impl Download<'_> {
    /// Takes what one stream brings.
    async fn follow(&mut self, patience: Duration) -> Result<(), End> {
        let request = v1::DownloadSnapshotRequest {
            last_log_index: self.manifest.index,
            crc: self.manifest.whole.crc,
            offset: self.offset,
        };
        let opening = self.client.download_snapshot(self.from, request);
        let silence = || End::Broken("no answer in time".to_owned());
        let opened = tokio::time::timeout(patience, opening).await;
        let mut stream = opened
            .map_err(|_| silence())?
            .map_err(|status| judged(self.from, &status))?;
        loop {
            let next = tokio::time::timeout(patience, stream.message()).await;
            let next = next.map_err(|_| silence())?;
            match next.map_err(|status| judged(self.from, &status))? {
                Some(piece) => self.take(piece)?,
                None if self.offset == self.manifest.whole.bytes => return Ok(()),
                None => return Err(End::Broken("it ended the stream".to_owned())),
            }
        }
    }

    fn take(&mut self, piece: v1::DownloadSnapshotResponse) -> Result<(), End> {
        let (offset, data) = (piece.offset, piece.data);
        let saved = tokio::task::block_in_place(|| self.saving.receive(offset, &data));
        saved.map_err(|why| End::Cut(Cut::Failed(why)))?;
        self.offset += data.len() as u64;
        self.bar.set_position(self.offset);
        Ok(())
    }
}

/// Whether another stream may go on.
fn judged(from: &Endpoint, status: &Status) -> End {
    let message = status.message().to_owned();
    if error::reason_of(status).as_deref() == Some(reason::SNAPSHOT_GONE) {
        return End::Cut(Cut::Gone(message));
    }
    match status.code() {
        Code::Unimplemented | Code::InvalidArgument | Code::FailedPrecondition => End::Cut(Cut::Failed(
            format!("cannot download a snapshot of {from}: {message}; is it a node of this version?"),
        )),
        _ => End::Broken(message),
    }
}
