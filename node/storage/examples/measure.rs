//! What the log costs on a folder's disk, beside what the disk itself costs.
//!
//! `cargo run --release -p raftlog-storage --example measure -- FOLDER [MEBIBYTES]` prints, for a new folder inside FOLDER that
//! is removed again: the p50, p99 and maximum of a bare `fdatasync` of one sector in a filled file, of an append of 256 bytes
//! until it is persisted, and how fast a log of that size (1024 MiB) is opened.

use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Operation, Payload};
use raftlog_storage::{Append, Disk, FileDisk, Visit, Wal, WalOptions};

const ROUNDS: u64 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: measure FOLDER [MEBIBYTES]")?);
    let mebibytes: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let folder = folder.join(format!("measure-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let measured = measure(&folder, mebibytes);
    fs::remove_dir_all(&folder)?;
    measured
}

fn measure(folder: &Path, mebibytes: u64) -> Result<(), Box<dyn Error>> {
    print("fdatasync of 512 B", bare(&folder.join("bare"))?);
    print("append of 256 B", appends(&folder.join("appends"))?);
    print("fdatasync of 512 B", bare(&folder.join("bare"))?);
    opening(&folder.join("opening"), mebibytes << 20)
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or_default();
    println!(
        "{what:20} p50 {:9.1?}  p99 {:9.1?}  max {:9.1?}",
        at(500),
        at(990),
        at(999)
    );
}

fn bare(path: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    fs::write(path, vec![0; 4 << 20])?;
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        file.write_all_at(&[1; 512], round * 512)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn entry(log_index: u64, bytes: usize) -> Entry {
    let payload = Payload::Operation(Operation {
        data: Bytes::from(vec![b'x'; bytes]),
        session: None,
    });
    Entry {
        log_index,
        term: 1,
        operation_index: log_index,
        running_hash: 0,
        payload,
    }
}

fn appends(folder: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut disk = FileDisk::open(folder)?;
    let (mut wal, _) = Wal::open(&mut disk, WalOptions::new(1), &mut |_| Ok(()))?;
    drive(&mut wal, &mut disk)?;
    let mut times = Vec::new();
    for index in 1..=ROUNDS {
        let start = Instant::now();
        let ticket = wal.append(Append {
            records: vec![entry(index, 256)],
            ..Append::default()
        });
        let (id, op) = wal.next_op().ok_or("an append has something to write")?;
        let result = disk.execute(&op);
        wal.complete(id, result)?;
        times.push(start.elapsed());
        assert!(!wal.is_pending(), "append {ticket} is persisted");
        // Filling ahead is not in the way of what is persisted already, but of what comes next.
        drive(&mut wal, &mut disk)?;
    }
    Ok(times)
}

fn opening(folder: &Path, bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut disk = FileDisk::open(folder)?;
    let (mut wal, _) = Wal::open(&mut disk, WalOptions::new(1), &mut |_| Ok(()))?;
    let start = Instant::now();
    while wal.disk_bytes() < bytes {
        let next = wal.last_index() + 1;
        let records = (next..next + 256).map(|index| entry(index, 1000)).collect();
        wal.append(Append {
            records,
            ..Append::default()
        });
        drive(&mut wal, &mut disk)?;
    }
    let (written, spent) = (wal.disk_bytes() >> 20, start.elapsed());
    println!("{:20} {written} MiB in {spent:.2?}", "written");
    drop(wal);
    let (start, mut records) = (Instant::now(), 0_u64);
    let (_, recovery) = Wal::<Entry>::open(&mut disk, WalOptions::new(1), &mut |visit| {
        records += u64::from(matches!(visit, Visit::Record(_)));
        Ok(())
    })?;
    println!(
        "{:20} {} MiB, {records} records in {:.2?}",
        "opened",
        recovery.bytes >> 20,
        start.elapsed()
    );
    println!("{:20} {}", "resident", resident());
    Ok(())
}

/// Peak resident memory, where the system tells.
fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
}

fn drive(wal: &mut Wal<Entry>, disk: &mut FileDisk) -> Result<(), Box<dyn Error>> {
    while let Some((id, op)) = wal.next_op() {
        let result = disk.execute(&op);
        wal.complete(id, result)?;
    }
    Ok(())
}
