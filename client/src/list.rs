//! A list as one stream of parts, at one revision.

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::kind::Kind;
use crate::ops::Get;
use crate::pages::{self, Pages};
use mechi_proto::{etcdserverpb as pb, mvccpb};
use tonic::Streaming;

/// A list that arrives in parts.
///
/// Servers from etcd 3.7 on send it as one stream (RangeStream); others are asked for pages, with the same keys in the
/// end. A stream that breaks ends in [`Error::Broken`]: which revision it was at is known only with its last part, so it cannot go on elsewhere.
#[derive(Debug)]
pub struct Listing {
    parts: Parts,
}

enum Parts {
    Stream(Box<Streaming<pb::RangeStreamResponse>>, Connection, Client),
    Pages(Box<Pages>),
    /// A list with a limit, from a server that does not stream.
    Once(Box<Option<pb::RangeResponse>>),
}

impl Listing {
    pub(crate) async fn open(client: Client, get: Get) -> Result<Self, Error> {
        pages::check(&get)?;
        let opened = client
            .open(get.0.clone(), |link, message| async move {
                let connection = link.connection.clone();
                let answer = link.kv().range_stream(message).await?;
                Ok(answer.map(|stream| (stream, connection)))
            })
            .await;
        let parts = match opened {
            Ok((stream, connection)) => Parts::Stream(Box::new(stream), connection, client),
            Err(error) if error.kind() == Kind::Unimplemented => match get.0.limit > 0 {
                true => Parts::Once(Box::new(Some(client.get_with(get).await?))),
                false => Parts::Pages(Box::new(client.get_pages(get))),
            },
            Err(error) => return Err(error),
        };
        Ok(Self { parts })
    }

    /// Waits for the next part; `None` after the last. The header, `more` and the count are in the last part only, if
    /// the server streams; each call may take as long as it takes.
    pub async fn next(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        match &mut self.parts {
            Parts::Stream(stream, connection, client) => match stream.message().await {
                Ok(part) => Ok(part.map(|part| part.range_response.unwrap_or_default())),
                Err(status) => Err(client.inner.pool.failed(&status, connection).into_error(connection)),
            },
            Parts::Pages(pages) => pages.next().await,
            Parts::Once(part) => Ok(part.take()),
        }
    }

    /// Waits for all parts that are left, and puts them together.
    pub async fn all(mut self) -> Result<Vec<mvccpb::KeyValue>, Error> {
        let mut all = Vec::new();
        while let Some(part) = self.next().await? {
            all.extend(part.kvs);
        }
        Ok(all)
    }

    /// Whether the server sends the list as one stream.
    pub fn is_streamed(&self) -> bool {
        matches!(self.parts, Parts::Stream(..))
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stream(..) => "Stream(..)",
            Self::Pages(_) => "Pages(..)",
            Self::Once(_) => "Once(..)",
        })
    }
}
