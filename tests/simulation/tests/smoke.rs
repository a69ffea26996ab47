//! The cores are pure: whole clusters elect, commit and execute in one thread, the same way for the same seed.
//!
//! To replay one seed: `SEED=7 cargo test -p simulation --test smoke`.

use std::time::Duration;

use simulation::{Cluster, Executed, Options};

fn options(seed: u64) -> Options {
    Options {
        seed,
        nodes: 3,
        operations: 30,
        power_failures: usize::try_from(seed % 4).expect("it is below 4"),
        delay_max: Duration::from_millis(20),
        lost_of: if seed.is_multiple_of(2) { 0 } else { 20 },
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..60).collect(),
    }
}

fn run(seed: u64) -> Cluster {
    println!(
        "replay: SEED={seed} cargo test -p simulation --test smoke; {:?}",
        options(seed)
    );
    let mut cluster = Cluster::new(options(seed));
    cluster.run(Duration::from_mins(10));
    cluster
}

/// What a replicator printed: within a life dense; a new life may repeat the run that ends where the last one did.
fn check_executed(executed: &[Executed], expected: &[String]) {
    let mut last: Option<&Executed> = None;
    for now in executed {
        let follows = last.map_or(now.index == 1, |last| {
            now.index == last.index + 1 || (now.life > last.life && now.index <= last.index)
        });
        assert!(follows, "{now:?} after {last:?}");
        assert_eq!(
            now.data,
            expected[usize::try_from(now.index).expect("it is small") - 1]
        );
        last = Some(now);
    }
}

#[test]
fn clusters_elect_commit_and_execute() {
    for seed in seeds() {
        let cluster = run(seed);
        let acknowledged = cluster.client().acknowledged();
        let expected: Vec<String> = (1..=30).map(|n| format!("operation-{n}")).collect();
        for (at, (index, data)) in (1..).zip(acknowledged) {
            assert_eq!(
                (*index, data),
                (at, &expected[usize::try_from(at).unwrap() - 1]),
                "seed {seed}: once, in order"
            );
        }
        for node in 1..=3 {
            check_executed(cluster.executed(node), &expected);
        }
        let statuses = cluster.statuses();
        let hashes: Vec<u64> = statuses.iter().map(|status| status.running_hash).collect();
        assert!(
            hashes.windows(2).all(|pair| pair[0] == pair[1]),
            "seed {seed}: {hashes:x?}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in seeds().into_iter().take(8) {
        let (one, two) = (run(seed), run(seed));
        assert_eq!(
            (one.trace(), one.happenings()),
            (two.trace(), two.happenings()),
            "seed {seed}"
        );
        assert_ne!(one.trace(), run(seed + 1).trace(), "seeds differ");
    }
}
