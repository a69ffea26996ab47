//! Many seeds, on several threads, added up.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, Outcome};
use crate::coverage::Coverage;
use crate::invariants::Violation;
use crate::options::Options;
use crate::variation::Variation;

/// A seed whose run was wrong.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was wrong.
    pub violation: Violation,
    /// The last lines before it.
    pub story: Vec<String>,
}

/// What many runs come to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Time that the clusters ran, in their own time.
    pub simulated: Duration,
    /// Operations that were committed.
    pub operations: u64,
    /// Things that happened.
    pub happenings: u64,
    /// How often what occurred.
    pub coverage: Coverage,
    /// Seeds that were wrong. After the first no others are begun.
    pub failures: Vec<Failure>,
}

/// Runs one seed. A panic inside is a violation, too: cores assert what must hold within them.
pub fn run_seed(options: &Options, telling: bool) -> Result<Outcome, Violation> {
    let cluster = Cluster::new(options.clone());
    let cluster = if telling { cluster.telling() } else { cluster };
    catch_unwind(AssertUnwindSafe(|| cluster.run())).map_err(|panic| Violation {
        invariant: "no panic",
        what: said(&*panic),
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
        .to_owned()
}

/// Runs all of them, varied like that, on that many threads; `each` is told how far things are after every run, and says
/// whether to go on.
pub fn run_seeds(
    seeds: Range<u64>,
    variation: &Variation,
    threads: usize,
    each: impl Fn(&Summary) -> bool + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let ends = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !ends.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let result = run_seed(&variation.options(seed), false);
            let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            summary.add(seed, result);
            if !each(&summary) || !summary.failures.is_empty() {
                ends.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    summary
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Summary {
    fn add(&mut self, seed: u64, result: Result<Outcome, Violation>) {
        self.runs += 1;
        let (violation, story) = match result {
            Ok(outcome) => {
                self.simulated += outcome.simulated;
                self.operations += outcome.operations;
                self.happenings += outcome.happenings;
                self.coverage.add(&outcome.coverage);
                (outcome.violation, outcome.story)
            }
            Err(violation) => (Some(violation), Vec::new()),
        };
        if let Some(violation) = violation {
            self.failures.push(Failure {
                seed,
                violation,
                story,
            });
        }
    }
}
