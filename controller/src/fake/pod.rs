//! The stages of a pod on a fake node: which one follows, after how long, and what it writes.

use super::script::Script;
use crate::api::change::{Deletion, Half, delete, update};
use crate::kv::{Revision, Txn};
use crate::types::meta::{Condition, set_condition};
use crate::types::pod::{Container, ContainerState, ContainerStatus, Pod, Running, Terminated, Waiting};
use crate::types::resource::Held;
use crate::types::time::Time;

/// The first wait before a container that crashed is started anew.
const RESTART_MS_MIN: u64 = 1_000;

/// The longest such wait.
const RESTART_MS_MAX: u64 = 60_000;

/// What happens to a pod next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Start,
    BecomeReady,
    Fail,
    Crash,
    Go,
}

/// The stage that follows, and how many milliseconds after the one before; `None` if it stays as it is.
pub(super) fn next(pod: &Pod, created: Revision, script: &Script) -> Option<(Stage, u64)> {
    if pod.metadata.is_going() {
        return Some((Stage::Go, script.stop_ms));
    }
    if pod.is_over() {
        return None;
    }
    if pod.status.phase != "Running" {
        return Some((Stage::Start, script.start_ms));
    }
    if !pod.is_ready() {
        let first = script.ready_ms?;
        let restarts = u32::try_from(pod.restarts()).unwrap_or(0);
        return Some((Stage::BecomeReady, if restarts == 0 { first } else { restart_ms(restarts) }));
    }
    let befalls = |mishap: &super::script::Mishap| mishap.befalls(created);
    let fail = script.fail.filter(befalls).map(|mishap| (Stage::Fail, mishap.after_ms));
    fail.or_else(|| script.crash.filter(befalls).map(|mishap| (Stage::Crash, mishap.after_ms)))
}

fn restart_ms(restarts: u32) -> u64 {
    RESTART_MS_MIN.saturating_mul(1 << (restarts - 1).min(16)).min(RESTART_MS_MAX)
}

/// What a stage writes; `None` if it is so already.
pub(super) fn play(stage: Stage, pod: &Held<Pod>, script: &Script, now: Time) -> Option<Txn> {
    if stage == Stage::Go {
        // It has stopped: now it may go, as soon as nothing else keeps it.
        let stopped = Deletion { grace: Some(0), ..Deletion::default() };
        return delete(pod, &stopped, now).ok().flatten();
    }
    let mut new = pod.to_object();
    match stage {
        Stage::Start => start(&mut new, pod.created, script, now),
        Stage::BecomeReady => ready(&mut new, now),
        Stage::Fail => end(&mut new, "Error", "its script says so", now),
        Stage::Crash => crash(&mut new, now),
        Stage::Go => unreachable!("it was done above"),
    }
    update(pod, new, Half::Status).ok().flatten()
}

/// What is written of a pod whose own script says nothing.
pub(super) fn refuse(pod: &Held<Pod>, why: &str, now: Time) -> Option<Txn> {
    let mut new = pod.to_object();
    end(&mut new, "InvalidScript", why, now);
    update(pod, new, Half::Status).ok().flatten()
}

fn say(pod: &mut Pod, r#type: &str, holds: bool, reason: &str, now: Time) {
    let status = if holds { "True" } else { "False" }.to_owned();
    let condition = Condition { r#type: r#type.to_owned(), status, reason: reason.to_owned(), ..Default::default() };
    set_condition(&mut pod.status.conditions, condition, now);
}

fn say_ready(pod: &mut Pod, holds: bool, reason: &str, now: Time) {
    for r#type in ["ContainersReady", "Ready"] {
        say(pod, r#type, holds, reason, now);
    }
    pod.status.container_statuses.iter_mut().for_each(|container| container.ready = holds);
}

fn start(pod: &mut Pod, created: Revision, script: &Script, now: Time) {
    let runs = |container: &Container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        started: Some(true),
        state: ContainerState {
            running: Some(Running { started_at: Some(now), ..Default::default() }),
            ..Default::default()
        },
        ..Default::default()
    };
    pod.status.container_statuses = pod.spec.containers.iter().map(runs).collect();
    "Running".clone_into(&mut pod.status.phase);
    pod.status.start_time = Some(now);
    // Made up, and another one for each of the last sixteen million pods.
    let [.., b, c, d] = created.to_be_bytes();
    pod.status.pod_ip = format!("10.{b}.{c}.{d}");
    "127.0.0.1".clone_into(&mut pod.status.host_ip);
    say(pod, "Initialized", true, "", now);
    if script.ready_ms == Some(0) {
        ready(pod, now);
    } else {
        say_ready(pod, false, "ContainersNotReady", now);
    }
}

fn ready(pod: &mut Pod, now: Time) {
    for container in &mut pod.status.container_statuses {
        if container.state.running.is_none() {
            let running = Some(Running { started_at: Some(now), ..Default::default() });
            container.state = ContainerState { running, ..Default::default() };
        }
        container.started = Some(true);
    }
    say_ready(pod, true, "", now);
}

fn terminated(container: &ContainerStatus, reason: &str, now: Time) -> ContainerState {
    let started_at = container.state.running.as_ref().and_then(|running| running.started_at);
    let (reason, finished_at) = (reason.to_owned(), Some(now));
    let terminated = Terminated { exit_code: 1, reason, started_at, finished_at, ..Default::default() };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

/// It fails for good.
fn end(pod: &mut Pod, reason: &str, message: &str, now: Time) {
    for container in &mut pod.status.container_statuses {
        container.state = terminated(container, reason, now);
        container.started = Some(false);
    }
    "Failed".clone_into(&mut pod.status.phase);
    reason.clone_into(&mut pod.status.reason);
    message.clone_into(&mut pod.status.message);
    say_ready(pod, false, "PodFailed", now);
}

/// Its containers end, and are started anew after a while.
fn crash(pod: &mut Pod, now: Time) {
    for container in &mut pod.status.container_statuses {
        container.last_state = terminated(container, "Error", now);
        let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), ..Default::default() };
        container.state = ContainerState { waiting: Some(waiting), ..Default::default() };
        container.started = Some(false);
        container.restart_count = container.restart_count.saturating_add(1);
    }
    say_ready(pod, false, "ContainersNotReady", now);
}
