//! Figures of two sides, gathered over several rounds: medians, ratios, goals, as a table or JSON.

use serde_json::{Value, json};

/// A side of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The server under test.
    Ours,
    /// The etcd it is measured beside.
    Etcd,
}

/// A figure: what it is called, its unit, and the ratio (ours to etcd's) that is aimed at.
#[derive(Clone, PartialEq, Debug)]
pub struct Metric {
    /// Name in the table and the JSON.
    pub name: String,
    /// Unit of the values.
    pub unit: &'static str,
    /// The aim, if there is one.
    pub goal: Goal,
}

/// What the ratio of ours to etcd's should be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// Less is better; this much of etcd's at most.
    AtMost(f64),
    /// More is better; this much of etcd's at least.
    AtLeast(f64),
    /// For information.
    None,
}

impl Goal {
    fn met(self, ratio: f64) -> Option<bool> {
        match self {
            Goal::AtMost(limit) => Some(ratio <= limit),
            Goal::AtLeast(limit) => Some(ratio >= limit),
            Goal::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Goal::AtMost(limit) => format!("<= {limit}"),
            Goal::AtLeast(limit) => format!(">= {limit}"),
            Goal::None => String::new(),
        }
    }
}

#[derive(Clone, Debug)]
struct Row {
    metric: Metric,
    ours: Vec<f64>,
    etcd: Vec<f64>,
}

/// All figures, in the order in which they first came.
#[derive(Clone, Default, Debug)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds one measurement.
    pub fn add(&mut self, side: Side, metric: Metric, value: f64) {
        let place = self
            .rows
            .iter()
            .position(|row| row.metric.name == metric.name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row {
                metric,
                ours: Vec::new(),
                etcd: Vec::new(),
            });
            self.rows.len() - 1
        });
        match side {
            Side::Ours => self.rows[place].ours.push(value),
            Side::Etcd => self.rows[place].etcd.push(value),
        }
    }

    /// A markdown table of the medians.
    pub fn markdown(&self) -> String {
        let mut table = String::from(
            "| figure | unit | ours | etcd | ours/etcd | goal | |\n|---|---|---:|---:|---:|---:|---|\n",
        );
        for row in &self.rows {
            let (ours, etcd) = (median(&row.ours), median(&row.etcd));
            let ratio = ratio(ours, etcd);
            let verdict = match ratio.and_then(|ratio| row.metric.goal.met(ratio)) {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            table.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                row.metric.name,
                row.metric.unit,
                ours.map_or_else(|| "-".into(), number),
                etcd.map_or_else(|| "-".into(), number),
                ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}")),
                row.metric.goal.text(),
                verdict,
            ));
        }
        table
    }

    /// Everything, every round's values included.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (ours, etcd) = (median(&row.ours), median(&row.etcd));
            let ratio = ratio(ours, etcd);
            json!({
                "name": row.metric.name,
                "unit": row.metric.unit,
                "ours": { "median": ours, "rounds": row.ours },
                "etcd": { "median": etcd, "rounds": row.etcd },
                "ratio": ratio,
                "goal": row.metric.goal.text(),
                "met": ratio.and_then(|ratio| row.metric.goal.met(ratio)),
            })
        });
        Value::Array(rows.collect())
    }
}

fn ratio(ours: Option<f64>, etcd: Option<f64>) -> Option<f64> {
    let (ours, etcd) = (ours?, etcd?);
    (etcd != 0.0).then(|| ours / etcd)
}

/// The middle value; the mean of the two middle ones of an even number.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        (sorted[middle - 1] + upper) / 2.0
    })
}

/// Three significant digits or so, without an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, goal: Goal) -> Metric {
        Metric {
            name: name.into(),
            unit: "us",
            goal,
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers_of_rounds() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn the_table_shows_medians_ratios_and_verdicts() {
        let mut report = Report::default();
        for (side, values) in [
            (Side::Ours, [10.0, 30.0, 20.0]),
            (Side::Etcd, [40.0, 50.0, 30.0]),
        ] {
            for value in values {
                report.add(side, metric("cpu", Goal::AtMost(0.5)), value);
                report.add(side, metric("rate", Goal::AtLeast(1.5)), value);
            }
        }
        report.add(Side::Ours, metric("alone", Goal::None), 0.25);
        let table = report.markdown();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[2],
            "| cpu | us | 20.0 | 40.0 | 0.500 | <= 0.5 | met |"
        );
        assert_eq!(
            lines[3],
            "| rate | us | 20.0 | 40.0 | 0.500 | >= 1.5 | missed |"
        );
        assert_eq!(lines[4], "| alone | us | 0.250 | - | - |  |  |");
        let json = report.json();
        assert_eq!(json[0]["ours"]["rounds"], json!([10.0, 30.0, 20.0]));
        assert_eq!(json[1]["met"], json!(false));
        assert_eq!(json[2]["ratio"], Value::Null);
    }

    #[test]
    fn a_zero_of_etcd_gives_no_ratio() {
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
    }
}
