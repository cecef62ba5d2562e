//! `-w simple` for a person: aligned columns with titles, keys apart from values, what is wrong in red.

use super::{Printed, Printer, Reply, simple, table};
use crate::style::{BOLD, DIM, GREEN, RED, paint};
use mechi_proto::mvccpb::event::EventType;

pub(super) fn print(reply: &Reply, printer: &Printer) -> Printed {
    match reply {
        Reply::MemberList(_) | Reply::EndpointStatus(_) | Reply::EndpointHashKv(_) | Reply::EndpointHealth(_) => {
            let (titles, rows) = table::rows(reply).expect("these four have rows");
            columns(&titles, &rows).into()
        }
        // Keys stand out where both are printed as text.
        Reply::Get(response) if !printer.hex && !printer.value_only => {
            let mut out = Vec::new();
            for kv in &response.kvs {
                pair(&kv.key, &kv.value, &mut out);
            }
            out.into()
        }
        Reply::Watch(response) if !printer.hex => {
            let mut out = Vec::new();
            for event in &response.events {
                let (name, style) = if event.r#type() == EventType::Delete { ("DELETE", RED) } else { ("PUT", GREEN) };
                out.extend_from_slice(paint(style, name).as_bytes());
                out.push(b'\n');
                for kv in event.prev_kv.iter().chain(&event.kv) {
                    pair(&kv.key, &kv.value, &mut out);
                }
            }
            out.into()
        }
        other => simple::print(other, printer),
    }
}

fn pair(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let (on, off) = (BOLD.as_bytes(), crate::style::END.as_bytes());
    [on, key, off, b"\n", value, b"\n"].iter().for_each(|part| out.extend_from_slice(part));
}

fn columns(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        rows.iter().map(|row| row[n].chars().count()).chain([titles[n].len()]).max().expect("the title at least")
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: Vec<String>, style: &dyn Fn(&str, String) -> String| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| style(cell, format!("{cell:width$}")));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(titles.iter().map(|title| title.to_uppercase()).collect(), &|_, cell| paint(DIM, &cell));
    for row in rows {
        let bad = titles.iter().position(|&title| title == "health").is_some_and(|n| row[n] == "false");
        out += &line(row.clone(), &|cell, padded| match cell {
            _ if bad => paint(RED, &padded),
            "true" | "started" => paint(GREEN, &padded),
            "unstarted" => paint(RED, &padded),
            _ => padded,
        });
    }
    out
}
