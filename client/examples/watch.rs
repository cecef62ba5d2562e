//! Follows a prefix, over restarts of the servers: `cargo run -p mechi-client --example watch -- PREFIX ENDPOINT...`.
//!
//! Shows the whole pattern: list, watch from there, and list anew when the history is gone.

use mechi_client::{Client, Config, Error, Get, WatchOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let prefix = words.next().unwrap_or_default();
    let endpoints: Vec<String> = words.collect();
    let config = if endpoints.is_empty() { Config::default() } else { Config::new(endpoints) };
    let client = Client::connect(config).await?;
    loop {
        let mut pages = client.get_pages(Get::prefix(prefix.clone()));
        while let Some(page) = pages.next().await? {
            page.kvs.iter().for_each(|kv| println!("there    {}", String::from_utf8_lossy(&kv.key)));
        }
        let from = WatchOptions::prefix(prefix.clone()).from_revision(pages.revision() + 1);
        let mut watch = client.watch(from).await?;
        while let Some(batch) = watch.next().await {
            match batch {
                Ok(batch) => {
                    for event in batch.events() {
                        let key = event.kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
                        println!("{:<8} {}", event.r#type().as_str_name(), key.unwrap_or_default());
                    }
                }
                Err(Error::WatchCompacted { .. }) => println!("missed too much, listing anew"),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
