//! Files of snapshots whose CRCs are good, whatever they hold.

use bytes::Bytes;

use super::format::{self, CHUNK_BYTES};
use super::{Manifest, place};

/// The file of a snapshot with these data, whatever the manifest says of them; `known`: its length and CRC are.
pub fn snapshot_file(manifest: &Manifest, known: bool, data: &Bytes) -> Vec<u8> {
    let mut file = format::encode_start(manifest, known.then_some(manifest.whole)).to_vec();
    let mut running = crc32fast::Hasher::new();
    for (number, chunk) in (0..).zip(data.chunks(CHUNK_BYTES)) {
        running.update(chunk);
        let frame = format::encode_frame(place(manifest, number), running.clone().finalize(), chunk);
        file.extend_from_slice(&frame);
    }
    file
}
