//! Where the time of one operation goes that comes alone: each stage is the difference between two things that are measured by
//! turns, of which one has that stage and the other does not. So they add up to what the whole takes.

use std::fmt::Write as _;

use raftlog_load::floor;
use serde::Serialize;

use super::{Stage, publish};
use crate::{
    arguments::{BudgetArgs, Folders},
    failure::Failure,
    measure::measure,
    plan::{Load, Point},
    statistics::Spread,
    system::{Kind, System, echo::Echo, raftlog::Raftlog},
};

/// Something that answers, with a stage more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Echo,
    /// So many members, whose data are in memory.
    InMemory(u16),
    /// And on the disk.
    OnDisk(u16),
}

/// The median latencies of a rung over the rounds, in microseconds.
struct Measured {
    rung: Rung,
    p50: Vec<f64>,
}

/// A part of the whole.
#[derive(Debug, Serialize)]
struct Part {
    stage: String,
    microseconds: f64,
}

/// Medians over the rounds, in microseconds.
#[derive(Debug, Default, Serialize)]
struct Floor {
    client_echo: f64,
    node_echo: f64,
    majority_sync: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    members: u16,
    payload: usize,
    /// They add up to the whole.
    parts: Vec<Part>,
    whole: f64,
    /// What the sync of the only member adds, where there is one.
    own_sync: f64,
    /// The same parts by themselves.
    floor: Floor,
}

/// Measures all rungs, by turns.
pub(crate) async fn run(arguments: &BudgetArgs) -> Result<(), Failure> {
    let programs = arguments.own.programs.as_deref();
    let output = arguments.settings.executor_output;
    let raftlog = Raftlog::find(Kind::Raftlog, programs, output).map_err(Failure::new)?;
    let echo = Echo::find().map_err(Failure::new)?;
    let mut measured: Vec<Measured> = rungs(arguments.members)
        .into_iter()
        .map(|rung| Measured {
            rung,
            p50: Vec::new(),
        })
        .collect();
    let mut floors = Vec::new();
    for round in 1..=arguments.rounds {
        for Measured { rung, p50 } in &mut measured {
            let took = climb(*rung, arguments, &raftlog, &echo).await?;
            eprintln!("round {round} of {}: {rung:?} {took:.0} us", arguments.rounds);
            p50.push(took);
        }
        let folder = &arguments.settings.folders.folder;
        let floor = floor::measure(arguments.payload, arguments.members.into(), folder).await;
        floors.push(floor.map_err(Failure::new)?);
    }
    let median = |of: fn(&floor::Floor) -> f64| Spread::of(floors.iter().map(of)).unwrap_or_default().median;
    let floor = Floor {
        client_echo: median(|floor| floor.client_echo),
        node_echo: median(|floor| floor.node_echo),
        majority_sync: median(|floor| floor.majority_sync),
    };
    let found = add_up(arguments, &measured, floor);
    publish("budget", &arguments.settings.folders, &table(&found), &found, &[])
}

/// From the least to the whole, and one member on the disk.
fn rungs(members: u16) -> Vec<Rung> {
    let mut rungs = vec![Rung::Echo, Rung::InMemory(1), Rung::OnDisk(1)];
    rungs.extend((members > 3).then_some(Rung::InMemory(3)));
    rungs.extend([Rung::InMemory(members), Rung::OnDisk(members)]);
    rungs
}

/// The median latency of one client, in microseconds.
async fn climb(rung: Rung, arguments: &BudgetArgs, raftlog: &Raftlog, echo: &Echo) -> Result<f64, Failure> {
    let on_disk = &arguments.settings.folders;
    let in_memory = Folders {
        folder: arguments.memory.clone(),
        ..on_disk.clone()
    };
    let (system, folders, members): (&dyn System, _, _) = match rung {
        Rung::Echo => (echo, on_disk, 1),
        Rung::InMemory(members) => (raftlog, &in_memory, members),
        Rung::OnDisk(members) => (raftlog, on_disk, members),
    };
    let stage = Stage::new(folders, members)?;
    let mut cluster = system.start(stage.place()).await?;
    let point = Point {
        load: Load::Clients(1),
        payload: arguments.payload,
        ..Point::default()
    };
    let sample = measure(cluster.as_mut(), point, &arguments.settings).await?;
    drop(cluster);
    stage.end(folders);
    Ok(sample.latency_microseconds.p50)
}

fn add_up(arguments: &BudgetArgs, measured: &[Measured], floor: Floor) -> Found {
    let members = arguments.members;
    let took = |rung| {
        let found = measured.iter().find(|other| other.rung == rung);
        let spread = found.and_then(|found| Spread::of(found.p50.iter().copied()));
        spread.unwrap_or_default().median
    };
    let (echo, one, all) = (
        took(Rung::Echo),
        took(Rung::InMemory(1)),
        took(Rung::InMemory(members)),
    );
    let few = if members > 3 { took(Rung::InMemory(3)) } else { all };
    let whole = took(Rung::OnDisk(members));
    let part = |stage: &str, microseconds| Part {
        stage: stage.to_owned(),
        microseconds,
    };
    let mut parts = vec![
        part("client to node and back: a gRPC echo", echo),
        part("leader: its core, its thread for the disk and back", one - echo),
        part(
            "followers: message, core, thread for the disk, acknowledgement",
            few - one,
        ),
    ];
    if members > 3 {
        let more = members - 3;
        parts.push(part(
            &format!("{more} followers more, on the same cores"),
            all - few,
        ));
    }
    parts.push(part("syncs: a majority of disks instead of memory", whole - all));
    Found {
        members,
        payload: arguments.payload,
        parts,
        whole,
        own_sync: took(Rung::OnDisk(1)) - one,
        floor,
    }
}

fn table(found: &Found) -> String {
    let Found {
        members,
        payload,
        parts,
        whole,
        own_sync,
        floor,
    } = found;
    let mut text = format!(
        "1 client, {members} members, {payload} bytes; medians, each stage by the difference of two\n\n\
         | stage | us | of the whole |\n| --- | --- | --- |\n"
    );
    // Writing to a String cannot fail.
    for Part { stage, microseconds } in parts {
        let share = 100.0 * microseconds / whole;
        let _ = writeln!(text, "| {stage} | {microseconds:.0} | {share:.0}% |");
    }
    let _ = writeln!(text, "| the whole | {whole:.0} | |");
    let Floor {
        client_echo,
        node_echo,
        majority_sync,
    } = floor;
    let sync = floor::name_of_sync((*members).into());
    let _ = writeln!(
        text,
        "\nBy themselves: echo {client_echo:.0} us, echo between members {node_echo:.0} us, {sync} {majority_sync:.0} us; the sync of \
         an only member {own_sync:.0} us."
    );
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Trial};

    fn found(members: &str) -> Found {
        let parsed = Arguments::parse_from(["benchmark", "budget", "--members", members]);
        let Some(Trial::Budget(arguments)) = parsed.trial else {
            panic!("{parsed:?}");
        };
        let p50 = (1..).map(|place: u16| vec![100.0 * f64::from(place)]);
        let rungs = rungs(arguments.members).into_iter().zip(p50);
        let measured: Vec<Measured> = rungs.map(|(rung, p50)| Measured { rung, p50 }).collect();
        add_up(&arguments, &measured, Floor::default())
    }

    #[test]
    fn stages_add_up_to_the_whole() {
        for (members, stages) in [("3", 4), ("5", 5)] {
            let found = found(members);
            assert_eq!(found.parts.len(), stages);
            let sum: f64 = found.parts.iter().map(|part| part.microseconds).sum();
            assert!((sum - found.whole).abs() < 1e-9, "{found:?}");
            let text = table(&found);
            assert!(text.contains("| the whole |"), "{text}");
        }
    }
}
