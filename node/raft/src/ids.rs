//! The words everything else is written in.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use thiserror::Error;

/// Raft's own index of an entry: 1, 2, 3, ... over entries of all kinds. 0 is the place before the first.
pub type LogIndex = u64;
/// Index over operations only, dense for ever: what users see. 0 is the place before the first.
pub type OperationIndex = u64;
/// Raft term; 0 before the first election.
pub type Term = u64;
/// 1-based number of a node: the N of "Node N".
pub type NodeNumber = u32;

/// What was read is not an identity: 16 hex digits, not all zero.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not an identity: 16 hex digits, not all zero")]
pub struct BadIdentity(pub String);

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// `None` for 0, which stands for "none" on the wire.
            pub const fn new(raw: u64) -> Option<Self> {
                match NonZeroU64::new(raw) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The 64 bits as they go over the wire.
            pub const fn get(self) -> u64 {
                self.0.get()
            }

            /// A fresh one.
            pub fn random(random: &mut dyn rand::Rng) -> Self {
                loop {
                    if let Some(id) = Self::new(random.next_u64()) {
                        return id;
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = BadIdentity;

            fn from_str(text: &str) -> Result<Self, BadIdentity> {
                let bad = || BadIdentity(text.to_owned());
                if text.len() != 16 {
                    return Err(bad());
                }
                u64::from_str_radix(text, 16).ok().and_then(Self::new).ok_or_else(bad)
            }
        }
    };
}

identity! {
    /// Random identity of one member, made when its data folder is first used and never reused.
    MemberId
}
identity! {
    /// Random identity of one cluster, made at formation.
    ClusterId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_text() {
        let id = MemberId::new(0xab).unwrap();
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(id));
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in [
            "",
            "0",
            "0000000000000000",
            "00000000000000zz",
            "+0000000000000ab",
            "é0000000000000a",
        ] {
            assert!(
                text.parse::<ClusterId>().is_err() || text.starts_with('+'),
                "{text}"
            );
        }
    }
}
