//! Bytes of disks rot while their processes are away.

use std::ops::Range;
use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use raftlog_storage::FileName;
use raftlog_storage::simulated::MemoryDisk;
use rand::RngExt;

use super::Cluster;
use crate::coverage::Seen;
use crate::disk::Damage;

/// Sectors of the log begin with a stamp, which has its highest bit set where a batch begins.
const SECTOR_BYTES: usize = 512;
const STAMP_BYTES: usize = 8;
const HEAD: u64 = 1 << 63;
/// What a batch says of itself behind its first stamp, and where in its first sector it says how long its payload is.
const BATCH_HEAD_BYTES: usize = 48;
const PAYLOAD_LENGTH: Range<usize> = 44..48;

impl Cluster {
    /// A few bytes rot; that is found out when the process starts again.
    pub(super) fn rot(&mut self, number: NodeNumber) {
        let of_replicator = self.random.random_bool(0.3);
        if !of_replicator && !self.may_be_impaired(number) {
            return;
        }
        self.count(Seen::Rotted);
        self.power_fails(number);
        if !of_replicator && self.one_in(2) {
            self.rot_last_batch(number);
        } else {
            for _ in 0..self.random.random_range(1..=3) {
                self.rot_a_byte(number, of_replicator);
            }
        }
        self.start_soon(number, Duration::from_secs(5));
    }

    fn rot_a_byte(&mut self, number: NodeNumber, of_replicator: bool) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        let disk = if of_replicator {
            &mut pod.replicator_disk
        } else {
            &mut pod.node_disk
        };
        let names = disk.content.names();
        if names.is_empty() {
            return;
        }
        let file = names[self.random.random_range(0..names.len())];
        let content = disk.content.content(file).unwrap_or_default();
        let written = content
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if written > 0 {
            // The end is what matters most, and the rest is long.
            let from = if self.random.random_bool(0.5) {
                written.saturating_sub(1_024)
            } else {
                0
            };
            let offset = self.random.random_range(from..written);
            let before = sequence(&disk.content, file, offset);
            disk.content.rot(file, offset);
            // A stamp that looks older may be of what the file was before.
            disk.damage(if sequence(&disk.content, file, offset) < before {
                Damage::LooksUnwritten
            } else {
                Damage::Evident
            });
        }
    }

    /// What a node wrote last may be what nobody else has yet, and nothing comes behind it that would tell.
    fn rot_last_batch(&mut self, number: NodeNumber) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        let Some((file, begins, bytes)) = last_batch(&pod.node_disk.content) else {
            return;
        };
        // Each sector holds so much besides its stamp.
        let room = SECTOR_BYTES - STAMP_BYTES;
        let at = self.random.random_range(0..bytes);
        let offset = begins + at / room * SECTOR_BYTES + STAMP_BYTES + at % room;
        pod.node_disk.content.rot(file, offset);
        pod.node_disk.damage(Damage::Evident);
        self.count(Seen::LastBatchRotted);
    }
}

/// The batch that the sector at that offset says it belongs to.
fn sequence(disk: &MemoryDisk, file: FileName, offset: usize) -> Option<u64> {
    let sector = disk.content(file)?.get(offset / SECTOR_BYTES * SECTOR_BYTES..)?;
    let stamp = sector.get(..STAMP_BYTES)?.try_into().ok()?;
    Some(u64::from_le_bytes(stamp) & !HEAD)
}

/// The last batch of a log: its file, where it begins, and its bytes besides stamps.
fn last_batch(disk: &MemoryDisk) -> Option<(FileName, usize, usize)> {
    let number = |field: &[u8]| field.try_into().ok().map(u64::from_le_bytes);
    let mut last: Option<(u64, FileName, usize, usize)> = None;
    for file in disk.names() {
        if !file.to_string().starts_with("log-") {
            continue;
        }
        let content = disk.content(file).unwrap_or_default();
        for (at, sector) in content.chunks_exact(SECTOR_BYTES).enumerate() {
            let stamp = sector
                .get(..STAMP_BYTES)
                .and_then(number)
                .filter(|stamp| stamp & HEAD != 0);
            if let Some(stamp) = stamp.filter(|stamp| last.is_none_or(|(latest, ..)| latest < *stamp)) {
                let length = sector.get(PAYLOAD_LENGTH)?;
                let length = u32::from_le_bytes(length.try_into().ok()?);
                let bytes = BATCH_HEAD_BYTES + usize::try_from(length).ok()?;
                last = Some((stamp, file, at * SECTOR_BYTES, bytes));
            }
        }
    }
    last.map(|(_, file, begins, bytes)| (file, begins, bytes))
}
