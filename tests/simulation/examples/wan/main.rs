//! How long does a commit take where members are in different parts of the world? Clusters run under virtual time, with
//! round trips that were measured between regions, and each region leads in turn. Beside what it takes is the best that any
//! leader there could do. The same seed gives the same numbers on any machine. Exit codes: 0 all is measured, 1 something failed,
//! 2 wrong usage.
//!
//! `cargo run --release -p simulation --example wan`

mod plot;
mod regions;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use raftlog_raft::ids::NodeNumber;
use simulation::{Cluster, Commits, Options};

use report::{Latency, Report, Row};

/// Members of the clusters.
const MEMBERS: [NodeNumber; 3] = [3, 5, 7];

/// Measures commits between regions, in virtual time.
#[derive(Debug, Parser)]
#[command(name = "wan")]
struct Flags {
    /// What is left to chance comes from it: when clocks tick, who is elected first, when operations come
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What a disk takes for each write with its sync
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = humantime::parse_duration)]
    sync: Duration,
    /// Operations of each measurement
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    operations: u32,
    /// Bytes of an operation
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// Mean time between operations of the load that does not wait for answers
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Where the results are written to
    #[arg(long, value_name = "FOLDER", default_value = "target/wan")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("wan: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    let mut rows = Vec::new();
    for members in MEMBERS {
        for leader in 1..=members {
            rows.push(measure(flags, members, leader)?);
        }
    }
    let report = Report {
        command: command(flags),
        seed: flags.seed,
        sync_milliseconds: flags.sync.as_secs_f64() * 1e3,
        rows,
    };
    let table = report.table();
    print!("{table}");
    write(&flags.output, "results.md", &table)?;
    write(&flags.output, "results.json", &report.json())?;
    let drawn = plot::draw(&report).map_err(|error| format!("cannot draw the plot: {error}"))?;
    write(&flags.output, "wan.svg", &drawn)
}

fn command(flags: &Flags) -> String {
    let Flags {
        seed,
        sync,
        operations,
        bytes,
        every,
        output: _,
    } = flags;
    let (sync, every) = (
        humantime::format_duration(*sync),
        humantime::format_duration(*every),
    );
    format!(
        "cargo run --release -p simulation --example wan -- --seed {seed} --sync {sync} --operations {operations} --bytes {bytes} --every {every}"
    )
}

fn measure(flags: &Flags, members: NodeNumber, leader: NodeNumber) -> Result<Row, String> {
    let distances = regions::distances(members, flags.sync);
    let measured = |every| {
        let cluster = Cluster::new(Options::far_apart(flags.seed, members, distances.clone()));
        let commits = Commits {
            leader,
            operations: usize::try_from(flags.operations).unwrap_or(usize::MAX),
            bytes: usize::try_from(flags.bytes).unwrap_or(usize::MAX),
            every,
        };
        let latencies = cluster.measure(commits);
        let latencies =
            latencies.map_err(|why| format!("{members} members, {} leads: {why}", regions::name(leader)))?;
        Ok::<_, String>(Latency::of(latencies))
    };
    Ok(Row {
        members,
        leader: regions::name(leader),
        majority_round_trip: distances.majority(leader),
        best: distances.best(leader),
        alone: measured(None)?,
        many: measured(Some(flags.every))?,
    })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| {
            format!(
                "cannot write {}: {error}; choose a folder with --output",
                path.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_sound() {
        Flags::command().debug_assert();
    }

    fn flags(seed: &str) -> Flags {
        Flags::parse_from(["wan", "--seed", seed, "--operations", "50"])
    }

    /// Nothing on the way of a commit waits for a timer, or for anybody beyond the nearest majority.
    #[test]
    fn commits_take_what_they_have_to() {
        for (members, leader) in [(3, 1), (5, 3), (7, 7)] {
            let row = measure(&flags("3"), members, leader).unwrap();
            assert!(row.alone.p50 >= row.best, "{row:?}");
            assert!(row.alone.p50 <= row.best + Duration::from_micros(10), "{row:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let rows = ["4", "4"].map(|seed| measure(&flags(seed), 3, 2).unwrap());
        assert_eq!(rows[0], rows[1]);
    }
}
