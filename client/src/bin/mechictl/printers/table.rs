//! `-w table`: the boxes that etcdctl draws, right-aligned, long texts broken at 30 characters.

use super::{Reply, humanize};
use crate::limits::CELL_WIDTH_MAX;
use std::fmt::Write;

/// The output; `None` for the replies that have no rows.
pub(super) fn print(reply: &Reply) -> Option<String> {
    let (header, rows) = rows(reply)?;
    let header: Vec<String> = header.iter().map(|title| title.to_uppercase()).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| width(title)).collect();
    for (n, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        // A text that is broken takes the whole width, even if no line of it does.
        let whole = width(cell).min(CELL_WIDTH_MAX);
        widths[n] = wrap(cell).iter().map(|line| width(line)).chain([widths[n], whole]).max().expect("two at least");
    }
    let rows = rows.iter().map(|row| row.iter().map(|cell| wrap(cell)).collect::<Vec<_>>());
    let rule = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let mut out = rule.clone();
    for (title, width) in header.iter().zip(&widths) {
        let gap = width - self::width(title);
        let left = gap / 2;
        write!(out, "| {}{title}{} ", " ".repeat(left), " ".repeat(gap - left)).expect("a string takes all writes");
    }
    out.push_str("|\n");
    out.push_str(&rule);
    for row in rows {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        for n in 0..height {
            for (cell, width) in row.iter().zip(&widths) {
                let text = cell.get(n).map_or("  ", String::as_str);
                let gap = width.saturating_sub(self::width(text));
                write!(out, "| {}{text} ", " ".repeat(gap)).expect("a string takes all writes");
            }
            out.push_str("|\n");
        }
    }
    Some(out + &rule)
}

/// The titles and the rows of a reply that has some.
pub(super) fn rows(reply: &Reply) -> Option<(Vec<&'static str>, Vec<Vec<String>>)> {
    match reply {
        Reply::MemberList(r) => {
            let titles = vec!["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
            let row = |member: &mechi_proto::etcdserverpb::Member| {
                vec![
                    format!("{:x}", member.id),
                    if member.name.is_empty() { "unstarted".into() } else { "started".into() },
                    member.name.clone(),
                    member.peer_ur_ls.join(","),
                    member.client_ur_ls.join(","),
                    member.is_learner.to_string(),
                ]
            };
            Some((titles, r.members.iter().map(row).collect()))
        }
        Reply::EndpointHealth(healths) => {
            let row =
                |h: &super::Health| vec![h.endpoint.clone(), h.healthy.to_string(), h.took.clone(), h.error.clone()];
            Some((vec!["endpoint", "health", "took", "error"], healths.iter().map(row).collect()))
        }
        Reply::EndpointStatus(all) => {
            let titles = vec![
                "endpoint",
                "ID",
                "version",
                "db size",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
            ];
            let row = |(endpoint, r): &(String, mechi_proto::etcdserverpb::StatusResponse)| {
                let member = super::header(&r.header).member_id;
                vec![
                    endpoint.clone(),
                    format!("{member:x}"),
                    r.version.clone(),
                    humanize::bytes(r.db_size.try_into().unwrap_or(0)),
                    (r.leader == member).to_string(),
                    r.is_learner.to_string(),
                    r.raft_term.to_string(),
                    r.raft_index.to_string(),
                    r.raft_applied_index.to_string(),
                    r.errors.join(", "),
                ]
            };
            Some((titles, all.iter().map(row).collect()))
        }
        Reply::EndpointHashKv(all) => {
            let row = |(endpoint, r): &(String, mechi_proto::etcdserverpb::HashKvResponse)| {
                vec![endpoint.clone(), r.hash.to_string()]
            };
            Some((vec!["endpoint", "hash"], all.iter().map(row).collect()))
        }
        _ => None,
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Breaks a text at spaces into lines of even length: the least sum of squares of what is missing to the limit.
fn wrap(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split([' ', '\n']).collect();
    let longest = words.iter().map(|word| width(word)).max().unwrap_or(0);
    let limit = width(text).min(CELL_WIDTH_MAX).max(longest);
    let length = |from: usize, to: usize| words[from..to].iter().map(|word| width(word) + 1).sum::<usize>() - 1;
    // best[i]: the cost of the lines from word i on, and where the first of them ends.
    let mut best = vec![(0, words.len()); words.len() + 1];
    for from in (0..words.len()).rev() {
        if length(from, words.len()) > limit {
            let ends = (from + 1..words.len()).filter(|&to| to == from + 1 || length(from, to) <= limit);
            let cost = |to: usize| (limit.abs_diff(length(from, to)).pow(2) + best[to].0, to);
            best[from] = ends.map(cost).min_by_key(|&(cost, _)| cost).expect("a word at least");
        }
    }
    let mut lines = Vec::new();
    let mut from = 0;
    while from < words.len() {
        let to = best[from].1;
        lines.push(words[from..to].join(" "));
        from = to;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printers::Health;

    #[test]
    fn long_texts_are_broken_into_even_lines() {
        assert_eq!(wrap("short"), ["short"]);
        assert_eq!(wrap(""), [""]);
        assert_eq!(
            wrap("http://a-very-long-address-without-spaces:2379"),
            ["http://a-very-long-address-without-spaces:2379"]
        );
        assert_eq!(
            wrap("one two three four five six seven eight nine"),
            ["one two three four five six", "seven eight nine"]
        );
    }

    #[test]
    fn a_table_has_borders_and_is_aligned_to_the_right() {
        let health = |endpoint: &str, error: &str| Health {
            endpoint: endpoint.into(),
            healthy: error.is_empty(),
            took: "1ms".into(),
            error: error.into(),
        };
        let reply = Reply::EndpointHealth(vec![health("a:1", ""), health("b:22", "context deadline exceeded")]);
        let want = "\
+----------+--------+------+---------------------------+
| ENDPOINT | HEALTH | TOOK |           ERROR           |
+----------+--------+------+---------------------------+
|      a:1 |   true |  1ms |                           |
|     b:22 |  false |  1ms | context deadline exceeded |
+----------+--------+------+---------------------------+
";
        assert_eq!(print(&reply).expect("has rows"), want);
    }

    #[test]
    fn a_broken_text_makes_its_row_higher() {
        let error = "rpc error: code = Unavailable desc = transport is closing";
        let health = Health { endpoint: "a".into(), healthy: false, took: String::new(), error: error.into() };
        let printed = print(&Reply::EndpointHealth(vec![health])).expect("has rows");
        let rows: Vec<&str> = printed.lines().skip(3).take(2).collect();
        let want = [
            "|        a |  false |      |  rpc error: code = Unavailable |",
            "|          |        |      |    desc = transport is closing |",
        ];
        assert_eq!(rows, want);
    }
}
