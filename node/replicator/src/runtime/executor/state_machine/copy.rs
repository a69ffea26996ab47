//! Copies of the state machine's state for snapshots: read from it as fast as it gives them, into a file without a name, so that it
//! need not wait for the node, and the node is told first how long it is.

use std::fs::File;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raftlog_proto::v1::StateMachineSnapshotRequest;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_raft::ids::OperationIndex;
use tokio::fs::File as AsyncFile;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::apply::first_line;

/// A copy comes to nothing if nothing comes of it for so long.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// After a copy that came to nothing.
const RETRY: Duration = Duration::from_secs(5);

/// A copy on disk, to be read from its beginning. It is gone with its last handle, or with this process.
#[derive(Debug)]
pub(in crate::runtime) struct Spool {
    pub(in crate::runtime) file: File,
    pub(in crate::runtime) bytes: u64,
}

/// How far the copy is that was asked for last.
#[derive(Debug, Default)]
pub(super) enum Copying {
    #[default]
    None,
    /// All that was sent has to be applied first, so that it is known what it is of.
    Wanted,
    UnderWay {
        /// Until the state machine has said what the copy is of.
        begins: Option<oneshot::Receiver<()>>,
        reading: JoinHandle<Result<Spool, String>>,
    },
}

/// What becomes of it.
pub(super) enum Copied {
    /// Operations may be sent again.
    Begun,
    Ended(Result<Spool, String>),
}

impl Copying {
    pub(super) fn lets_operations_pass(&self) -> bool {
        matches!(self, Self::None | Self::UnderWay { begins: None, .. })
    }

    /// Begins, if one is wanted.
    pub(super) fn begin(
        &mut self,
        client: &StateMachineClient<Channel>,
        applied: OperationIndex,
        folder: &Path,
    ) {
        if let Self::Wanted = self {
            let (begun, begins) = oneshot::channel();
            let copying = copy(client.clone(), applied, folder.to_owned(), begun);
            *self = Self::UnderWay {
                begins: Some(begins),
                reading: tokio::spawn(copying),
            };
        }
    }

    /// Waits for the next thing that becomes of it.
    pub(super) async fn happens(&mut self) -> Copied {
        let Self::UnderWay { begins, reading } = self else {
            return pending().await;
        };
        if let Some(beginning) = begins {
            let has_begun = beginning.await.is_ok();
            *begins = None;
            if has_begun {
                return Copied::Begun;
            }
        }
        let ended = reading.await;
        *self = Self::None;
        Copied::Ended(ended.unwrap_or_else(|error| Err(error.to_string())))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Self::UnderWay { reading, .. } = self {
            reading.abort();
        }
    }
}

async fn copy(
    client: StateMachineClient<Channel>,
    applied: OperationIndex,
    folder: PathBuf,
    begun: oneshot::Sender<()>,
) -> Result<Spool, String> {
    let copied = spool(client, applied, folder, begun).await;
    if copied.is_err() {
        sleep(RETRY).await;
    }
    copied
}

async fn spool(
    mut client: StateMachineClient<Channel>,
    applied: OperationIndex,
    folder: PathBuf,
    begun: oneshot::Sender<()>,
) -> Result<Spool, String> {
    let silent = |_| format!("nothing came for {SILENCE_MAX:?}");
    let refused = |status: tonic::Status| format!("{}: {}", status.code(), first_line(status.message()));
    let asking = client.snapshot(StateMachineSnapshotRequest {});
    let response = timeout(SILENCE_MAX, asking).await.map_err(silent)?;
    let mut pieces = response.map_err(refused)?.into_inner();
    let failed = |error: std::io::Error| format!("cannot write it in {}: {error}", folder.display());
    let mut file: Option<AsyncFile> = None;
    let (mut begun, mut bytes) = (Some(begun), 0_u64);
    loop {
        let piece = timeout(SILENCE_MAX, pieces.message()).await.map_err(silent)?;
        let Some(piece) = piece.map_err(refused)? else {
            break;
        };
        if let Some(begun) = begun.take() {
            if piece.applied_index != applied {
                return Err(format!(
                    "it is of operation {}, where {applied} was the last that was applied",
                    piece.applied_index
                ));
            }
            // Nobody waits for it where the stream has ended.
            let _ = begun.send(());
        }
        let file = match &mut file {
            Some(file) => file,
            none => none.insert(AsyncFile::from_std(
                tempfile::tempfile_in(&folder).map_err(failed)?,
            )),
        };
        file.write_all(&piece.data).await.map_err(failed)?;
        bytes = bytes.saturating_add(piece.data.len() as u64);
    }
    let mut file = file.ok_or("it ended before it said what it is of")?;
    file.flush().await.map_err(failed)?;
    // Not to keep it: what cannot be written would be read back as something else, and only a sync says so.
    file.sync_data().await.map_err(failed)?;
    file.rewind().await.map_err(failed)?;
    let file = file.into_std().await;
    Ok(Spool { file, bytes })
}
