//! A bar for each leader, beside the best.

use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, IntoDrawingArea as _, Palette as _, Palette99, Rectangle, SVGBackend,
    SeriesLabelPosition, TRANSPARENT, WHITE,
};
use plotters::style::RGBAColor;

use crate::report::{Report, Row, milliseconds};

const SIZE: (u32, u32) = (1_200, 520);
/// Bars of one leader, and the room to the next.
const PLACES: f64 = 4.0;

/// What a bar is of.
type Height = fn(&Row) -> f64;

const BARS: [(&str, Height); 3] = [
    ("best", |row| milliseconds(row.best)),
    ("p50, one at a time", |row| milliseconds(row.alone.p50)),
    ("p99, many under way", |row| milliseconds(row.many.p99)),
];

/// As SVG.
pub(crate) fn draw(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let count = u32::try_from(report.rows.len())?;
        let heights = report
            .rows
            .iter()
            .flat_map(|row| BARS.iter().map(|(_, height)| height(row)));
        let most = heights.fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption(
                "commits between regions, by the region that leads",
                ("sans-serif", 20),
            )
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..f64::from(count), 0.0..most * 1.15)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(0)
            .y_desc("ms")
            .draw()?;
        for (number, (label, height)) in BARS.iter().enumerate() {
            let color: RGBAColor = Palette99::pick(number).to_rgba();
            let place = f64::from(u32::try_from(number)?);
            let bars = (0_u32..).zip(&report.rows).map(|(at, row)| {
                let left = f64::from(at) + (place + 0.5) / PLACES;
                Rectangle::new([(left, 0.0), (left + 1.0 / PLACES, height(row))], color.filled())
            });
            chart
                .draw_series(bars)?
                .label(*label)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        name_leaders(&area, report)?;
        area.present()?;
    }
    Ok(text)
}

/// Below each group of bars: the members, and who leads.
fn name_leaders(
    area: &plotters::drawing::DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    report: &Report,
) -> Result<(), Box<dyn std::error::Error>> {
    let count = i32::try_from(report.rows.len())?.max(1);
    let (left, right) = (72, i32::try_from(SIZE.0)? - 12);
    let baseline = i32::try_from(SIZE.1)? - 46;
    for (at, row) in (0_i32..).zip(&report.rows) {
        let x = left + (right - left) * at / count + 4;
        // Names of two lines, side by side with their neighbours.
        let words = row.leader.split(' ').chain([""]).take(2);
        for (line, word) in (1_i32..).zip(words) {
            area.draw_text(word, &("sans-serif", 11).into(), (x, baseline + 12 * line))?;
        }
        let members = format!("of {}", row.members);
        area.draw_text(&members, &("sans-serif", 11).into(), (x, baseline))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Latency;

    #[test]
    fn a_plot_is_drawn() {
        let latency = Latency::of(vec![Duration::from_millis(88)]);
        let row = Row {
            members: 3,
            leader: "Washington DC",
            majority_round_trip: Duration::from_millis(86),
            best: Duration::from_millis(87),
            alone: latency,
            many: latency,
        };
        let report = Report {
            command: String::new(),
            seed: 1,
            sync_milliseconds: 1.0,
            rows: vec![row],
        };
        let text = draw(&report).unwrap();
        for part in ["<svg", "best", "Washington", "of 3", "</svg>"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
