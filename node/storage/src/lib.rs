//! The write-ahead log as a pure core behind a Disk trait.
