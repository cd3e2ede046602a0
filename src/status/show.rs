//! The two ways to show a status: a table for people, JSON for programs.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde_json::{Value, json};

use super::{MemberStatus, Standing, Status};

/// Most members named in the last line.
const NAMED: usize = 5;

impl Status {
    /// The status as a table, as it is at this time (in milliseconds since 1970),
    /// and a last line that sums it up.
    pub fn table(&self, unix_millis: i64) -> String {
        let heads = ["LOCATION", "STATE", "INCARNATION", "AGE", "RING", "VIEW"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.members.iter().map(|row| cells(row, unix_millis)));
        let widths: [usize; 6] =
            std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
        let mut table = String::new();
        for row in &rows {
            let [location, state, incarnation, age, ring, view] = row;
            let [w0, w1, w2, w3, w4, _] = widths;
            table += &format!(
                "{location:w0$}  {state:w1$}  {incarnation:>w2$}  {age:>w3$}  {ring:>w4$}  {view}\n"
            );
        }
        table + &self.summary() + "\n"
    }

    /// The status as one JSON object. Views are hexadecimal text: not every reader
    /// of JSON keeps 64 bits of a number.
    pub fn json(&self) -> Value {
        let members: Vec<Value> = self.members.iter().map(object).collect();
        json!({
            "network": *self.network,
            "agreed": self.is_agreed(),
            "view": self.view.map(|view| format!("{view:016x}")),
            "live": self.live().count(),
            "members": members,
        })
    }

    /// How many members there are, and who of them does not see what the others see.
    pub fn summary(&self) -> String {
        let named = |standing| -> Vec<&str> {
            let rows = self.live().filter(|row| row.standing == standing);
            rows.map(|row| row.member.location.name()).collect()
        };
        let count = match self.live().count() {
            1 => "1 member".to_owned(),
            count => format!("{count} members"),
        };
        let (differ, silent) = (named(Standing::Differs), named(Standing::Silent));
        let mut said = vec![count];
        if self.is_agreed() {
            said.push("all agree".to_owned());
        }
        if !differ.is_empty() {
            said.push(format!("{} disagree: {}", differ.len(), list(&differ)));
        }
        if !silent.is_empty() {
            said.push(format!(
                "{} without answer: {}",
                silent.len(),
                list(&silent)
            ));
        }
        said.join(", ")
    }
}

impl Display for Standing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Agrees => "agrees",
            Standing::Differs => "differs",
            Standing::Silent => "no answer",
            Standing::Gone => "-",
        })
    }
}

fn cells(row: &MemberStatus, unix_millis: i64) -> [String; 6] {
    let none = || "-".to_owned();
    let member = &row.member;
    let said = member.incarnation > 0;
    [
        member.location.to_string(),
        member.status.to_string(),
        if said {
            member.incarnation.to_string()
        } else {
            none()
        },
        if said {
            age(unix_millis - member.incarnation)
        } else {
            none()
        },
        row.share
            .map_or_else(none, |share| format!("{:.1} %", share * 100.0)),
        row.standing.to_string(),
    ]
}

fn object(row: &MemberStatus) -> Value {
    let member = &row.member;
    json!({
        "location": member.location.name(),
        "state": member.status.to_string(),
        "incarnation": member.incarnation,
        "started": member.started,
        "share": row.share,
        "answered": match row.standing {
            Standing::Agrees | Standing::Differs => Some(true),
            Standing::Silent => Some(false),
            Standing::Gone => None,
        },
        "agrees": match row.standing {
            Standing::Agrees => Some(true),
            Standing::Differs => Some(false),
            Standing::Silent | Standing::Gone => None,
        },
    })
}

/// A time in its largest unit. A clock that is ahead of ours makes it nothing.
fn age(millis: i64) -> String {
    let seconds = Duration::from_millis(millis.max(0) as u64).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn list(names: &[&str]) -> String {
    let (first, rest) = names.split_at(names.len().min(NAMED));
    match rest.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::status;
    use super::*;

    #[test]
    fn the_last_line_names_who_disagrees_and_who_does_not_answer() {
        let all = [1, 2, 3, 4];
        assert_eq!(status(true, &all, false).summary(), "4 members, all agree");
        assert_eq!(
            status(false, &all, true).summary(),
            "4 members, 1 disagree: 10.0.0.1:2, 1 without answer: 10.0.0.1:4"
        );
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4 and 4 more");
    }

    #[test]
    fn the_table_has_a_line_for_each_member_and_its_columns_are_aligned() {
        let table = status(false, &[1, 2, 3, 4], false).table(1_700_000_300_000);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 7, "{table}");
        let column = lines[0].find("STATE").unwrap();
        assert!(
            lines[1..5]
                .iter()
                .all(|line| line[column..].starts_with("alive"))
        );
        assert!(lines[5][column..].starts_with("down"), "{table}");
        assert!(lines[1].contains("1700000000000  5 min") && lines[1].ends_with("agrees"));
        assert!(lines[2].ends_with("differs"), "{table}");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let told = [-5_000, 119_000, 7_199_000, 172_799_000, 172_800_000].map(age);
        assert_eq!(told, ["0 s", "119 s", "119 min", "47 h", "2 d"]);
    }

    #[test]
    fn json_says_what_the_table_says() {
        let status = status(false, &[1, 2, 3, 4], true);
        let json = status.json();
        assert_eq!(json["agreed"], false);
        assert_eq!(json["live"], 4);
        assert_eq!(json["view"], format!("{:016x}", status.view.unwrap()));
        let of = |index: usize, field: &str| json["members"][index][field].clone();
        assert_eq!(of(0, "agrees"), true);
        assert_eq!(of(1, "agrees"), false);
        assert_eq!(
            (of(3, "answered"), of(3, "agrees")),
            (json!(false), json!(null))
        );
        assert_eq!(
            (of(4, "state"), of(4, "share")),
            (json!("down"), json!(null))
        );
    }
}
