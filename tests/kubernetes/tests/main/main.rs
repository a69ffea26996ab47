//! Stories on a real Kubernetes.

mod first_steps;
mod generated;
