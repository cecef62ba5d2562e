//! Whether a member without data was here before: its peers remember what it has forgotten.
//!
//! A member whose directory was emptied would vote again in terms in which it has voted, and would help to elect a
//! leader that lacks what it once acknowledged. Its peers' lists of members tell: who has told its client URLs has
//! taken part before.
//!
//! - Source: etcd `server/etcdserver/api/membership/cluster_util.go`, `isMemberBootstrapped`.

use super::Founding;
use crate::config::urls::{Scheme, Url};
use crate::limits::{KNOWN_ANSWER_BYTES_MAX, KNOWN_ANSWER_TIMEOUT, KNOWN_CONNECT_TIMEOUT};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Time before a peer that has not read its data yet is asked again.
const AGAIN: Duration = Duration::from_millis(100);

const REQUEST: &[u8] = b"GET /members HTTP/1.0\r\nHost: peer\r\n\r\n";

/// Refuses the start of a member without data that any peer knows to have taken part.
///
/// - Shape: call it before the raft node starts, and only without data; the own peer URLs must be served already, so
///   that members of a new cluster, who all ask each other, hear at once that nobody knows anything.
/// - Errors: etcd's sentence, and what to do. A peer that does not answer knows nothing.
pub async fn refuse_known(founding: &Founding) -> Result<()> {
    let own = founding.identity.member_id;
    let mut asked = JoinSet::new();
    for member in founding.others() {
        let (peer, urls) = (member.id, member.peer_ur_ls.clone());
        asked.spawn(async move {
            for url in &urls {
                match timeout(KNOWN_ANSWER_TIMEOUT, ask(url, own)).await {
                    Ok(Ok(known)) => return known,
                    Ok(Err(error)) => tracing::info!(
                        peer = format!("{peer:x}"),
                        error = format!("{error:#}"),
                        "a peer does not answer yet"
                    ),
                    Err(_) => tracing::warn!(
                        peer = format!("{peer:x}"),
                        "a peer took too long to tell whether it knows this member"
                    ),
                }
            }
            false
        });
    }
    while let Some(answer) = asked.join_next().await {
        if answer.context("ask the peers")? {
            bail!(
                "member {own:x} has already been bootstrapped: its cluster knows it, but its data directory is empty. \
                 It may have voted for and acknowledged what it does not know any more. Restore the directory, or \
                 remove the member from the cluster and add it as a new one"
            );
        }
    }
    Ok(())
}

/// Asks one peer URL until it has read its own data.
///
/// - Errors: nobody listens there, so that the peer does not run; or it is no peer.
async fn ask(url: &str, own: u64) -> Result<bool> {
    let url = Url::parse(url).map_err(anyhow::Error::msg)?;
    loop {
        let stream = connect(&url).await?;
        match exchange(stream).await {
            Ok((200, body)) => return is_known(&body, own),
            Ok((code, _)) if code != 503 => bail!("{url} answers {code}"),
            // It reads its data, or a connection that was made broke: somebody is there who may know.
            Ok(_) | Err(_) => sleep(AGAIN).await,
        }
    }
}

fn is_known(body: &[u8], own: u64) -> Result<bool> {
    let members: Value = serde_json::from_slice(body).context("read the list of members")?;
    let members = members.as_array().context("the list of members is not a list")?;
    let has_urls = |member: &Value| member["clientURLs"].as_array().is_some_and(|urls| !urls.is_empty());
    Ok(members.iter().any(|member| member["id"].as_u64() == Some(own) && has_urls(member)))
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(url: &Url) -> Result<Box<dyn Stream>> {
    match (url.scheme(), url.socket_path()) {
        (Scheme::Unix, Some(path)) => Ok(Box::new(UnixStream::connect(path).await?)),
        _ => {
            let connected = timeout(KNOWN_CONNECT_TIMEOUT, TcpStream::connect((url.host(), url.port()))).await;
            Ok(Box::new(connected.context("connect")??))
        }
    }
}

/// One plain HTTP/1.1 exchange on its own connection: code and body.
async fn exchange(mut stream: impl Stream) -> Result<(u16, Vec<u8>)> {
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.take(KNOWN_ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let end =
        answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("the answer has no end of its headers")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let code = head.split(' ').nth(1).context("the answer has no status code")?.parse()?;
    Ok((code, answer.split_off(end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_once_it_has_told_its_client_urls() {
        let body = br#"[{"id":7,"peerURLs":["http://a:1"]},{"id":8,"name":"b","clientURLs":["http://b:1"]}]"#;
        assert!(!is_known(body, 7).unwrap());
        assert!(is_known(body, 8).unwrap());
        assert!(!is_known(body, 9).unwrap());
        assert!(!is_known(b"[]", 7).unwrap());
        assert!(is_known(b"not json", 7).is_err());
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_answer() {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", peer.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            for answer in [
                "",
                "HTTP/1.1 200 OK\r\n",
                "HTTP/1.1 503 No\r\n\r\n",
                "HTTP/1.1 200 OK\r\n\r\n[{\"id\":7,\"clientURLs\":[\"u\"]}]",
            ] {
                let (mut stream, _) = peer.accept().await.unwrap();
                // What is left unread would make a reset of the end, which may overtake the answer.
                let mut asked = [0; REQUEST.len()];
                stream.read_exact(&mut asked).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert!(ask(&url, 7).await.unwrap(), "it is asked until it has told");
        serving.await.unwrap();
        assert!(ask(&url, 7).await.is_err(), "nobody listens any more");
    }
}
