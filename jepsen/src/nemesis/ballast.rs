//! Large values, written all the time: a log that grows by the second, so that there are snapshots to be damaged and
//! members that fall behind the log.

use crate::client::Client;
use crate::cluster::Member;
use crate::recorder::Recorder;
use anyhow::Result;
use mechi_checker::history::store::Request;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Who acts in the histories: a thread that no workload has. What it writes has revisions as any write has.
const THREAD: u64 = 29;

/// Keys that are written again and again.
const KEYS: u64 = 8;

/// Bytes of a value.
const VALUE_BYTES: u64 = 24 << 10;

/// Time between two writes: the shortest log that a member can be told to keep is full within five seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes until it is dropped.
pub async fn write(members: &[Member], recorder: &Arc<Recorder>, seed: u64) -> Result<()> {
    let mut client = Client::new(THREAD, members, None, recorder, seed)?;
    let mut rng = Rng::new(seed ^ 0x62_616c);
    loop {
        let key = format!("ballast/{}", rng.below(KEYS));
        // Letters that do not compress to nothing, and that a person can read in a history.
        let value: String = (0..VALUE_BYTES / 16).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let put = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        // Whatever came of it: the record knows.
        let _ = client.ask(Request::Put(put)).await;
        tokio::time::sleep(PAUSE).await;
    }
}
