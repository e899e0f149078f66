//! What the runs of a case come to: the middle one, how far apart they were, how it compares with its baseline,
//! and whether that is good enough.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::Outcome;

/// What one run of a group measured, by name.
pub(crate) type Readings = BTreeMap<&'static str, f64>;

/// A line of the results.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// The reading that is its value.
    pub(crate) reading: &'static str,
    /// The reading that it is compared with.
    pub(crate) baseline: Option<&'static str>,
    pub(crate) goal: Option<Goal>,
}

/// What is to come of a case: of its ratio to the baseline, or of its value where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met(self, got: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => got >= bound,
            Goal::AtMost(bound) => got <= bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!("≥ {bound}"),
            Goal::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

/// The middle of several runs, and the outermost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Outcome<Spread> {
        values.sort_by(f64::total_cmp);
        match (values.first(), values.get(values.len() / 2), values.last()) {
            (Some(min), Some(median), Some(max)) => Ok(Spread { median: *median, min: *min, max: *max }),
            _ => Err("nothing was measured".into()),
        }
    }
}

/// A case that was measured.
pub(crate) struct Measured<'a> {
    pub(crate) case: &'a Case,
    pub(crate) value: Spread,
    baseline: Option<Spread>,
    /// Of the value to the baseline's, run by run: what disturbs a run disturbs both.
    ratio: Option<Spread>,
}

impl<'a> Measured<'a> {
    pub(crate) fn new(case: &'a Case, runs: &[Readings]) -> Outcome<Measured<'a>> {
        let values = readings(runs, case.reading)?;
        let baselines = case.baseline.map(|name| readings(runs, name)).transpose()?;
        let ratios = baselines.as_ref().map(|baselines| {
            values.iter().zip(baselines).map(|(value, baseline)| value / baseline).collect()
        });
        Ok(Measured {
            case,
            value: Spread::of(values)?,
            baseline: baselines.map(Spread::of).transpose()?,
            ratio: ratios.map(Spread::of).transpose()?,
        })
    }

    fn verdict(&self) -> Option<&'static str> {
        let judged = self.ratio.unwrap_or(self.value).median;
        self.case.goal.map(|goal| if goal.is_met(judged) { "met" } else { "missed" })
    }
}

fn readings(runs: &[Readings], name: &str) -> Outcome<Vec<f64>> {
    let all: Option<Vec<f64>> = runs.iter().map(|run| run.get(name).copied()).collect();
    all.ok_or_else(|| format!("a run did not measure `{name}`").into())
}

pub(crate) fn table(measured: &[Measured<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "case",
        "value",
        "min – max",
        "unit",
        "baseline",
        "its value",
        "ratio",
        "min – max",
        "goal",
        "",
    ]);
    for one in measured {
        let ratio = |show: fn(Spread) -> String| one.ratio.map(show).unwrap_or_default();
        table.add_row([
            one.case.name.clone(),
            shown(one.value.median),
            format!("{} – {}", shown(one.value.min), shown(one.value.max)),
            one.case.unit.to_owned(),
            one.case.baseline.unwrap_or_default().to_owned(),
            one.baseline.map(|spread| shown(spread.median)).unwrap_or_default(),
            ratio(|spread| shown(spread.median)),
            ratio(|spread| format!("{} – {}", shown(spread.min), shown(spread.max))),
            one.case.goal.map(Goal::shown).unwrap_or_default(),
            one.verdict().unwrap_or_default().to_owned(),
        ]);
    }
    for column in [1, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Three digits that matter, or all before the point.
fn shown(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// An array with an object a case.
pub(crate) fn json(measured: &[Measured<'_>]) -> Outcome<String> {
    let spread = |spread: Spread| json!({"min": spread.min, "max": spread.max});
    let cases: Vec<serde_json::Value> = measured
        .iter()
        .map(|one| {
            json!({
                "name": one.case.name,
                "value": one.value.median,
                "spread": spread(one.value),
                "unit": one.case.unit,
                "baseline": one.case.baseline,
                "baseline_value": one.baseline.map(|baseline| baseline.median),
                "baseline_spread": one.baseline.map(spread),
                "ratio": one.ratio.map(|ratio| ratio.median),
                "ratio_spread": one.ratio.map(spread),
                "goal": one.case.goal.map(Goal::shown),
                "verdict": one.verdict(),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&cases)? + "\n")
}
