//! Everything that was measured, put together.

use std::{fs, path::Path};

use raftlog_load::{floor::Floor, latency::Summary};
use serde::Serialize;

use crate::{
    failure::Failure,
    machine::Machine,
    measure::Sample,
    plan::{Axis, Point},
    statistics::{Spread, ratio},
    system::{Description, Kind},
};

/// What identifies a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Key {
    pub(crate) system: Kind,
    pub(crate) members: u16,
    pub(crate) snapshot_every: Option<u64>,
    #[serde(flatten)]
    pub(crate) point: Point,
}

/// All rounds of one measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) operations_per_second: Spread,
    pub(crate) latency_microseconds: Latency,
    pub(crate) server_cpu_microseconds: Spread,
    pub(crate) generator_cpu_microseconds: Spread,
    pub(crate) others_share: Spread,
    pub(crate) peak_bytes_largest: u64,
    pub(crate) peak_bytes_all: u64,
    pub(crate) snapshots_taken: u64,
    pub(crate) snapshot_bytes_installed: u64,
    pub(crate) errors: u64,
    pub(crate) unanswered: u64,
    pub(crate) first_error: Option<String>,
    /// The median latency in units of the floor, for as many members and as large operations.
    pub(crate) p50_over_floor: Option<f64>,
    /// The rate in units of the echo's, under the same load.
    pub(crate) of_echo: Option<f64>,
    /// How many times as many operations per second raftlog does under the same load.
    pub(crate) raftlog_over_this: Option<f64>,
    rounds: Vec<Sample>,
}

/// Latencies over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: Spread,
    pub(crate) p90: Spread,
    pub(crate) p99: Spread,
    pub(crate) p999: Spread,
    pub(crate) max: Spread,
}

/// The floor over the rounds, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FloorRow {
    pub(crate) members: u16,
    pub(crate) payload: usize,
    pub(crate) client_echo: Spread,
    pub(crate) node_echo: Spread,
    pub(crate) majority_sync: Spread,
    pub(crate) sum: Spread,
}

/// As it is written to a file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// As files of it are called.
    #[serde(skip)]
    pub(crate) name: &'static str,
    /// The command that all of this comes from.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    /// Whether the load generator was.
    pub(crate) optimized: bool,
    pub(crate) axis: Axis,
    pub(crate) systems: Vec<Description>,
    pub(crate) skipped: Vec<String>,
    pub(crate) floors: Vec<FloorRow>,
    pub(crate) rows: Vec<Row>,
    pub(crate) failures: Vec<String>,
}

/// Samples in the order in which they were taken.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) taken: Vec<(Key, Sample)>,
    pub(crate) floors: Vec<(u16, usize, Floor)>,
}

impl Samples {
    /// Rows in the order of their first samples, with their ratios.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut keys: Vec<Key> = Vec::new();
        for (key, _) in &self.taken {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        let floors = self.floor_rows();
        let rows: Vec<Row> = keys.into_iter().filter_map(|key| self.row(key)).collect();
        let compared = rows.iter().map(|row| compare(row, &rows, &floors));
        compared.collect()
    }

    fn row(&self, key: Key) -> Option<Row> {
        let of_key = self.taken.iter().filter(|(other, _)| *other == key);
        let rounds: Vec<Sample> = of_key.map(|(_, sample)| sample.clone()).collect();
        let spread = |of: fn(&Sample) -> f64| Spread::of(rounds.iter().map(of));
        let latency = |of: fn(&Summary) -> f64| {
            Spread::of(rounds.iter().map(|sample| of(&sample.latency_microseconds)))
        };
        let most = |of: fn(&Sample) -> u64| rounds.iter().map(of).max().unwrap_or_default();
        Some(Row {
            key,
            operations_per_second: spread(|sample| sample.operations_per_second)?,
            latency_microseconds: Latency {
                p50: latency(|summary| summary.p50)?,
                p90: latency(|summary| summary.p90)?,
                p99: latency(|summary| summary.p99)?,
                p999: latency(|summary| summary.p999)?,
                max: latency(|summary| summary.max)?,
            },
            server_cpu_microseconds: spread(|sample| sample.server_cpu_microseconds)?,
            generator_cpu_microseconds: spread(|sample| sample.generator_cpu_microseconds)?,
            others_share: spread(|sample| sample.others_share)?,
            peak_bytes_largest: most(|sample| sample.peak_bytes_largest),
            peak_bytes_all: most(|sample| sample.peak_bytes_all),
            snapshots_taken: most(|sample| sample.snapshots_taken),
            snapshot_bytes_installed: most(|sample| sample.snapshot_bytes_installed),
            errors: rounds.iter().map(|sample| sample.errors).sum(),
            unanswered: rounds.iter().map(|sample| sample.unanswered).sum(),
            first_error: rounds.iter().find_map(|sample| sample.first_error.clone()),
            p50_over_floor: None,
            of_echo: None,
            raftlog_over_this: None,
            rounds,
        })
    }

    /// One for each number of members and size of operations.
    pub(crate) fn floor_rows(&self) -> Vec<FloorRow> {
        let mut keys: Vec<(u16, usize)> = self
            .floors
            .iter()
            .map(|&(members, payload, _)| (members, payload))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.floor_row(key)).collect()
    }

    fn floor_row(&self, (members, payload): (u16, usize)) -> Option<FloorRow> {
        let of_key = || {
            let all = self.floors.iter();
            all.filter(move |(of, size, _)| (*of, *size) == (members, payload))
        };
        let spread = |part: fn(&Floor) -> f64| Spread::of(of_key().map(|(_, _, floor)| part(floor)));
        Some(FloorRow {
            members,
            payload,
            client_echo: spread(|floor| floor.client_echo)?,
            node_echo: spread(|floor| floor.node_echo)?,
            majority_sync: spread(|floor| floor.majority_sync)?,
            sum: spread(|floor| floor.sum)?,
        })
    }
}

/// The row with its ratios to the floor, the echo and raftlog.
fn compare(row: &Row, rows: &[Row], floors: &[FloorRow]) -> Row {
    let Key {
        system,
        members,
        snapshot_every,
        point,
    } = row.key;
    let rate = row.operations_per_second.median;
    let floor = floors
        .iter()
        .find(|floor| (floor.members, floor.payload) == (members, point.payload))
        .filter(|_| system != Kind::Echo);
    let echo = rows.iter().find(|other| {
        let other = other.key;
        other.system == Kind::Echo && (other.point.load, other.point.payload) == (point.load, point.payload)
    });
    let raftlog = rows.iter().find(|other| {
        let other = other.key;
        other.system == Kind::Raftlog
            && (other.members, other.snapshot_every, other.point) == (members, snapshot_every, point)
    });
    let raftlog = raftlog.filter(|_| !matches!(system, Kind::Raftlog | Kind::Echo));
    Row {
        p50_over_floor: floor.and_then(|floor| ratio(row.latency_microseconds.p50.median, floor.sum.median)),
        of_echo: echo.and_then(|echo| ratio(rate, echo.operations_per_second.median)),
        raftlog_over_this: raftlog.and_then(|raftlog| ratio(raftlog.operations_per_second.median, rate)),
        ..row.clone()
    }
}

impl Report {
    /// Writes it as JSON into the folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::new(format!("cannot write results as JSON: {error}")))?;
        write(&path, &(text + "\n"))
    }
}

/// Writes a file of results, into a folder that is made where it is missing.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map_err(|error| {
        let path = path.display();
        Failure::new(format!(
            "cannot write {path}: {error}; choose a folder with --output"
        ))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::Load;

    pub(crate) fn key(system: Kind, members: u16, clients: u16) -> Key {
        Key {
            system,
            members,
            snapshot_every: None,
            point: Point {
                load: Load::Clients(clients),
                payload: 256,
                ..Point::default()
            },
        }
    }

    pub(crate) fn sample(rate: f64, p50: f64) -> Sample {
        Sample {
            operations_per_second: rate,
            latency_microseconds: Summary {
                p50,
                p90: 2.0 * p50,
                p99: 3.0 * p50,
                p999: 4.0 * p50,
                max: 5.0 * p50,
            },
            errors: 0,
            unanswered: 0,
            first_error: None,
            server_cpu_microseconds: 100.0,
            generator_cpu_microseconds: 10.0,
            others_share: 0.02,
            peak_bytes_largest: 30 << 20,
            peak_bytes_all: 200 << 20,
            snapshots_taken: 0,
            snapshot_bytes_installed: 0,
        }
    }

    pub(crate) fn samples() -> Samples {
        let floor = Floor {
            client_echo: 100.0,
            node_echo: 100.0,
            majority_sync: 300.0,
            sum: 500.0,
        };
        Samples {
            taken: vec![
                (key(Kind::Echo, 1, 64), sample(20_000.0, 50.0)),
                (key(Kind::Raftlog, 5, 64), sample(8000.0, 750.0)),
                (key(Kind::Etcd, 5, 64), sample(2000.0, 3000.0)),
                (key(Kind::Echo, 1, 64), sample(20_000.0, 50.0)),
                (key(Kind::Raftlog, 5, 64), sample(12_000.0, 650.0)),
                (key(Kind::Etcd, 5, 64), sample(2000.0, 3000.0)),
            ],
            floors: vec![(5, 256, floor), (5, 256, floor)],
        }
    }

    #[test]
    fn rows_are_medians_with_their_ratios() {
        let rows = samples().rows();
        let systems: Vec<Kind> = rows.iter().map(|row| row.key.system).collect();
        assert_eq!(systems, [Kind::Echo, Kind::Raftlog, Kind::Etcd]);
        let ratios: Vec<_> = rows
            .iter()
            .map(|row| (row.p50_over_floor, row.of_echo, row.raftlog_over_this))
            .collect();
        assert_eq!(
            ratios,
            [
                (None, Some(1.0), None),
                (Some(1.4), Some(0.5), None),
                (Some(6.0), Some(0.1), Some(5.0)),
            ]
        );
        let raftlog = rows.get(1).unwrap().operations_per_second;
        assert_eq!((raftlog.min, raftlog.max), (8000.0, 12_000.0));
    }

    #[test]
    fn rows_are_flat_in_json() {
        let rows = serde_json::to_value(samples().rows()).unwrap();
        assert_eq!(rows.pointer("/1/system").unwrap(), "raftlog");
        assert_eq!(rows.pointer("/1/clients").unwrap(), 64);
        assert_eq!(rows.pointer("/1/payload").unwrap(), 256);
        assert_eq!(rows.pointer("/1/operations_per_second/median").unwrap(), 10_000.0);
        assert_eq!(rows.pointer("/1/rounds").unwrap().as_array().unwrap().len(), 2);
    }
}
