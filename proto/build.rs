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
    let services = std::env::var_os("CARGO_FEATURE_SERVICES").is_some();
    tonic_prost_build::configure().build_client(services).build_server(services).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
