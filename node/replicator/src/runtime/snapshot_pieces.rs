//! A snapshot on its way to the node: piece by piece, as fast as the node takes them.

use std::io::Read as _;

use bytes::Bytes;
use raftlog_proto::v1::ReplicateLogResponse;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};
use tracing::warn;

use super::executor::Spool;
use super::wire;
use crate::core::{Place, STATE_HEADER_BYTES, Snapshot, SnapshotState};

/// Of one piece.
const PIECE_BYTES: u64 = 512 << 10;

/// What there is to send.
enum State {
    Whole(Bytes),
    Copied([u8; STATE_HEADER_BYTES], Spool),
}

type Pieces = mpsc::Sender<Result<ReplicateLogResponse, tonic::Status>>;

/// Sends a snapshot until it is sent, the stream is gone, or the handle says so. Nothing is sent where the copy is gone that it is of.
pub(super) fn send(snapshot: Snapshot, spool: Option<Spool>, pieces: Pieces) -> Option<AbortHandle> {
    let Snapshot { id, place, state } = snapshot;
    let state = match (state, spool) {
        (SnapshotState::Whole(state), _) => State::Whole(state),
        (SnapshotState::Copied { header, .. }, Some(spool)) => State::Copied(header, spool),
        (SnapshotState::Copied { .. }, None) => return None,
    };
    let sending = tokio::spawn(async move {
        // A stream that is gone takes nothing more.
        let _ = send_all(id, place, state, &pieces).await;
    });
    Some(sending.abort_handle())
}

async fn send_all(id: u64, place: Place, state: State, pieces: &Pieces) -> Result<(), ()> {
    let (header, mut spool) = match state {
        State::Whole(state) => {
            let first = Some((place, state.len() as u64));
            return say(pieces, wire::snapshot_piece(id, first, 0, state)).await;
        }
        State::Copied(header, spool) => (Bytes::copy_from_slice(&header), spool),
    };
    let mut offset = header.len() as u64;
    let size = spool.bytes.saturating_add(offset);
    say(pieces, wire::snapshot_piece(id, Some((place, size)), 0, header)).await?;
    while offset < size {
        let (data, back) = read(spool).await?;
        spool = back;
        let bytes = data.len() as u64;
        say(pieces, wire::snapshot_piece(id, None, offset, data)).await?;
        offset = offset.saturating_add(bytes);
    }
    Ok(())
}

/// The next piece of a copy.
async fn read(mut spool: Spool) -> Result<(Bytes, Spool), ()> {
    let reading = spawn_blocking(move || {
        let mut piece = Vec::new();
        let read = (&mut spool.file).take(PIECE_BYTES).read_to_end(&mut piece);
        (read.map(|_| Bytes::from(piece)), spool)
    });
    match reading.await {
        Ok((Ok(data), spool)) if !data.is_empty() => return Ok((data, spool)),
        Ok((Ok(_), _)) => warn!("a copy of the state machine is shorter than it was"),
        Ok((Err(error), _)) => warn!("cannot read a copy of the state machine: {error}"),
        Err(error) => warn!("cannot read a copy of the state machine: {error}"),
    }
    Err(())
}

async fn say(pieces: &Pieces, piece: ReplicateLogResponse) -> Result<(), ()> {
    pieces.send(Ok(piece)).await.map_err(drop)
}
