//! Stops lives of a member at every operation and judges what each stop may leave on its disk.

use crate::harness::Counts;
use crate::member::{FOUNDERS, Life, Member, Run, Seen, StoreFolder, Working};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::disk;
use mechi_replica::disk::images::{self, Numbers};
use mechi_replica::disk::sim::{Fate, SimDisk};
use mechi_replica::effect::Entry;
use mechi_replica::snapshot::{self, chunk::Chunk};
use mechi_replica::store::{AllInMemory, Batch, Blocks, Store, keys};

/// Images per stop: all subsets up to this number, else so many samples.
const IMAGES_PER_STOP: u64 = 16;

/// Images with torn writes per stop.
const TORN_PER_STOP: u64 = 4;

/// Of so many stops one has its recovery stopped as well.
const RECOVERIES_EACH: u64 = 7;

/// What a reader must see at each index, from 0.
pub(crate) struct Expected(Vec<Seen>);

impl Expected {
    /// Applies `entries` to an empty state that lives in memory only.
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let (mut state, nobody) = (State::empty(), Answer { member: 0, boot: 0 });
        state.found(FOUNDERS);
        let seen = |state: &State| Seen::of(state, &AllInMemory).expect("everything is in memory");
        let mut all = vec![seen(&state)];
        for entry in entries {
            apply(&mut state, entry, nobody, &AllInMemory, &mut Outcomes::default()).expect("a valid entry");
            all.push(seen(&state));
        }
        Self(all)
    }
}

/// Stops `life` at every operation; judges a successor on the same machine, and the images of a power cut.
pub(crate) fn judge_life(life: &Life, counts: &mut Counts) -> Result<(), String> {
    let mut numbers = Numbers::new(life.seed ^ 0xbeef);
    let (whole, end) = Run::new(life, &SimDisk::new());
    end.map_err(|why| format!("the life ended early on a whole disk: {why}"))?;
    let expected = Expected::of(&whole.entries);
    let operations = whole.disk.operations();
    for stop in 0..=operations {
        let disk = SimDisk::new();
        disk.halt_at(stop);
        let (run, _) = Run::new(life, &disk);
        disk.heal();
        let at = |how: &str, why: String| format!("{how} at operation {stop} ({}): {why}", run.kind);
        judge_killed(&run, &expected, &mut numbers).map_err(|why| at("killed", why))?;
        let (mut result, mut again) = (Ok(()), None);
        let mut seeds = numbers.clone();
        images::power_cuts(&disk, &mut numbers, IMAGES_PER_STOP, TORN_PER_STOP, &mut |image| {
            if result.is_ok() && counts.add(run.kind, &image) {
                if stop.is_multiple_of(RECOVERIES_EACH) && again.is_none() {
                    again = Some(image.fork());
                }
                result = judge(&run, &expected, &image, after_power_cut(&run, &mut seeds));
            }
        });
        result.map_err(|why| at("power cut", why))?;
        if let Some(image) = again {
            judge_recovery(&run, &expected, &image, counts, &mut numbers).map_err(|why| at("recovery", why))?;
        }
    }
    Ok(())
}

/// The process ends and another one starts on what the page cache holds, with its store or without. It may rely on
/// all that it read: so it trims its log as far as it can, and the power goes.
fn judge_killed(run: &Run, expected: &Expected, numbers: &mut Numbers) -> Result<(), String> {
    for store in [run.folder.clone(), None] {
        let (disk, mut folder) = (run.disk.fork(), store);
        let mut member = open(run, expected, &disk, &mut folder, "boot")?;
        Run::trim_all(&mut member).map_err(|fatal| fatal.to_string())?;
        let index = member.state.applied_index;
        for image in
            [disk.power_cut(|_| Fate::Lost), images::torn_power_cut(&disk, numbers), disk.power_cut(|_| Fate::Applied)]
        {
            let found = open(run, expected, &image, &mut None, "boot")
                .map_err(|why| format!("its successor was killed by a power cut: {why}"))?;
            if found.state.applied_index < index || found.boot <= member.boot {
                return Err(format!(
                    "its successor was at index {index}, and after a power cut {} was left",
                    found.state.applied_index
                ));
            }
        }
    }
    Ok(())
}

/// Stops the recovery from `image` at every operation, cuts the power there, and judges again.
fn judge_recovery(
    run: &Run,
    expected: &Expected,
    image: &SimDisk,
    counts: &mut Counts,
    numbers: &mut Numbers,
) -> Result<(), String> {
    let whole = image.fork();
    open(run, expected, &whole, &mut None, "next boot")?;
    for stop in 0..=whole.operations() {
        let disk = image.fork();
        disk.halt_at(stop);
        // It fails by design.
        let _ = Member::open(&disk, &mut None, "next boot");
        disk.heal();
        for image in [disk.power_cut(|_| Fate::Lost), images::torn_power_cut(&disk, numbers), disk.fork()] {
            if counts.add("during recovery", &image) {
                judge(run, expected, &image, None).map_err(|why| format!("stopped at {stop}: {why}"))?;
            }
        }
    }
    Ok(())
}

/// Opens an image in another boot of the machine, judges it, cuts the power again, and judges what is left.
fn judge(run: &Run, expected: &Expected, image: &SimDisk, mut folder: Option<StoreFolder>) -> Result<(), String> {
    let member = open(run, expected, image, &mut folder, "next boot")?;
    let cut = image.power_cut(|_| Fate::Lost);
    let again = open(run, expected, &cut, &mut None, "third boot").map_err(|why| format!("second cut: {why}"))?;
    if again.boot <= member.boot || again.state.applied_index < member.state.applied_index {
        let (was, is) = (member.state.applied_index, again.state.applied_index);
        return Err(format!("boot {} stood at index {was}, and boot {} at {is}", member.boot, again.boot));
    }
    Ok(())
}

/// Opens a member and compares all that it holds with what was applied at its index.
fn open(
    run: &Run,
    expected: &Expected,
    disk: &SimDisk,
    folder: &mut Option<StoreFolder>,
    boot: &'static str,
) -> Result<Member, String> {
    let member = Member::open(disk, folder, boot).map_err(|fatal| fatal.to_string())?;
    let index = member.state.applied_index;
    if member.boot <= run.boot {
        return Err(format!("boot {} was given again", member.boot));
    }
    if index < run.acknowledged || index > run.appended {
        let (from, to) = (run.acknowledged, run.appended);
        return Err(format!("{from} was acknowledged and {to} appended, index {index} came back"));
    }
    let store = &folder.as_ref().expect("an open member has a store").store;
    let seen = Seen::of(&member.state, &Blocks(store)).map_err(|fatal| fatal.to_string())?;
    let wanted = &expected.0[index as usize];
    if seen != *wanted {
        return Err(format!("at index {index} {seen:?} came back instead of {wanted:?}"));
    }
    Ok(member)
}

/// Damages each file of the newest snapshot of a life's end that its predecessor does not share, one at a time.
pub(crate) fn judge_damaged_snapshot(life: &Life) -> Result<(), String> {
    let (run, _) = Run::new(life, &SimDisk::new());
    let expected = Expected::of(&run.entries);
    let (manifests, _) = snapshot::list(&run.disk, "snap").map_err(|fatal| fatal.to_string())?;
    let [older, newest] = &manifests[..] else { return Err(format!("{} snapshots", manifests.len())) };
    let own = newest.chunks.iter().filter(|chunk| !older.chunks.contains(chunk)).map(Chunk::name);
    for name in own.chain([newest.name()]) {
        let image = run.disk.fork();
        image.damage(&disk::join("snap", &name), 32, b"damage");
        judge(&run, &expected, &image, None).map_err(|why| format!("{name} damaged: {why}"))?;
    }
    Ok(())
}

/// A store over which the power went: what was closed and synced is whole; anything else is empty, has lost writes,
/// or finds single keys no more.
fn after_power_cut(run: &Run, numbers: &mut Numbers) -> Option<StoreFolder> {
    if let Some(closed) = &run.closed {
        return Some(StoreFolder { store: closed.clone(), made_in: "boot" });
    }
    let store = run.folder.as_ref()?.store.clone();
    let store = match numbers.below(3) {
        0 => Working::default(),
        1 => {
            let mut lost = Batch::default();
            let all = (keys::record(Default::default()), keys::records_end());
            let _ = store.scan(&all.0, &all.1, &mut |key, _| {
                if numbers.below(3) == 0 {
                    lost.removes.push(key.to_vec());
                }
                true
            });
            let _ = store.commit(lost);
            store
        }
        _ => Working { misled: true, ..store },
    };
    Some(StoreFolder { store, made_in: "boot" })
}
