//! Those that are compared take turns: the first, the second, …, then the first again.
//!
//! What is told of two of them is the ratio of their rates within each round, which were
//! measured one right after the other, and of these the median: a machine whose speed
//! drifts, or that is busy otherwise during one round, changes it little.

use std::fmt;

use super::report::Report;

/// Runs one of those that are compared once. Called on the thread that called
/// [`in_turn`]; it takes as long as the run does.
pub type Side<'a, E> = Box<dyn FnMut() -> Result<Report, E> + 'a>;

/// Runs each side once a round; `tell` hears of each run when it is over. All reports of
/// each side, in the order of the rounds.
///
/// # Errors
/// The first that a side returns.
pub fn in_turn<E>(
    rounds: usize,
    mut sides: Vec<Side<'_, E>>,
    mut tell: impl FnMut(&Report) -> Result<(), E>,
) -> Result<Vec<Vec<Report>>, E> {
    let mut reports: Vec<Vec<Report>> = sides.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (side, reports) in sides.iter_mut().zip(&mut reports) {
            let report = side()?;
            tell(&report)?;
            reports.push(report);
        }
    }
    Ok(reports)
}

/// The ratio of the rates of two sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// In the middle of the rounds.
    pub median: f64,
    /// In the round in which it was smallest.
    pub least: f64,
    /// In the round in which it was largest.
    pub most: f64,
}

impl Ratio {
    /// The ratio of the rates of `these` to those of `others`, round by round.
    pub fn of(these: &[Report], others: &[Report]) -> Ratio {
        let rounds = these.iter().zip(others);
        let ratios = rounds.map(|(this, other)| this.rate() / other.rate().max(f64::EPSILON));
        Ratio::among(ratios.collect())
    }

    fn among(mut ratios: Vec<f64>) -> Ratio {
        ratios.sort_by(f64::total_cmp);
        let at = |place: usize| ratios.get(place).copied().unwrap_or(f64::NAN);
        Ratio {
            median: median(&ratios),
            least: at(0),
            most: at(ratios.len().saturating_sub(1)),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ratio {
            median,
            least,
            most,
        } = self;
        if least == most {
            return write!(f, "{median:.2}");
        }
        write!(f, "{median:.2} ({least:.2} to {most:.2})")
    }
}

/// The median of the rates of a side.
pub fn median_rate(reports: &[Report]) -> f64 {
    median(&reports.iter().map(Report::rate).collect::<Vec<_>>())
}

/// The one in the middle; of two, the mean. Not a number if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count => (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_take_turns_and_each_has_its_reports() {
        let mut told = String::new();
        let side = |name: &'static str| -> Side<'_, ()> { Box::new(move || Ok(Report::new(name))) };
        let reports = in_turn(3, vec![side("a"), side("b")], |report| {
            told += report.name();
            Ok(())
        });
        assert_eq!(told, "ababab");
        let names = |reports: &Vec<Report>| reports.iter().map(Report::name).collect::<String>();
        let names: Vec<String> = reports.unwrap().iter().map(names).collect();
        assert_eq!(names, ["aaa", "bbb"]);
    }

    #[test]
    fn a_ratio_is_the_middle_one_of_the_rounds() {
        let ratio = Ratio::among(vec![0.9, 0.1, 1.1]);
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.9, 0.1, 1.1));
        assert_eq!(ratio.to_string(), "0.90 (0.10 to 1.10)");
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
