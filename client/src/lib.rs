//! An async client for Mechi and for etcd.
//!
//! ```no_run
//! use mechi_client::{Client, Compare, Config, Put, Txn, WatchOptions};
//!
//! # async fn example() -> Result<(), mechi_client::Error> {
//! let client = Client::connect(Config::new(["127.0.0.1:2379", "127.0.0.1:22379"])).await?;
//!
//! client.put("greeting", "hello").await?;
//! let found = client.get("greeting").await?.expect("was just written");
//!
//! // Changes it only if nobody else has meanwhile.
//! let guarded = Txn::new()
//!     .when(Compare::mod_revision("greeting").equal(found.mod_revision))
//!     .and_then(Put::new("greeting", "good morning"));
//! let changed = client.txn(guarded).await?.succeeded;
//! # let _ = changed;
//!
//! // Tells every change once, in order, whatever happens to the servers.
//! let mut watch = client.watch(WatchOptions::prefix("jobs/")).await?;
//! while let Some(batch) = watch.next().await {
//!     for event in batch?.events() {
//!         println!("{event:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! | to | use |
//! | --- | --- |
//! | read, write, delete | [`Client::get`], [`put`](Client::put), [`delete`](Client::delete), and with options [`Get`], [`Put`], [`Delete`] |
//! | change several keys at once, or only if | [`Client::txn`] with [`Txn`] and [`Compare`] |
//! | list many keys at one revision | [`Client::get_pages`], [`get_stream`](Client::get_stream) |
//! | follow changes | [`Client::watch`] with [`WatchOptions`], [`Watch`] |
//! | tie keys to a life | [`Client::lease_grant`], [`lease_keep_alive`](Client::lease_keep_alive), [`KeepAlive`] |
//! | ask one member | [`Client::at`], then [`status`](Client::status), [`hash_kv`](Client::hash_kv), [`defragment`](Client::defragment) … |
//! | members, users, roles, locks | the methods of [`Client`] named as etcd's calls |
//! | set certificates, users, times | [`Config`], [`Tls`] |
//! | tell errors apart | [`Error`], [`Kind`], [`Error::outcome`] |
//!
//! Answers are the protocol's own messages ([`pb`]), so that no field is hidden.
//!
//! # What it promises
//!
//! - **A write is sent once.** It is sent to another server only if no server can have seen it, or if one refused it
//!   for its token or for being a learner. If no answer came, the error is [`Error::OutcomeUnknown`] and nothing else.
//! - **Reads are sent again**, to another endpoint first, while servers are unavailable and the time of the call lasts.
//! - **Endpoints** are used one at a time and kept. One that cannot be reached, breaks, answers that it is unavailable
//!   or has no leader, or gives no sign of life for a whole call, is set aside for 25 ms to 1 s, with jitter, and the next one is used.
//! - **A watch** tells every change once and in order, over broken connections and dead members, or ends with
//!   [`Error::WatchCompacted`]. A slow reader costs bounded memory and holds up no other, see [`Watch`].
//! - **A lease keeper** says that a lease is lost no later than its time after the last ask that was answered.
//! - **Everything is bounded**, by the constants in [`limits`].
//!
//! # Features
//!
//! `cli`, on by default, builds the program `mechictl` and has what only that needs. Libraries use
//! `default-features = false`.

pub mod limits;
mod endpoint;
mod config;
mod error;
mod kind;
mod backoff;
mod tls;
mod connection;
mod pool;
mod token;
mod call;
mod client;
mod keys;
mod ops;
mod txn;
mod kv;
mod pages;
mod list;
mod watch;
mod lease;
mod keep_alive;
mod cluster;
mod maintenance;
mod auth;
mod lock;

pub use client::Client;
pub use config::{Config, Credentials, Identity, Tls};
pub use error::{Code, Error, LeaseEnd, Outcome, ServerError};
pub use keep_alive::KeepAlive;
pub use keys::{FROM_KEY, Keys, prefix_end};
pub use kind::Kind;
pub use list::Listing;
pub use mechi_proto as proto;
pub use mechi_proto::etcdserverpb as pb;
pub use ops::{Delete, Get, Put, SortOrder, SortTarget};
pub use pages::Pages;
pub use tonic::Streaming;
pub use txn::{Compare, Comparing, Op, Txn};
pub use watch::{Batch, Watch, WatchOptions};
