//! Compiles the protos with protox: a fresh machine needs no `protoc`.

const PROTOS: [&str; 8] = [
    "kv.proto",
    "auth.proto",
    "rpc.proto",
    "lock.proto",
    "election.proto",
    "health.proto",
    "internal.proto",
    "peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let descriptors = protox::compile(PROTOS, ["protos"])?;
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let (clients, servers) = (has("CLIENTS"), has("SERVICES"));
    tonic_prost_build::configure().build_client(clients).build_server(servers).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
