//! Throughput and latency of single operations.

use super::{Sample, Setting};
use crate::load::drive::{Extent, Shape, closed, open};
use crate::load::report::Report;
use crate::load::work::{Gets, GuardedTxns, Keys, Puts, VALUE_BYTES, Work};
use crate::servers::Fleet;
use anyhow::{Context, Result};
use mechi_tests::process::Kind;

/// Connections of the open loop.
const OPEN_CONNECTIONS: usize = 16;

/// The measured time of the open loop is this many times that of a throughput, since it looks for the rare.
const OPEN_TIMES: u32 = 3;

/// Runs a closed loop for the setting's time.
fn run(setting: &Setting, fleet: &Fleet, to: &[String], shape: Shape, work: impl Work + 'static) -> Result<Report> {
    let extent = Extent::Time(setting.scale.warm, setting.scale.measure);
    closed(to, shape, extent, work, &|| fleet.cpu())
}

/// Writes keys 0 to `keys`.
pub(super) fn fill(fleet: &Fleet, keys: u64) -> Result<Report> {
    let work = Puts::new(Keys::New(0), VALUE_BYTES);
    closed(&fleet.leader(), Shape::MANY, Extent::Count(keys), work, &|| fleet.cpu())
}

/// Puts of a number of clients through the leader, or through all members.
fn puts(setting: &Setting, kind: Kind, members: usize, keys: Keys, through_all: bool, metric: &str) -> Result<Report> {
    let fleet = Fleet::start(&setting.programs, kind, members, &[])?;
    if let Keys::Random(keys) = keys {
        fill(&fleet, keys)?;
    }
    let to = if through_all { fleet.endpoints() } else { fleet.leader() };
    run(setting, &fleet, &to, Shape::MANY, Puts::new(keys, VALUE_BYTES)).with_context(|| metric.to_owned())
}

pub(super) fn put_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let report = puts(setting, kind, 1, Keys::New(0), false, "put_1")?;
    Ok(vec![Sample::rate("put_1", &report), Sample::new("put_1_cpu", report.server_us())])
}

pub(super) fn put_one_key_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    Ok(vec![Sample::rate("put_one_key_1", &puts(setting, kind, 1, Keys::One, false, "put_one_key_1")?)])
}

pub(super) fn put_random_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let keys = Keys::Random(setting.scale.spread);
    Ok(vec![Sample::rate("put_random_1", &puts(setting, kind, 1, keys, false, "put_random_1")?)])
}

pub(super) fn put_3(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let report = puts(setting, kind, 3, Keys::New(0), false, "put_3")?;
    Ok(vec![Sample::rate("put_3", &report), Sample::new("put_3_cpu", report.server_us())])
}

pub(super) fn put_3_all(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    Ok(vec![Sample::rate("put_3_all", &puts(setting, kind, 3, Keys::New(0), true, "put_3_all")?)])
}

fn txns(setting: &Setting, kind: Kind, members: usize, metric: &str) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, members, &[])?;
    let work = GuardedTxns::new(0, Shape::MANY.clients(), VALUE_BYTES);
    Ok(vec![Sample::rate(metric, &run(setting, &fleet, &fleet.leader(), Shape::MANY, work)?)])
}

pub(super) fn txn_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    txns(setting, kind, 1, "txn_1")
}

pub(super) fn txn_3(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    txns(setting, kind, 3, "txn_3")
}

fn lone(setting: &Setting, kind: Kind, members: usize) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, members, &[])?;
    let report = run(setting, &fleet, &fleet.leader(), Shape::LONE, Puts::new(Keys::New(0), VALUE_BYTES))?;
    let name = |part: &str| format!("lone_put_{members}_{part}");
    let p50 = Sample { value: report.ms(0.5), ..Sample::rate(&name("p50"), &report) };
    Ok(vec![p50, Sample::new(&name("p99"), report.ms(0.99))])
}

pub(super) fn lone_put_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    lone(setting, kind, 1)
}

pub(super) fn lone_put_3(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    lone(setting, kind, 3)
}

/// The same offered load for both, whatever Mechi could do: half of what etcd can.
pub(super) fn half_load(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let rate = setting.half_rate.context("the rate follows from etcd's put_3, which was not measured")?;
    let fleet = Fleet::start(&setting.programs, kind, 3, &[])?;
    let time = (setting.scale.warm, setting.scale.measure * OPEN_TIMES);
    let work = Puts::new(Keys::New(0), VALUE_BYTES);
    let report = open(&fleet.leader(), OPEN_CONNECTIONS, rate, time, work, &|| fleet.cpu())?;
    let p50 = Sample { value: report.ms(0.5), ..Sample::rate("half_load_p50", &report) };
    Ok(vec![p50, Sample::new("half_load_p99", report.ms(0.99)), Sample::new("half_load_p999", report.ms(0.999))])
}

fn gets(setting: &Setting, kind: Kind, members: usize, serializable: bool, metric: &str) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, members, &[])?;
    let keys = setting.scale.spread;
    fill(&fleet, keys)?;
    let work = Gets::new(Keys::Random(keys), serializable);
    Ok(vec![Sample::rate(metric, &run(setting, &fleet, &fleet.leader(), Shape::MANY, work)?)])
}

pub(super) fn get_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    gets(setting, kind, 1, false, "get_1")
}

pub(super) fn get_3(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    gets(setting, kind, 3, false, "get_3")
}

pub(super) fn sget_1(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    gets(setting, kind, 1, true, "sget_1")
}

pub(super) fn sget_3(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    gets(setting, kind, 3, true, "sget_3")
}
