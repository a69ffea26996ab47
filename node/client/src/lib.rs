//! Client library of the Raft Log Replicator: finds the leader, retries with backoff until a deadline, submits each
//! operation exactly once under a session, streams many in order, and reads back what is committed.
//!
//! Any node will do as an endpoint, since every node forwards to the leader. A client goes to the leader's own address
//! only if that connects at once and confirms that it leads the same cluster; otherwise it stays and is forwarded.
//!
//! ```no_run
//! use raftlog_client::{Client, Endpoint, Error, OperationLog, Options};
//!
//! # async fn example() -> Result<(), Error> {
//! let nodes = Endpoint::parse_list("127.0.0.1:5001..5005").map_err(Error::Invalid)?;
//! let client = Client::new(nodes, Options::default())?;
//!
//! // One operation, exactly once.
//! let session = client.open_session().await?;
//! let committed = session.submit("hello").await?;
//! println!("index {}, by node {}", committed.index, committed.leader_node);
//!
//! // Many, pipelined, in order; answers arrive in that order.
//! let (operations, mut answers) = session.into_stream();
//! tokio::spawn(async move {
//!     for number in 0..10_000 {
//!         if !operations.send(format!("number {number}")).await.unwrap_or(false) {
//!             break; // The receiver says why.
//!         }
//!     }
//! });
//! while let Some(answered) = answers.next().await {
//!     let answered = answered?;
//!     println!("{} operations from index {} on", answered.count, answered.first_index);
//! }
//!
//! // What is committed, from the first operation on, live.
//! let replicators = Endpoint::parse_list("127.0.0.1:6001..6005").map_err(Error::Invalid)?;
//! let mut watch = OperationLog::new(replicators, Options::default())?.watch(1, false, false);
//! while let Some(batch) = watch.next().await? {
//!     for operation in batch.operations {
//!         println!("{}: {:?}", operation.index, operation.data);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Each [`Error`] tells whether the operation may have been appended: only [`Error::Unknown`] leaves that open.

mod channels;
mod client;
mod endpoint;
mod error;
mod operation_log;
mod options;
mod retry;
mod session;
mod stream;
mod targets;
mod window;

pub use client::{Client, Committed, QueryAnswer, Submission, WaitFor};
pub use endpoint::{ENDPOINTS_MAX, Endpoint};
pub use error::{Class, Error, classify};
pub use operation_log::{Batch, OperationLog, Watch};
pub use options::Options;
pub use retry::Backoff;
pub use session::{SEQUENCES_MAX, Session};
pub use stream::{OperationReceiver, OperationSender};
pub use window::Answered;
