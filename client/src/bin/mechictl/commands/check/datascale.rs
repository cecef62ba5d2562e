//! `check datascale`: what keys cost the server in memory.

use super::load::Load;
use super::{bar, compact, defragment, delete, load, memory, model, say_errors};
use crate::call::Call;
use crate::exit::{ERROR, Exit, INVALID_INPUT};
use crate::go::quote::quote;
use crate::output::say;
use crate::session::Session;
use mechi_client::Get;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys and clients, by the size of the load.
const MODELS: [(u64, usize); 4] = [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];
/// Bytes of a key's random part, and of a value.
const HALF_BYTES: usize = 512;

pub(in crate::commands) async fn run(call: &mut Call) -> Result<(), Exit> {
    let (requests_max, clients) = MODELS[model(call.flags.text("load"))?];
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::open(call).await?;
    let writers = session.others(clients)?;
    let client = session.patient();
    let first = session.done(client.get_with(Get::prefix(prefix.clone()).limit(1))).await?;
    if !first.kvs.is_empty() {
        let quoted = quote(prefix.as_bytes());
        let why = format!("prefix {quoted} has keys. Delete with etcdctl del --prefix {prefix} first");
        return Err(Exit::new(INVALID_INPUT, why));
    }
    let before = resident(call, "before").await?;
    let size = 2 * HALF_BYTES;
    say!(
        "Start data scale check for work load [{requests_max} key-value pairs, {size} bytes per key-value, \
         {clients} concurrent clients]."
    );
    let load = Load {
        prefix: prefix.clone(),
        key_bytes: HALF_BYTES,
        value_bytes: HALF_BYTES,
        requests_max,
        end: None,
        pace: None,
    };
    let done = Arc::new(AtomicU64::new(0));
    let writing = load::run(writers, load, done.clone());
    let stats = bar::until(requests_max, || done.load(Ordering::Relaxed), writing).await;
    let after = resident(call, "after").await?;
    let revision = session.done(delete(&client, &prefix)).await?;
    if call.flags.on("auto-compact") {
        compact(&session, revision).await?;
    }
    if call.flags.on("auto-defrag") {
        defragment(&session).await?;
    }
    say_errors(&stats)?;
    say!("PASS: Approximate system memory used : {:.2} MB.", (after - before) / f64::from(1 << 20));
    Ok(())
}

async fn resident(call: &Call, when: &str) -> Result<f64, Exit> {
    let endpoint = call.flags.list("endpoints").first().map_or("", |word| word.trim());
    memory::resident(endpoint).await.map_err(|why| {
        say!("{why}\nFAIL: Could not read process_resident_memory_bytes {when} the put operations.");
        Exit::silent(ERROR)
    })
}
