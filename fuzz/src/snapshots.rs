//! The files of snapshots, whole and incoming, from arbitrary bytes. What is taken for a snapshot can be read or is found to be
//! damaged; and whatever was there, the next one is taken, kept, and there after another start.
//!
//! The kind of a chunk: 0 and 1 are the files of the snapshots at 1 and 2, 2 is that of the one that comes in; 4 to 6 are the same
//! with good CRCs, which chance would never find: their first bytes are index, term, length of the metadata, and whether and how
//! much data (three bytes) it claims to have; the metadata and the data, in chunks, follow.

use bytes::{Buf, Bytes};
use raftlog_storage::fuzzing::{incoming_name, snapshot_file, snapshot_name};
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::snapshots::{Manifest, SnapshotEvent, Snapshots, Whole};
use raftlog_storage::{Disk, FileName};

use crate::chunks;

const VOLUME_BYTES: u64 = 16 << 20;

/// The target.
pub fn snapshots(data: &[u8]) {
    let mut disk = MemoryDisk::new(VOLUME_BYTES);
    for chunk in chunks(data) {
        let file = match chunk.kind & 0x04 {
            0 => chunk.bytes,
            _ => with_good_crcs(chunk.bytes).into(),
        };
        disk.overwrite(name(chunk.kind & 0x03), 0, &file);
    }
    let Ok((mut snapshots, damages)) = Snapshots::open(&mut disk) else {
        return;
    };
    let found: Vec<Manifest> = snapshots.manifests().cloned().collect();
    for manifest in &found {
        let _ = read(&snapshots, &mut disk, manifest);
    }
    let whole = found.iter().map(|manifest| manifest.index);
    let damaged = damages.iter().map(|damage| damage.index);
    let Some(index) = whole.chain(damaged).max().unwrap_or_default().checked_add(1) else {
        return;
    };
    takes_the_next(&mut snapshots, &mut disk, index);
}

fn name(kind: u8) -> FileName {
    match kind {
        0 | 1 => snapshot_name(u64::from(kind) + 1),
        _ => incoming_name(),
    }
}

fn with_good_crcs(mut bytes: Bytes) -> Vec<u8> {
    let mut byte = || bytes.try_get_u8().unwrap_or_default();
    let (index, term, metadata) = (byte().into(), byte().into(), usize::from(byte()));
    let (known, claimed) = (
        byte(),
        u64::from_le_bytes([byte(), byte(), byte(), 0, 0, 0, 0, 0]),
    );
    let metadata = bytes.split_to(metadata.min(bytes.len()));
    let whole = Whole {
        bytes: if known & 2 == 0 {
            claimed
        } else {
            bytes.len() as u64
        },
        crc: crc32fast::hash(&bytes),
    };
    let manifest = Manifest {
        index,
        term,
        metadata,
        whole,
    };
    snapshot_file(&manifest, known & 1 == 0, &bytes)
}

/// All of its data, as far as they are whole.
fn read(snapshots: &Snapshots, disk: &mut MemoryDisk, manifest: &Manifest) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let piece = snapshots.read_now(disk, manifest.index, data.len() as u64).ok()?;
        if piece.is_empty() {
            return Some(data);
        }
        data.extend_from_slice(&piece);
        assert!(data.len() as u64 <= manifest.whole.bytes, "no more than it says");
    }
}

fn takes_the_next(snapshots: &mut Snapshots, disk: &mut MemoryDisk, index: u64) {
    const DATA: &[u8] = b"the next one";
    let manifest = Manifest {
        index,
        term: 1,
        metadata: Bytes::from_static(b"metadata"),
        whole: Whole {
            bytes: DATA.len() as u64,
            crc: crc32fast::hash(DATA),
        },
    };
    let there = snapshots
        .begin(manifest.clone(), true)
        .expect("it is newer than all");
    let rest = usize::try_from(there).ok().and_then(|there| DATA.get(there..));
    let rest = rest.expect("there is no more of it than it has");
    assert_eq!(snapshots.receive(there, rest), Ok(()));
    assert_eq!(snapshots.finish(), Ok(()));
    let mut saved = false;
    while let Some((id, op)) = snapshots.next_op() {
        let result = disk.execute(&op);
        let events = snapshots.complete(id, result).expect("no operation of it fails");
        saved |= events.contains(&SnapshotEvent::Saved(index));
    }
    assert!(saved, "there was room, and no write failed");
    let (again, damages) = Snapshots::open(disk).expect("what was opened can be opened again");
    assert_eq!(damages, [], "what is older than a whole one does not matter");
    assert_eq!(again.newest(), Some(&manifest));
    assert_eq!(read(&again, disk, &manifest).as_deref(), Some(DATA));
}
