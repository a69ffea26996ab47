//! The write-ahead log as a pure core behind a Disk trait.

mod disk;
mod error;
mod file_disk;
mod format;
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
mod wal;

pub use disk::{Disk, DiskError, DiskErrorKind, FileInfo, FileName, Op, Outcome};
pub use error::{Fatal, OpenError};
pub use file_disk::FileDisk;
pub use format::FORMAT_VERSION;
pub use options::{BATCH_BYTES_MAX, RECORD_BYTES_MAX, STATE_BYTES_MAX, WalOptions};
pub use record::Record;
pub use wal::{Append, OpId, Recovery, Ticket, Visit, Wal, WalEvent};
