//! How a world is played: steps with faults, then rounds without until all is at rest, then the judgement.

use super::{Caught, Ground, Setting};

/// Rounds without faults until everything must have come to rest.
const REST_ROUNDS: usize = 20_000;

/// Replicas of something on their ground.
pub(crate) trait Play: Sized {
    /// Steps with faults.
    const STEPS: usize;

    /// Rounds without a change after which all is at rest: longer than any wait.
    const IDLE_ROUNDS: usize;

    fn new(setting: Setting) -> Self;

    fn ground(&mut self) -> &mut Ground;

    /// Something happens.
    fn step(&mut self);

    /// What is no fault of the ground's ends, too.
    fn heal(&mut self) {}

    /// Everybody does what there is to do, after so many rounds in which nothing changed. Returns whether nothing is on
    /// its way.
    fn round(&mut self, idle: usize) -> bool;

    /// What is, is what is wanted.
    ///
    /// - Panics: if it is not, with the statement that does not hold.
    fn judge(&mut self);
}

/// Plays a world to its end; returns the revisions and the changes of objects that were audited.
///
/// - Errors: the first statement that did not hold on the way.
pub(crate) fn run<W: Play>(setting: Setting) -> Result<(u64, u64), Caught> {
    let mut world = W::new(setting);
    for _ in 0..W::STEPS {
        world.step();
        world.ground().check()?;
    }
    rest(&mut world)?;
    world.judge();
    Ok(world.ground().auditor.looked_at())
}

/// No more faults, until nothing has to be done any more.
fn rest<W: Play>(world: &mut W) -> Result<(), Caught> {
    world.ground().calm();
    world.heal();
    let mut idle = 0;
    for _ in 0..REST_ROUNDS {
        world.ground().check()?;
        let before = world.ground().store.revision();
        let is_still = world.round(idle);
        idle = if is_still && world.ground().store.revision() == before { idle + 1 } else { 0 };
        if idle > W::IDLE_ROUNDS {
            return Ok(());
        }
    }
    panic!("L1: it does not come to rest");
}
