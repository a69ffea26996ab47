//! Whole clusters, replicators included, in one thread under virtual time.
//!
//! The nodes, logs and replicators are the ones that run in production; only the disk, the network, the clock and the
//! clients are simulated, and misbehave on purpose. One seed draws everything: which faults there are and how often
//! ([`Options::draw`]), and all that is left to chance while the cluster runs. So a run can be repeated exactly:
//! [`Outcome::trace`] is the same for the same seed.
//!
//! A run has two phases. First everything may go wrong, and nothing may happen that [`invariants`] forbid. Then faults end
//! for a majority, and within bounded time every operation has to be acknowledged and executed.
//!
//! ```
//! use simulation::{Cluster, Options};
//!
//! let outcome = Cluster::new(Options::calm(7)).run();
//! assert_eq!(outcome.violation, None);
//! ```

mod client;
mod clock;
mod cluster;
pub mod coverage;
mod disk;
mod distances;
mod fault;
mod for_all;
mod happening;
pub mod invariants;
mod machine;
mod network;
mod options;
mod pod;
mod runner;
mod variation;

pub use cluster::{Cluster, Commits, Outcome};
pub use distances::Distances;
pub use fault::Fault;
pub use options::Options;
pub use runner::{Failure, Summary, run_seed, run_seeds};
pub use variation::Variation;
