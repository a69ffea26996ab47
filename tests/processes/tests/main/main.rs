//! The real programs, made to live through what happens to real programs: one file a topic.
//!
//! One test binary, so that all tests share one limit on how many clusters run at a time.
