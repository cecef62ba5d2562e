//! Counts a key up, together with others who do the same: `cargo run -p mechi-client --example guarded_update -- ENDPOINT`.
//!
//! The compare makes it safe to begin anew, even when nobody knows whether a write was done: a value that has moved on
//! fails the compare.

use mechi_client::{Client, Compare, Config, Error, Put, Txn};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let client = Client::connect(Config::new([endpoint])).await?;
    for attempt in 1..=10 {
        let found = client.get("counter").await?;
        let (count, revision) = match &found {
            Some(found) => (std::str::from_utf8(&found.value)?.parse::<u64>()?, found.mod_revision),
            None => (0, 0),
        };
        let update = Txn::new()
            .when(Compare::mod_revision("counter").equal(revision))
            .and_then(Put::new("counter", (count + 1).to_string()));
        match client.txn(update).await {
            Ok(answer) if answer.succeeded => {
                println!("{} at attempt {attempt}", count + 1);
                return Ok(());
            }
            Ok(_) => println!("somebody else was quicker"),
            Err(Error::OutcomeUnknown { cause }) => println!("may be done, looking again: {cause}"),
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("too many others count at once")
}
