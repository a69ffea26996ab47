//! How long a majority of disks takes, when all of them sync at once.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::latency::Latencies;

/// Rounds at most, and the time that they may take at most.
const ROUNDS: u32 = 300;
const ROUNDS_FOR: Duration = Duration::from_secs(3);
/// Rounds that are not counted.
const ROUNDS_WARM_UP: u32 = 10;
const WRITE_BYTES: usize = 512;

/// The folders that had to be made, the innermost first. They go when this does, as far as they are empty.
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes `folder`, and those above it that are missing.
    fn folder(folder: &Path) -> io::Result<Self> {
        let missing = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        std::fs::create_dir_all(folder)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Somebody else may use it by now: then it is not empty, and stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The median time until a majority of so many concurrent syncs is done, in microseconds.
pub(crate) fn measure(disks: usize, folder: &Path) -> io::Result<f64> {
    let _made = Made::folder(folder)?;
    let scratch = tempfile::Builder::new()
        .prefix("raftlog-floor-")
        .tempdir_in(folder)?;
    let files: Vec<File> = (0..disks)
        .map(|disk| filled(scratch.path().join(format!("disk-{disk}"))))
        .collect::<io::Result<_>>()?;
    let latencies = rounds(&files)?;
    drop(files);
    scratch.close()?;
    Ok(latencies.summary().p50)
}

fn rounds(files: &[File]) -> io::Result<Latencies> {
    let latencies = Latencies::new();
    // The disks' threads, and this one.
    let barrier = Barrier::new(files.len() + 1);
    let stop_at = Instant::now() + ROUNDS_FOR;
    thread::scope(|scope| {
        let (done, syncs) = mpsc::channel::<io::Result<(Instant, Instant)>>();
        let mut orders = Vec::new();
        for file in files {
            let (order, rounds) = mpsc::channel::<u32>();
            orders.push(order);
            let (done, barrier) = (done.clone(), &barrier);
            scope.spawn(move || {
                for round in rounds {
                    barrier.wait();
                    let started = Instant::now();
                    let synced = write_and_sync(file, round).map(|()| (started, Instant::now()));
                    let _ = done.send(synced);
                }
            });
        }
        for round in 0..ROUNDS {
            if Instant::now() > stop_at {
                break;
            }
            for order in &orders {
                let _ = order.send(round);
            }
            barrier.wait();
            let times = syncs.iter().take(files.len()).collect::<io::Result<Vec<_>>>()?;
            if round >= ROUNDS_WARM_UP
                && let Some(latency) = of_majority(times)
            {
                latencies.record(latency);
            }
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(latencies)
}

/// Which of so many completes a majority.
pub(crate) fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// From the first start to the end that completes a majority.
fn of_majority(times: Vec<(Instant, Instant)>) -> Option<Duration> {
    let place = majority(times.len()) - 1;
    let first = times.iter().map(|(started, _)| *started).min()?;
    let mut ends: Vec<Instant> = times.into_iter().map(|(_, ended)| ended).collect();
    ends.sort_unstable();
    ends.get(place).map(|end| end.duration_since(first))
}

/// A file whose blocks are all written, so that a sync has no metadata to flush.
fn filled(path: PathBuf) -> io::Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    for round in 0..ROUNDS {
        file.write_all_at(&[0; WRITE_BYTES], offset(round))?;
    }
    file.sync_all()?;
    Ok(file)
}

fn write_and_sync(file: &File, round: u32) -> io::Result<()> {
    file.write_all_at(&[0xa5; WRITE_BYTES], offset(round))?;
    file.sync_data()
}

fn offset(round: u32) -> u64 {
    u64::from(round) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_completes_a_majority_counts_from_the_first_start() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let times = vec![
            (at(2), at(30)),
            (at(0), at(50)),
            (at(1), at(10)),
            (at(3), at(20)),
            (at(4), at(40)),
        ];
        assert_eq!(of_majority(times.clone()), Some(Duration::from_millis(30)));
        assert_eq!(
            of_majority(times.into_iter().take(3).collect()),
            Some(Duration::from_millis(30))
        );
        assert_eq!(of_majority(vec![(at(0), at(1))]), Some(Duration::from_millis(1)));
        assert_eq!(of_majority(vec![]), None);
    }

    #[test]
    fn majorities() {
        assert_eq!([1, 2, 3, 4, 5, 7].map(majority), [1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn only_folders_that_were_made_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        drop(Made::folder(&inner).unwrap());
        assert!(!folder.path().join("a").exists());
        std::fs::create_dir(folder.path().join("a")).unwrap();
        drop(Made::folder(&inner).unwrap());
        assert!(folder.path().join("a").exists() && !inner.exists());
        let made = Made::folder(&inner).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        drop(made);
        assert!(inner.join("file").exists(), "somebody's file stays");
    }
}
