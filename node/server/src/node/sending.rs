//! Snapshots on their way from a leader to followers that lack what its log no longer holds. One transfer a follower, read from
//! disk piece by piece, with a bounded amount under way. Whatever gets lost, the core orders the snapshot again, and the
//! transfer goes on where the follower says.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_raft::ids::{LogIndex, MemberId};
use raftlog_storage::snapshots::{Manifest, Refused, Snapshots};

use super::install_snapshot::{SnapshotAnswer, SnapshotId, SnapshotPart};

/// Data sent to one follower that it has not said to have on disk.
const WINDOW_BYTES: u64 = 1 << 20;
/// Orders, one a heartbeat, without a word from the follower, until it is offered the snapshot anew. What breaks a connection
/// ends the transfer at once; this is for what gets lost in other ways.
const PATIENCE: u32 = 10;
/// Numbers of reads of this part have this bit.
const READS: u64 = 1 << 62;

/// All transfers.
#[derive(Debug, Default)]
pub(super) struct Sending {
    transfers: BTreeMap<MemberId, Transfer>,
    /// Reads under way: for whom, and of what.
    reads: BTreeMap<u64, (MemberId, SnapshotId, u64)>,
    last_read: u64,
}

/// One transfer.
#[derive(Debug)]
struct Transfer {
    manifest: Manifest,
    /// What to send next; `None` until the follower has said where to begin.
    next: Option<u64>,
    /// On the follower's disk.
    received: u64,
    reading: bool,
    /// Orders since it last said something.
    unanswered: u32,
    /// Why the follower does not want it.
    refused: Option<String>,
}

impl Transfer {
    fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            next: None,
            received: 0,
            reading: false,
            unanswered: 0,
            refused: None,
        }
    }

    fn id(&self) -> SnapshotId {
        SnapshotId::of(&self.manifest)
    }

    /// Where to read from now.
    fn wanted(&self) -> Option<u64> {
        let next = self.next?;
        let due = next < self.manifest.whole.bytes && next - self.received.min(next) < WINDOW_BYTES;
        (due && !self.reading).then_some(next)
    }
}

/// What an answer has brought about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    UnderWay,
    /// The follower has everything that is in it.
    Done,
    /// The follower says, for the first time, why it does not want it.
    Refused(String),
}

impl Sending {
    /// The core says that a follower needs a snapshot. Returns what to say to it, and whether that begins a transfer. The
    /// log begins at `base`: an older snapshot would not do.
    pub(super) fn ordered(
        &mut self,
        member: MemberId,
        base: LogIndex,
        snapshots: &Snapshots,
    ) -> Option<(SnapshotPart, bool)> {
        let newest = snapshots.newest().filter(|newest| newest.index >= base)?;
        let under_way = self.transfers.get_mut(&member).filter(|transfer| {
            let mut kept = snapshots.manifests();
            transfer.manifest.index >= base && kept.any(|manifest| *manifest == transfer.manifest)
        });
        let Some(transfer) = under_way else {
            let manifest = newest.clone();
            self.transfers.insert(member, Transfer::new(manifest.clone()));
            return Some((SnapshotPart::Offer(manifest), true));
        };
        transfer.unanswered += 1;
        if transfer.unanswered < PATIENCE {
            return None;
        }
        transfer.unanswered = 0;
        transfer.next = None;
        Some((SnapshotPart::Offer(transfer.manifest.clone()), false))
    }

    /// A follower answers.
    pub(super) fn answered(&mut self, from: MemberId, id: SnapshotId, answer: SnapshotAnswer) -> Outcome {
        let Some(transfer) = self
            .transfers
            .get_mut(&from)
            .filter(|transfer| transfer.id() == id)
        else {
            return Outcome::UnderWay;
        };
        transfer.unanswered = 0;
        let bytes = transfer.manifest.whole.bytes;
        match answer {
            SnapshotAnswer::GoOnAt(offset) if offset <= bytes => {
                transfer.next = Some(offset);
                transfer.received = offset;
                Outcome::UnderWay
            }
            SnapshotAnswer::Received(offset) if offset <= bytes => {
                transfer.received = transfer.received.max(offset);
                Outcome::UnderWay
            }
            // More than there is: not a message of this protocol.
            SnapshotAnswer::GoOnAt(_) | SnapshotAnswer::Received(_) => Outcome::UnderWay,
            SnapshotAnswer::Installed => {
                self.transfers.remove(&from);
                Outcome::Done
            }
            SnapshotAnswer::Refused(why) => {
                transfer.next = None;
                if transfer.refused.as_ref() == Some(&why) {
                    return Outcome::UnderWay;
                }
                transfer.refused = Some(why.clone());
                Outcome::Refused(why)
            }
        }
    }

    /// Whether a follower is in the middle of one.
    pub(super) fn is_under_way(&self) -> bool {
        self.transfers.values().any(|transfer| transfer.next.is_some())
    }

    /// What was under way to that member may be lost.
    pub(super) fn broken(&mut self, member: MemberId) {
        self.transfers.remove(&member);
    }

    /// This member leads no more.
    pub(super) fn stop(&mut self) {
        self.transfers.clear();
    }

    /// Asks the disk for what may be sent.
    pub(super) fn poll(&mut self, snapshots: &mut Snapshots) {
        let mut gone = Vec::new();
        for (&member, transfer) in &mut self.transfers {
            let Some(offset) = transfer.wanted() else { continue };
            let read = READS | (self.last_read + 1);
            match snapshots.read(read, transfer.manifest.index, offset) {
                Ok(()) => {
                    self.last_read += 1;
                    transfer.reading = true;
                    self.reads.insert(read, (member, transfer.id(), offset));
                }
                Err(Refused::Busy) => {}
                Err(_) => gone.push(member),
            }
        }
        // With the next order a newer one is offered.
        for member in gone {
            self.broken(member);
        }
    }

    /// Data that [`Sending::poll`] has asked for, and to whom they go; `None` where nobody waits for them any more. Those of a
    /// snapshot that is gone, or damaged, are none.
    pub(super) fn has_read(&mut self, read: u64, data: Option<Bytes>) -> Option<(MemberId, SnapshotPart)> {
        let (member, id, offset) = self.reads.remove(&read)?;
        let transfer = self
            .transfers
            .get_mut(&member)
            .filter(|transfer| transfer.id() == id)?;
        transfer.reading = false;
        let Some(data) = data else {
            self.broken(member);
            return None;
        };
        if transfer.next != Some(offset) || data.is_empty() {
            return None;
        }
        transfer.next = Some(offset + data.len() as u64);
        Some((member, SnapshotPart::Data { id, offset, data }))
    }
}
