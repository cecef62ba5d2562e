//! `check perf` and `check datascale`: does a cluster keep up with a known load, and what does it cost in memory?

mod bar;
mod datascale;
mod load;
mod memory;
mod perf;

use crate::exit::{BAD_FEATURE, ERROR, Exit};
use crate::go::quote::quote;
use crate::output::say;
use crate::session::Session;
use mechi_client::{Client, Delete};
use std::time::Duration;

pub(super) use datascale::run as datascale;
pub(super) use perf::run as perf;

/// How long cleaning up may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// `s`, `m`, `l` or `xl`, as a number.
fn model(given: &str) -> Result<usize, Exit> {
    match given {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => Err(Exit::new(BAD_FEATURE, format!("unknown load option {other}"))),
    }
}

/// Deletes what was written; returns the revision of that.
async fn delete(client: &Client, prefix: &str) -> Result<i64, mechi_client::Error> {
    let client = client.with_timeout(CLEANUP_TIMEOUT);
    let response = client.delete_with(Delete::prefix(prefix.to_owned())).await?;
    Ok(response.header.map_or(0, |header| header.revision))
}

async fn compact(session: &Session, revision: i64) -> Result<(), Exit> {
    say!("Compacting with revision {revision}");
    session.done(session.client.with_timeout(CLEANUP_TIMEOUT).compact_physical(revision)).await?;
    say!("Compacted with revision {revision}");
    Ok(())
}

async fn defragment(session: &Session) -> Result<(), Exit> {
    for endpoint in session.client.endpoints() {
        let name = quote(endpoint.as_bytes());
        say!("Defragmenting {name}");
        let member = session.at(endpoint)?;
        member.done(member.client.with_timeout(CLEANUP_TIMEOUT).defragment()).await?;
        say!("Defragmented {name}");
    }
    Ok(())
}

/// Names the errors that requests met.
fn say_errors(stats: &load::Stats) -> Result<(), Exit> {
    if stats.errors.is_empty() {
        return Ok(());
    }
    say!("FAIL: too many errors");
    for (error, count) in &stats.errors {
        say!("FAIL: ERROR({error}) -> {count}");
    }
    Err(Exit::silent(ERROR))
}
