//! Holds a key for as long as this process lives: `cargo run -p mechi-client --example lease -- ENDPOINT`.

use mechi_client::{Client, Compare, Config, Put, Txn};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let client = Client::connect(Config::new([endpoint])).await?;

    let lease = client.lease_grant(10, 0).await?.id;
    let mut kept = client.lease_keep_alive(lease).await?;
    let mine = Txn::new()
        .when(Compare::create_revision("leader").equal(0))
        .and_then(Put::new("leader", format!("process {}", std::process::id())).lease(lease));
    if !client.txn(mine).await?.succeeded {
        println!("another process leads");
        return Ok(());
    }
    println!("leads under lease {lease:016x}, until Ctrl-C");
    tokio::select! {
        // Whoever holds something by a lease stops as soon as the lease may be gone.
        end = kept.lost() => println!("leads no more: {end}"),
        _ = tokio::signal::ctrl_c() => {
            client.lease_revoke(lease).await?;
            println!("gave it up");
        }
    }
    Ok(())
}
