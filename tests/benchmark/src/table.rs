//! The report for people: a table that a README can take as it is, and what is to be known beside it.

use std::fmt::Write as _;

use raftlog_load::floor;

use crate::{
    plan::counted,
    report::{FloorRow, Key, Report, Row},
    statistics::Spread,
    system::{Description, Kind},
};

/// A column: its title, and what it says of a row.
type Column = (&'static str, fn(&Row) -> String);

/// Where others had a larger part of the machine, the numbers are told to be worth little.
const OTHERS_SHARE_MAX: f64 = 0.1;

const COLUMNS: [Column; 13] = [
    ("system", |row| row.key.system.name().to_owned()),
    ("load", |row| row.key.point.load.to_string()),
    ("operations/s", |row| whole(row.operations_per_second.median)),
    ("min..max", |row| min_max(row.operations_per_second)),
    ("p50 ms", |row| milliseconds(row.latency_microseconds.p50.median)),
    ("p99 ms", |row| milliseconds(row.latency_microseconds.p99.median)),
    ("max ms", |row| milliseconds(row.latency_microseconds.max.max)),
    ("p50 / floor", |row| times(row.p50_over_floor)),
    ("of echo", |row| percent(row.of_echo)),
    ("raftlog / this", |row| times(row.raftlog_over_this)),
    ("CPU us/op + generator", |row| {
        let (servers, generator) = (
            row.server_cpu_microseconds.median,
            row.generator_cpu_microseconds.median,
        );
        format!("{} + {}", whole(servers), whole(generator))
    }),
    ("CPU of others", |row| percent(Some(row.others_share.max))),
    ("peak MiB, largest of all", |row| {
        format!("{} of {}", row.peak_bytes_largest >> 20, row.peak_bytes_all >> 20)
    }),
];

/// Columns that are there only where rows differ in them; otherwise they are told once.
const VARYING: [Column; 6] = [
    ("members", |row| row.key.members.to_string()),
    ("bytes", |row| row.key.point.payload.to_string()),
    ("log", |row| {
        row.key
            .point
            .log_length
            .map_or_else(|| "-".to_owned(), |length| length.to_string())
    }),
    ("follower", |row| row.key.point.follower.to_string()),
    ("snapshot every", |row| {
        let every = row.key.snapshot_every;
        every.map_or_else(|| "-".to_owned(), |every| every.to_string())
    }),
    ("snapshots, bytes installed", |row| match row.key.snapshot_every {
        None => "-".to_owned(),
        Some(_) => format!("{}, {}", row.snapshots_taken, row.snapshot_bytes_installed),
    }),
];

/// All of it.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |told: &str| {
        text.push_str(told);
        text.push('\n');
    };
    let (varying, fixed): (Vec<&Column>, Vec<&Column>) =
        VARYING.iter().partition(|(_, of)| differ(&report.rows, *of));
    let fixed = fixed.into_iter().filter_map(|(title, of)| {
        let told = of(clusters(&report.rows).next()?);
        (told != "-").then(|| format!("{title}: {told}"))
    });
    line(&fixed.collect::<Vec<_>>().join(", "));
    line("");
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .take(1)
        .chain(varying)
        .chain(&COLUMNS[1..])
        .collect();
    line(&markdown(&columns, &report.rows));
    for floor in &report.floors {
        line(&floor_in_words(floor));
    }
    line("");
    for system in &report.systems {
        line(&system_in_words(system));
    }
    line("");
    line(&report.machine.in_words());
    line(&report.command);
    for row in report.rows.iter().filter(|row| row.errors + row.unanswered > 0) {
        line(&errors_in_words(row));
    }
    let others = report.rows.iter().map(|row| row.others_share.max);
    let others = others.fold(0.0, f64::max);
    if others > OTHERS_SHARE_MAX {
        let others = percent(Some(others));
        line(&format!(
            "Others had up to {others} of the processors meanwhile: measure again when nothing else runs."
        ));
    }
    if !report.optimized {
        line("The load generator is not optimized, which every system pays for: run with --release.");
    }
    for skipped in &report.skipped {
        line(&format!("SKIPPED {skipped}"));
    }
    for failure in &report.failures {
        line(&format!("FAILED {failure}"));
    }
    text
}

/// The echo is one server whatever the members are.
fn clusters(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.key.system != Kind::Echo)
}

fn differ(rows: &[Row], of: fn(&Row) -> String) -> bool {
    let mut told: Vec<String> = clusters(rows).map(of).collect();
    told.sort_unstable();
    told.dedup();
    told.len() > 1
}

fn markdown(columns: &[&Column], rows: &[Row]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    let mut lines = vec![titles.collect::<Vec<_>>()];
    lines.extend(
        rows.iter()
            .map(|row| columns.iter().map(|(_, of)| of(row)).collect()),
    );
    let widths: Vec<usize> = (0..columns.len())
        .map(|place| {
            let cells = lines.iter().filter_map(|line| line.get(place));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let rule = widths.iter().map(|&width| "-".repeat(width));
    lines.insert(1, rule.collect());
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn floor_in_words(floor: &FloorRow) -> String {
    let FloorRow { members, payload, .. } = floor;
    format!(
        "Floor for {} and {payload} bytes: {} ms = client's echo {} + echo between members {} + {} {}",
        counted(*members),
        milliseconds(floor.sum.median),
        milliseconds(floor.client_echo.median),
        milliseconds(floor.node_echo.median),
        floor::name_of_sync((*members).into()),
        milliseconds(floor.majority_sync.median),
    )
}

fn system_in_words(system: &Description) -> String {
    format!(
        "{} {}: {}; acknowledged after: {}; executor: {}",
        system.system.name(),
        system.version,
        system.operation,
        system.durability,
        system.executor
    )
}

fn errors_in_words(row: &Row) -> String {
    let Key { system, point, .. } = row.key;
    let why = row.first_error.as_deref().unwrap_or("no answer in time");
    format!(
        "{}, {}: {} failed and {} were not answered: {why}",
        system.name(),
        point.load,
        row.errors,
        row.unanswered
    )
}

/// With commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn min_max(spread: Spread) -> String {
    format!("{}..{}", whole(spread.min), whole(spread.max))
}

/// Three digits that matter.
fn milliseconds(microseconds: f64) -> String {
    let milliseconds = microseconds / 1000.0;
    match milliseconds {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1}%", 100.0 * ratio))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        machine::Machine,
        measure::Sample,
        plan::Axis,
        report::tests::{key, sample, samples},
    };

    fn report() -> Report {
        let samples = samples();
        Report {
            name: "results",
            command: "benchmark --rounds 2".to_owned(),
            machine: Machine::describe(Path::new(".")),
            optimized: true,
            axis: Axis::Clients,
            systems: vec![],
            skipped: vec!["nats: there is no program nats-server".to_owned()],
            floors: samples.floor_rows(),
            rows: samples.rows(),
            failures: vec![],
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [0.0, 999.4, 1234.0, 1_234_567.0].map(whole),
            ["0", "999", "1,234", "1,234,567"]
        );
        assert_eq!(
            [123.0, 9994.0, 12_345.0, 123_456.0].map(milliseconds),
            ["0.12", "9.99", "12.3", "123"]
        );
        assert_eq!(
            (times(None), times(Some(2.345)), percent(Some(0.5))),
            ("-".into(), "2.35".into(), "50.0%".into())
        );
    }

    #[test]
    fn what_does_not_vary_is_told_once() {
        let text = render(&report());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"members: 5, bytes: 256"));
        let table: Vec<&&str> = lines.iter().filter(|line| line.starts_with('|')).collect();
        assert_eq!(table.len(), 5, "{text}");
        let width = table.first().unwrap().chars().count();
        assert!(table.iter().all(|line| line.chars().count() == width), "{text}");
        let etcd = table.last().unwrap();
        for cell in [
            "| etcd ",
            "| 64 clients ",
            "| 2,000 ",
            "| 3.00 ",
            "| 6.00 ",
            "| 10.0% ",
            "| 5.00 ",
            "| 30 of 200 ",
        ] {
            assert!(etcd.contains(cell), "no {cell} in {etcd}");
        }
        assert!(text.contains("SKIPPED nats"), "{text}");
        assert!(
            text.contains("Floor for 5 members and 256 bytes: 0.50 ms"),
            "{text}"
        );
    }

    #[test]
    fn what_varies_has_a_column() {
        let mut samples = samples();
        samples.taken.push((key(Kind::Raftlog, 3, 64), sample(1.0, 1.0)));
        let text = render(&Report {
            rows: samples.rows(),
            ..report()
        });
        assert!(text.contains("| members |"), "{text}");
        assert!(text.starts_with("bytes: 256\n"), "{text}");
    }

    #[test]
    fn a_busy_machine_is_told() {
        assert!(!render(&report()).contains("Others had"));
        let mut samples = samples();
        samples.taken.push((
            key(Kind::Etcd, 5, 64),
            Sample {
                others_share: 0.5,
                ..sample(1.0, 1.0)
            },
        ));
        let text = render(&Report {
            rows: samples.rows(),
            ..report()
        });
        assert!(
            text.contains("Others had up to 50.0% of the processors"),
            "{text}"
        );
    }

    #[test]
    fn failures_are_told_with_their_cause() {
        let mut failing = sample(1.0, 1.0);
        failing.errors = 3;
        failing.first_error = Some("no space".to_owned());
        let mut samples = samples();
        samples.taken.push((key(Kind::Zookeeper, 5, 1), failing));
        let text = render(&Report {
            rows: samples.rows(),
            ..report()
        });
        assert!(
            text.contains("zookeeper, 1 client: 3 failed and 0 were not answered: no space"),
            "{text}"
        );
    }
}
