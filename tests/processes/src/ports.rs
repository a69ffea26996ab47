//! TCP ports that nobody else takes, neither a parallel test nor an outgoing connection, for as long as a test needs them.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the range that the kernel hands to outgoing connections (32768 and up unless reconfigured).
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// Ports in one block.
pub const BLOCK: u16 = 50;

/// A block of ports, this test's until dropped. A restarted process finds its old port free.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    /// An abstract socket for each block, named after it: exclusive within the network namespace, as the ports are, and gone
    /// with the process that holds it, however that ends.
    _claims: Vec<UnixListener>,
}

impl Ports {
    /// Claims a free block.
    ///
    /// # Panics
    /// When every block is taken.
    pub fn claim() -> Self {
        Self::claim_with(&[])
    }

    /// Claims a free block, and with it the blocks this much above it (multiples of [`BLOCK`]).
    ///
    /// # Panics
    /// When there is no such place.
    pub fn claim_with(distances: &[u16]) -> Self {
        let highest = distances.iter().max().copied().unwrap_or_default();
        let blocks = (LAST - FIRST - highest) / BLOCK;
        // Parallel test processes start their search at different places.
        let start = u16::try_from(std::process::id() % u32::from(blocks)).expect("less than a u16");
        (0..blocks)
            .map(|step| FIRST + (start + step) % blocks * BLOCK)
            .find_map(|base| Self::try_claim(base, distances))
            .expect("no block of free ports: are other test runs hanging?")
    }

    fn try_claim(base: u16, distances: &[u16]) -> Option<Self> {
        let blocks = std::iter::once(&0)
            .chain(distances)
            .map(|distance| base + distance);
        let claims: Option<Vec<UnixListener>> = blocks.map(claim_block).collect();
        claims.map(|claims| Self {
            base,
            _claims: claims,
        })
    }

    /// The port at `offset` in the block.
    ///
    /// # Panics
    /// Beyond the block.
    pub fn at(&self, offset: u16) -> u16 {
        assert!(
            offset < BLOCK,
            "port offset {offset} is beyond the block of {BLOCK}"
        );
        self.base + offset
    }
}

fn claim_block(base: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("raftlog-test-ports-{base}")).ok()?;
    let claim = UnixListener::bind_addr(&name).ok()?;
    let free = (base..base + BLOCK).all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
    free.then_some(claim)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn blocks_never_overlap() {
        let held: Vec<Ports> = (0..8).map(|_| Ports::claim()).collect();
        let mut bases: Vec<u16> = held.iter().map(|ports| ports.at(0)).collect();
        bases.sort_unstable();
        assert!(
            bases.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK),
            "{bases:?}"
        );
    }

    #[test]
    fn a_claimed_block_is_refused_until_it_is_dropped() {
        let held = Ports::claim();
        let base = held.at(0);
        assert!(Ports::try_claim(base, &[]).is_none());
        drop(held);
        // Another test may have it for a moment.
        let deadline = Instant::now() + PATIENCE;
        while Ports::try_claim(base, &[]).is_none() {
            assert!(Instant::now() < deadline, "block {base} stays claimed");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
