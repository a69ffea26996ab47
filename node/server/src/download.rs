//! `DownloadSnapshot`: the data of a snapshot, read piece by piece as fast as the caller takes them.

use bytes::Bytes;
use raftlog_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::cluster_service::ClusterService;
use crate::node::SnapshotId;
use crate::refusal;

/// Downloads under way at once. Each reads from the disk that the log is written to.
pub(crate) const DOWNLOADS_MAX: usize = 4;

/// Sends what there is from that offset on, until all is sent, the caller goes, or the node drains.
pub(crate) async fn run(
    service: ClusterService,
    (snapshot, mut offset): (SnapshotId, u64),
    responses: mpsc::Sender<Result<v1::DownloadSnapshotResponse, Status>>,
    _one_of_few: OwnedSemaphorePermit,
) {
    loop {
        let answer = match service.core.read_snapshot(snapshot, offset).await {
            Some(data) if data.is_empty() => return,
            Some(data) => Ok(piece(&service, &mut offset, data)),
            None => Err(refusal::snapshot_gone()),
        };
        let is_last = answer.is_err();
        tokio::select! {
            taken = responses.send(answer) => if taken.is_err() || is_last { return },
            () = service.lifecycle.drain.cancelled() => return,
        }
    }
}

fn piece(service: &ClusterService, next: &mut u64, data: Bytes) -> v1::DownloadSnapshotResponse {
    let (offset, bytes) = (*next, u64::try_from(data.len()).unwrap_or(u64::MAX));
    *next = offset.saturating_add(bytes);
    service.metrics.snapshot_bytes_downloaded.inc_by(bytes);
    v1::DownloadSnapshotResponse { offset, data }
}
