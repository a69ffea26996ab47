//! A snapshot on its way out: what the state machine writes, in pieces.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use bytes::{Bytes, BytesMut};
use raftlog_proto::v1::StateMachineSnapshotResponse;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{Failed, Position, Snapshot};

/// Of one piece.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces that wait for whoever reads them.
const PIECES_MAX: usize = 2;

type Pieces = mpsc::Sender<Result<StateMachineSnapshotResponse, Status>>;

/// Collects what is written to pieces.
struct Writer {
    pieces: Pieces,
    piece: BytesMut,
}

impl Writer {
    fn send(&mut self) -> io::Result<()> {
        let data = self.piece.split().freeze();
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the snapshot any more");
        self.pieces.blocking_send(Ok(response(0, data))).map_err(gone)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES.saturating_sub(self.piece.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}

fn response(applied_index: u64, data: Bytes) -> StateMachineSnapshotResponse {
    StateMachineSnapshotResponse { applied_index, data }
}

/// Writes the copy out on a thread of its own, as far as it is read.
pub(crate) fn write(
    position: Position,
    snapshot: Snapshot,
) -> io::Result<mpsc::Receiver<Result<StateMachineSnapshotResponse, Status>>> {
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    let thread = thread::Builder::new().name("snapshot".into());
    thread.spawn(move || {
        // Whoever reads may have left, then and later.
        let _ = pieces.blocking_send(Ok(response(position.applied_index, Bytes::new())));
        let mut writer = Writer {
            pieces: pieces.clone(),
            piece: BytesMut::new(),
        };
        // A stream that only ends is one that is whole. What a panic leaves of closure and writer, nobody looks at.
        let written = catch_unwind(AssertUnwindSafe(|| {
            snapshot(&mut writer).and_then(|()| writer.flush().map_err(Failed::new))
        }));
        let written = written.unwrap_or_else(|_| Err(Failed::new("it panicked while it wrote the snapshot")));
        if let Err(failed) = written {
            let _ = pieces.blocking_send(Err(failed.status()));
        }
    })?;
    Ok(queue)
}
