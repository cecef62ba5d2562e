//! The model of the whole store in the heart's words: `mechi-checker` shares nothing with the server, tests compare the two.

use mechi_checker::model::{self, Outcome};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::outcome::{Error, Response};
use std::ops::Deref;

/// The whole store: what it held at every revision that is not compacted.
#[derive(Clone, Debug, Default)]
pub struct Model(model::Model);

impl Deref for Model {
    type Target = model::Model;

    fn deref(&self) -> &model::Model {
        &self.0
    }
}

impl Model {
    /// Does what the request says; headers hold the revision alone.
    pub fn apply(&mut self, request: &Request) -> Result<Response, Error> {
        use mechi_checker::history::store::Response as Store;
        match self.0.apply(request).map_err(error)? {
            Outcome::Internal => Ok(Response::Internal),
            Outcome::Alarm(it) => Ok(Response::Alarm(it)),
            Outcome::Store(response) => Ok(match response {
                Store::Put(it) => Response::Put(it),
                Store::DeleteRange(it) => Response::DeleteRange(it),
                Store::Txn(it) => Response::Txn(it),
                Store::Compaction(it) => Response::Compaction(it),
                Store::LeaseGrant(it) => Response::LeaseGrant(it),
                Store::LeaseRevoke(it) => Response::LeaseRevoke(it),
                Store::Range(_) | Store::LeaseKeepAlive(_) | Store::LeaseTimeToLive(_) => {
                    unreachable!("no command of the log is answered by {response:?}")
                }
            }),
        }
    }

    /// Reads a range as `KV.Range` does.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.0.range(request).map_err(error)
    }
}

fn error(error: model::Error) -> Error {
    match error {
        model::Error::KeyNotFound => Error::KeyNotFound,
        model::Error::Compacted => Error::Compacted,
        model::Error::FutureRevision => Error::FutureRevision,
        model::Error::LeaseTtlTooLarge => Error::LeaseTtlTooLarge,
        model::Error::LeaseNotFound => Error::LeaseNotFound,
        model::Error::LeaseExists => Error::LeaseExists,
        model::Error::Corrupt => Error::Corrupt,
    }
}
