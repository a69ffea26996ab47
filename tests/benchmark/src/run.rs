//! Round after round: each system in turn, so that a noisy machine hits all alike.

use std::path::{Path, PathBuf};

use processes::ports::Ports;
use raftlog_load::floor;
use tempfile::TempDir;

use crate::{
    arguments::{Arguments, Folders},
    failure::Failure,
    machine::Machine,
    measure::{Sample, measure},
    plan::{Follower, Plan, Setup, counted},
    report::{Key, Report, Samples},
    system::{Kind, Place, System},
};

/// What is run, and what has come of it so far.
pub(crate) struct Run<'a> {
    arguments: &'a Arguments,
    plan: Plan,
    systems: Vec<Box<dyn System>>,
    skipped: Vec<String>,
    samples: Samples,
    failures: Vec<String>,
}

impl<'a> Run<'a> {
    /// Looks for all programs. Those that are missing are left out, and told; this system's own must be there.
    pub(crate) fn new(arguments: &'a Arguments, mut plan: Plan) -> Result<Self, Failure> {
        let mut kinds: Vec<Kind> = Vec::new();
        for setup in &plan.setups {
            if !kinds.contains(&setup.system) {
                kinds.push(setup.system);
            }
        }
        let (mut systems, mut skipped) = (Vec::new(), Vec::new());
        for kind in kinds {
            match crate::system::find(kind, arguments) {
                Ok(system) => systems.push(system),
                Err(why) if matches!(kind, Kind::Echo | Kind::Raftlog | Kind::RaftlogStream) => {
                    return Err(Failure::new(why));
                }
                Err(why) => {
                    eprintln!("SKIPPED {}: {why}", kind.name());
                    skipped.push(format!("{}: {why}", kind.name()));
                    plan.setups.retain(|setup| setup.system != kind);
                }
            }
        }
        Ok(Self {
            arguments,
            plan,
            systems,
            skipped,
            samples: Samples::default(),
            failures: Vec::new(),
        })
    }

    /// All rounds. What there is after each of them is written already. A system that fails is told, and the others go on.
    pub(crate) async fn run(mut self) -> Result<Report, Failure> {
        let settings = &self.arguments.settings;
        let folder = data_folder(&settings.folders)?;
        let rounds = self.arguments.asked.rounds;
        for round in 1..=rounds {
            self.measure_floors(folder.path()).await?;
            for setup in self.plan.setups.clone() {
                let snapshots = setup
                    .snapshot_every
                    .map_or_else(String::new, |every| format!("-{every}"));
                let name = format!(
                    "round-{round}-{}-{}{snapshots}",
                    setup.system.name(),
                    setup.members
                );
                let told = format!("round {round} of {rounds}");
                if let Err(failure) = self.measure_setup(&setup, &folder.path().join(name), &told).await {
                    let failure = format!("{} in {told}: {failure}", setup.system.name());
                    eprintln!("FAILED {failure}");
                    self.failures.push(failure);
                }
            }
            self.report(folder.path()).write(&settings.folders.output)?;
        }
        let report = self.report(folder.path());
        if settings.folders.keep {
            eprintln!("data and logs are in {}", folder.keep().display());
        }
        Ok(report)
    }

    async fn measure_floors(&mut self, folder: &Path) -> Result<(), Failure> {
        for (members, payload) in self.plan.floors() {
            let measured = floor::measure(payload, members.into(), folder).await;
            let measured = measured.map_err(|error| Failure::new(format!("{error}; see --folder")))?;
            self.samples.floors.push((members, payload, measured));
        }
        Ok(())
    }

    /// Starts a cluster, measures all that is asked of it, and ends it.
    async fn measure_setup(&mut self, setup: &Setup, folder: &Path, told: &str) -> Result<(), Failure> {
        let settings = &self.arguments.settings;
        let kind = setup.system;
        let system = self
            .systems
            .iter()
            .find(|system| system.describe().system == kind);
        let system = system.expect("what is missing is not in the plan");
        let in_folder =
            |error| Failure::new(format!("cannot use {}: {error}; see --folder", folder.display()));
        std::fs::create_dir(folder).map_err(in_folder)?;
        settle().await;
        let ports = Ports::claim();
        let place = Place {
            folder,
            ports: &ports,
            members: setup.members,
            target: settings.connect,
            snapshot_every: setup.snapshot_every,
        };
        let mut cluster = system.start(place).await?;
        for &point in &setup.points {
            let key = Key {
                system: kind,
                members: setup.members,
                snapshot_every: setup.snapshot_every,
                point,
            };
            let sample = measure(cluster.as_mut(), point, settings).await?;
            eprintln!("{told}: {}", in_words(&key, &sample));
            self.samples.taken.push((key, sample));
        }
        drop(cluster);
        if settings.folders.keep {
            return Ok(());
        }
        std::fs::remove_dir_all(folder).map_err(in_folder)
    }

    fn report(&self, folder: &Path) -> Report {
        Report {
            name: self.plan.name,
            command: command(),
            machine: Machine::describe(folder),
            optimized: !cfg!(debug_assertions),
            axis: self.plan.axis,
            systems: self
                .systems
                .iter()
                .map(|system| system.describe().clone())
                .collect(),
            skipped: self.skipped.clone(),
            floors: self.samples.floor_rows(),
            rows: self.samples.rows(),
            failures: self.failures.clone(),
        }
    }
}

/// That this program was started by.
pub(crate) fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("cargo run --release -p benchmark -- {}", arguments.join(" "));
    command.trim_end().to_owned()
}

/// What others have left to be written is not charged to whoever comes next.
async fn settle() {
    // A panic of it is no reason to stop: it measures nothing.
    let _ = tokio::task::spawn_blocking(rustix::fs::sync).await;
}

/// A new one, whose path is absolute: servers and their configurations may be anywhere.
pub(crate) fn data_folder(folders: &Folders) -> Result<TempDir, Failure> {
    let made = || {
        std::fs::create_dir_all(&folders.folder)?;
        let whole: PathBuf = std::fs::canonicalize(&folders.folder)?;
        tempfile::Builder::new().prefix("run-").tempdir_in(whole)
    };
    made().map_err(|error| {
        let folder = folders.folder.display();
        Failure::new(format!("cannot use {folder}: {error}; choose another --folder"))
    })
}

fn in_words(key: &Key, sample: &Sample) -> String {
    let log = key.point.log_length;
    let log = log.map_or_else(String::new, |length| format!(", log of {length}"));
    let snapshots = key.snapshot_every;
    let snapshots = snapshots.map_or_else(String::new, |every| format!(", snapshot every {every}"));
    let follower = match key.point.follower {
        Follower::Well => String::new(),
        other => format!(", a follower {other}"),
    };
    let what = format!(
        "{}, {}, {}, {} bytes{log}{snapshots}{follower}",
        key.system.name(),
        counted(key.members),
        key.point.load,
        key.point.payload
    );
    let latency = sample.latency_microseconds;
    format!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        sample.operations_per_second,
        latency.p50 / 1e3,
        latency.p99 / 1e3
    )
}
