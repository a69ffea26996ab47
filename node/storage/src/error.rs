//! Errors, each one line: what, where, what to do.

use thiserror::Error;

use crate::disk::DiskError;

/// Why a data folder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("data folder {folder} is in use by {holder}: stop it, or choose another --data-dir")]
    InUse {
        /// The folder.
        folder: String,
        /// `process 123`, or `another process`.
        holder: String,
    },
    /// It cannot be made, read or written.
    #[error(
        "cannot use data folder {folder}: {problem}: make it a folder that this user can write, or choose another --data-dir"
    )]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        problem: String,
    },
    /// It belongs to somebody else.
    #[error(
        "{file} belongs to member {found:016x}, not to {expected:016x}: put the right data folder in place"
    )]
    Foreign {
        /// The file, with its folder.
        file: String,
        /// The owner it names.
        found: u64,
        /// The owner that opens it.
        expected: u64,
    },
    /// It was written by another version.
    #[error(
        "{file} has format version {found}, this program reads version {expected}: run the program that wrote it"
    )]
    Version {
        /// The file, with its folder.
        file: String,
        /// The version it names.
        found: u32,
        /// The version of this program.
        expected: u32,
    },
    /// What was synced once is damaged. Never repaired by itself: the records lost may have been acknowledged.
    #[error(
        "{file} is corrupt at offset {offset}: {problem}: check the disk; to replace this member, move its data folder away and start it empty"
    )]
    Corrupt {
        /// The file, with its folder.
        file: String,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The folder is another node's, program's or cluster's.
    #[error("{0}")]
    Identity(String),
}

/// The log cannot go on: say so and exit. What a failed write or sync left on disk is unknown until the next start has
/// looked at it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Fatal(pub String);
