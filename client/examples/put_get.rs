//! Writes a key and reads it back: `cargo run -p mechi-client --example put_get -- 127.0.0.1:2379 key value`.

use mechi_client::{Client, Config, Error};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let endpoint = words.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let (key, value) =
        (words.next().unwrap_or_else(|| "hello".to_owned()), words.next().unwrap_or_else(|| "world".to_owned()));

    let client = Client::connect(Config::new([endpoint])).await?;
    match client.put(key.clone(), value).await {
        Ok(answer) => println!("written at revision {}", answer.header.map_or(0, |header| header.revision)),
        // It may be there or not: the read below says.
        Err(Error::OutcomeUnknown { cause }) => println!("nobody knows whether it is written: {cause}"),
        Err(error) => return Err(error.into()),
    }
    match client.get(key).await? {
        Some(found) => println!("{found:?}"),
        None => println!("is not there"),
    }
    Ok(())
}
