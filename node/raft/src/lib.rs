//! Consensus as a pure, deterministic state machine: no I/O, no clock, no threads, no tokio.
//!
//! [`Raft`] takes what happens (a message, a proposal, time that has passed, "persisted up to") and gives back what is to be
//! done ([`Effect`]): persist these entries, send this message, answer that client. It never waits for a disk: a leader
//! sends entries while its own disk still writes them, and counts itself only once it is told. The same code runs in
//! production and under the simulator.
//!
//! ```
//! use std::time::Duration;
//! use raftlog_raft::{Config, Effect, Raft};
//! use raftlog_raft::{entry::HardState, fold::Fold, ids::MemberId, log::Log};
//! use raftlog_raft::{membership::{Configuration, Member}, time::Time};
//! use rand::SeedableRng;
//!
//! let id = MemberId::new(1).unwrap();
//! let address = "node1:5001".to_owned();
//! let member = Member { id, node: 1, peer_address: address.clone(), client_address: address, voter: true };
//! let fold = Fold::new(Configuration::new(0, vec![member]));
//! let log = Log::new(fold, 1 << 20);
//! let random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let mut raft = Raft::new(Config::new(id), HardState::default(), log, random, Time(0));
//!
//! // Nobody leads: after its election timeout the only voter elects itself, once its vote is on disk.
//! let now = raft.deadline();
//! raft.tick(now);
//! let persist = raft.flush(now).into_iter().find_map(|effect| match effect {
//!     Effect::Persist(persist) => Some(persist),
//!     _ => None,
//! });
//! raft.persisted(now + Duration::from_millis(1), persist.unwrap().ticket);
//! assert_eq!(raft.leader(), Some(id));
//! ```

pub mod config;
pub mod durability;
pub mod effect;
pub mod entry;
pub mod feature;
pub mod fold;
pub mod ids;
pub mod log;
pub mod membership;
pub mod message;
pub mod planted;
mod raft;
pub mod session;
pub mod time;

pub use config::Config;
pub use effect::Effect;
pub use raft::{Installed, Progress, Raft, ReadCounts, RoleName};
