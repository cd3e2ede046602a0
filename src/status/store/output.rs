//! The two outputs of a store's status: a text table and JSON.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{NodeStatus, StoreStatus};
use crate::diststore::{NodeStats, Phase, ServerStats};
use crate::location::Location;
use crate::plural::counted;
use crate::status::table::{cell, percent, table};

/// The columns of the table, with their alignments.
const HEADS: [&str; 10] = [
    "<LOCATION",
    "<STATE",
    "<PROGRAM",
    ">PRIMARY",
    ">KEYS",
    ">BYTES",
    ">RING",
    ">OPEN",
    ">CALLS",
    "<TAGS",
];

impl StoreStatus {
    /// A table with a line for each node, one for the network, lines for what is special about
    /// nodes, and the verdict as last line.
    pub fn table(&self) -> String {
        let down = self.down.iter().map(|location| {
            let mut cells = ["-"; 10].map(str::to_owned);
            [cells[0], cells[1]] = [location.to_string(), "down".to_owned()];
            cells[9].clear();
            cells
        });
        let table = table(HEADS, self.nodes.iter().map(NodeStatus::cells).chain(down));
        let network = self.network.iter();
        let network: String = network
            .map(|network| format!("network {network}\n"))
            .collect();
        let special: String = self.nodes.iter().map(NodeStatus::special).collect();
        table + &network + &special + &self.verdict() + "\n"
    }

    /// One JSON object. Placement ids are hexadecimal text, because not every JSON reader keeps
    /// a number of 64 bits.
    pub fn json(&self) -> Value {
        json!({
            "network": self.network,
            "settled": self.is_settled(),
            "verdict": self.verdict(),
            "safe": self.is_safe(),
            "keys": self.keys(),
            "copies": self.copies(),
            "expected_copies": self.expected_copies(),
            "zones": self.zones_of_each(),
            "keys_per_second": self.keys_per_second,
            "down": self.down.iter().map(Location::name).collect::<Vec<_>>(),
            "nodes": self.nodes.iter().map(NodeStatus::json).collect::<Vec<_>>(),
        })
    }

    /// One line: whether the store is settled and with how many copies, or what is the matter.
    pub fn verdict(&self) -> String {
        let without_reply = self.store_nodes().filter(|node| node.stats.is_none());
        let (without_reply, all) = (without_reply.count(), self.nodes.len());
        let silent = self.silent();
        if !silent.is_empty() {
            return self.split(&silent);
        }
        if without_reply > 0 {
            let all = counted(all, "node");
            return format!("degraded: no answer from {without_reply} of {all}");
        }
        let missing = self.missing();
        if !missing.is_empty() {
            let missing: Vec<&str> = missing.iter().map(Location::name).collect();
            let missing = missing.join(", ");
            return format!("waiting to start again from the disks: start {missing}");
        }
        if !self.is_settled() {
            let expected = self.expected_copies();
            let copies = self.copies().min(expected);
            let (rate, expected) = (
                self.keys_per_second.unwrap_or(0.0),
                counted(expected, "key"),
            );
            return format!("rebalancing: {copies} of {expected}, {rate:.0}/s");
        }
        let (copies, wanted) = (self.copies_of_each(), self.replicas());
        match copies {
            _ if copies == wanted => {
                format!("settled, {}", counted(wanted, "copy")) + &self.spread()
            }
            1 => format!("settled, but 1 of {wanted} copies: the next death loses keys"),
            _ => format!("settled, but {copies} of {wanted} copies") + &self.spread(),
        }
    }

    /// Over how many zones the copies of each key are spread. Nothing without zones.
    fn spread(&self) -> String {
        let without = self.without_zone();
        match self.zones_of_each() {
            Some(zones) => format!(" in {}", counted(zones, "zone")),
            None if without == self.store_nodes().count() => String::new(),
            None => format!("; {without} of the nodes without a zone"),
        }
    }

    fn split(&self, silent: &BTreeSet<Location>) -> String {
        let (silent, here) = (silent.len(), self.store_nodes().count());
        let longest = self.stats().filter_map(|stats| stats.silent_for).max();
        let since = Timestamp::from_second((self.asked_at - longest.unwrap_or(0)) / 1_000);
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let is_stopped = self.stats().any(|stats| stats.is_stopped == Some(true));
        let stopped = if is_stopped {
            "; this side does not serve"
        } else {
            ""
        };
        let all = here + silent;
        format!("split: {silent} of {all} members out of reach since {since}{stopped}")
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
            _ if stats.missing.iter().flatten().count() > 0 => "waiting",
            _ if stats.serving != Some(true) => "joining",
            Some(Phase::SETTLED) => "settled",
            Some(Phase::SWITCHED) => "switched",
            Some(Phase::SYNCED) => "synced",
            Some(Phase::DRAINED) => "copying",
            _ => "draining",
        }
    }

    fn cells(&self) -> [String; 10] {
        [
            self.location.to_string(),
            self.state().to_owned(),
            cell(self.program()),
            cell(self.stat(|stats| stats.primary_keys)),
            cell(self.stat(|stats| stats.keys)),
            cell(self.stat(|stats| stats.bytes)),
            percent(self.share),
            cell(self.server().and_then(|server| server.open)),
            cell(self.server().and_then(|server| server.calls)),
            self.tags.to_string(),
        ]
    }

    fn json(&self) -> Value {
        let placement_id = self.stat(|stats| stats.placement_id);
        json!({
            "location": self.location.name(),
            "state": self.state(),
            "program": self.program(),
            "primary_keys": self.stat(|stats| stats.primary_keys),
            "keys": self.stat(|stats| stats.keys),
            "bytes": self.stat(|stats| stats.bytes),
            "share": self.share,
            "placement_id": placement_id.map(|id| format!("{id:016x}")),
            "keys_received": self.stat(|stats| stats.keys_received),
            "missing": self.names(|stats| &stats.missing),
            "out_of_reach": self.names(|stats| &stats.silent),
            "cut_links": self.names(|stats| &stats.cut_links),
            "superseded": self.stat(|stats| stats.superseded),
            "server": self.server().map(server_json),
            "tags": *self.tags,
        })
    }

    fn stat(&self, field: impl Fn(&NodeStats) -> Option<i64>) -> Option<i64> {
        self.stats.as_ref().and_then(field)
    }

    fn program(&self) -> Option<&str> {
        self.stats.as_ref()?.program.as_deref()
    }

    fn names(
        &self,
        field: impl Fn(&NodeStats) -> &Option<Vec<crate::locator::Location>>,
    ) -> Vec<String> {
        let listed = self.stats.as_ref().and_then(|stats| field(stats).as_ref());
        let locations = listed.into_iter().flatten();
        let parsed = locations.filter_map(|location| Location::try_from(location).ok());
        parsed.map(|location| location.name().to_owned()).collect()
    }

    /// Lines about cut links, superseded values and closed connections.
    fn special(&self) -> String {
        let here = &self.location;
        let mut lines = String::new();
        for peer in self.names(|stats| &stats.cut_links) {
            lines += &format!("the link from {here} to {peer} is cut: others pass calls on\n");
        }
        if let Some(count) = self
            .stat(|stats| stats.superseded)
            .filter(|count| *count > 0)
        {
            let lost = counted(count, "key");
            lines += &format!("{here}: {lost} lost a value that was written in a split\n");
        }
        lines + &self.closed().unwrap_or_default()
    }

    fn server(&self) -> Option<&ServerStats> {
        self.stats.as_ref()?.server.as_ref()
    }

    /// A line with the number of connections that the node has closed, for each reason. None if
    /// it has closed no connection.
    fn closed(&self) -> Option<String> {
        let counts = close_counts(self.server()?).into_iter();
        let counts = counts.filter(|(_, count)| *count > Some(0));
        let words =
            |(name, count): (&str, _)| format!("{} {}", cell(count), name.replace('_', " "));
        let counts = counts.map(words).collect::<Vec<_>>().join(", ");
        (!counts.is_empty()).then(|| format!("{} closed connections: {counts}\n", self.location))
    }
}

/// Why connections were closed: the name of each counter and its value.
fn close_counts(server: &ServerStats) -> [(&'static str, Option<i64>); 8] {
    [
        ("evicted", server.evicted),
        ("evicted_by_address", server.evicted_by_address),
        ("idle", server.idle),
        ("malformed", server.malformed),
        ("timed_out", server.timed_out),
        ("too_large", server.too_large),
        ("no_thread", server.no_thread),
        ("failed_accepts", server.failed_accepts),
    ]
}

fn server_json(server: &ServerStats) -> Value {
    let counts = [
        ("open", server.open),
        ("opened", server.opened),
        ("calls", server.calls),
        ("exceptions", server.exceptions),
    ];
    let all = counts.into_iter().chain(close_counts(server));
    let known = all.filter_map(|(name, count)| Some((name.to_owned(), count?.into())));
    known.collect::<Map<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Tags;

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
            tags: Tags::default(),
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
            network: None,
            nodes,
            down: vec![Location::new("10.0.0.9", 9).unwrap()],
            keys_per_second: Some(20.0),
            asked_at: 1_709_210_096_000,
        }
    }

    #[test]
    fn the_verdict_says_how_many_copies_there_are_or_how_far_the_rebalance_is() {
        const SETTLED: Phase = Phase::SETTLED;
        const DRAINED: Phase = Phase::DRAINED;
        let settled = status(vec![node(1, SETTLED, 200), node(2, SETTLED, 200)]);
        assert_eq!(settled.verdict(), "settled, 2 copies");
        assert!(settled.is_safe());
        let copying = status(vec![node(1, SETTLED, 200), node(2, DRAINED, 50)]);
        assert_eq!(copying.verdict(), "rebalancing: 250 of 400 keys, 20/s");
        let with_legacy = status(vec![node(1, SETTLED, 100), silent(2, true)]);
        let alone = "settled, but 1 of 2 copies: the next death loses keys";
        assert_eq!(with_legacy.verdict(), alone);
        assert!(with_legacy.is_settled() && !with_legacy.is_safe());
        let silent = status(vec![node(1, SETTLED, 200), silent(2, false)]);
        assert_eq!(silent.verdict(), "degraded: no answer from 1 of 2 nodes");
        assert!(!silent.is_settled());
    }

    #[test]
    fn a_split_and_a_cut_link_are_told() {
        let mut nodes = vec![node(1, Phase::SETTLED, 200), node(2, Phase::SETTLED, 200)];
        let stats = nodes[0].stats.as_mut().unwrap();
        let other = |port| Some(vec![(&Location::new("10.0.0.1", port).unwrap()).into()]);
        stats.silent = other(3);
        stats.silent_for = Some(61_000);
        stats.cut_links = other(2);
        stats.superseded = Some(7);
        let mut status = status(nodes);
        let split = "split: 1 of 3 members out of reach since 2024-02-29T12:33:55Z";
        assert_eq!(status.verdict(), split);
        assert!(!status.is_safe());
        let table = status.table();
        assert!(
            table.contains("the link from 10.0.0.1:1 to 10.0.0.1:2 is cut"),
            "{table}"
        );
        assert!(table.contains("10.0.0.1:1: 7 keys lost a value"), "{table}");
        status.nodes[1].stats.as_mut().unwrap().is_stopped = Some(true);
        assert_eq!(
            status.verdict(),
            split.to_owned() + "; this side does not serve"
        );
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
        assert_eq!(lines.len(), 7, "{table}");
        let states = ["copying", "legacy", "no answer", "down"];
        for (line, state) in lines[1..].iter().zip(states) {
            assert!(line.contains(state), "{table}");
        }
        assert!(lines[3].ends_with("  -"), "nothing is known of it: {table}");
        let closed = "10.0.0.1:1 closed connections: 3 evicted, 1 too large";
        assert_eq!(lines[5], closed);
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
