//! Compaction at random revisions, with reads of the past and watches right at its border, and a store that is rebuilt.

use super::requests::{get, get_prefix, range};
use super::watch::{Writers, compact, watchers};
use super::{COMPACTOR, Crew, Work};
use crate::client::{Client, Outcome};
use anyhow::Result;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use std::time::Duration;

const PREFIX: &str = "c/";

/// Between two compactions: etcd's robustness tests compact as often.
const COMPACT_EVERY: Duration = Duration::from_millis(200);

/// Between two orders to give space back.
const DEFRAGMENT_EVERY: Duration = Duration::from_secs(4);

/// How long one of those may take.
const DEFRAGMENT_MAX: Duration = Duration::from_secs(2);

pub(super) async fn run(crew: &Crew) -> Result<()> {
    watchers(crew, PREFIX, 1);
    let mut compactor = crew.client(COMPACTOR, None)?;
    let compacting = async {
        while crew.wait(COMPACT_EVERY).await {
            compact(&mut compactor, 0, 120).await;
        }
    };
    let mut rng = crew.rng(2_000);
    let defragmenting = async {
        while crew.wait(DEFRAGMENT_EVERY).await {
            defragment(crew, &mut rng).await;
        }
    };
    let work = Borders { writers: Writers::new(PREFIX) };
    let (worked, (), ()) = tokio::join!(crew.work(work), compacting, defragmenting);
    worked
}

/// Asks a member to give space back; that it cannot is no failure of the run.
async fn defragment(crew: &Crew, rng: &mut Rng) {
    let endpoint = rng.pick(&crew.members).endpoint.clone();
    let asked = async {
        let mut client = mechi_tests::client::Client::connect(endpoint.trim_start_matches("http://")).await?;
        client.maintenance.defragment(pb::DefragmentRequest {}).await?;
        anyhow::Ok(())
    };
    let _ = tokio::time::timeout(DEFRAGMENT_MAX, asked).await;
}

/// Writes, and reads of revisions near the border.
struct Borders {
    writers: Writers,
}

impl Work for Borders {
    async fn step(&self, client: &mut Client) -> bool {
        if client.rng().chance(55) {
            return self.writers.step(client).await;
        }
        let newest = client.recorder().watchers.newest();
        let revision = (newest + 2 - client.rng().below(150) as i64).max(1);
        let all = client.rng().chance(30);
        let what = if all { get_prefix(PREFIX) } else { get(format!("{PREFIX}{:02}", client.rng().below(20))) };
        let ask = pb::RangeRequest { revision, serializable: client.rng().chance(30), ..what };
        match range(client, ask).await {
            Outcome::Ok(_) => true,
            // To be told that it is compacted, or still to come, is an answer.
            Outcome::Fail(why) => why.contains("revision"),
            Outcome::Info(_) => false,
        }
    }
}
