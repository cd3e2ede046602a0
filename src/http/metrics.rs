//! `Metrics`: a node's counters as OpenMetrics text.
//!
//! They are read when they are asked for, from the counters that the node has anyway. Names and
//! units follow Prometheus' conventions; all start with `thrifty_`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Source;
use crate::membership::Status;
use crate::node::{Count, Node};
use crate::rpc::method_times::BOUNDS;

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The name, the type and the description of each metric. A unit ends a name.
const DESCRIPTIONS: &str = "\
calls counter Calls served
connections gauge Connections open now
connections_opened counter Connections accepted
connections_closed counter Connections that the server closed
failed_accepts counter Connections not accepted
failed_calls counter Calls that ended in an exception
call_duration_seconds histogram From the first byte of a call to the last one of its reply
members gauge Members by their states
members_out_of_reach gauge Members that are down and may be running behind a split
gossip_messages counter Messages of gossip
gossip_bytes counter Bytes of messages of gossip
suspicions counter Members that this node suspected
refutations counter Suspicions of this node that it refuted
store_keys gauge Keys with a value that are held here
store_size_bytes gauge Estimated memory for keys and values
store_tombstones gauge Deleted keys that are remembered
store_replicas gauge Copies of each key that there are to be
store_settled gauge Whether the last rebalance is over
store_rebalance_phase gauge Phase of the rebalance, from 0 (begun) to 4 (settled)
store_received_keys gauge Keys received in the rebalance under way
store_sent_keys counter Keys sent in rebalances
store_superseded_keys counter Keys that lost a value written in a split
store_retries counter Attempts of calls to other nodes after the first one
store_disk_syncs counter Syncs of the data directory
store_disk_sync_seconds counter Time that syncs took
store_disk_written_bytes counter Bytes of entries written to the data directory
store_disk_waiting_bytes gauge Bytes of entries that wait to be written
store_disk_free_bytes gauge Free bytes of the file system of the data directory";

/// Collects metrics.
pub struct Metrics<'a>(DescriptorEncoder<'a>);

impl Metrics<'_> {
    /// Adds the value of a metric that this module describes.
    ///
    /// # Errors
    /// It is not described, or cannot be encoded.
    pub(crate) fn add(&mut self, name: &str, value: u64) -> fmt::Result {
        self.add_all(name, "", &[("", value)])
    }

    /// Adds a counter of seconds, given in nanoseconds.
    ///
    /// # Errors
    /// As for [`add`](Metrics::add).
    pub(crate) fn add_seconds(&mut self, name: &str, nanos: u64) -> fmt::Result {
        let (mut family, _) = self.describe(name)?;
        let seconds = nanos as f64 / 1e9;
        family.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }

    /// Adds values, each with the value of that label.
    fn add_all(&mut self, name: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let (mut family, is_counter) = self.describe(name)?;
        for (of, value) in values {
            let label = (!of.is_empty()).then_some((label, *of));
            let labels: Vec<(&str, &str)> = label.into_iter().collect();
            let mut metric = family.encode_family(&labels)?;
            if is_counter {
                metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
            } else {
                metric.encode_gauge(value)?;
            }
        }
        Ok(())
    }

    /// Writes a metric's description. Is it a counter?
    fn describe<'s>(&'s mut self, name: &'s str) -> Result<(MetricEncoder<'s>, bool), fmt::Error> {
        let mut lines = DESCRIPTIONS.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let (of, help) = rest
            .and_then(|rest| rest.split_once(' '))
            .ok_or(fmt::Error)?;
        let metric_type = match of {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            _ => MetricType::Histogram,
        };
        let units = [("_seconds", &Unit::Seconds), ("_bytes", &Unit::Bytes)];
        let split = |(end, unit)| Some((name.strip_suffix(end)?, Some(unit)));
        let (name, unit) = units.into_iter().find_map(split).unwrap_or((name, None));
        let family = self.0.encode_descriptor(name, help, unit, metric_type)?;
        Ok((family, of == "counter"))
    }

    fn add_server(&mut self, node: &Node) -> fmt::Result {
        let stats = node.endpoint().stats();
        let count = |counter: Option<i64>| counter.unwrap_or(0) as u64;
        self.add("calls", count(stats.calls))?;
        self.add("connections", count(stats.open))?;
        self.add("connections_opened", count(stats.opened))?;
        let closed = [
            ("evicted", count(stats.evicted)),
            ("evicted_by_address", count(stats.evicted_by_address)),
            ("idle", count(stats.idle)),
            ("malformed", count(stats.malformed)),
            ("timed_out", count(stats.timed_out)),
            ("too_large", count(stats.too_large)),
            ("no_thread", count(stats.no_thread)),
        ];
        self.add_all("connections_closed", "reason", &closed)?;
        self.add("failed_accepts", count(stats.failed_accepts))?;
        let methods = node.endpoint().methods();
        let failed = methods
            .iter()
            .map(|(name, times)| (&**name, times.failed.load(Relaxed)));
        self.add_all("failed_calls", "method", &failed.collect::<Vec<_>>())?;
        let (mut family, _) = self.describe("call_duration_seconds")?;
        for (name, times) in &methods {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets = bounds.zip(times.buckets.iter().map(|count| count.load(Relaxed)));
            let buckets: Vec<(f64, u64)> = buckets.collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = times.nanos.load(Relaxed) as f64 / 1e9;
            let labels = [("method", &**name)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }

    fn add_membership(&mut self, node: &Node) -> fmt::Result {
        let members = node.members();
        let of = |status: Status| {
            members
                .iter()
                .filter(|member| member.status == status)
                .count()
        };
        let states = [Status::Alive, Status::Suspect, Status::Down, Status::Left];
        let counts = states.map(|status| (status.to_string(), of(status) as u64));
        let counts = counts.each_ref().map(|(state, count)| (&**state, *count));
        self.add_all("members", "state", &counts)?;
        let by_direction = |sent, received| {
            [
                ("sent", node.count(sent)),
                ("received", node.count(received)),
            ]
        };
        let messages = by_direction(Count::SentMessages, Count::ReceivedMessages);
        self.add_all("gossip_messages", "direction", &messages)?;
        let bytes = by_direction(Count::SentBytes, Count::ReceivedBytes);
        self.add_all("gossip_bytes", "direction", &bytes)?;
        self.add("suspicions", node.count(Count::Suspicions))?;
        self.add("refutations", node.count(Count::Refutations))
    }
}

/// All metrics of a source.
struct All(Arc<dyn Source>);

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.node().location())
    }
}

impl Collector for All {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metrics = Metrics(encoder);
        metrics.add_server(self.0.node())?;
        metrics.add_membership(self.0.node())?;
        self.0.add_metrics(&mut metrics)
    }
}

/// The metrics of a source as text.
pub(super) fn encode(source: &Arc<dyn Source>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("thrifty");
    registry.register_collector(Box::new(All(source.clone())));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
