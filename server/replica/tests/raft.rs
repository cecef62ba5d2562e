//! Consensus as scripts that a person can read, and as runs that a seed repeats.
#![allow(missing_docs)]

mod raft_net;

use goldenscript::{Command, Context, Runner};
use mechi_replica::conf::Step;
use mechi_replica::limits::GATHER_BYTES_MAX;
use mechi_replica::types::MemberId;
use raft_net::Net;
use std::error::Error;
use std::path::Path;

#[derive(Default)]
struct Script {
    net: Option<Net>,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut number = || args.next_pos().map(str::parse::<u64>).transpose();
        if command.name == "cluster" {
            self.net = Some(Net::new(number()?.ok_or("cluster COUNT")?, 7));
            return Ok(String::new());
        }
        let net = self.net.as_mut().ok_or("begin with: cluster COUNT")?;
        match command.name.as_str() {
            "quiet" => net.verbose = false,
            "verbose" => net.verbose = true,
            "tick" => net.tick(number()?.unwrap_or(1), number()?),
            "settle" => {
                net.settle();
            }
            "put" => {
                let member = number()?.ok_or("put MEMBER [COUNT]")?;
                let ids: Vec<String> = (0..number()?.unwrap_or(1)).map(|_| net.put(member, 0).to_string()).collect();
                return Ok(format!("command {}\n", ids.join(" ")));
            }
            "put-large" => {
                let id = net.put(number()?.ok_or("put-large MEMBER")?, GATHER_BYTES_MAX);
                return Ok(format!("command {id}\n"));
            }
            // "configure 1 promote 3 demote 2": both in one change, asked of member 1.
            "configure" => {
                let member =
                    args.next_pos().map(str::parse).transpose()?.ok_or("configure MEMBER [promote|demote ID]...")?;
                let mut steps = Vec::new();
                while let Some(step) = args.next_pos() {
                    let id = MemberId(args.next_pos().map(str::parse).transpose()?.ok_or("promote|demote ID")?);
                    steps.push(if step == "promote" { Step::Promote(id) } else { Step::Demote(id) });
                }
                let id = net.configure(member, steps);
                args.reject_next()?;
                return Ok(format!("change {id}\n"));
            }
            "read" => return Ok(format!("read {}\n", net.read(number()?.ok_or("read MEMBER")?))),
            "persist" => {
                let member = number()?.ok_or("persist MEMBER [COUNT]")?;
                net.persist(member, number()?.map_or(usize::MAX, |count| count as usize));
            }
            "apply" => {
                net.apply(number()?.ok_or("apply MEMBER")?);
            }
            "deliver" => {
                net.deliver();
            }
            "run" => net.run(),
            // Lets time go on tick by tick, with everything running smoothly in between.
            "pass" => {
                for _ in 0..number()?.ok_or("pass TICKS")? {
                    net.tick(1, None);
                    net.run();
                }
            }
            // Ends a member's process; the others see its connections break.
            "lose" => net.lose(number()?.ok_or("lose MEMBER")?),
            "reset" => net.reset(number()?.ok_or("reset MEMBER PEER")?, number()?.ok_or("reset MEMBER PEER")?),
            "wait" => net.wait(number()?.ok_or("wait MS")?),
            "stall" => net.stall(number()?.ok_or("stall MEMBER")?, true),
            "unstall" => net.stall(number()?.ok_or("unstall MEMBER")?, false),
            "spoil-forwards" => net.spoil(args.next_pos().ok_or("spoil-forwards author|end|number|command|key")?)?,
            "drop-forwards" => net.forwarded.clear(),
            "double-forwards" => {
                let again = net.forwarded.clone();
                net.forwarded.extend(again);
            }
            // Puts of 1 MiB each, one after the other; says only how many.
            "load" => {
                let (member, count) = (number()?.ok_or("load MEMBER COUNT")?, number()?.ok_or("load MEMBER COUNT")?);
                for _ in 0..count {
                    net.put(member, 1 << 20);
                    net.run();
                }
                net.take_text();
            }
            "snapshot" => {
                let member = number()?.ok_or("snapshot MEMBER INDEX TERM")?;
                net.snapshot_made(member, number()?.ok_or("INDEX")?, number()?.ok_or("TERM")?);
            }
            "install" => {
                let member = number()?.ok_or("install MEMBER INDEX TERM")?;
                net.install(member, number()?.ok_or("INDEX")?, number()?.ok_or("TERM")?);
            }
            "sent" => net.snapshot_sent(number()?.ok_or("sent MEMBER TO")?, number()?.ok_or("TO")?, true),
            "failed" => net.snapshot_sent(number()?.ok_or("failed MEMBER TO")?, number()?.ok_or("TO")?, false),
            "transfer" => net.transfer(number()?.ok_or("transfer FROM TO")?, number()?.ok_or("transfer FROM TO")?),
            "isolate" => net.isolate(number()?.ok_or("isolate MEMBER")?),
            "heal" => net.heal(),
            "crash" => net.crash(number()?.ok_or("crash MEMBER")?),
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(net.take_text())
    }
}

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts/raft");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        goldenscript::run(&mut Script::default(), file).unwrap();
    }
}

/// A little generator of its own: a run must depend on its seed alone.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Lets a seed choose who goes next for a while; returns every effect as text, and the commands (author, id) whose
/// author never crashed afterwards.
fn wander(seed: u64) -> (String, Vec<(u64, u64)>) {
    let mut net = Net::new(3, seed);
    let mut choice = Choice(seed);
    let mut commands = Vec::new();
    for _ in 0..2_000 {
        let member = 1 + choice.below(3);
        match choice.below(100) {
            0..30 => net.tick(1, None),
            30..40 => commands.push((member, net.put(member, 0))),
            40..45 => {
                net.read(member);
            }
            45..68 => {
                net.deliver();
            }
            68 => net.forwarded.clear(),
            69 => {
                let again = net.forwarded.clone();
                net.forwarded.extend(again);
            }
            70..84 => {
                net.persist(member, 1);
            }
            84..95 => {
                net.apply(member);
            }
            95 => net.reset(member, 1 + choice.below(3)),
            96 => net.isolate(member),
            97 => {
                net.crash(member);
                commands.retain(|(author, _)| *author != member);
            }
            98 => net.transfer(member, 0),
            _ => net.heal(),
        }
        net.settle();
    }
    net.heal();
    for _ in 0..100 {
        net.tick(1, None);
        net.run();
    }
    (net.take_text(), commands)
}

#[test]
fn one_seed_twice_gives_the_same_effects_and_another_seed_does_not() {
    for seed in 1..=5 {
        assert_eq!(wander(seed), wander(seed), "seed {seed}");
    }
    assert_ne!(wander(1), wander(2));
}

/// The place and content of every applied entry, by member, from the text of a run.
#[test]
fn no_two_members_apply_different_entries_at_one_index() {
    for seed in 100..160 {
        let (text, _) = wander(seed);
        let mut applied = std::collections::BTreeMap::<String, String>::new();
        let mut count = 0;
        for line in text.lines().filter_map(|line| line.split_once(": apply ")).map(|(_, entries)| entries) {
            for entry in line.split(", ") {
                let (index, content) = entry.split_once('@').unwrap();
                let known = applied.entry(index.to_owned()).or_insert_with(|| content.to_owned());
                assert_eq!(known, content, "seed {seed}, index {index}");
                count += 1;
            }
        }
        assert!(count > 20, "seed {seed}: a healed cluster makes progress, applied {count}");
    }
}

/// The commands that a line says were applied, as (batch, id); batches are named member/boot/number.
fn applied_commands(line: &str) -> impl Iterator<Item = (&str, u64)> {
    let batches = line.split('[').skip(1).filter_map(|rest| rest.split(']').next()?.split_once(": "));
    batches.flat_map(|(batch, ids)| ids.split(' ').filter_map(move |id| Some((batch, id.parse().ok()?))))
}

#[test]
fn every_command_has_one_fate_however_often_its_batch_is_sent_lost_or_doubled() {
    let (mut resent, mut forwarded) = (0, 0);
    for seed in 200..260 {
        let (text, commands) = wander(seed);
        let mut batch_of = std::collections::BTreeMap::<u64, String>::new();
        for (batch, id) in text.lines().filter(|line| line.contains(": apply ")).flat_map(applied_commands) {
            let known = batch_of.entry(id).or_insert_with(|| batch.to_owned());
            assert_eq!(known, batch, "seed {seed}: command {id} is in two batches, which nothing could tell apart");
        }
        for (author, id) in commands {
            let told = |end: &str| text.contains(&format!("{author}: refuse command {id}: {end}"));
            let refused = told("");
            let unknown = text.contains(&format!("{author}: command {id} unknown: "));
            let applied = batch_of.contains_key(&id);
            assert!(refused ^ (unknown || applied), "seed {seed}: {id}: {refused} {unknown} {applied}");
        }
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(": forward ")).collect();
        let mut once: Vec<_> = lines.iter().map(|line| line.split_once('[')).collect();
        once.sort_unstable();
        once.dedup();
        (resent, forwarded) = (resent + lines.len() - once.len(), forwarded + lines.len());
    }
    assert!(resent > 50, "{resent} of {forwarded} were sent again");
}

/// Lets the leader's process end and all others see it at once; returns who campaigned and the milliseconds until one
/// of them led.
fn fail_over(members: u64, seed: u64) -> (Vec<String>, u64) {
    let mut net = Net::new(members, seed);
    for _ in 0..60 {
        net.tick(1, None);
        net.run();
    }
    let led = net.take_text();
    let leader = led.lines().rev().find_map(|line| line.split_once(": role Leader")).expect("somebody leads").0;
    let leader = leader.parse().expect("a member's id");
    net.verbose = false;
    net.lose(leader);
    let (mut campaigns, mut waited) = (Vec::new(), 0);
    while waited < 1_000 {
        net.wait(1);
        waited += 1;
        let text = net.take_text();
        let begun = text.lines().filter(|line| line.contains(": role Candidate"));
        campaigns.extend(begun.map(str::to_owned));
        if text.contains(": role Leader") {
            break;
        }
    }
    // Nobody thinks of another election afterwards.
    net.wait(400);
    let text = net.take_text();
    campaigns.extend(text.lines().filter(|line| line.contains("Candidate")).map(str::to_owned));
    (campaigns, waited)
}

#[test]
fn a_lost_leader_is_replaced_by_one_election_at_once() {
    for members in [3, 5] {
        for seed in 1..=50 {
            let (campaigns, waited) = fail_over(members, seed);
            assert_eq!(campaigns.len(), 1, "{members} members, seed {seed}: {campaigns:?}");
            assert!(waited < 50, "{members} members, seed {seed}: no leader for {waited} ms");
        }
    }
}
