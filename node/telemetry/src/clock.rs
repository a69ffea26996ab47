//! The clock that the cores are handed.

use raftlog_raft::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now, on a clock that also counts while the machine is suspended: a node that slept must not think that its lease or
/// its leader is fresh. Its start is arbitrary; it never goes back.
pub fn now() -> Time {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere the monotonic clock is the one that counts suspension (macOS).
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time(
        seconds
            .saturating_mul(1_000_000)
            .saturating_add(nanoseconds / 1_000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let first = now();
        assert!(first > Time(0));
        assert!(now() >= first);
    }
}
