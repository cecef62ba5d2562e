//! Pulls one file over a connection of its own, again and again until it is whole.

use super::fetch::{Offer, Trouble, part};
use super::hello::Lane;
use super::shared::Shared;
use crate::disk::RealFile;
use crate::failpoint::failpoint;
use crate::limits::{
    PEER_CONNECT_TIMEOUT, PEER_DIAL_PAUSE_MAX, PEER_FETCH_ATTEMPTS_MAX, PEER_OVERHEAD_BYTES, PEER_PART_BYTES,
    PEER_PART_TIMEOUT,
};
use mechi_proto::mechipeerpb::FetchRequest;
use mechi_proto::mechipeerpb::peer_client::PeerClient;
use mechi_replica::disk::{Disk, File, join};
use mechi_replica::types::MemberId;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

/// Pulls the files of one offer.
pub(super) struct Puller {
    shared: Arc<Shared>,
    from: MemberId,
    offer: Offer,
    client: Option<PeerClient<Channel>>,
    /// Bytes that came.
    pub(super) bytes: u64,
}

impl Puller {
    pub(super) fn new(shared: Arc<Shared>, from: MemberId, offer: Offer) -> Self {
        Self { shared, from, offer, client: None, bytes: 0 }
    }

    /// Pulls a file to its temporary name; with `goes_on` behind what lies there. Returns whether anything did.
    ///
    /// - Shape: `length` if it is known, `bytes_max` in any case.
    pub(super) async fn pull(
        &mut self,
        name: &str,
        length: Option<u64>,
        bytes_max: u64,
        goes_on: bool,
    ) -> Result<bool, Trouble> {
        let (file, mut at) = self.open(name, if goes_on { length } else { Some(0) }).await?;
        let continued = at > 0;
        let mut attempts = 0;
        while length != Some(at) {
            let before = at;
            let Err(trouble) = self.attempt(name, &file, &mut at, length, bytes_max).await else { break };
            let Trouble::Cut(why) = trouble else { return Err(trouble) };
            attempts = if at > before { 1 } else { attempts + 1 };
            if attempts >= PEER_FETCH_ATTEMPTS_MAX {
                return Err(Trouble::Failed(why));
            }
            tracing::info!(name, at, why, "the fetch of a snapshot's file was cut and goes on");
            // The next attempt makes a new connection.
            self.client = None;
            self.unless_given_up(PEER_DIAL_PAUSE_MAX * 2, sleep(PEER_DIAL_PAUSE_MAX)).await?;
        }
        Ok(continued)
    }

    /// Opens the temporary file; one that is longer than it may be is made anew.
    async fn open(&self, name: &str, bytes_max: Option<u64>) -> Result<(Arc<RealFile>, u64), Trouble> {
        let (shared, name) = (self.shared.clone(), part(name));
        let opened = spawn_blocking(move || {
            let (disk, path) = (&shared.config.disk, join(&shared.config.snapshots, &name));
            match disk.open(&path) {
                Ok(file) => {
                    let length = file.len()?;
                    if bytes_max.is_some_and(|max| length <= max) {
                        return Ok((file, length));
                    }
                    disk.unlink(&path)?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok((disk.create(&path)?, 0))
        });
        let (file, length) = opened.await.map_err(|_| Trouble::GivenUp("this member stops"))??;
        Ok((Arc::new(file), length))
    }

    async fn attempt(
        &mut self,
        name: &str,
        file: &Arc<RealFile>,
        at: &mut u64,
        length: Option<u64>,
        bytes_max: u64,
    ) -> Result<(), Trouble> {
        let mut client = self.connected().await?;
        let request = FetchRequest {
            cluster_id: self.shared.dialer.hello.cluster,
            from: self.shared.dialer.hello.own.0,
            file: name.to_owned(),
            offset: *at,
        };
        let call = client.fetch(self.shared.dialer.request(request, self.from, Lane::Urgent));
        let answer = self.unless_given_up(PEER_PART_TIMEOUT, call).await?;
        let mut parts = answer.map_err(|status| trouble(&status))?.into_inner();
        loop {
            let next = self.unless_given_up(PEER_PART_TIMEOUT, parts.message()).await?;
            let Some(next) = next.map_err(|status| trouble(&status))? else {
                return Err(Trouble::Cut(format!("{name} ended at byte {at}")));
            };
            let whole = next.file_bytes;
            if length.is_some_and(|length| length != whole) || whole > bytes_max {
                return Err(Trouble::Failed(format!("{name} has {whole} bytes, not {}", length.unwrap_or(bytes_max))));
            }
            if crc32c::crc32c(&next.data) != next.crc || next.data.len() as u64 > whole.saturating_sub(*at) {
                return Err(Trouble::Cut(format!("what came of {name} at byte {at} is not what was sent")));
            }
            let (bytes, writing, offset) = (next.data.len() as u64, file.clone(), *at);
            let written = spawn_blocking(move || writing.write_at(&next.data, offset)).await;
            written.map_err(|_| Trouble::GivenUp("this member stops"))??;
            failpoint!("snap_recv_mid", |why| Err(Trouble::Cut(why)));
            *at += bytes;
            self.bytes += bytes;
            if *at == whole {
                return Ok(());
            }
            if bytes == 0 {
                return Err(Trouble::Cut(format!("nothing came of {name} at byte {at}")));
            }
        }
    }

    async fn connected(&mut self) -> Result<PeerClient<Channel>, Trouble> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let member = self.shared.members.get(&self.from).expect("the offer came from a known member");
        let dialled = self.shared.dialer.connect(&member.urls);
        let urls = u32::try_from(member.urls.len()).unwrap_or(u32::MAX).max(1);
        let channel = self.unless_given_up(PEER_CONNECT_TIMEOUT.saturating_mul(urls) * 2, dialled).await?;
        let client = PeerClient::new(channel.map_err(Trouble::Cut)?)
            .max_decoding_message_size(PEER_PART_BYTES + PEER_OVERHEAD_BYTES);
        Ok(self.client.insert(client).clone())
    }

    /// Waits, but not for longer than `time`, nor when this is not wanted any more.
    async fn unless_given_up<T>(&self, time: Duration, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut wanted = self.shared.wanted.subscribe();
        tokio::select! {
            biased;
            () = self.shared.stopped() => Err(Trouble::GivenUp("this member stops")),
            _ = wanted.wait_for(|wanted| wanted.as_ref() != Some(&self.offer)) => {
                Err(Trouble::GivenUp("a newer snapshot was offered"))
            }
            done = timeout(time, work) => done.map_err(|_| Trouble::Cut(format!("nothing came for {time:?}"))),
        }
    }
}

fn trouble(status: &tonic::Status) -> Trouble {
    let why = status.message().to_owned();
    match status.code() {
        Code::NotFound | Code::FailedPrecondition | Code::DataLoss | Code::OutOfRange => Trouble::Failed(why),
        _ => Trouble::Cut(why),
    }
}
