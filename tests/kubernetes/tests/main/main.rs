//! Stories on a real Kubernetes.

#![allow(clippy::unwrap_used)] // Also in what tests share.

mod deletion;
mod executors;
mod failover;
mod first_steps;
mod generated;
mod life;
mod majority;
mod many;
mod operators;
mod trouble;
