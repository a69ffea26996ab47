//! The hot paths of a node, each by itself and with fixed inputs: no clock, no disk, no network.

mod entries;
mod follower;
mod form;
mod leader;
mod log;
mod wire;

/// A path that can be taken again and again.
pub(crate) trait Path {
    /// Makes what is needed to take it so many times.
    fn prepare(&mut self, times: usize);

    /// Takes it as often as was prepared.
    fn run(&mut self);
}

/// Prepared at most at a time: it is all in memory.
pub(crate) const TIMES_MAX: usize = 512;

/// A path before it is taken.
pub(crate) type Make = fn() -> Box<dyn Path>;

/// All of them. Operations have 256 bytes and a session.
pub(crate) const ALL: [(&str, Make); 9] = [
    ("leader of five: proposal to effects", || {
        Box::new(leader::Proposals::new())
    }),
    ("leader of five: acknowledgements to answer", || {
        Box::new(leader::Acknowledgements::new())
    }),
    ("follower: append to acknowledgement", || {
        Box::new(follower::Appends::new())
    }),
    ("log: append to batch on disk", || Box::new(log::Appends::new())),
    ("log: recovery of 1,000 entries", || {
        Box::new(log::Recoveries::new())
    }),
    ("entry: encode", || Box::new(form::Encoding::new())),
    ("entry: decode", || Box::new(form::Decoding::new())),
    ("AppendEntries of 16 entries: encode", || {
        Box::new(wire::Encoding::new())
    }),
    ("AppendEntries of 16 entries: decode", || {
        Box::new(wire::Decoding::new())
    }),
];
