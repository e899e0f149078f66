//! Whether applying becomes slower as the table grows, beside COPY into the same table, and a picture of it.

use std::path::Path;
use std::time::Instant;

use debshrew::commit::Journaling;
use futures_util::FutureExt;
use plotters::prelude::*;

use crate::apply::{Applier, WARM, changes, fill};
use crate::baseline;
use crate::report::{Case, Goal, Measured, Readings};
use crate::rows::{Chain, NARROW};
use crate::server::Server;
use crate::{Group, Outcome};

const BLOCKS: usize = 30;
const CHANGES: usize = 1_000;

/// What is measured at each size: with journal, without, and COPY of as many rows.
const KINDS: [&str; 3] = ["journal", "plain", "copy"];

/// Rows in the table, and what the rates of each kind are called.
const SIZES: [(u64, [&str; 3]); 3] = [
    (10_000, ["10^4 rows, with journal", "10^4 rows, without", "10^4 rows, copy"]),
    (100_000, ["10^5 rows, with journal", "10^5 rows, without", "10^5 rows, copy"]),
    (1_000_000, ["10^6 rows, with journal", "10^6 rows, without", "10^6 rows, copy"]),
];

pub(crate) fn groups() -> Vec<Group> {
    let (_, smallest) = SIZES[0];
    let (largest, _) = SIZES[SIZES.len() - 1];
    let case = |rows: u64, place: usize, reading: &'static str| Case {
        name: format!("growth-{}-{rows}", KINDS[place]),
        unit: if KINDS[place] == "copy" { "rows/s" } else { "changes/s" },
        reading,
        baseline: (reading != smallest[place]).then_some(smallest[place]),
        goal: (rows == largest && KINDS[place] != "copy").then_some(Goal::AtLeast(0.7)),
    };
    let cases = SIZES.iter().flat_map(|(rows, readings)| {
        readings.iter().enumerate().map(|(place, reading)| case(*rows, place, reading))
    });
    vec![Group {
        name: "growth".to_owned(),
        cases: cases.collect(),
        run: Box::new(|server| run(server).boxed()),
    }]
}

async fn run(server: &Server) -> Outcome<Readings> {
    let mut readings = Readings::new();
    for (rows, [kept, skipped, copied]) in SIZES {
        let base = server.pipeline(NARROW.ddl).await?;
        fill(&base, &NARROW, rows).await?;
        let mut chain = Chain::new(&NARROW, rows);
        let mut applier = Applier::new(&base, Journaling::Kept).await?;
        readings.insert(kept, rate(&mut applier, &mut chain).await?);
        applier.journaling = Journaling::Skipped;
        readings.insert(skipped, rate(&mut applier, &mut chain).await?);
        readings.insert(copied, baseline::copied(server, &NARROW, rows, (BLOCKS * CHANGES) as u64).await?);
    }
    Ok(readings)
}

async fn rate(applier: &mut Applier, chain: &mut Chain) -> Outcome<f64> {
    applier.apply(changes(&NARROW, &chain.blocks(WARM, CHANGES))).await?;
    let blocks = changes(&NARROW, &chain.blocks(BLOCKS, CHANGES));
    let start = Instant::now();
    applier.apply(blocks).await?;
    Ok((BLOCKS * CHANGES) as f64 / start.elapsed().as_secs_f64())
}

/// Draws what was measured of these cases: the rate over the table's rows, with its spread, as SVG.
pub(crate) fn plot(measured: &[Measured<'_>], path: &Path) -> Outcome<()> {
    let lines: Vec<Vec<&Measured<'_>>> = (0..KINDS.len())
        .map(|place| {
            let names = SIZES.iter().map(|(_, readings)| readings[place]);
            names.filter_map(|name| measured.iter().find(|one| one.case.reading == name)).collect()
        })
        .collect();
    if lines.iter().any(|line| line.len() < SIZES.len()) {
        return Err("a plot needs all cases named `growth-…`".into());
    }
    let most = measured_most(&lines);
    let root = SVGBackend::new(path, (720, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let (first, last) = (SIZES[0].0 as f64, SIZES[SIZES.len() - 1].0 as f64);
    let mut chart = ChartBuilder::on(&root)
        .caption("Applying blocks of 1,000 changes", ("sans-serif", 18))
        .margin(12)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d((first..last).log_scale(), 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("rows in the table")
        .y_desc("changes (COPY: rows) a second")
        .x_labels(SIZES.len())
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .x_label_formatter(&|rows| format!("{rows:.0}"))
        .draw()?;
    let legend = [("with journal", BLUE), ("without journal", RED), ("COPY of as many rows", BLACK)];
    for (line, (name, colour)) in lines.iter().zip(legend) {
        let at = |one: &Measured<'_>, place: usize| (SIZES[place].0 as f64, one.value.median);
        let points: Vec<(f64, f64)> = line.iter().enumerate().map(|(place, one)| at(one, place)).collect();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(line.iter().enumerate().map(|(place, one)| {
            let (rows, median) = at(one, place);
            ErrorBar::new_vertical(rows, one.value.min, median, one.value.max, colour.filled(), 8)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

fn measured_most(lines: &[Vec<&Measured<'_>>]) -> f64 {
    lines.iter().flatten().map(|one| one.value.max).fold(0.0, f64::max)
}
