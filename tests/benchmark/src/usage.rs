//! What processes use, as the kernel tells in `/proc` (proc(5)).

use std::{fs, time::Duration};

/// Processor time and memory of one process, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all threads, those that have ended included.
    pub(crate) cpu: Duration,
    /// The most resident memory that the largest of them had, in bytes.
    pub(crate) peak_bytes_largest: u64,
    /// The most that each of them had, added up, in bytes.
    pub(crate) peak_bytes_all: u64,
}

impl Usage {
    /// Of the process with this ID, or of `self`.
    pub(crate) fn of_process(id: &str) -> Result<Self, String> {
        let read = |name: &str| {
            let path = format!("/proc/{id}/{name}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let cpu = cpu_in(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| format!("/proc/{id}/stat tells no processor time: {stat}"))?;
        let peak = peak_in(&status).ok_or_else(|| format!("/proc/{id}/status tells no VmHWM"))?;
        Ok(Self {
            cpu,
            peak_bytes_largest: peak,
            peak_bytes_all: peak,
        })
    }

    /// Of all of them together.
    pub(crate) fn sum(each: Vec<Self>) -> Self {
        each.into_iter().fold(Self::default(), |sum, one| Self {
            cpu: sum.cpu + one.cpu,
            peak_bytes_largest: sum.peak_bytes_largest.max(one.peak_bytes_largest),
            peak_bytes_all: sum.peak_bytes_all + one.peak_bytes_all,
        })
    }
}

/// Processor time that has gone to anything on this machine, and what a hypervisor took for others.
pub(crate) fn of_machine() -> Result<Duration, String> {
    let stat = fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    busy_in(&stat, rustix::param::clock_ticks_per_second())
        .ok_or_else(|| "/proc/stat tells no processor time".to_owned())
}

/// The first line: user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen. What guests had is in user.
fn busy_in(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let mut words = stat.lines().next()?.split_whitespace();
    (words.next()? == "cpu").then_some(())?;
    let ticks: Vec<u64> = words
        .take(8)
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, _idle, _waiting, interrupts, soft, stolen] = ticks.try_into().ok()?;
    let busy = [user, nice, system, interrupts, soft, stolen].iter().sum();
    in_time(busy, ticks_per_second)
}

fn in_time(ticks: u64, ticks_per_second: u64) -> Option<Duration> {
    let milliseconds = ticks.checked_mul(1000)?.checked_div(ticks_per_second)?;
    Some(Duration::from_millis(milliseconds))
}

/// The sum of fields 14 and 15, `utime` and `stime`. A process may have any name, which stands in brackets before them.
fn cpu_in(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    in_time(user.checked_add(system)?, ticks_per_second)
}

fn peak_in(status: &str) -> Option<u64> {
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_stands_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 75 9 9 20 0 4 0 1000 1 1";
        assert_eq!(cpu_in(stat, 100), Some(Duration::from_millis(3250)));
        for bad in ["", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194304 100 0 0 0 x 75"] {
            assert_eq!(cpu_in(bad, 100), None, "{bad}");
        }
        assert_eq!(cpu_in(stat, 0), None);
    }

    #[test]
    fn a_machine_is_busy_unless_it_is_idle_or_waits() {
        let stat = "cpu  100 20 30 5000 400 1 2 47 9 0\ncpu0 50 10 15 2500 200 0 1 20 9 0\n";
        assert_eq!(busy_in(stat, 100), Some(Duration::from_secs(2)));
        for bad in [
            "",
            "cpu",
            "cpu 1 2 3",
            "cpu 1 2 3 4 5 6 7 x",
            "intr 1 2 3 4 5 6 7 8",
        ] {
            assert_eq!(busy_in(bad, 100), None, "{bad}");
        }
        assert!(of_machine().unwrap() > Duration::ZERO);
    }

    #[test]
    fn peaks_are_in_kibibytes() {
        assert_eq!(
            peak_in("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n"),
            Some(1_263_616)
        );
        assert_eq!(peak_in("VmRSS:\t 1 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = Usage::of_process("self").unwrap();
        assert!(usage.peak_bytes_largest > 100_000, "{usage:?}");
        let sum = Usage::sum(vec![usage, usage]);
        assert_eq!(sum.peak_bytes_largest, usage.peak_bytes_largest);
        assert_eq!(sum.peak_bytes_all, 2 * usage.peak_bytes_all);
    }
}
