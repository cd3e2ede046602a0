//! `Account`: what is printed. It says all that one has to know to make sense of the
//! figures, so that it can be handed to others as it is.

use clap::ValueEnum;
use serde_json::{Value, json};
use thrifty_p2p::cli;
use thrifty_p2p::error::Error;
use thrifty_p2p::load::Measured;
use thrifty_p2p::load::report::{Report, machine};
use thrifty_p2p::load::rounds::{Ratio, median_rate};
use thrifty_p2p::load::store::Load;
use thrifty_p2p::store::handler::SERVICE;

use crate::options::Options;

/// The account of one run, as text or as JSON.
pub struct Account<'a> {
    options: &'a Options,
    load: &'a Load,
}

impl<'a> Account<'a> {
    /// Begins it: the text tells what is going to be measured.
    pub fn open(options: &'a Options, load: &'a Load) -> Result<Account<'a>, Error> {
        let account = Account { options, load };
        account.print(&account.head())?;
        Ok(account)
    }

    /// Tells of one run that is over.
    pub fn tell(&self, report: &Report) -> Result<(), Error> {
        self.print(&[report.row()])
    }

    /// Ends it with the medians and ratios, or with all of the JSON.
    pub fn close(&self, filled: &Report, reports: &[Vec<Report>]) -> Result<(), Error> {
        if self.options.json {
            let json = self.json(filled, reports);
            return cli::print(&[format!("{json}\n").as_bytes()]);
        }
        let mut lines = Vec::new();
        if self.options.rounds > 1 {
            lines.extend(reports.iter().filter_map(|reports| {
                let name = reports.first()?.name();
                Some(format!(
                    "the median of {name} is {:.0}",
                    median_rate(reports)
                ))
            }));
        }
        lines.extend(ratios(reports).iter().map(|(these, others, ratio)| {
            format!("the rate of {these} is {ratio} of that of {others}")
        }));
        self.print(&lines)
    }

    fn print(&self, lines: &[String]) -> Result<(), Error> {
        let mut text = lines.join("\n");
        if self.options.json || text.is_empty() {
            return Ok(());
        }
        text.push('\n');
        cli::print(&[text.as_bytes()])
    }

    fn head(&self) -> Vec<String> {
        let load = self.load;
        let [read, write] = load.methods();
        let (reads, writes) = (load.read_share * 100.0, (1.0 - load.read_share) * 100.0);
        let mut keys = format!("{} keys", load.keys.count());
        if let Some(of) = self.passed_on_of() {
            keys += &format!(" (of {of}: those that the peer passes on)");
        }
        let batch = match load.batch {
            1 => "1 key a call".to_owned(),
            count => format!("{count} keys a call"),
        };
        let span = self.options.span();
        let measured = match span.measured {
            Measured::Time(time) => format!("{} s measured", time.as_secs()),
            Measured::Operations(count) => format!("{count} operations measured"),
        };
        let mut lines = vec![
            format!("{}, {}", program(), machine()),
            format!(
                "peer {} of {SERVICE}, through {}",
                load.peer,
                self.through()
            ),
            format!(
                "{} connections, {keys} with values of {} bytes, {batch}",
                load.connections, load.value_size
            ),
            format!("{reads:.0} % {read}, {writes:.0} % {write}"),
            format!("{} s of warm-up, then {measured}", span.warm_up.as_secs()),
        ];
        if let Some(idle) = self.options.idle {
            lines.push(format!("idle is the load beside {idle} idle connections"));
        }
        if self.options.limit {
            let sizes = load.sizes();
            lines.push(format!(
                "echo is a bare echo over loopback, {} bytes there and {} back",
                sizes.request, sizes.reply
            ));
        }
        lines.push(Report::heads(if load.batch > 1 { "keys" } else { "calls" }));
        lines
    }

    fn json(&self, filled: &Report, reports: &[Vec<Report>]) -> Value {
        let load = self.load;
        let [read, write] = load.methods();
        let ratios: Vec<Value> = ratios(reports)
            .iter()
            .map(|(these, others, ratio)| {
                json!({
                    "of": these,
                    "to": others,
                    "median": ratio.median,
                    "least": ratio.least,
                    "most": ratio.most,
                })
            })
            .collect();
        json!({
            "program": program(),
            "machine": machine(),
            "peer": load.peer.name(),
            "service": SERVICE,
            "through": self.through(),
            "connections": load.connections,
            "idle": self.options.idle,
            "keys": load.keys.count(),
            "passed_on": self.passed_on_of().is_some(),
            "value_size": load.value_size,
            "batch": load.batch,
            "read_share": load.read_share,
            "read_by": read,
            "written_by": write,
            "warm_up": self.options.span().warm_up.as_secs(),
            "fill": filled.json(),
            "rounds": reports.iter().flatten().map(Report::json).collect::<Vec<_>>(),
            "ratios": ratios,
        })
    }

    /// How many keys there were before those that the peer does not pass on were left out.
    fn passed_on_of(&self) -> Option<usize> {
        self.options.passed_on.then_some(self.options.keys)
    }

    fn through(&self) -> String {
        let value = self.load.through.to_possible_value();
        value.map_or(String::new(), |value| value.get_name().replace('-', " "))
    }
}

/// What is compared with what.
const COMPARED: [(&str, &str); 2] = [("idle", "load"), ("load", "echo")];

/// The ratios of those that were measured.
fn ratios(reports: &[Vec<Report>]) -> Vec<(&'static str, &'static str, Ratio)> {
    let find = |name| {
        let is_meant = |reports: &&Vec<Report>| reports.iter().any(|report| report.name() == name);
        reports.iter().find(is_meant)
    };
    let ratio = |(these, others)| Some((these, others, Ratio::of(find(these)?, find(others)?)));
    COMPARED.into_iter().filter_map(ratio).collect()
}

/// The program and its version.
fn program() -> &'static str {
    concat!(env!("CARGO_BIN_NAME"), " ", env!("CARGO_PKG_VERSION"))
}
