//! Seeds of randomized tests: printed with the command that replays them.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Set to replay a run.
pub const VARIABLE: &str = "RAFT_TEST_SEED";

/// The seed of this run of `test`, of the test binary `main`, and a generator made from it. The seed is in the output of a failed test. It fixes every
/// choice the test makes; the kernel's scheduling stays its own.
pub fn announce(test: &str) -> (u64, ChaCha8Rng) {
    announce_in("main", test)
}

/// The same for a test of another test binary.
pub fn announce_in(binary: &str, test: &str) -> (u64, ChaCha8Rng) {
    let seed = match std::env::var(VARIABLE) {
        Ok(given) => given
            .parse()
            .unwrap_or_else(|_| panic!("{VARIABLE} is not a number: {given}")),
        Err(_) => rand::random(),
    };
    println!(
        "seed {seed}; replay with: {VARIABLE}={seed} cargo test -p processes --test {binary} -- --exact {test}"
    );
    (seed, ChaCha8Rng::seed_from_u64(seed))
}
