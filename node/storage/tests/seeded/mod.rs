//! Runs by seed, and how to run one again.

/// Says how to run a failing seed again.
pub(crate) struct Replay(pub(crate) u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: STORAGE_SEED={} cargo test -p raftlog-storage --test {}",
                self.0,
                env!("CARGO_CRATE_NAME")
            );
        }
    }
}

/// The seeds to run: as many as that, unless `STORAGE_SEED` or `STORAGE_RUNS` says otherwise.
pub(crate) fn seeds(runs: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    match number("STORAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORAGE_RUNS").unwrap_or(runs),
    }
}
