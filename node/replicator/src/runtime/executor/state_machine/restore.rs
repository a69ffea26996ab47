//! A snapshot's state on its way into the state machine, piece by piece as the node sends it.

use std::future::pending;
use std::pin::pin;

use bytes::Bytes;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_proto::v1::{RestoreHeader, RestoreProgress, RestoreRequest, restore_request};
use raftlog_raft::ids::ClusterId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Failure, FromMachine, Next, StateMachine, ToMachine, connect, not_there};
use crate::core::Place;

/// The longest piece that goes in one message.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces that wait for the other side's flow control.
const PIECES_MAX: usize = 1;

/// What is to be restored.
#[derive(Debug)]
pub(in crate::runtime) struct Restore {
    /// Names it; never used twice.
    pub(in crate::runtime) id: u64,
    /// The last operation that is in it.
    pub(in crate::runtime) place: Place,
    pub(in crate::runtime) cluster: Option<ClusterId>,
    /// Of all pieces together.
    pub(in crate::runtime) bytes: u64,
}

impl StateMachine {
    /// Passes pieces on until the state machine has answered, which is told, or until no more will come.
    pub(super) async fn restore(&mut self, what: Restore) -> Next {
        let restore = what.id;
        self.given = self.given.max(what.place.index);
        let result = match self.pass_on(what).await {
            Ok(result) => result,
            Err(next) => {
                self.restore_status(None);
                return next;
            }
        };
        self.restore_status(None);
        let told = result
            .as_ref()
            .copied()
            .map_err(|failure| failure.message.clone());
        if let Err(stop) = self
            .say(FromMachine::Restored {
                restore,
                result: told,
            })
            .await
        {
            return stop;
        }
        match result {
            Ok(()) => {
                self.works();
                Next::Apply
            }
            Err(failure) => Next::Wait(failure),
        }
    }

    async fn pass_on(&mut self, what: Restore) -> Result<Result<(), Failure>, Next> {
        let (pieces, outgoing) = mpsc::channel(PIECES_MAX);
        let mut pieces = Some(pieces);
        let url = self.url.clone();
        let mut answer = pin!(send(url, header(&what), outgoing));
        let mut progress = RestoreProgress {
            index: what.place.index,
            received_bytes: 0,
            total_bytes: what.bytes,
        };
        self.restore_status(Some(progress));
        loop {
            if progress.received_bytes >= what.bytes {
                // That was the last one: the state machine may make it its own.
                pieces = None;
            }
            let told = tokio::select! {
                result = &mut answer => return Ok(result),
                told = self.to.recv() => told.ok_or(Next::Stop)?,
                Some(query) = self.queries.recv() => {
                    not_there(query);
                    continue;
                }
            };
            match told {
                ToMachine::RestorePiece(data) => {
                    let bytes = data.len();
                    for piece in split(data) {
                        let Some(pieces) = &pieces else { continue };
                        tokio::select! {
                            result = &mut answer => return Ok(result),
                            // Where the other end is gone, there is an answer.
                            _ = pieces.send(piece) => {}
                        }
                    }
                    progress.received_bytes = progress.received_bytes.saturating_add(bytes as u64);
                    self.restore_status(Some(progress));
                    let restore = what.id;
                    self.say(FromMachine::RestoreTaken { restore, bytes }).await?;
                }
                ToMachine::RestoreAbort(restore) if restore == what.id => return Err(Next::Apply),
                ToMachine::RestoreBegin(restore) => return Err(Next::Restore(restore)),
                ToMachine::RestoreAbort(_) | ToMachine::Reattach | ToMachine::Refuse(_) | ToMachine::Copy => {
                }
            }
        }
    }
}

fn split(mut data: Bytes) -> impl Iterator<Item = RestoreRequest> {
    std::iter::from_fn(move || {
        let piece = data.split_to(data.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| RestoreRequest {
            message: Some(restore_request::Message::Data(piece)),
        })
    })
}

fn header(what: &Restore) -> RestoreRequest {
    let header = RestoreHeader {
        applied_index: what.place.index,
        cluster_id: what.cluster.map_or(0, ClusterId::get),
        size: what.bytes,
    };
    RestoreRequest {
        message: Some(restore_request::Message::Header(header)),
    }
}

/// One call; its stream ends where the pieces do, and breaks where this is dropped.
async fn send(
    url: String,
    header: RestoreRequest,
    mut pieces: mpsc::Receiver<RestoreRequest>,
) -> Result<(), Failure> {
    let mut client: StateMachineClient<Channel> = connect(&url).await?;
    let (requests, outgoing) = mpsc::channel(PIECES_MAX);
    let call = client.restore(ReceiverStream::new(outgoing));
    let feed = async move {
        let mut next = Some(header);
        while let Some(request) = next {
            if requests.send(request).await.is_err() {
                break;
            }
            next = pieces.recv().await;
        }
        // The end of the pieces; what follows is the answer.
        drop(requests);
        pending::<()>().await;
    };
    tokio::select! {
        restored = call => restored.map(|_| ()).map_err(|status| Failure::status(&status)),
        () = feed => unreachable!("the answer ends it"),
    }
}
