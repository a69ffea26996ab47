//! What the tests in `tests/` stand on. They use a cluster as people do, by `kubectl` and `helm`, so that they run on kind,
//! minikube and anything else that has the images.
//!
//! - [`requirements`] says what a test needs, and skips it where that is not given.
//! - [`command`] runs a program and tells what it said when it fails; [`wait`] polls a condition until a deadline.
//! - [`installation`] is a namespace that enforces restricted Pod Security, with the operator in it, and removes it all.
//! - [`logs`] gathers what containers say; [`lines`] are the lines that they have to say.

pub mod command;
pub mod installation;
pub mod lines;
pub mod logs;
pub mod requirements;
pub mod wait;
