//! Wall clocks that jump, swing, and go at another rate; the monotonic clock stays right.

use super::harm::Harm;
use anyhow::Result;
use mechi_checker::edn::Edn;

const HOUR_NS: i64 = 3_600_000_000_000;
const SWING_NS: i64 = 200_000_000;

/// Lets the clocks of some members lie for a while.
pub(super) async fn lie(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, who, leader) = (harm.cluster, harm.targets().await, harm.cluster.leader().await);
    let lies = || who.iter().map(|n| cluster.shim(*n, |shim| Ok(shim.done()?[2]))).sum::<Result<i64>>();
    let before = lies()?;
    let how = *harm.rng.pick(&["step", "strobe", "rate"]);
    // A different lie for each: what they agree on may hide a fault.
    let mut told = Vec::new();
    for _ in &who {
        let drawn = harm.rng.below(2_001) as i64 - 1_000;
        told.push(match how {
            "step" => HOUR_NS / 1_000 * drawn,
            "strobe" => SWING_NS,
            // From a tenth to ten times as fast.
            _ if drawn < 0 => 900 * drawn,
            _ => 9_000 * drawn,
        });
    }
    let each = who.iter().zip(&told).map(|(n, lie)| (Edn::text(cluster.name(*n)), Edn::from(*lie)));
    harm.begin("clock", Edn::map([("how", Edn::keyword(how)), ("members", Edn::Map(each.collect()))]));
    match how {
        "strobe" => {
            for swing in 0..30 + harm.rng.below(200) as i64 {
                if harm.is_over() {
                    break;
                }
                for (n, lie) in who.iter().zip(&told) {
                    cluster.shim(*n, |shim| shim.shift_clock(lie * (swing % 2 * 2 - 1)))?;
                }
                harm.hold(10..11).await;
            }
        }
        _ => {
            for (n, lie) in who.iter().zip(&told) {
                let set = |shim: &crate::shim::Control| match how {
                    "step" => shim.shift_clock(*lie),
                    _ => shim.speed_clock(*lie),
                };
                cluster.shim(*n, set)?;
            }
            harm.hold(500..4_000).await;
        }
    }
    harm.note_leader(leader).await;
    for n in &who {
        cluster.shim(*n, |shim| shim.shift_clock(0).and_then(|()| shim.speed_clock(0)))?;
    }
    harm.undone("clock");
    if lies()? > before {
        harm.effect("a wall clock was read while it lied");
    }
    harm.hold(100..1_000).await;
    Ok(())
}
