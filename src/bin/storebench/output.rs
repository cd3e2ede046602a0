//! `Output`: what is printed, as text or as JSON. It starts with the settings, so that the
//! figures can be understood and reproduced.

use serde_json::{Map, Value, json};
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;

use crate::comparison::{Comparison, Spread};
use crate::contender::Contender;
use crate::options::Options;
use crate::report::{Report, machine};
use crate::store::Store;

/// Prints the results of one process.
pub struct Output {
    is_json: bool,
    settings: Value,
}

impl Output {
    /// Prints what will be measured.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn start(options: &Options, store: &Store<'_>) -> Result<Output, Error> {
        let output = Output {
            is_json: options.json,
            settings: settings(options, store),
        };
        for (name, value) in output.settings.as_object().into_iter().flatten() {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            output.line(&format!("{name}: {text}"))?;
        }
        output.line("rates: keys a second; times: milliseconds")?;
        output.line(&Report::header())?;
        Ok(output)
    }

    /// Prints a line of the text.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn line(&self, line: &str) -> Result<(), Error> {
        if self.is_json {
            return Ok(());
        }
        cli::print(&[line.as_bytes(), b"\n"])
    }

    /// Prints medians and comparisons, or all of the JSON.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn finish(self, contenders: &[Contender<'_>], reports: &[Report]) -> Result<(), Error> {
        let median = |Contender { name, .. }: &Contender<'_>| {
            let own = reports.iter().filter(|report| report.name == *name);
            let rates: Vec<f64> = own.map(Report::rate).collect();
            (!rates.is_empty()).then(|| (*name, Spread::of(rates).median))
        };
        let medians = contenders.iter().filter_map(median);
        let comparisons = Comparison::all(reports);
        if self.is_json {
            let medians = medians.map(|(name, rate)| (name.to_owned(), json!(rate)));
            let comparisons = comparisons.iter().map(|of| (of.name.clone(), of.json()));
            let all = json!({
                "settings": self.settings,
                "runs": reports.iter().map(Report::json).collect::<Vec<_>>(),
                "median_rates": Map::from_iter(medians),
                "comparisons": Map::from_iter(comparisons),
            });
            return cli::print(&[format!("{all}\n").as_bytes()]);
        }
        for (name, rate) in medians {
            self.line(&format!("median rate of {name}: {rate:.0}"))?;
        }
        let mut comparisons = comparisons.iter();
        comparisons.try_for_each(|comparison| self.line(&comparison.to_string()))
    }
}

/// What the figures depend on.
fn settings(options: &Options, store: &Store<'_>) -> Value {
    let workload = &options.workload;
    let ([read, write], [request, reply]) = (store.methods(), store.read_sizes());
    json!({
        "program": concat!("storebench ", env!("CARGO_PKG_VERSION")),
        "machine": machine(),
        "peer": store.peer.name(),
        "routing": format!("{:?}", options.routing).to_lowercase(),
        "connections": workload.connections,
        "idle_connections": options.idle_connections.unwrap_or(0),
        "keys": workload.key_count(),
        "forwarded_only": workload.forwarded_only,
        "value_size": workload.value_size,
        "batch": workload.batch,
        "read_ratio": workload.read_ratio,
        "read_method": read,
        "write_method": write,
        "request_size": request,
        "reply_size": reply,
        "redis_wait": options.redis_wait(),
        "warm_up": options.warm_up,
    })
}
