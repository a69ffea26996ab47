//! The write-ahead log of nodes and replicators: a pure core that hands out [`Op`]s for a [`Disk`] and takes back what came
//! of them. [`FileDisk`] is the only place that touches real files. Snapshots lie beside the log: [`snapshots`].
//!
//! ```
//! use raftlog_raft::entry::{Entry, Payload};
//! use raftlog_storage::{Append, Disk, FileDisk, Visit, Wal, WalEvent, WalOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let mut disk = FileDisk::open(folder.path())?;
//! let (mut wal, _) = Wal::<Entry>::open(&mut disk, WalOptions::new(7), &mut |_| Ok(()))?;
//!
//! let entry = Entry { log_index: 1, term: 1, operation_index: 0, running_hash: 0, payload: Payload::Noop };
//! let ticket = wal.append(Append { records: vec![entry.clone()], ..Append::default() });
//! let mut events = Vec::new();
//! while let Some((id, op)) = wal.next_op() {
//!     // Here a program waits for its I/O thread, and appends more meanwhile.
//!     let result = disk.execute(&op);
//!     events.extend(wal.complete(id, result)?);
//! }
//! assert_eq!(events, vec![WalEvent::Persisted(ticket)]);
//!
//! let mut found = Vec::new();
//! Wal::open(&mut disk, WalOptions::new(7), &mut |visit| Ok(found.push(visit)))?;
//! assert_eq!(found, vec![Visit::Record(entry)]);
//! # Ok(())
//! # }
//! ```
//!
//! # Format
//!
//! The log is a chain of batches in segments, files named `log-` and their sequence (1, 2, 3, ...) in 16 hex digits. All
//! is in sectors of 512 bytes, which a disk writes whole or not at all; all numbers are little-endian.
//!
//! | segment | bytes | |
//! | --- | --- | --- |
//! | head | 8 | `raftlog\n` |
//! | | 4 + 4 | format version; zero |
//! | | 8 | owner: the member ID |
//! | | 8 | segment sequence |
//! | | 8 | bytes that the segment may grow to |
//! | | 4 | CRC-32 of the above; zeros follow to the end of the sector |
//! | batches | whole sectors | one right behind the other |
//! | room | the rest | zeros, or what a recycled file held before |
//!
//! | batch | bytes | |
//! | --- | --- | --- |
//! | first sector | 8 | stamp: batch sequence (1, 2, 3, ... over all segments), with the highest bit set |
//! | | 8 | segment sequence |
//! | | 8 | bytes of the segment that were on disk before the batch was written |
//! | | 8 | sequence of the last segment by then: this one, or the one prepared behind it |
//! | | 8 | bytes of that one that were on disk |
//! | | 4 | CRC of the batch before; 0 before the first |
//! | | 4 | length of the payload |
//! | | 4 | CRC-32 of owner, segment sequence, batch sequence, the three above, CRC before, length, payload |
//! | | 4 | CRC-32 of the same fields without the payload, and of the CRC of the batch |
//! | | 456 | payload |
//! | each further sector | 8 | stamp: batch sequence |
//! | | 504 | payload; zeros behind its end |
//!
//! | item of a payload | bytes |
//! | --- | --- |
//! | state | `1`, length u32, the bytes |
//! | truncation | `2`, first index u64 that is no more |
//! | record | `3`, index u64, length u32, the bytes |
//!
//! | `log-start`, where segments were dropped | bytes | |
//! | --- | --- | --- |
//! | | 8 | `raftlogs` |
//! | | 4 | format version |
//! | | 8 | owner |
//! | | 8 | index through which records are no more |
//! | | 8 | sequence of the first segment |
//! | | 8 + 4 | sequence and CRC of the last batch before it |
//! | | 8 | sequence of a batch that was on disk when this was written |
//! | | 1 + 8 | 1 if there was a state before the first segment, its length |
//! | | | the state |
//! | | 4 | CRC-32 of the above |
//!
//! A batch that does not fit in what is left of its segment begins the next one; the chain goes on across segments. An
//! [`Append`] is never spread over batches unless it is longer than a batch may be.
//!
//! Each field has its part. The *stamps* tell a sector that was never written from one that was written and is damaged, and
//! since payload never reaches the first 8 bytes of a sector, no client can forge one. The *head's own CRC* lets recovery
//! recognise a batch without its payload. The *sequences and the owner* are compared as such, so that the past of a recycled
//! segment cannot pass for the present: its segment sequence differs. CRC-32 therefore has to find accidental damage only: a
//! damaged batch passes with a chance of 2^-32, and above this the running hash of operations (64 bits) finds even that. As
//! the link of the chain it guards one more case, two batches with the same place and sequence but another past, as a
//! disk may show that was set back; that it has 32 bits is enough where stamps and sequences have failed before.
//!
//! # Appending
//!
//! One batch is in flight at a time; what is appended meanwhile goes into the next, up to [`BATCH_BYTES_MAX`]. Segments are
//! filled with zeros 4 MiB ahead, a quarter of it at a time, and the next one is begun before it is needed: so a batch is
//! written into blocks that the file has, and its `fdatasync` has no metadata to flush. Should a disk have no more room,
//! that is found while filling, with three quarters still there to write to: [`WalEvent::Full`].
//! How far ahead is filled is a matter of speed, and of what is noticed of a log that was cut; nothing else rests on it.
//!
//! A failed write or sync is [`Fatal`]: after it the system may show data that will never be on disk. The one exception is a
//! write (not a sync) that finds no room, on file systems that copy on write: nothing was promised, nothing comes behind
//! it, and the same bytes are written to the same place later.
//!
//! # Dropping the beginning
//!
//! [`Wal::compact`] says through which index records are needed no more. Segments that hold no others, all of them before the
//! last batch on disk, are dropped: first `log-start` is put in the place of the one before, then up to two of the files wait
//! to become new segments, and the others are removed. What it says makes up for what goes: the link that the chain
//! continues, the last state, and a batch that was on disk, so that a log which ends before that one is known to be
//! damaged. Records of the first segments that remain, but are at or below the index, are passed over when opening.
//!
//! A dropped file becomes a segment by its new head, a sync, and its new name. All stamps in it are older than any batch that
//! will be written to it, so what it held serves as well as zeros do, and its room costs no filling. A segment that lost its name
//! to a crash counts for nothing, as no batch has spoken of it.
//!
//! The index may be beyond the last record, as after a snapshot from elsewhere. Then appends wait until `log-start` is on
//! disk: no record is ever behind a gap that nothing explains.
//!
//! # Opening
//!
//! Segments before the first that `log-start` names count for nothing: one that was dropped, and neither used again nor removed.
//! Batches are read in order for as long as each follows the one before: owner, segment, sequence, CRC of the batch before and
//! its own CRC all fit. What is behind the last one was written after it, so one batch at most was under way there. The
//! rest of the segment and all later ones are looked at sector by sector:
//!
//! | behind the last batch | means | so |
//! | --- | --- | --- |
//! | nothing written where the next batch would begin | a clean end, or a batch that was never synced | what there is of it is dropped |
//! | the head of the next batch, a sector of it unwritten and none damaged | it was never synced | dropped |
//! | anything else where the next batch would begin: a CRC or a stamp that does not fit | a torn or a damaged one: nobody knows | dropped; [`Recovery::suspect_tail`] |
//! | anywhere the head of a batch later than the next, or any sector of the one after it | the next was synced once, for only then is another written | refused as corrupt |
//!
//! A sector is unwritten if it is all zeros, or past the end of the file. In a folder whose segments are used again it is so too if its
//! stamp is below the segment's first batch, unless it is a head whose fields are those of the next batch in this segment. The
//! stamp of a sector that was written, and is damaged, is hardly ever such a one.
//!
//! A log whose end was cut off would look like one that ended cleanly. So each batch says how long its segment and the last
//! one were on disk before it was written, which is beyond its own end, and mostly beyond many batches to come. A file that
//! is shorter or missing is refused as corrupt; a crash only leaves longer ones.
//!
//! What cannot be found is a loss that leaves all that the remaining batches speak of:
//!
//! - a log without `log-start` removed as a whole, or its first segment cut before the second sector of its first batch;
//! - a cut right behind a batch that used up its room to the last sector;
//! - the removal of all segments behind a batch that was written before the next one was prepared, which takes a batch about
//!   as long as what is filled ahead, or a disk that fills more slowly than it is written to;
//! - a sector of the last batch overwritten with zeros or what it held before, or a stamp, behind its first, that is damaged so
//!   that it looks like what a file that was used again held before;
//! - all files set back together to an earlier state.
//!
//! Then segments that the last batch does not speak of are removed, sectors with later stamps are filled with zeros (so that
//! no sector of a dropped batch can ever complete a new one of the same sequence), and the last batch is written over itself
//! and synced: the process may have died between its write and its sync. The same is done with the head of the segment that
//! was prepared, so that what is filled is durable before a batch says so, and with `log-start`. Only then does anything recovered count as
//! persisted. Dying at any point of this changes nothing but that it is done again.
//!
//! A suspect tail may have been acknowledged. The file `suspect-tail` is put in place before the batch is dropped, and every
//! [`Recovery`] says so until the caller, having got from others what was lost, calls [`Wal::repaired`].
//!
//! # Reading back
//!
//! [`Wal::read`] finds records by an index with a place for every 64 KiB of log. A batch read back is checked as when opening;
//! one that is damaged is [`Fatal`]. What was truncated is never returned: a truncation always begins a new place, and a place
//! answers only for indexes below the next one's. The first record of a segment has a place too, so that the segments before can
//! go. What was compacted is not read: the answer has no records, also where reading was under way.

pub mod aside;
mod beginning;
mod compaction;
mod disk;
mod error;
mod file_disk;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod identity;
mod options;
mod places;
mod queue;
mod reads;
mod record;
mod recovery;
mod room;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
pub mod snapshots;
mod wal;

pub use disk::{Disk, DiskError, DiskErrorKind, FileInfo, FileName, Op, Outcome};
pub use error::{Fatal, OpenError};
pub use file_disk::{FileDisk, FolderLock, IN_USE_MAX, LOCK_FILE};
pub use format::FORMAT_VERSION;
pub use options::{BATCH_BYTES_MAX, RECORD_BYTES_MAX, STATE_BYTES_MAX, WalOptions};
pub use record::Record;
pub use wal::{Append, OpId, Recovery, Ticket, Visit, Wal, WalEvent};
