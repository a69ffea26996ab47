//! A follower that stands still again and again.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::plan::Follower;

/// A follower that runs a part of the time has a turn this often: more often than heartbeats come, and less often than anything waits
/// for the disk.
const TURN: Duration = Duration::from_millis(100);
/// One that lags stands still so long, and goes on so long.
const LAGS: Duration = Duration::from_secs(1);

/// Stops a process and lets it go on, by turns. It runs when this is dropped.
#[derive(Debug)]
pub(crate) struct Disturbance {
    group: Pid,
    stands: Duration,
    runs: Duration,
}

impl Disturbance {
    /// `None` where nothing is to be done to it.
    pub(crate) fn new(group: Pid, follower: Follower) -> Option<Self> {
        let (stands, runs) = match follower {
            Follower::Well => return None,
            Follower::Runs(percent) => {
                let runs = TURN * u32::from(percent.min(100)) / 100;
                (TURN.saturating_sub(runs), runs)
            }
            Follower::Lags => (LAGS, LAGS),
        };
        let stands_at_all = !stands.is_zero();
        stands_at_all.then_some(Self { group, stands, runs })
    }

    /// Goes on until it is dropped.
    pub(crate) async fn go_on(&self) {
        loop {
            self.signal(Signal::STOP);
            tokio::time::sleep(self.stands).await;
            self.signal(Signal::CONT);
            tokio::time::sleep(self.runs).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // Where it has ended, that is found out and told when the measurement is over.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command, time::Instant};

    use super::*;

    /// `T` in `/proc/PID/stat`.
    fn is_stopped(id: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    #[tokio::test]
    async fn it_stands_still_and_goes_on_in_the_end() {
        let mut child = Command::new("/bin/sleep")
            .arg("3600")
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        assert!(Disturbance::new(group, Follower::Well).is_none());
        assert!(Disturbance::new(group, Follower::Runs(100)).is_none());
        let disturbance = Disturbance::new(group, Follower::Runs(1)).unwrap();
        assert_eq!(disturbance.stands, Duration::from_millis(99));
        let id = child.id();
        let seen = async {
            while !is_stopped(id) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = disturbance.go_on() => {}
            () = seen => {}
        }
        drop(disturbance);
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_stopped(id) {
            assert!(Instant::now() < deadline, "it still stands");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
