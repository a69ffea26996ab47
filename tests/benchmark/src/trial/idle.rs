//! How much of a core the demo takes while nothing happens but an operation every ten seconds.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{demo_program, publish};
use crate::{
    arguments::IdleArgs,
    failure::Failure,
    run,
    server::{Program, Servers, Voice},
    usage::Usage,
};

const DEMO: &str = "demo";

#[derive(Debug, Serialize)]
struct Found {
    processes: usize,
    seconds: f64,
    cpu_seconds: f64,
    /// Of one core.
    share: f64,
}

/// Measures once.
pub(crate) async fn run(arguments: &IdleArgs) -> Result<(), Failure> {
    let raftctl = demo_program(arguments.own.programs.as_deref()).map_err(Failure::new)?;
    let folder = run::data_folder(&arguments.folders)?;
    let port = arguments.base_port.to_string();
    let flags = ["demo", "--base-port", &port, "--data-dir"].map(Into::into);
    let flags = flags
        .into_iter()
        .chain([folder.path().join("data").into_os_string()]);
    let program = Program::new(DEMO.to_owned(), &raftctl, flags, Voice::Log);
    let mut servers = Servers::start(&[program], folder.path())?;
    tokio::time::sleep(arguments.warm_up).await;
    servers.check()?;
    let (began, before) = (Instant::now(), used(&servers)?);
    tokio::time::sleep(arguments.duration).await;
    servers.check()?;
    let (span, after) = (began.elapsed(), used(&servers)?);
    let cpu = after.cpu.saturating_sub(before.cpu);
    let found = Found {
        processes: after.processes,
        seconds: span.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        share: cpu.as_secs_f64() / span.as_secs_f64().max(f64::MIN_POSITIVE),
    };
    drop(servers);
    publish("idle", &arguments.folders, &table(&found), &found, &[])
}

fn table(found: &Found) -> String {
    format!(
        "{} processes of the demo: {:.2}% of a core, {:.2} s of {:.0} s\n",
        found.processes,
        100.0 * found.share,
        found.cpu_seconds,
        found.seconds
    )
}

struct Used {
    processes: usize,
    cpu: Duration,
}

/// By the demo and all that it has started.
fn used(servers: &Servers) -> Result<Used, Failure> {
    let demo = servers
        .group(DEMO)
        .ok_or_else(|| Failure::new("the demo is gone"))?;
    let mut found = vec![demo.as_raw_nonzero().to_string()];
    let mut next = 0;
    while let Some(id) = found.get(next).cloned() {
        found.extend(children(&id));
        next += 1;
    }
    let each = found.iter().map(|id| Usage::of_process(id));
    let each: Vec<Usage> = each.collect::<Result<_, _>>().map_err(Failure::new)?;
    Ok(Used {
        processes: each.len(),
        cpu: Usage::sum(each).cpu,
    })
}

/// Of all its threads.
fn children(id: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
