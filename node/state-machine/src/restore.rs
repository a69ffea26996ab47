//! A snapshot on its way in: what the replicator sends, to be read by the state machine.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use raftlog_proto::v1::{RestoreHeader, RestoreRequest, restore_request};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::Position;
use crate::failure::invalid;

/// Pieces that wait for the state machine.
const PIECES_MAX: usize = 2;

/// Reads the pieces one after the other. Its end is reached only where all has come.
pub(crate) struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
}

impl Pieces {
    /// What the header announces, and the way in.
    pub(crate) fn new(size: u64) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, queue) = mpsc::channel(PIECES_MAX);
        let pieces = Self {
            queue,
            piece: Bytes::new(),
            left: size,
        };
        (pieces, sender)
    }

    /// Whoever does not read to the end does not know that all has come.
    pub(crate) fn must_end(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.left > 0 {
            let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot broke off");
            self.piece = self.queue.blocking_recv().ok_or_else(broken)?;
            let too_long = || io::Error::other("the snapshot is longer than announced");
            self.left = self
                .left
                .checked_sub(self.piece.len() as u64)
                .ok_or_else(too_long)?;
        }
        let bytes = self.piece.len().min(out.len());
        if let (Some(from), Some(to)) = (self.piece.get(..bytes), out.get_mut(..bytes)) {
            to.copy_from_slice(from);
        }
        self.piece.advance(bytes);
        Ok(bytes)
    }
}

/// The first message: what is restored, and how long it is.
pub(crate) async fn header(requests: &mut Streaming<RestoreRequest>) -> Result<(Position, u64), Status> {
    match requests.message().await?.and_then(|request| request.message) {
        Some(restore_request::Message::Header(header))
            if header.applied_index > 0 && header.cluster_id > 0 =>
        {
            let RestoreHeader {
                applied_index,
                cluster_id,
                size,
            } = header;
            let position = Position {
                applied_index,
                cluster_id,
            };
            Ok((position, size))
        }
        _ => Err(invalid(
            "the first message of Restore is a header, with the last operation and the cluster of the snapshot",
        )),
    }
}

/// Hands pieces on until there are no more, or nobody wants them. Where the stream breaks, what is missing tells.
pub(crate) async fn pass_on(mut requests: Streaming<RestoreRequest>, pieces: mpsc::Sender<Bytes>) {
    while let Ok(Some(RestoreRequest {
        message: Some(restore_request::Message::Data(data)),
    })) = requests.message().await
    {
        if !data.is_empty() && pieces.send(data).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(size: u64, sent: &'static [&[u8]]) -> io::Result<Vec<u8>> {
        let (mut pieces, sender) = Pieces::new(size);
        let sending = std::thread::spawn(move || {
            for piece in sent {
                // Whoever reads may have had enough.
                let _ = sender.blocking_send(Bytes::from_static(piece));
            }
        });
        let mut out = Vec::new();
        let result = pieces.read_to_end(&mut out).map(|_| out);
        drop(pieces);
        sending.join().unwrap();
        result
    }

    #[test]
    fn the_end_is_reached_only_where_all_has_come() {
        assert_eq!(read(0, &[]).unwrap(), b"");
        assert_eq!(read(5, &[b"ab", b"cde"]).unwrap(), b"abcde");
        assert_eq!(
            read(5, &[b"ab"]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(read(5, &[b"ab", b"cdef"]).is_err());
    }

    #[test]
    fn who_stops_reading_early_is_checked_all_the_same() {
        let (mut pieces, sender) = Pieces::new(4);
        sender.blocking_send(Bytes::from_static(b"ab")).unwrap();
        drop(sender);
        assert_eq!(pieces.read(&mut [0; 2]).unwrap(), 2);
        assert!(pieces.must_end().is_err());
    }
}
