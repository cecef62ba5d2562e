//! Links that are cut, one way or both, in every shape that clusters have been broken by, and links that are slow.

use super::harm::{Harm, sample};
use crate::proxy::Way;
use anyhow::Result;
use mechi_checker::edn::Edn;
use mechi_tests::rng::Rng;
use std::collections::BTreeSet;
use std::time::Duration;

/// Directed links that are cut, and members that no client reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) shape: &'static str,
    pub(crate) links: BTreeSet<(usize, usize)>,
    pub(crate) clients: Vec<usize>,
}

impl Cut {
    /// Cuts both ways between members for which `apart` says so.
    fn between(shape: &'static str, count: usize, apart: impl Fn(usize, usize) -> bool) -> Self {
        let all = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
        let links = all.filter(|(one, other)| one != other && (apart(*one, *other) || apart(*other, *one)));
        Self { shape, links: links.collect(), clients: vec![] }
    }
}

/// Draws a partition of `count` members; `leader` is who leads, if somebody does.
pub(crate) fn draw(rng: &mut Rng, count: usize, leader: Option<usize>) -> Cut {
    let order = sample(rng, count, count);
    let alone = match leader {
        Some(leader) if rng.chance(60) => leader,
        _ => order[0],
    };
    let place = |n: usize| order.iter().position(|other| *other == n).unwrap_or(0);
    match rng.below(8) {
        0 | 1 => Cut::between("alone", count, |one, _| one == alone),
        2 => {
            let minority = &order[..count / 2];
            Cut::between("halves", count, |one, other| minority.contains(&one) != minority.contains(&other))
        }
        3 => {
            // Everybody sees a majority, and no two see the same one, as far as so many members allow it.
            let reach = (count / 2).div_ceil(2);
            Cut::between("ring", count, |one, other| {
                let apart = place(one).abs_diff(place(other));
                let is_far = apart.min(count - apart) > reach;
                is_far || count <= 3 && apart == count - 1
            })
        }
        4 => {
            // Two halves that only one member sees both of.
            let bridge = count / 2;
            let side = |n: usize| place(n).cmp(&bridge) as i8;
            Cut::between("bridge", count, |one, other| side(one) * side(other) < 0)
        }
        5 => {
            // It hears and is not heard, or the other way round.
            let is_mute = rng.chance(50);
            let others = (0..count).filter(|other| *other != alone);
            let links = others.map(|other| if is_mute { (alone, other) } else { (other, alone) }).collect();
            Cut { shape: if is_mute { "mute" } else { "deaf" }, links, clients: vec![] }
        }
        6 => {
            let clients = if rng.chance(50) { vec![alone] } else { order[..count.div_ceil(2)].to_vec() };
            Cut { shape: "clients", links: BTreeSet::new(), clients }
        }
        _ => {
            let links = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
            let links = links.filter(|(one, other)| one != other);
            Cut { shape: "random", links: links.filter(|_| rng.chance(40)).collect(), clients: vec![] }
        }
    }
}

/// Cuts links for a while; in a fifth of the rounds one after the other, healed in another order.
pub(super) async fn partition(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, leader) = (harm.cluster, harm.cluster.leader().await);
    let before = cluster.touched();
    let cut = draw(&mut harm.rng, cluster.len(), leader);
    let (is_slow, mut links) = (harm.rng.chance(20), cut.links.iter().copied().collect::<Vec<_>>());
    let links_edn =
        links.iter().map(|(from, to)| Edn::Vector(vec![Edn::text(cluster.name(*from)), Edn::text(cluster.name(*to))]));
    let clients = cut.clients.iter().map(|n| Edn::text(cluster.name(*n))).collect();
    let about = [
        ("shape", Edn::keyword(cut.shape)),
        ("links", Edn::Vector(links_edn.collect())),
        ("clients", Edn::Vector(clients)),
    ];
    harm.begin("partition", Edn::map(about));
    for n in &cut.clients {
        cluster.client_way(*n, |way| way.is_cut = true);
    }
    let resets = harm.rng.chance(20);
    for (from, to) in &links {
        cluster.way(*from, *to, |way| way.is_cut = true);
        if resets {
            cluster.reset(*from, *to);
        }
        if is_slow {
            harm.hold(50..300).await;
        }
    }
    match harm.rng.below(3) {
        0 => harm.hold(200..1_000).await,
        1 => harm.hold(1_000..3_000).await,
        _ => harm.hold(3_000..6_000).await,
    }
    harm.note_leader(leader).await;
    if is_slow {
        let order = sample(&mut harm.rng, links.len(), links.len());
        links = order.into_iter().map(|place| links[place]).collect();
        for (from, to) in links {
            cluster.way(from, to, |way| way.is_cut = false);
            harm.hold(50..300).await;
        }
    }
    cluster.heal_network();
    harm.undone("partition");
    if cluster.touched() > before {
        harm.effect("what was sent was held up");
    }
    harm.hold(200..1_500).await;
    Ok(())
}

/// Delays, losses and resets on some links.
pub(super) async fn slow(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, count) = (harm.cluster, harm.cluster.len());
    let leader = cluster.leader().await;
    let before = cluster.touched();
    let delay = match harm.rng.below(4) {
        0 => 0,
        1 => 5 + harm.rng.below(20),
        2 => 20 + harm.rng.below(80),
        _ => 100 + harm.rng.below(400),
    };
    let loss_percent = if delay == 0 || harm.rng.chance(40) { 1 + harm.rng.below(30) } else { 0 };
    let way = Way { is_cut: false, delay: Duration::from_millis(delay), loss_percent };
    let alone = match leader {
        Some(leader) if harm.rng.chance(60) => leader,
        _ => harm.rng.below(count as u64) as usize,
    };
    let (shape, links): (_, Vec<(usize, usize)>) = match harm.rng.below(4) {
        0 => ("clients", vec![]),
        1 => ("all", (0..count).flat_map(|one| (0..count).map(move |other| (one, other))).collect()),
        2 => ("from", (0..count).map(|other| (alone, other)).collect()),
        _ => ("to", (0..count).map(|other| (other, alone)).collect()),
    };
    let resets = harm.rng.chance(40);
    let about = [
        ("shape", Edn::keyword(shape)),
        ("member", Edn::text(cluster.name(alone))),
        ("delay-ms", delay.into()),
        ("loss-percent", loss_percent.into()),
        ("resets", Edn::Bool(resets)),
    ];
    harm.begin("slow", Edn::map(about));
    let links: Vec<_> = links.into_iter().filter(|(one, other)| one != other).collect();
    links.iter().for_each(|(from, to)| cluster.way(*from, *to, |now| *now = way));
    if shape == "clients" {
        (0..count).for_each(|n| cluster.client_way(n, |now| *now = way));
    }
    for _ in 0..1 + harm.rng.below(6) {
        harm.hold(100..1_000).await;
        match links.is_empty() {
            true if resets => cluster.reset_clients(harm.rng.below(count as u64) as usize),
            false if resets => {
                let (from, to) = *harm.rng.pick(&links);
                cluster.reset(from, to);
            }
            _ => {}
        }
    }
    harm.note_leader(leader).await;
    cluster.heal_network();
    harm.undone("slow");
    if cluster.touched() > before {
        harm.effect("what was sent came late");
    }
    harm.hold(100..1_000).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Members that each one hears both ways, itself among them.
    fn seen(cut: &Cut, count: usize) -> Vec<usize> {
        let both = |one, other| !cut.links.contains(&(one, other)) && !cut.links.contains(&(other, one));
        (0..count).map(|one| (0..count).filter(|other| *other == one || both(one, *other)).count()).collect()
    }

    #[test]
    fn each_shape_is_what_its_name_says() {
        let mut shapes = BTreeMap::new();
        for (count, seed) in [3, 5].into_iter().flat_map(|count| (0..200).map(move |seed| (count, seed))) {
            let cut = draw(&mut Rng::new(seed), count, Some(1));
            let mut seen = seen(&cut, count);
            seen.sort_unstable();
            let majority = count / 2 + 1;
            match cut.shape {
                "alone" => assert_eq!((seen[0], seen[1]), (1, count - 1), "{cut:?}"),
                "halves" => assert_eq!((seen[0], seen[count - 1]), (count / 2, majority), "{cut:?}"),
                "ring" => {
                    assert!(!cut.links.is_empty() && seen.iter().all(|seen| *seen >= majority), "{cut:?}");
                }
                "bridge" => assert_eq!((seen[0], seen[count - 1]), (majority, count), "{cut:?}"),
                "mute" | "deaf" => {
                    assert_eq!(cut.links.len(), count - 1);
                    assert!(cut.links.iter().all(|(one, other)| !cut.links.contains(&(*other, *one))));
                }
                "clients" => assert!(cut.links.is_empty() && !cut.clients.is_empty()),
                other => assert_eq!(other, "random"),
            }
            *shapes.entry(cut.shape).or_insert(0) += 1;
        }
        assert_eq!(shapes.len(), 8, "{shapes:?}");
    }
}
