//! What is measured, in which order: pure.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::{arguments::Asked, system::Kind};

/// The longest log that can be asked for.
pub(crate) const LOG_LENGTH_MAX: u64 = 100_000_000;

/// A number that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Axis {
    /// 1 to 1024 clients in closed loops
    Clients,
    /// 16 B to 1 MiB in an operation
    Payload,
    /// 1 to 7 members
    Members,
    /// 10^3 to 10^7 operations in the log
    LogLength,
    /// A follower that runs all of the time to 1% of it
    SlowFollower,
    /// A snapshot after 10^3 to 10^6 operations, and a follower that is sent some
    Snapshots,
}

impl Axis {
    /// As an axis is labelled.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Payload => "bytes of an operation",
            Self::Members => "members",
            Self::LogLength => "operations in the log",
            Self::SlowFollower => "% of the time that one follower runs",
            Self::Snapshots => "operations between snapshots",
        }
    }

    /// As a file is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Payload => "payload",
            Self::Members => "members",
            Self::LogLength => "log-length",
            Self::SlowFollower => "slow-follower",
            Self::Snapshots => "snapshots",
        }
    }
}

/// How operations come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// So many clients, each with one operation at a time.
    Clients(u16),
    /// So many a second, whether or not they are answered.
    Rate(u32),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients(1) => write!(f, "1 client"),
            Self::Clients(clients) => write!(f, "{clients} clients"),
            Self::Rate(rate) => write!(f, "{rate}/s open"),
        }
    }
}

/// `1 member`, `5 members`.
pub(crate) fn counted(members: u16) -> String {
    format!("{members} member{}", if members == 1 { "" } else { "s" })
}

impl Default for Load {
    fn default() -> Self {
        Self::Clients(1)
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Bytes of an operation.
    pub(crate) payload: usize,
    /// Operations that the log has before, if that is given.
    pub(crate) log_length: Option<u64>,
    pub(crate) follower: Follower,
}

impl Point {
    /// Whether only this system can be measured so.
    fn is_of_own_system(&self) -> bool {
        self.log_length.is_some() || self.follower != Follower::Well
    }
}

/// What one follower goes through meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Follower {
    /// Nothing.
    #[default]
    Well,
    /// It runs so many hundredths of the time, and stands still for the rest.
    Runs(u8),
    /// It stands still for so long that it needs a snapshot, where there are many, and goes on for as long.
    Lags,
}

impl fmt::Display for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("-"),
            Self::Runs(percent) => write!(f, "runs {percent}%"),
            Self::Lags => f.write_str("lags"),
        }
    }
}

/// What is measured of one cluster, between its start and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) system: Kind,
    pub(crate) members: u16,
    /// Operations between two snapshots, if that is given.
    pub(crate) snapshot_every: Option<u64>,
    pub(crate) points: Vec<Point>,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// As the files of results are called.
    pub(crate) name: &'static str,
    /// What the plots are over.
    pub(crate) axis: Axis,
    pub(crate) setups: Vec<Setup>,
}

impl Plan {
    /// Of what is asked for. What is not said is the comparison with peers, or what a sweep needs.
    pub(crate) fn of(asked: &Asked) -> Result<Self, String> {
        let axis = asked.sweep;
        let systems = or(
            &asked.systems,
            match axis {
                None => &[
                    Kind::Raftlog,
                    Kind::Etcd,
                    Kind::Nats,
                    Kind::NatsDefaultSync,
                    Kind::Zookeeper,
                ],
                Some(_) => &[Kind::Raftlog],
            },
        );
        let members = or(
            &asked.members,
            match axis {
                Some(Axis::Members) => &[1, 3, 5, 7],
                _ => &[5],
            },
        );
        let points = points(asked);
        let snapshots = or(
            &asked.snapshot_every,
            match axis {
                Some(Axis::Snapshots) => &[1_000, 10_000, 100_000, 1_000_000],
                _ => &[],
            },
        );
        let own = !snapshots.is_empty() || points.iter().any(Point::is_of_own_system);
        if let Some(system) = systems.iter().find(|system| own && !system.is_own()) {
            return Err(format!(
                "{} cannot be given a log of a certain length, a slow follower or snapshots; leave --log-length, --follower-runs and \
                 --snapshot-every out, or measure --systems raftlog",
                system.name()
            ));
        }
        let mut setups = vec![ceiling(&points)];
        let clusters = systems.iter().filter(|&&system| system != Kind::Echo);
        for &members in &members {
            for snapshot_every in maybe(&snapshots) {
                setups.extend(clusters.clone().map(|&system| {
                    Setup {
                        system,
                        members,
                        snapshot_every,
                        points: points
                            .iter()
                            .copied()
                            .filter(|point| system.takes(point.load))
                            .collect(),
                    }
                }));
            }
        }
        setups.retain(|setup| !setup.points.is_empty());
        Ok(Self {
            name: axis.map_or("results", Axis::name),
            axis: axis.unwrap_or(Axis::Clients),
            setups,
        })
    }

    /// All pairs of members and payload: each has a floor of its own.
    pub(crate) fn floors(&self) -> Vec<(u16, usize)> {
        let clusters = self.setups.iter().filter(|setup| setup.system != Kind::Echo);
        let mut floors: Vec<(u16, usize)> = clusters
            .flat_map(|setup| setup.points.iter().map(|point| (setup.members, point.payload)))
            .collect();
        floors.sort_unstable();
        floors.dedup();
        floors
    }
}

/// The shorter logs first, as they only grow.
fn points(asked: &Asked) -> Vec<Point> {
    let sweep = asked.sweep;
    let clients = or(
        &asked.clients,
        match sweep {
            None => &[1, 64, 256],
            Some(Axis::Clients) => &[1, 4, 16, 64, 256, 1024],
            Some(_) => &[64],
        },
    );
    let rates = or(
        &asked.rates,
        if sweep.is_none() && !asked.no_rates {
            &[1000]
        } else {
            &[]
        },
    );
    let payloads = or(
        &asked.payload,
        match sweep {
            Some(Axis::Payload) => &[16, 256, 4 << 10, 64 << 10, 1 << 20],
            // More than a connection holds comes while a follower stands still, and it needs a snapshot.
            Some(Axis::Snapshots) => &[4 << 10],
            _ => &[256],
        },
    );
    let lengths = or(
        &asked.log_length,
        match sweep {
            Some(Axis::LogLength) => &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            _ => &[],
        },
    );
    let mut lengths = maybe(&lengths);
    lengths.sort_unstable();
    let followers = or(
        &asked.follower_runs,
        match sweep {
            Some(Axis::SlowFollower) => &[100, 50, 20, 5, 1],
            _ => &[],
        },
    );
    let followers = match sweep {
        Some(Axis::Snapshots) if followers.is_empty() => vec![Follower::Lags],
        _ if followers.is_empty() => vec![Follower::Well],
        _ => followers.into_iter().map(Follower::Runs).collect(),
    };
    let loads = || {
        let clients = clients.iter().map(|&clients| Load::Clients(clients));
        clients.chain(rates.iter().map(|&rate| Load::Rate(rate)))
    };
    let mut points = Vec::new();
    for log_length in lengths {
        for &payload in &payloads {
            for &follower in &followers {
                points.extend(loads().map(|load| Point {
                    load,
                    payload,
                    log_length,
                    follower,
                }));
            }
        }
    }
    points
}

/// What an echo answers to all of this, however long a log is.
fn ceiling(points: &[Point]) -> Setup {
    let mut of_echo: Vec<Point> = Vec::new();
    for point in points {
        let point = Point {
            log_length: None,
            follower: Follower::Well,
            ..*point
        };
        if !of_echo.contains(&point) {
            of_echo.push(point);
        }
    }
    Setup {
        system: Kind::Echo,
        members: 1,
        snapshot_every: None,
        points: of_echo,
    }
}

/// Each of them, or once none.
fn maybe<T: Clone>(given: &[T]) -> Vec<Option<T>> {
    if given.is_empty() {
        vec![None]
    } else {
        given.iter().cloned().map(Some).collect()
    }
}

fn or<T: Clone>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default } else { given }.to_vec()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let all = std::iter::once(&"benchmark").chain(arguments);
        Plan::of(&Arguments::try_parse_from(all).unwrap().asked)
    }

    fn loads(setup: &Setup) -> Vec<String> {
        setup.points.iter().map(|point| point.load.to_string()).collect()
    }

    #[test]
    fn everything_is_compared_unless_told_otherwise() {
        let plan = plan(&[]).unwrap();
        let systems: Vec<&str> = plan.setups.iter().map(|setup| setup.system.name()).collect();
        assert_eq!(
            systems,
            [
                "echo",
                "raftlog",
                "etcd",
                "nats",
                "nats-default-sync",
                "zookeeper"
            ]
        );
        for setup in &plan.setups {
            assert_eq!(
                loads(setup),
                ["1 client", "64 clients", "256 clients", "1000/s open"]
            );
        }
        assert_eq!((plan.name, plan.axis), ("results", Axis::Clients));
        assert_eq!(plan.floors(), [(5, 256)]);
    }

    #[test]
    fn a_sweep_is_the_same_with_other_numbers() {
        for (sweep, setups, points) in [
            ("clients", 2, 6),
            ("payload", 2, 5),
            ("members", 5, 1),
            ("log-length", 2, 5),
            ("slow-follower", 2, 5),
            ("snapshots", 5, 1),
        ] {
            let plan = plan(&["--sweep", sweep]).unwrap();
            assert_eq!((plan.name, plan.axis.name()), (sweep, sweep));
            assert_eq!(plan.setups.len(), setups, "{sweep}");
            assert_eq!(plan.setups.last().unwrap().points.len(), points, "{sweep}");
        }
        let members = plan(&["--sweep", "members", "--clients", "1,2", "--members", "3"]).unwrap();
        assert_eq!(members.floors(), [(3, 256)]);
        assert_eq!(loads(members.setups.last().unwrap()), ["1 client", "2 clients"]);
    }

    #[test]
    fn logs_only_grow_and_only_where_they_can() {
        let lengths = plan(&["--systems", "raftlog", "--log-length", "300,20"]).unwrap();
        let raftlog = lengths.setups.last().unwrap();
        let told: Vec<Option<u64>> = raftlog.points.iter().map(|point| point.log_length).collect();
        assert_eq!(told.first(), Some(&Some(20)));
        assert_eq!(told.last(), Some(&Some(300)));
        let echo = lengths.setups.first().unwrap();
        assert_eq!((echo.system, echo.points.len()), (Kind::Echo, 4));
        let refused = plan(&["--log-length", "20"]).unwrap_err();
        assert!(refused.contains("etcd"), "{refused}");
        for own in [["--follower-runs", "5"], ["--snapshot-every", "1000"]] {
            assert!(plan(&own).is_err(), "{own:?}");
        }
    }

    #[test]
    fn a_follower_that_needs_snapshots_lags() {
        let snapshots = plan(&["--sweep", "snapshots", "--snapshot-every", "50,500"]).unwrap();
        let told: Vec<(Option<u64>, String)> = snapshots
            .setups
            .iter()
            .flat_map(|setup| {
                setup
                    .points
                    .iter()
                    .map(|point| (setup.snapshot_every, point.follower.to_string()))
            })
            .collect();
        let lags = "lags".to_owned();
        assert_eq!(
            told,
            [
                (None, "-".to_owned()),
                (Some(50), lags.clone()),
                (Some(500), lags)
            ]
        );
    }

    #[test]
    fn streams_have_no_open_loop() {
        let streams = plan(&["--systems", "raftlog-stream"]).unwrap();
        assert_eq!(
            loads(streams.setups.last().unwrap()),
            ["1 client", "64 clients", "256 clients"]
        );
        assert_eq!(
            plan(&["--systems", "raftlog-stream", "--rates", "5"])
                .unwrap()
                .setups
                .len(),
            2
        );
        let closed = plan(&["--no-rates"]).unwrap();
        assert_eq!(loads(closed.setups.last().unwrap()).len(), 3);
    }
}
