//! How long each hot path takes.
//!
//! `cargo bench -p raftlog-server --bench micro`; behind `--` a part of a name, to run those alone.

mod paths;

use std::time::{Duration, Instant};

use criterion::Criterion;
use paths::{ALL, Path, TIMES_MAX};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in ALL {
        let mut path = make();
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| time(path.as_mut(), iterations));
        });
    }
    criterion.final_summary();
}

/// What is prepared meanwhile takes no time.
fn time(path: &mut dyn Path, iterations: u64) -> Duration {
    let (mut left, mut took) = (iterations, Duration::ZERO);
    while left > 0 {
        let times = usize::try_from(left).map_or(TIMES_MAX, |left| left.min(TIMES_MAX));
        path.prepare(times);
        let began = Instant::now();
        path.run();
        took += began.elapsed();
        left -= times as u64;
    }
    took
}
