//! Next to nothing: a write and a read now and then, so that it is seen whether the cluster lives.

use super::requests::{get, put, range};
use super::{Crew, Work};
use crate::client::Client;
use anyhow::Result;
use mechi_checker::history::store::Request;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(400);

pub(super) async fn run(crew: &Crew) -> Result<()> {
    crew.work(Idle(AtomicI64::new(0))).await
}

struct Idle(AtomicI64);

impl Work for Idle {
    async fn step(&self, client: &mut Client) -> bool {
        let value = self.0.fetch_add(1, Ordering::Relaxed);
        let done = if value % 2 == 0 {
            client.ask(Request::Put(put("idle", value.to_string()))).await.ok().is_some()
        } else {
            range(client, get("idle")).await.ok().is_some()
        };
        tokio::time::sleep(PAUSE).await;
        done
    }
}
