//! The two outputs of a network's status: a text table and JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Agreement, MemberStatus, NetworkStatus};
use crate::plural::counted;
use crate::status::table::{cell, percent, table};

/// The most members named in the last line for one reason.
const MAX_NAMED: usize = 5;

/// The columns of the table, with their alignments.
const HEADS: [&str; 7] = [
    "<LOCATION",
    "<STATE",
    ">INCARNATION",
    ">AGE",
    ">RING",
    "<DIGEST",
    "<TAGS",
];

impl NetworkStatus {
    /// A table with a line for each member, one for the network, and the summary as last line. `unix_millis` is the
    /// time from which ages are computed.
    pub fn table(&self, unix_millis: i64) -> String {
        let rows = self.members.iter().map(|row| cells(row, unix_millis));
        let network = format!("network {}\n", self.network);
        table(HEADS, rows) + &network + &self.summary() + "\n"
    }

    /// One JSON object. The digest is hexadecimal text, because not every JSON reader keeps a
    /// number of 64 bits.
    pub fn json(&self) -> Value {
        let members: Vec<Value> = self.members.iter().map(object).collect();
        json!({
            "network": *self.network,
            "agreed": self.is_agreed(),
            "digest": self.digest.map(|digest| format!("{digest:016x}")),
            "live": self.live().count(),
            "members": members,
        })
    }

    /// One line: the number of live members, and those that differ or do not answer.
    pub fn summary(&self) -> String {
        let mut parts = vec![counted(self.live().count(), "member")];
        if self.is_agreed() {
            parts.push("all agree".to_owned());
        }
        let reasons = [
            (Agreement::Differs, "disagree"),
            (Agreement::Joining, "joining"),
            (Agreement::NoAnswer, "without answer"),
        ];
        for (agreement, reason) in reasons {
            let rows = self.live().filter(|row| row.agreement == agreement);
            let names: Vec<&str> = rows.map(|row| row.member.location.name()).collect();
            if !names.is_empty() {
                parts.push(format!("{} {reason}: {}", names.len(), list(&names)));
            }
        }
        parts.join(", ")
    }
}

impl Agreement {
    /// Its word in the table; did the member answer, and does it agree, as in the JSON.
    fn words(self) -> (&'static str, Option<bool>, Option<bool>) {
        match self {
            Agreement::Agrees => ("agrees", Some(true), Some(true)),
            Agreement::Differs => ("differs", Some(true), Some(false)),
            Agreement::Joining => ("joining", Some(true), Some(false)),
            Agreement::NoAnswer => ("no answer", Some(false), None),
            Agreement::Gone => ("-", None, None),
        }
    }
}

fn cells(row: &MemberStatus, unix_millis: i64) -> [String; 7] {
    let member = &row.member;
    // The record of a legacy node has no incarnation.
    let incarnation = Some(member.incarnation).filter(|incarnation| *incarnation > 0);
    [
        member.location.to_string(),
        member.status.to_string(),
        cell(incarnation),
        cell(incarnation.map(|incarnation| age(unix_millis - incarnation))),
        cell(row.share.map(percent)),
        row.agreement.words().0.to_owned(),
        member.tags.to_string(),
    ]
}

fn object(row: &MemberStatus) -> Value {
    let member = &row.member;
    let (_, answered, agrees) = row.agreement.words();
    json!({
        "location": member.location.name(),
        "state": member.status.to_string(),
        "incarnation": member.incarnation,
        "generation": member.generation,
        "share": row.share,
        "answered": answered,
        "agrees": agrees,
        "tags": *member.tags,
    })
}

/// A duration in its largest unit. Negative if the member's clock is ahead: shown as 0.
fn age(millis: i64) -> String {
    let seconds = Duration::from_millis(millis.max(0) as u64).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The first names, and how many more there are.
fn list(names: &[&str]) -> String {
    match names.split_at_checked(MAX_NAMED) {
        Some((first, rest @ [_, ..])) => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::status;
    use super::*;

    #[test]
    fn the_last_line_names_members_that_disagree_or_do_not_answer() {
        let all = [1, 2, 3, 4];
        assert_eq!(status(true, &all, true).summary(), "4 members, all agree");
        assert_eq!(
            status(false, &all, false).summary(),
            "4 members, 1 disagree: 10.0.0.1:2, 1 without answer: 10.0.0.1:4"
        );
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4 and 4 more");
    }

    #[test]
    fn the_table_has_a_line_for_each_member() {
        let table = status(false, &[1, 2, 3, 4], true).table(1_700_000_300_000);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 8, "{table}");
        let column = lines[0].find("STATE").unwrap();
        let state = |line: &str| line[column..].split(' ').next().unwrap().to_owned();
        assert!(lines[1..5].iter().all(|line| state(line) == "alive"));
        assert_eq!(state(lines[5]), "down", "{table}");
        assert!(lines[1].contains("1700000000000  5 min") && lines[1].ends_with("agrees"));
        assert!(lines[2].ends_with("differs"), "{table}");
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages = [-5_000, 119_000, 7_199_000, 172_799_000, 172_800_000].map(age);
        assert_eq!(ages, ["0 s", "119 s", "119 min", "47 h", "2 d"]);
    }

    #[test]
    fn the_json_has_the_values_of_the_table() {
        let status = status(false, &[1, 2, 3, 4], false);
        let json = status.json();
        assert_eq!(json["agreed"], false);
        assert_eq!(json["live"], 4);
        assert_eq!(json["digest"], format!("{:016x}", status.digest.unwrap()));
        let member = |index: usize, field: &str| json["members"][index][field].clone();
        assert_eq!(member(0, "agrees"), true);
        assert_eq!(member(1, "agrees"), false);
        assert_eq!(
            (member(3, "answered"), member(3, "agrees")),
            (json!(false), json!(null))
        );
        assert_eq!(
            (member(4, "state"), member(4, "share")),
            (json!("down"), json!(null))
        );
    }
}
