//! Plots of throughput and p99 over whatever grows.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Circle, Color as _, DrawingArea, IntoDrawingArea as _, IntoLogRange as _,
        LineSeries, Palette as _, Palette99, PathElement, SVGBackend, SeriesLabelPosition, TRANSPARENT,
        WHITE,
    },
};

use crate::{
    failure::Failure,
    plan::{Axis, Follower, Load, counted},
    report::{Report, Row, write},
    statistics::Spread,
    system::Kind,
};

const SIZE: (u32, u32) = (1200, 480);

/// A file, with all rows that differ only in the axis and the system.
#[derive(Clone, Debug, PartialEq)]
struct Plot {
    file: String,
    title: String,
    series: Vec<Series>,
}

/// What one system does, over the axis.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    system: Kind,
    points: Vec<(f64, Spread, Spread)>,
}

/// One half of a plot.
struct Panel<'a> {
    title: &'a str,
    axis: &'a str,
    y: fn(&(f64, Spread, Spread)) -> Spread,
    /// From the unit of the rows to that of the axis.
    scale: f64,
}

/// Writes a file for each group of rows that a plot can show.
pub(crate) fn write_all(report: &Report, folder: &Path) -> Result<Vec<String>, Failure> {
    let mut files = Vec::new();
    for plot in plots(report.axis, &report.rows) {
        let drawn = draw(&plot, report.axis);
        let drawn = drawn.map_err(|error| Failure::new(format!("cannot draw {}: {error}", plot.file)))?;
        write(&folder.join(&plot.file), &drawn)?;
        files.push(plot.file);
    }
    Ok(files)
}

fn plots(axis: Axis, rows: &[Row]) -> Vec<Plot> {
    let mut plots: Vec<Plot> = Vec::new();
    let clusters = || rows.iter().filter(|row| row.key.system != Kind::Echo);
    for row in clusters() {
        let (Some(x), Some(group)) = (place(axis, row), group(axis, row)) else {
            continue;
        };
        let file = format!("{}-{}.svg", axis.name(), group.join("-").replace([' ', '%'], "-"));
        let known = plots.iter().position(|plot| plot.file == file);
        let at = known.unwrap_or_else(|| {
            plots.push(Plot {
                file,
                title: group.join(", "),
                series: echoes(axis, row, rows).into_iter().collect(),
            });
            plots.len() - 1
        });
        if let Some(plot) = plots.get_mut(at) {
            add(plot, row, x);
        }
    }
    plots
}

fn add(plot: &mut Plot, row: &Row, x: f64) {
    let point = point(row, x);
    let system = row.key.system;
    match plot.series.iter_mut().find(|series| series.system == system) {
        Some(series) => series.points.push(point),
        None => plot.series.push(Series {
            system,
            points: vec![point],
        }),
    }
}

fn point(row: &Row, x: f64) -> (f64, Spread, Spread) {
    (x, row.operations_per_second, row.latency_microseconds.p99)
}

/// The echo's line in the plot of this row; it has no members and no log to grow.
fn echoes(axis: Axis, row: &Row, rows: &[Row]) -> Option<Series> {
    let same = |echo: &&Row| match axis {
        Axis::Clients => echo.key.point.payload == row.key.point.payload,
        Axis::Payload => echo.key.point.load == row.key.point.load,
        Axis::Members | Axis::LogLength | Axis::SlowFollower | Axis::Snapshots => false,
    };
    let echoes = rows
        .iter()
        .filter(|row| row.key.system == Kind::Echo)
        .filter(same);
    let points: Vec<_> = echoes
        .filter_map(|echo| Some(point(echo, place(axis, echo)?)))
        .collect();
    (!points.is_empty()).then_some(Series {
        system: Kind::Echo,
        points,
    })
}

/// Where a row stands on the axis; rows of open loops stand nowhere.
fn place(axis: Axis, row: &Row) -> Option<f64> {
    let Load::Clients(clients) = row.key.point.load else {
        return None;
    };
    let whole = match axis {
        Axis::Clients => Some(clients.into()),
        Axis::Payload => u32::try_from(row.key.point.payload).ok(),
        Axis::Members => Some(row.key.members.into()),
        Axis::LogLength => row
            .key
            .point
            .log_length
            .and_then(|length| u32::try_from(length).ok()),
        Axis::SlowFollower => match row.key.point.follower {
            Follower::Runs(percent) => Some(percent.into()),
            Follower::Well | Follower::Lags => None,
        },
        Axis::Snapshots => row.key.snapshot_every.and_then(|every| u32::try_from(every).ok()),
    };
    whole.map(f64::from)
}

/// What the rows of a plot have in common.
fn group(axis: Axis, row: &Row) -> Option<Vec<String>> {
    place(axis, row)?;
    let point = row.key.point;
    let parts = [
        (Axis::Members, Some(counted(row.key.members))),
        (Axis::Clients, Some(point.load.to_string())),
        (Axis::Payload, Some(format!("{} bytes", point.payload))),
        (
            Axis::LogLength,
            point.log_length.map(|length| format!("log of {length}")),
        ),
        (
            Axis::SlowFollower,
            Some(point.follower.to_string()).filter(|follower| follower != "-"),
        ),
        (
            Axis::Snapshots,
            row.key
                .snapshot_every
                .map(|every| format!("snapshot every {every}")),
        ),
    ];
    let parts = parts.into_iter().filter(|(part, _)| *part != axis);
    Some(parts.filter_map(|(_, told)| told).collect())
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(plot: &Plot, axis: Axis) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let whole = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        whole.fill(&WHITE)?;
        let whole = whole.titled(&plot.title, ("sans-serif", 20))?;
        let (left, right) = whole.split_horizontally(SIZE.0 / 2);
        let throughput = Panel {
            title: "throughput",
            axis: "operations/s",
            y: |(_, rate, _)| *rate,
            scale: 1.0,
        };
        let latency = Panel {
            title: "p99",
            axis: "ms",
            y: |(_, _, p99)| *p99,
            scale: 1e-3,
        };
        panel(&left, &throughput, plot, axis)?;
        panel(&right, &latency, plot, axis)?;
        whole.present()?;
    }
    Ok(text)
}

/// Medians as lines, with a bar from the least to the most of the rounds.
fn panel(
    area: &Drawing<'_>,
    panel: &Panel<'_>,
    plot: &Plot,
    axis: Axis,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = range(points().map(|(x, _, _)| *x));
    let y = decades(points().flat_map(|point| {
        let spread = (panel.y)(point);
        [spread.min * panel.scale, spread.max * panel.scale]
    }));
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis.label())
        .y_desc(panel.axis)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| label(*y))
        .draw()?;
    for (number, series) in plot.series.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let spreads: Vec<(f64, Spread)> = series
            .points
            .iter()
            .map(|point| (point.0, (panel.y)(point)))
            .collect();
        let medians: Vec<(f64, f64)> = spreads
            .iter()
            .map(|(x, spread)| (*x, spread.median * panel.scale))
            .collect();
        chart
            .draw_series(LineSeries::new(medians.iter().copied(), color.stroke_width(2)))?
            .label(series.system.name())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(medians.iter().map(|&at| Circle::new(at, 3, color.filled())))?;
        chart.draw_series(spreads.iter().map(|(x, spread)| {
            let ends = [spread.min, spread.max].map(|end| (*x, end * panel.scale));
            PathElement::new(ends.to_vec(), color.stroke_width(1))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

/// What part of each of the series is not above a number: a line that rises to 1.
pub(crate) fn distribution(
    title: &str,
    series: &[(&str, &[f64])],
) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let all = series.iter().flat_map(|(_, values)| values.iter().copied());
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(range(all).log_scale(), 0.0..1.0)?;
        chart
            .configure_mesh()
            .x_desc("ms")
            .y_desc("part of the runs")
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|x| label(*x))
            .draw()?;
        for (number, (name, values)) in series.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(steps(values), color.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperMiddle)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()?;
    }
    Ok(text)
}

/// Each value, and what part is not above it.
fn steps(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let whole = f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX)).max(1.0);
    let parts = (1_u32..).map(|place| f64::from(place) / whole);
    // What is on a logarithmic axis is above 0.
    sorted
        .into_iter()
        .map(|value| value.max(0.01))
        .zip(parts)
        .collect()
}

/// From below the least to above the most, for an axis that cannot have a 0.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let positive: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let least = positive.iter().copied().fold(f64::INFINITY, f64::min);
    let most = positive.iter().copied().fold(0.0, f64::max);
    if positive.is_empty() {
        1.0..10.0
    } else {
        least / 1.5..most * 1.5
    }
}

/// The same to whole powers of ten: an axis that is shorter than one has no numbers.
fn decades(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let whole = range(values);
    10_f64.powf(whole.start.log10().floor())..10_f64.powf(whole.end.log10().ceil())
}

fn label(value: f64) -> String {
    if value < 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{key, sample, samples};

    #[test]
    fn systems_share_a_plot_and_other_members_have_another() {
        let mut samples = samples();
        samples.taken.push((key(Kind::Raftlog, 5, 1), sample(500.0, 1.0)));
        samples
            .taken
            .push((key(Kind::Raftlog, 3, 64), sample(500.0, 1.0)));
        let mut open = key(Kind::Raftlog, 5, 1);
        open.point.load = Load::Rate(7);
        samples.taken.push((open, sample(500.0, 1.0)));
        let plots = plots(Axis::Clients, &samples.rows());
        let told: Vec<(&str, Vec<(&str, usize)>)> = plots
            .iter()
            .map(|plot| {
                let series = plot.series.iter();
                let series = series.map(|series| (series.system.name(), series.points.len()));
                (plot.file.as_str(), series.collect())
            })
            .collect();
        assert_eq!(
            told,
            [
                (
                    "clients-5-members-256-bytes.svg",
                    vec![("echo", 1), ("raftlog", 2), ("etcd", 1)]
                ),
                (
                    "clients-3-members-256-bytes.svg",
                    vec![("echo", 1), ("raftlog", 1)]
                ),
            ]
        );
    }

    #[test]
    fn a_plot_over_members_has_no_echo() {
        let plots = plots(Axis::Members, &samples().rows());
        let files: Vec<&str> = plots.iter().map(|plot| plot.file.as_str()).collect();
        assert_eq!(files, ["members-64-clients-256-bytes.svg"]);
        assert!(
            plots
                .iter()
                .all(|plot| plot.series.iter().all(|series| series.system != Kind::Echo))
        );
    }

    #[test]
    fn a_plot_is_drawn() {
        for plot in plots(Axis::Clients, &samples().rows()) {
            let text = draw(&plot, Axis::Clients).unwrap();
            for part in ["<svg", "throughput", "p99", "raftlog", "etcd", "</svg>"] {
                assert!(text.contains(part), "no {part} in {text}");
            }
        }
    }

    #[test]
    fn a_distribution_is_drawn() {
        assert_eq!(steps(&[30.0, 10.0]), [(10.0, 0.5), (30.0, 1.0)]);
        let text = distribution("gaps", &[("killed", &[200.0, 300.0]), ("told", &[5.0])]).unwrap();
        for part in ["<svg", "gaps", "killed", "told", "</svg>"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn ranges_hold_what_there_is() {
        assert_eq!(range([3.0, 1.5].into_iter()), 1.0..4.5);
        assert_eq!(range([0.0].into_iter()), 1.0..10.0);
        assert_eq!(decades([2_500.0, 2_800.0].into_iter()), 1_000.0..10_000.0);
        assert_eq!(decades([0.0].into_iter()), 1.0..10.0);
    }
}
