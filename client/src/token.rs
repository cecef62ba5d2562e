//! The token of a user: asked for when it is first needed, and again when a server does not take it any more.

use crate::config::Credentials;
use crate::connection::Link;
use crate::kind::Kind;
use http::HeaderValue;
use mechi_proto::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::auth_client::AuthClient;
use tonic::Status;

/// The token of one user, shared by all clients made from one configuration.
#[derive(Debug)]
pub(crate) struct Tokens {
    credentials: Option<Credentials>,
    current: Mutex<Token>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Unasked,
    /// The servers have no users, so they give no token; they may get users later.
    NotNeeded,
    Given(HeaderValue),
}

impl Tokens {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, current: Mutex::new(Token::Unasked) }
    }

    /// Gives `link` the token, asking the server for one first if there is none. Two calls at once may ask twice.
    ///
    /// - Errors: how Authenticate ended.
    pub(crate) async fn attach(&self, link: Link) -> Result<Link, Status> {
        let Some(credentials) = &self.credentials else { return Ok(link) };
        let current = self.current.lock().clone();
        let token = match current {
            Token::Given(token) => Some(token),
            Token::NotNeeded => None,
            Token::Unasked => {
                let asked = authenticate(link.clone(), credentials).await?;
                *self.current.lock() = asked.clone().map_or(Token::NotNeeded, Token::Given);
                asked
            }
        };
        Ok(Link { token, ..link })
    }

    /// Forgets the token that `link` carried, so that the next call asks for a new one.
    ///
    /// - Returns: whether that can help: there is a user, and `kind` is about tokens.
    pub(crate) fn renew(&self, carried: Option<&HeaderValue>, kind: Kind) -> bool {
        let is_stale = matches!(kind, Kind::InvalidAuthToken | Kind::OldAuthRevision | Kind::UserEmpty);
        if self.credentials.is_none() || !is_stale {
            return false;
        }
        let carried = carried.cloned().map_or(Token::NotNeeded, Token::Given);
        let mut current = self.current.lock();
        // Another call may have a newer one already.
        if *current == carried {
            *current = Token::Unasked;
        }
        true
    }
}

async fn authenticate(link: Link, credentials: &Credentials) -> Result<Option<HeaderValue>, Status> {
    let request = pb::AuthenticateRequest { name: credentials.user.clone(), password: credentials.password.clone() };
    match AuthClient::new(link).authenticate(request).await {
        Ok(answer) => {
            let mut token = HeaderValue::try_from(answer.into_inner().token)
                .map_err(|_| Status::internal("the server's token is no header"))?;
            token.set_sensitive(true);
            Ok(Some(token))
        }
        Err(status) if Kind::of(status.message()) == Kind::AuthNotEnabled => Ok(None),
        Err(status) => Err(status),
    }
}
