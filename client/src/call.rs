//! One call: when it is sent again, and what is said of it when it is not.
//!
//! The rules are clientv3's. A call that changes nothing is sent again, to another endpoint first, while servers are
//! unavailable and its time lasts. A write is sent again only if it certainly did nothing: no server saw it, or a server
//! refused it for its token or for being a learner. Everything else ends it, as unknown unless the refusal is definite.

use crate::client::Client;
use crate::connection::{Connection, Link, SendError};
use crate::error::{Error, ServerError};
use crate::kind::Kind;
use crate::limits::{ATTEMPTS_MAX, TOKEN_RENEWALS_MAX};
use std::error::Error as _;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

/// Whether a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safety {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
}

/// How one attempt failed.
pub(crate) enum Failure {
    NotSent(String),
    Broken(String),
    Server(ServerError),
}

impl Failure {
    /// Reads a status: one with a source was made on this side, for want of an answer.
    pub(crate) fn of(status: &Status, connection: &Connection) -> Self {
        match status.source() {
            None => Self::Server(ServerError::new(status, &connection.endpoint.text)),
            Some(source) => match source.downcast_ref::<SendError>() {
                Some(SendError::NotSent(why)) => Self::NotSent(why.clone()),
                Some(SendError::Broken(why)) => Self::Broken(why.clone()),
                None => Self::Broken(status.message().to_owned()),
            },
        }
    }

    /// As an error of a call that changes nothing.
    pub(crate) fn into_error(self, connection: &Connection) -> Error {
        let endpoint = connection.endpoint.text.clone();
        match self {
            Self::NotSent(detail) => Error::Unavailable { last: format!("{endpoint}: {detail}") },
            Self::Broken(detail) => Error::Broken { endpoint, detail },
            Self::Server(error) if error.code == Code::DeadlineExceeded => {
                Error::Deadline { last: Some(Box::new(Error::Server(error))) }
            }
            Self::Server(error) => Error::Server(error),
        }
    }
}

impl Client {
    /// Sends `request` by `send`, as often as `safety` allows.
    pub(crate) async fn call<Q, A, F>(
        &self,
        safety: Safety,
        request: Q,
        send: impl Fn(Link, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone + prost::Message,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (bytes, bytes_max) = (request.encoded_len(), self.inner.pool.config.send_bytes_max);
        if bytes > bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        self.attempts(safety, true, |link, left| {
            let mut message = Request::new(request.clone());
            if let Some(left) = left {
                message.set_timeout(left);
            }
            send(link, message)
        })
        .await
    }

    /// Opens a stream of answers to `request`; the time of the call bounds the opening only.
    pub(crate) async fn open<Q, A, F>(&self, request: Q, send: impl Fn(Link, Request<Q>) -> F) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.attempts(Safety::Read, false, |link, _| send(link, Request::new(request.clone()))).await
    }

    /// One connection with the user's token on it, for a stream that the caller keeps up itself.
    pub(crate) async fn link(&self) -> Result<Link, Error> {
        let connection = self.inner.pool.connection().await.map_err(|last| Error::Unavailable { last })?;
        let attached = self.inner.tokens.attach(self.bare_link(connection.clone())).await;
        attached.map_err(|status| self.inner.pool.failed(&status, &connection).into_error(&connection))
    }

    fn bare_link(&self, connection: Connection) -> Link {
        let config = &self.inner.pool.config;
        Link {
            connection,
            token: None,
            requires_leader: config.require_leader,
            send_bytes_max: config.send_bytes_max,
            receive_bytes_max: config.receive_bytes_max,
        }
    }

    async fn attempts<A, F>(
        &self,
        safety: Safety,
        is_bounded: bool,
        send: impl Fn(Link, Option<Duration>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut last: Option<Error> = None;
        let (mut renewals, mut is_late) = (0, false);
        for _ in 0..ATTEMPTS_MAX {
            let connection = match before(deadline, self.inner.pool.connection()).await {
                Some(Ok(connection)) => connection,
                Some(Err(why)) => {
                    last = Some(Error::Unavailable { last: why });
                    continue;
                }
                None => {
                    is_late = true;
                    break;
                }
            };
            let bare = self.bare_link(connection.clone());
            let link = match before(deadline, self.inner.tokens.attach(bare)).await {
                Some(Ok(link)) => link,
                // Nothing of the call itself was sent yet.
                Some(Err(status)) => match self.inner.pool.failed(&status, &connection) {
                    Failure::Server(error) if error.code != Code::Unavailable => return Err(Error::Server(error)),
                    failure => {
                        last = Some(failure.into_error(&connection));
                        continue;
                    }
                },
                None => {
                    is_late = true;
                    break;
                }
            };
            let token = link.token.clone();
            let answers = connection.answers();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let answer = match before(deadline, send(link, left.filter(|_| is_bounded))).await {
                Some(Ok(answer)) => {
                    self.inner.pool.succeeded(&connection);
                    return Ok(answer.into_inner());
                }
                Some(Err(status)) => self.inner.pool.failed(&status, &connection),
                None => {
                    // Not one answer to anybody meanwhile: the server may be frozen, or gone without a word.
                    if connection.answers() == answers {
                        self.inner.pool.set_aside(&connection, true);
                    }
                    return Err(unknown_if(safety, Error::Deadline { last: last.map(Box::new) }));
                }
            };
            match answer {
                Failure::Server(error) => {
                    let is_stale = self.inner.tokens.renew(token.as_ref(), error.kind);
                    let again = if is_stale {
                        renewals += 1;
                        renewals <= TOKEN_RENEWALS_MAX
                    } else if error.kind == Kind::LearnerUnsupported {
                        self.inner.pool.config.endpoints.len() > 1
                    } else {
                        safety == Safety::Read && error.code == Code::Unavailable
                    };
                    let is_definite = error.is_definite();
                    let error = Failure::Server(error).into_error(&connection);
                    match again {
                        true => last = Some(error),
                        false if is_definite => return Err(error),
                        false => return Err(unknown_if(safety, error)),
                    }
                }
                failure @ Failure::NotSent(_) => last = Some(failure.into_error(&connection)),
                failure @ Failure::Broken(_) => {
                    let error = failure.into_error(&connection);
                    match safety {
                        Safety::Read => last = Some(error),
                        Safety::Write => return Err(unknown_if(safety, error)),
                    }
                }
            }
        }
        // Whatever was sent has come to nothing: a write that gets here did so without a trace.
        Err(match last {
            None => Error::Unavailable { last: "no connection in time".to_owned() },
            Some(last @ (Error::Unavailable { .. } | Error::Server(_))) if safety == Safety::Write => last,
            Some(last) if safety == Safety::Write => Error::Unavailable { last: last.to_string() },
            Some(last @ Error::Unavailable { .. }) => last,
            Some(last) if is_late => Error::Deadline { last: Some(Box::new(last)) },
            Some(last) => last,
        })
    }
}

fn unknown_if(safety: Safety, error: Error) -> Error {
    match safety {
        Safety::Read => error,
        Safety::Write => Error::OutcomeUnknown { cause: Box::new(error) },
    }
}

/// Waits for `future` until the deadline; `None` once that has passed.
async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests;
