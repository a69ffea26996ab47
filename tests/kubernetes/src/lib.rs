//! What the tests in `tests/` stand on. They use a cluster as people do, by `kubectl` and `helm`, so that they run on kind,
//! minikube and anything else that has the images.
//!
//! - [`requirements`] says what a test needs, and skips it where that is not given.
//! - [`command`] runs a program and tells what it said when it fails; [`wait`] polls a condition until a deadline.
//! - [`installation`] is a namespace that enforces restricted Pod Security, with the operator in it, and removes it all;
//!   [`raft_cluster`] is a RaftCluster there, and [`toolbox`] a pod in which raftctl runs.
//! - [`writer`] is a client that writes all the time; [`history`] decides whether what it was told is so.
//! - [`cordon`] keeps new pods off machines; [`machines`] breaks them, by a command that is given; [`sight`] sees what nodes say meanwhile, wherever they are. [`gather`]
//!   keeps what programs say.
//! - [`logs`] gathers what containers say; [`lines`] are the lines that they have to say; [`report`] tells what was measured.

pub mod command;
pub mod containers;
pub mod cordon;
pub mod gather;
pub mod history;
pub mod installation;
pub mod lines;
pub mod logs;
pub mod machines;
pub mod raft_cluster;
pub mod receiver;
pub mod report;
pub mod requirements;
pub mod sight;
pub mod toolbox;
pub mod wait;
pub mod writer;
