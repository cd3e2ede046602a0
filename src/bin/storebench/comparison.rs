//! `Comparison`: how one contender did in relation to another one.
//!
//! The two are compared round by round, since the runs of a round follow directly on each
//! other, and the median of these ratios is what counts. A machine whose speed drifts, or
//! that is busy with something else during one round, changes it little.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::report::{FIGURES, Figure, Report};

/// Which contenders are compared.
const PAIRS: [(&str, &str); 6] = [
    ("store+idle", "store"),
    ("store", "echo"),
    ("store", "redis"),
    ("store", "memcached"),
    ("redis", "echo"),
    ("memcached", "echo"),
];

/// The figures that are compared: the rate, p50, p99, p99.9.
const COMPARED: [Figure; 4] = [FIGURES[0], FIGURES[1], FIGURES[3], FIGURES[4]];

/// One contender's figures, divided by those of another one.
pub struct Comparison {
    /// The names of the two: `one / other`.
    pub name: String,
    ratios: [(&'static str, Spread); COMPARED.len()],
}

impl Comparison {
    /// The comparisons of all pairs for which there are reports.
    pub fn all(reports: &[Report]) -> Vec<Comparison> {
        let compare = |(one, other): &(&str, &str)| {
            let of = |name| reports.iter().filter(move |report| report.name == name);
            let rounds: Vec<_> = of(*one).zip(of(*other)).collect();
            let ratios = COMPARED.map(|(figure, _, of)| {
                let ratios = rounds.iter().map(|(one, other)| of(one) / of(other));
                (figure, Spread::of(ratios.collect()))
            });
            let name = format!("{one} / {other}");
            (!rounds.is_empty()).then_some(Comparison { name, ratios })
        };
        PAIRS.iter().filter_map(compare).collect()
    }

    /// The ratios as a JSON object.
    pub fn json(&self) -> Value {
        let ratio = |(figure, Spread { median, min, max }): &(&str, Spread)| {
            let spread = json!({"median": median, "min": min, "max": max});
            ((*figure).to_owned(), spread)
        };
        Map::from_iter(self.ratios.iter().map(ratio)).into()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratios = self.ratios.iter();
        let ratios: Vec<_> = ratios.map(|(name, of)| format!("{name} {of}")).collect();
        write!(f, "{}: {}", self.name, ratios.join(", "))
    }
}

/// The values of several rounds.
#[derive(Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// The median of an even number of values is the mean of the two in the middle. All
    /// are NaN if there are no values.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Spread {
            median: (at(last / 2) + at(values.len() / 2)) / 2.0,
            min: at(0),
            max: at(last),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, min, max } = self;
        if min == max {
            return write!(f, "{median:.2}");
        }
        write!(f, "{median:.2} ({min:.2} to {max:.2})")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Reports of one call each, which took these times.
    fn reports(name: &str, millis: [u64; 3]) -> Vec<Report> {
        let report = |millis| {
            let mut report = Report::new(name);
            report.elapsed = Duration::from_millis(millis);
            report.answered(report.elapsed, 1);
            report
        };
        millis.map(report).into()
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_the_median_counts() {
        let mut all = reports("store", [40, 40, 20]);
        all.extend(reports("echo", [10, 20, 20]));
        let comparisons = Comparison::all(&all);
        let lines: Vec<String> = comparisons.iter().map(ToString::to_string).collect();
        let expected = "store / echo: rate 0.50 (0.25 to 1.00), p50 2.00 (1.00 to 4.00), \
            p99 2.00 (1.00 to 4.00), p99.9 2.00 (1.00 to 4.00)";
        assert_eq!(lines, [expected]);
        let json = comparisons[0].json();
        assert_eq!(
            json["rate"],
            json!({"median": 0.5, "min": 0.25, "max": 1.0})
        );
    }

    #[test]
    fn a_median_is_the_value_in_the_middle() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).median;
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[0.9, 0.1, 1.1]), 0.9);
        assert!(median(&[]).is_nan());
        assert_eq!(Spread::of(vec![2.0]).to_string(), "2.00");
    }
}
