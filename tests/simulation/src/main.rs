//! Runs seeds, and says what came of them. Exit codes: 0 nothing is wrong, 1 a violation, 2 wrong usage.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use raftlog_raft::planted::Bug;
use simulation::coverage::Seen;
use simulation::invariants::Violation;
use simulation::{Options, Summary, Variation, run_seed, run_seeds};

/// Simulates whole clusters under faults, and judges what they do.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Flags {
    /// Run these seeds: FIRST..END, the end not included.
    #[arg(long, value_name = "FIRST..END", value_parser = range, default_value = "0..100")]
    seeds: Range<u64>,
    /// Begin no further seed after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Run this one alone, and tell everything that happens.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Tell what the nodes say to each other, too.
    #[arg(long, requires = "seed")]
    messages: bool,
    /// Leave these faults out of the runs.
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    without: Vec<String>,
    /// Of a seed that fails, find out which faults it can do without.
    #[arg(long, requires = "seed")]
    minimize: bool,
    /// Plant a bug, to see whether it is found; `list` names them. Needs the feature `planted-bugs`.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How to say what came of it.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text
        .split_once("..")
        .ok_or("write it as FIRST..END, such as 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("'{text}': {error}"));
    let (first, end) = (number(first)?, number(end)?);
    if first < end {
        Ok(first..end)
    } else {
        Err(format!("{first}..{end} is empty"))
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.plant.as_deref() == Some("list") {
        for bug in Bug::ALL {
            println!("{:<32} {}", bug.name(), bug.what());
        }
        return ExitCode::SUCCESS;
    }
    match (variation(&flags), flags.seed) {
        (Ok(variation), Some(seed)) if flags.minimize => minimize(&variation, seed),
        (Ok(variation), Some(seed)) => one(&variation, seed, flags.messages),
        (Ok(variation), None) => many(&flags, &variation),
        (Err(why), _) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn variation(flags: &Flags) -> Result<Variation, String> {
    let mut variation = Variation::default();
    for part in &flags.without {
        variation.leave_out(part)?;
    }
    if let Some(name) = &flags.plant {
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
        variation.plant(*bug.ok_or_else(|| format!("'{name}' is no bug; --plant list names them"))?)?;
    }
    Ok(variation)
}

fn minimize(variation: &Variation, seed: u64) -> ExitCode {
    let least = variation.minimized(seed);
    println!("{}", least.options(seed));
    println!("{}", least.replay_command(seed));
    one_verdict(
        seed,
        run_seed(&least.options(seed), false).map(|outcome| outcome.violation),
    )
}

fn one(variation: &Variation, seed: u64, tells_messages: bool) -> ExitCode {
    let options = Options {
        tells_messages,
        ..variation.options(seed)
    };
    println!("{options}");
    let result = run_seed(&options, true).map(|outcome| {
        print!("{}", outcome.coverage.table());
        println!(
            "seed {seed}: {} happenings and {} operations in {:.0?}, trace {:016x}",
            outcome.happenings, outcome.operations, outcome.simulated, outcome.trace
        );
        outcome.violation
    });
    one_verdict(seed, result)
}

fn one_verdict(seed: u64, result: Result<Option<Violation>, Violation>) -> ExitCode {
    match result.unwrap_or_else(Some) {
        Some(violation) => {
            eprintln!("seed {seed} violates {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(flags: &Flags, variation: &Variation) -> ExitCode {
    const EVERY: Duration = Duration::from_secs(10);
    let (began, told) = (Instant::now(), Mutex::new(Instant::now()));
    let total = flags.seeds.end - flags.seeds.start;
    let summary = run_seeds(flags.seeds.clone(), variation, flags.threads, |summary| {
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.elapsed() >= EVERY {
            *told = Instant::now();
            eprintln!(
                "{} of {total} seeds, {}",
                summary.runs,
                pace(summary, began.elapsed())
            );
        }
        flags
            .seconds
            .is_none_or(|seconds| began.elapsed().as_secs() < seconds)
    });
    match flags.output {
        Form::Table => {
            print!("{}", summary.coverage.table());
            println!(
                "{} seeds, {}; {} happenings, {} operations",
                summary.runs,
                pace(&summary, began.elapsed()),
                summary.happenings,
                summary.operations
            );
        }
        Form::Json => println!("{}", json(&summary, variation, began.elapsed())),
    }
    for failure in &summary.failures {
        for line in &failure.story {
            eprintln!("{line}");
        }
        eprintln!("{}", variation.options(failure.seed));
        eprintln!("seed {} violates {}", failure.seed, failure.violation);
        eprintln!("replay it with: {}", variation.replay_command(failure.seed));
        eprintln!("and add --minimize to find out which faults it takes");
    }
    if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn hours(span: Duration) -> f64 {
    span.as_secs_f64() / 3_600.0
}

fn hours_per_minute(summary: &Summary, took: Duration) -> f64 {
    hours(summary.simulated) / (took.as_secs_f64() / 60.0)
}

fn pace(summary: &Summary, took: Duration) -> String {
    format!(
        "{:.1} simulated hours in {took:.0?}: {:.1} hours a minute",
        hours(summary.simulated),
        hours_per_minute(summary, took)
    )
}

fn json(summary: &Summary, variation: &Variation, took: Duration) -> serde_json::Value {
    let coverage = |&seen: &Seen| (seen.name().to_owned(), summary.coverage.of(seen).into());
    let failures = summary.failures.iter().map(|failure| {
        serde_json::json!({
            "seed": failure.seed,
            "invariant": failure.violation.invariant,
            "what": failure.violation.what,
            "replay": variation.replay_command(failure.seed),
        })
    });
    serde_json::json!({
        "seeds": summary.runs,
        "simulated_hours": hours(summary.simulated),
        "simulated_hours_per_minute": hours_per_minute(summary, took),
        "happenings": summary.happenings,
        "operations": summary.operations,
        "coverage": Seen::ALL.iter().map(coverage).collect::<serde_json::Map<_, _>>(),
        "failures": failures.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds() {
        assert_eq!(range("3..1000"), Ok(3..1000));
        for bad in ["7", "5..5", "9..1", "a..b", "..", "1..-1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_sound() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
    }
}
