//! The cluster's feature level: which rules of the log and the wire its members follow together.
//!
//! A new version of a program may bring rules that an earlier one does not know: another form of a message, another effect of
//! an entry on the [fold](crate::fold). Members of both versions are in one cluster while it is upgraded, one node after the
//! other. So a new rule waits behind a level, and the level is in the log: once every member supports a higher one, the leader
//! appends [`Payload::FeatureLevel`](crate::entry::Payload::FeatureLevel), and the rules of that level hold for the entries
//! behind it. Every member, whenever it reads that entry, changes its rules at the same place of the log, as the fold has to be
//! the same everywhere; and if the entry is dropped with a tail that was never committed, so is what it brought.
//!
//! The level never goes back. What does not support it does not take part: it refuses the log, the snapshot or the message
//! that says so, before it acknowledges anything or votes.

use std::fmt;
use std::num::NonZeroU8;

/// A feature level: 1, 2, 3, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(NonZeroU8);

impl FeatureLevel {
    /// What every log begins with, and what a member is at that does not say: it is of a version that knew no levels.
    pub const FIRST: Self = Self(NonZeroU8::MIN);
    /// The highest level whose rules this version has.
    pub const LATEST: Self = Self::FIRST;
    /// One more than any program supports: its only rule, [`Fold::rehearsed`](crate::fold::Fold::rehearsed), is for tests of two
    /// versions in one cluster.
    pub const REHEARSED: Self = Self(Self::LATEST.0.saturating_add(1));

    /// `None` for 0, which is no level.
    pub const fn new(level: u8) -> Option<Self> {
        match NonZeroU8::new(level) {
            Some(level) => Some(Self(level)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The levels that a member supports. The default is what this version does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supports {
    min: FeatureLevel,
    max: FeatureLevel,
}

impl Supports {
    /// From `min` to `max`; `None` if that is none.
    pub const fn new(min: FeatureLevel, max: FeatureLevel) -> Option<Self> {
        if min.get() <= max.get() {
            Some(Self { min, max })
        } else {
            None
        }
    }

    /// What a member supports that does not say.
    pub const UNSTATED: Self = Self {
        min: FeatureLevel::FIRST,
        max: FeatureLevel::FIRST,
    };

    /// Up to [`FeatureLevel::REHEARSED`]: the later one of two versions, in tests.
    pub const REHEARSAL: Self = Self {
        min: FeatureLevel::FIRST,
        max: FeatureLevel::REHEARSED,
    };

    /// The lowest.
    pub const fn min(self) -> FeatureLevel {
        self.min
    }

    /// The highest.
    pub const fn max(self) -> FeatureLevel {
        self.max
    }

    /// Whether that level is among them; what to do, if it is not.
    pub fn check(self, level: FeatureLevel) -> Result<(), String> {
        let Self { min, max } = self;
        if level > max {
            return Err(format!(
                "the cluster is at feature level {level}, which never goes back, and this version supports {self}: run one that \
                 supports level {level}"
            ));
        }
        if level < min {
            return Err(format!(
                "the cluster is at feature level {level}, and this version supports {self}: first run one that supports both \
                 {level} and {min} on all nodes"
            ));
        }
        Ok(())
    }
}

impl Default for Supports {
    /// What this version supports. Logs begin at [`FeatureLevel::FIRST`], so every version has to, for as long as they do.
    fn default() -> Self {
        Self {
            min: FeatureLevel::FIRST,
            max: FeatureLevel::LATEST,
        }
    }
}

/// `level 1` or `levels 1 to 2`.
impl fmt::Display for Supports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        if min == max {
            write!(f, "level {min}")
        } else {
            write!(f, "levels {min} to {max}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_supports_no_rehearsal() {
        assert!(Supports::default().check(FeatureLevel::LATEST).is_ok());
        let error = Supports::default().check(FeatureLevel::REHEARSED).unwrap_err();
        assert_eq!(
            error,
            "the cluster is at feature level 2, which never goes back, and this version supports level 1: run one that supports \
             level 2"
        );
    }

    #[test]
    fn a_version_may_have_dropped_early_levels() {
        let level = |level| FeatureLevel::new(level).unwrap();
        let supports = Supports::new(level(2), level(3)).unwrap();
        assert!(supports.check(level(2)).is_ok() && supports.check(level(3)).is_ok());
        let error = supports.check(level(1)).unwrap_err();
        assert!(
            error.contains("supports levels 2 to 3: first run one that supports both 1 and 2"),
            "{error}"
        );
        assert!(supports.check(level(4)).is_err());
        assert_eq!(Supports::new(level(3), level(2)), None);
    }
}
