//! The two outputs of a store's status: a text table and JSON.

use serde_json::{Map, Value, json};

use super::{NodeStatus, StoreStatus};
use crate::diststore::{NodeStats, Phase, ServerStats};
use crate::status::table::{cell, percent, table};

/// The columns of the table, with their alignments.
const HEADS: [&str; 8] = [
    "<LOCATION",
    "<STATE",
    ">PRIMARY",
    ">KEYS",
    ">BYTES",
    ">RING",
    ">OPEN",
    ">CALLS",
];

impl StoreStatus {
    /// A table with a line for each node, a line for each node that has closed connections,
    /// and the summary as last line.
    pub fn table(&self) -> String {
        let table = table(HEADS, self.nodes.iter().map(NodeStatus::cells));
        let closed: String = self.nodes.iter().filter_map(NodeStatus::closed).collect();
        table + &closed + &self.summary() + "\n"
    }

    /// One JSON object. Placement ids are hexadecimal text, because not every JSON reader keeps
    /// a number of 64 bits.
    pub fn json(&self) -> Value {
        json!({
            "settled": self.is_settled(),
            "keys": self.keys(),
            "copies": self.copies(),
            "expected_copies": self.expected_copies(),
            "keys_per_second": self.keys_per_second,
            "nodes": self.nodes.iter().map(NodeStatus::json).collect::<Vec<_>>(),
        })
    }

    /// One line: `settled`, or how far the rebalance is.
    pub fn summary(&self) -> String {
        let silent = self.store_nodes().filter(|node| node.stats.is_none());
        let (silent, all) = (silent.count(), self.nodes.len());
        if silent > 0 {
            return format!("not settled: {silent} of {all} nodes do not answer");
        }
        if self.is_settled() {
            return "settled".into();
        }
        let expected = self.expected_copies();
        let copies = self.copies().min(expected);
        let rate = self.keys_per_second.unwrap_or(0.0);
        format!("rebalancing: {copies} of {expected} keys, {rate:.0}/s")
    }
}

impl NodeStatus {
    fn state(&self) -> &'static str {
        let Some(stats) = &self.stats else {
            return if self.is_legacy {
                "legacy"
            } else {
                "no answer"
            };
        };
        match stats.phase {
            _ if stats.serving != Some(true) => "joining",
            Some(Phase::SETTLED) => "settled",
            Some(Phase::SWITCHED) => "switched",
            Some(Phase::SYNCED) => "synced",
            Some(Phase::DRAINED) => "copying",
            _ => "draining",
        }
    }

    fn cells(&self) -> [String; 8] {
        [
            self.location.to_string(),
            self.state().to_owned(),
            cell(self.stat(|stats| stats.primary_keys)),
            cell(self.stat(|stats| stats.keys)),
            cell(self.stat(|stats| stats.bytes)),
            percent(self.share),
            cell(self.server().and_then(|server| server.open)),
            cell(self.server().and_then(|server| server.calls)),
        ]
    }

    fn json(&self) -> Value {
        let placement_id = self.stat(|stats| stats.placement_id);
        json!({
            "location": self.location.name(),
            "state": self.state(),
            "primary_keys": self.stat(|stats| stats.primary_keys),
            "keys": self.stat(|stats| stats.keys),
            "bytes": self.stat(|stats| stats.bytes),
            "share": self.share,
            "placement_id": placement_id.map(|id| format!("{id:016x}")),
            "keys_received": self.stat(|stats| stats.keys_received),
            "server": self.server().map(server_json),
        })
    }

    fn stat(&self, field: impl Fn(&NodeStats) -> Option<i64>) -> Option<i64> {
        self.stats.as_ref().and_then(field)
    }

    fn server(&self) -> Option<&ServerStats> {
        self.stats.as_ref()?.server.as_ref()
    }

    /// A line with the number of connections that the node has closed, for each reason. None if
    /// it has closed no connection.
    fn closed(&self) -> Option<String> {
        let counts = close_counts(self.server()?).into_iter();
        let counts = counts.filter(|(_, _, count)| *count > Some(0));
        let counts: Vec<String> = counts
            .map(|(_, reason, count)| format!("{} {reason}", cell(count)))
            .collect();
        let counts = counts.join(", ");
        (!counts.is_empty()).then(|| format!("{} closed connections: {counts}\n", self.location))
    }
}

/// Why connections were closed: the name of each counter, its meaning, and its value.
fn close_counts(server: &ServerStats) -> [(&'static str, &'static str, Option<i64>); 9] {
    [
        ("evicted", "evicted", server.evicted),
        (
            "evicted_by_address",
            "evicted by address",
            server.evicted_by_address,
        ),
        ("idle", "idle", server.idle),
        ("malformed", "malformed", server.malformed),
        ("timed_out", "timed out", server.timed_out),
        ("too_large", "too large", server.too_large),
        ("exceptions", "after an exception", server.exceptions),
        ("no_thread", "without a thread", server.no_thread),
        ("failed_accepts", "not accepted", server.failed_accepts),
    ]
}

fn server_json(server: &ServerStats) -> Value {
    let closed = close_counts(server).map(|(name, _, count)| (name, count));
    let counts = [
        ("open", server.open),
        ("opened", server.opened),
        ("calls", server.calls),
    ];
    let all = counts.into_iter().chain(closed);
    let known = all.filter_map(|(name, count)| Some((name.to_owned(), count?.into())));
    known.collect::<Map<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn node(port: u16, phase: Phase, keys: i64) -> NodeStatus {
        let stats = NodeStats {
            keys: Some(keys),
            primary_keys: Some(100),
            replicas: Some(2),
            phase: Some(phase),
            serving: Some(true),
            server: Some(ServerStats {
                evicted: Some(3),
                too_large: Some(1),
                idle: Some(0),
                ..ServerStats::default()
            }),
            ..NodeStats::default()
        };
        NodeStatus {
            location: Location::new("10.0.0.1", port).unwrap(),
            share: 0.5,
            stats: Some(stats),
            is_legacy: false,
        }
    }

    fn silent(port: u16, is_legacy: bool) -> NodeStatus {
        NodeStatus {
            stats: None,
            is_legacy,
            ..node(port, Phase::SETTLED, 0)
        }
    }

    fn status(nodes: Vec<NodeStatus>) -> StoreStatus {
        StoreStatus {
            nodes,
            keys_per_second: Some(20.0),
        }
    }

    #[test]
    fn the_last_line_says_settled_or_how_far_the_rebalance_is() {
        const SETTLED: Phase = Phase::SETTLED;
        const DRAINED: Phase = Phase::DRAINED;
        let settled = status(vec![node(1, SETTLED, 200), node(2, SETTLED, 200)]);
        assert_eq!(settled.summary(), "settled");
        let copying = status(vec![node(1, SETTLED, 200), node(2, DRAINED, 50)]);
        assert_eq!(copying.summary(), "rebalancing: 250 of 400 keys, 20/s");
        let with_legacy = status(vec![node(1, SETTLED, 100), silent(2, true)]);
        assert_eq!(with_legacy.summary(), "settled");
        let silent = status(vec![node(1, SETTLED, 200), silent(2, false)]);
        let summary = "not settled: 1 of 2 nodes do not answer";
        assert_eq!(silent.summary(), summary);
        assert!(!silent.is_settled());
    }

    #[test]
    fn the_table_has_the_states_and_the_closed_connections() {
        let nodes = vec![
            node(1, Phase::DRAINED, 50),
            silent(2, true),
            silent(3, false),
        ];
        let table = status(nodes).table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        let states = ["copying", "legacy", "no answer"];
        for (line, state) in lines[1..].iter().zip(states) {
            assert!(line.contains(state), "{table}");
        }
        assert!(lines[3].ends_with("  -"), "nothing is known of it: {table}");
        let closed = "10.0.0.1:1 closed connections: 3 evicted, 1 too large";
        assert_eq!(lines[4], closed);
    }

    #[test]
    fn the_json_has_null_for_what_is_unknown() {
        let json = status(vec![node(1, Phase::SETTLED, 200), silent(2, false)]).json();
        let (known, unknown) = (&json["nodes"][0], &json["nodes"][1]);
        assert_eq!(
            (&known["primary_keys"], &known["keys"]),
            (&json!(100), &json!(200))
        );
        assert_eq!(known["server"]["too_large"], 1);
        assert_eq!(unknown["state"], "no answer");
        assert!(unknown["keys"].is_null() && unknown["server"].is_null());
        assert_eq!(json["keys_per_second"], 20.0);
    }
}
