//! etcd's wire API and Mechi's internal messages; no logic.
//!
//! The `.proto` files in `protos/` are the text to read; everything here is made from them at build time.
//! All `bytes` fields are [`bytes::Bytes`], so that decoding from one buffer copies no key and no value.
#![allow(clippy::all, clippy::unwrap_used, unreachable_pub)]

macro_rules! generated {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Keys, values and events (`protos/kv.proto`).
pub mod mvccpb {
    generated!("mvccpb");
}

/// Users, roles and permissions (`protos/auth.proto`).
pub mod authpb {
    generated!("authpb");
}

/// The client API (`protos/rpc.proto`).
pub mod etcdserverpb {
    generated!("etcdserverpb");
}

/// The lock service (`protos/lock.proto`).
pub mod v3lockpb {
    generated!("v3lockpb");
}

/// The election service (`protos/election.proto`).
pub mod v3electionpb {
    generated!("v3electionpb");
}

/// The gRPC health service (`protos/health.proto`).
pub mod health {
    generated!("grpc.health.v1");
}

/// What the log and the store carry (`protos/internal.proto`).
pub mod mechipb {
    generated!("mechipb");
}

/// What members say to each other (`protos/peer.proto`).
pub mod mechipeerpb {
    generated!("mechipeerpb");
}
