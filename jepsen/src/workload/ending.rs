//! The end of a run: everything is read through every member, watchers catch up, and members say what they hold.

use super::requests::{get_all, get_prefix, range, revision};
use super::{LAST_READER, Workload, WorkloadOptions, append, lock, register, set, wr};
use crate::client::{Client, Outcome};
use crate::cluster::Member;
use crate::limits::CONVERGE_MAX;
use crate::recorder::Recorder;
use anyhow::{Context, Result, bail};
use mechi_checker::edn::Edn;
use mechi_checker::history::value::RegisterCall;
use mechi_checker::verdict::Verdict;
use mechi_checker::{hash, history};
use mechi_proto::etcdserverpb as pb;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What members say that they hold.
pub const HASHES: &str = "hashes.edn";

/// How long the last reads may take each: nothing is in their way.
const READ_MAX: Duration = Duration::from_secs(5);

/// How long watchers may take to catch up, on a machine that has much else to do.
pub(crate) const CATCH_UP: Duration = CONVERGE_MAX;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Looks at everything once all is healed and [`super::run`] has ended; who has not converged in time is in the files.
pub async fn last_reads(
    workload: Workload,
    members: &[Member],
    options: &WorkloadOptions,
    recorder: &Arc<Recorder>,
) -> Result<()> {
    recorder.quiet();
    recorder.watchers.settle();
    let quiet = Instant::now();
    let mut newest = 0;
    for number in 0..members.len() {
        let thread = LAST_READER + number as u64;
        let client = Client::new(thread, members, Some(number), recorder, options.seed ^ thread)?;
        let mut client = client.with_timeout(READ_MAX);
        newest = newest.max(everything(&mut client).await);
        of_workload(&mut client, workload).await;
    }
    while quiet.elapsed() < CATCH_UP && !recorder.watchers.are_through(newest) {
        tokio::time::sleep(AGAIN).await;
    }
    let answers = hashes(members).await;
    let lines = answers.iter().map(|answer| {
        let hash = match &answer.hash {
            Ok(hash) => ("hash", Edn::from(i64::from(*hash))),
            Err(why) => ("error", Edn::text(why)),
        };
        let line = Edn::map([
            ("type", Edn::keyword("hash")),
            ("node", Edn::text(&answer.node)),
            ("revision", answer.revision.into()),
            ("compact-revision", answer.compact_revision.into()),
            hash,
        ]);
        format!("{line}\n")
    });
    std::fs::write(recorder.dir().join(HASHES), lines.collect::<String>()).context("write the hashes")?;
    // The last thing that anyone does must succeed.
    let mut client = Client::new(LAST_READER, members, Some(0), recorder, options.seed)?.with_timeout(READ_MAX);
    everything(&mut client).await;
    of_workload(&mut client, workload).await;
    Ok(())
}

/// Reads the whole store, through the log and as the member has it; returns the revision, or 0 in the end.
async fn everything(client: &mut Client) -> i64 {
    let start = Instant::now();
    while start.elapsed() < CONVERGE_MAX {
        let serializable = pb::RangeRequest { serializable: true, ..get_all() };
        let _ = range(client, serializable).await;
        match range(client, get_all()).await {
            Outcome::Ok(answer) => return revision(&answer.header),
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
    0
}

/// Reads what the workload wrote in the workload's own words.
async fn of_workload(client: &mut Client, workload: Workload) {
    let start = Instant::now();
    let prefix = match workload {
        Workload::Register => register::PREFIX,
        Workload::Append => append::PREFIX,
        Workload::Wr => wr::PREFIX,
        Workload::Set => {
            while !set::read(client, set::KEY).await && start.elapsed() < CONVERGE_MAX {}
            return;
        }
        Workload::Lock | Workload::LockFenced => {
            while !set::read(client, lock::KEY).await && start.elapsed() < CONVERGE_MAX {}
            return;
        }
        _ => return,
    };
    let Some(found) = range(client, get_prefix(prefix)).await.ok() else { return };
    let number = |key: &[u8]| super::requests::number(key.strip_prefix(prefix.as_bytes())?);
    for key in found.kvs.iter().filter_map(|kv| number(&kv.key)) {
        loop {
            let read = match workload {
                Workload::Register => register::call_one(client, key, RegisterCall::Read).await.is_some(),
                Workload::Append => append::read_one(client, key).await,
                _ => wr::read_one(client, key).await,
            };
            if read || start.elapsed() > CONVERGE_MAX {
                break;
            }
        }
    }
}

/// Every member's hash, once all are at one revision; the last answers if they never are.
async fn hashes(members: &[Member]) -> Vec<hash::Answer> {
    let start = Instant::now();
    let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    loop {
        let mut answers = Vec::new();
        for member in members {
            answers.push(hash_of(member).await.unwrap_or_else(|error| hash::Answer {
                node: member.name.clone(),
                revision: 0,
                compact_revision: 0,
                hash: Err(format!("{error:#}")),
            }));
        }
        // Members that hold different things are asked once: they would be different again.
        let revisions: BTreeSet<_> = answers.iter().map(|answer| (answer.revision, answer.compact_revision)).collect();
        let done = match hash::check(&answers, &names) {
            Verdict::Valid => true,
            Verdict::Invalid(_) => revisions.len() == 1 && answers.iter().all(|answer| answer.hash.is_ok()),
            Verdict::Unknown(_) => false,
        };
        if done || start.elapsed() > CONVERGE_MAX {
            return answers;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hash_of(member: &Member) -> Result<hash::Answer> {
    let asked = async {
        let mut client = mechi_tests::client::Client::connect(member.endpoint.trim_start_matches("http://")).await?;
        anyhow::Ok(client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await?.into_inner())
    };
    let Ok(answer) = tokio::time::timeout(READ_MAX, asked).await else { bail!("no answer in {READ_MAX:?}") };
    let answer = answer?;
    Ok(hash::Answer {
        node: member.name.clone(),
        revision: history::store::revision(&answer.header),
        compact_revision: answer.compact_revision,
        hash: Ok(answer.hash),
    })
}
