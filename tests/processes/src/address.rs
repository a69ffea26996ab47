//! Where a service listens.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// A port of this machine, or an address of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(SocketAddr);

impl From<u16> for Address {
    fn from(port: u16) -> Self {
        Self::from((Ipv4Addr::LOCALHOST, port))
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from(address: (Ipv4Addr, u16)) -> Self {
        Self(address.into())
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
