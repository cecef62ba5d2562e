//! Places in the server's own code at which it ends or waits; needs a server that was built with them.

use super::harm::Harm;
use crate::cluster::{Cluster, Comes};
use anyhow::Result;
use mechi_tests::process::{http, http_get};
use std::time::{Duration, Instant};

/// How long a place may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(2);

/// Sets one place of one member, waits until it was reached or not, and undoes it.
pub(super) async fn hit(harm: &mut Harm<'_>) -> Result<()> {
    let cluster = harm.cluster;
    let n = harm.rng.below(cluster.len() as u64) as usize;
    let sites = sites(cluster, n);
    if sites.is_empty() {
        // It has no place, or it is gone for a moment.
        harm.hold(50..500).await;
        return Ok(());
    }
    let (site, ends) = (harm.rng.pick(&sites), harm.rng.chance(60));
    let actions = if ends { "panic".to_owned() } else { format!("5*sleep({})", 20 + harm.rng.below(400)) };
    harm.begin("failpoint", harm.one(n, format!("{site}={actions}")));
    cluster.allow_end(n, true);
    let body = format!("{actions}\r\n");
    if send(cluster, n, "PUT", site, &body) == Some(200) {
        if ends {
            let deadline = (Instant::now() + REACHED_WITHIN).min(harm.end);
            while Instant::now() < deadline {
                if cluster.ended(n).is_some() {
                    harm.effect(format!("{} ended at {site}", cluster.name(n)));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            harm.hold(500..2_000).await;
            harm.effect(format!("{} was to wait at {site}", cluster.name(n)));
        }
    }
    send(cluster, n, "DELETE", site, "");
    harm.hold(50..500).await;
    cluster.ended(n);
    cluster.allow_end(n, false);
    cluster.spawn(n)?;
    harm.undone("failpoint");
    if let Comes::Ended(status) = cluster.serves_within(n, REACHED_WITHIN).await {
        cluster.accuse(n, &format!("does not start after it ended at {site}: {status}"));
    }
    harm.hold(100..500).await;
    Ok(())
}

/// Clears every place of a member.
pub(super) fn clear(cluster: &Cluster, n: usize) {
    for site in sites(cluster, n) {
        send(cluster, n, "DELETE", &site, "");
    }
}

/// The places of a running member; none if it was built without them.
pub(super) fn sites(cluster: &Cluster, n: usize) -> Vec<String> {
    let listed = http_get(&cluster.endpoint(n), "/failpoints").ok().filter(|(code, _)| *code == 200);
    let text = listed.map_or_else(String::new, |(_, text)| text);
    text.lines().filter_map(|line| line.split('=').next()).map(str::to_owned).collect()
}

/// Asks the member's own control of its places; returns the answer's code.
fn send(cluster: &Cluster, n: usize, method: &str, site: &str, body: &str) -> Option<u16> {
    let endpoint = cluster.endpoint(n);
    let length = body.len();
    let request = format!(
        "{method} /failpoints/{site} HTTP/1.1\r\nHost: {endpoint}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    http(&endpoint, &request).ok().map(|(code, _)| code)
}
