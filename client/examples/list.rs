//! Lists all keys below a prefix, however many: `cargo run -p mechi-client --example list -- PREFIX ENDPOINT`.

use mechi_client::{Client, Config, Get};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let prefix = words.next().unwrap_or_default();
    let endpoint = words.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let client = Client::connect(Config::new([endpoint])).await?.with_timeout(None);

    // In one stream where the server has it, else in pages; at one revision either way.
    let mut listing = client.get_stream(Get::prefix(prefix)).await?;
    let (mut keys, mut bytes) = (0, 0);
    while let Some(part) = listing.next().await? {
        keys += part.kvs.len();
        bytes += part.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
    }
    println!("{keys} keys, {bytes} bytes, streamed: {}", listing.is_streamed());
    Ok(())
}
