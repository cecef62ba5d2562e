//! Sends files of snapshots that were offered, and nothing else.

use super::shared::Shared;
use crate::disk::RealFile;
use crate::limits::PEER_PART_BYTES;
use bytes::Bytes;
use futures_util::{Stream, stream};
use mechi_proto::mechipeerpb::{FetchPart, FetchRequest};
use mechi_replica::disk::{Disk, File, join};
use mechi_replica::types::MemberId;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tonic::Status;

/// The parts of a file from an offset on.
///
/// - Errors: `NotFound` for a file that belongs to no snapshot on offer, `ResourceExhausted` while too many are sent.
pub(super) async fn parts(
    shared: &Arc<Shared>,
    to: MemberId,
    request: FetchRequest,
) -> Result<impl Stream<Item = Result<FetchPart, Status>> + Send + 'static, Status> {
    let FetchRequest { cluster_id, from, file: name, offset } = request;
    if cluster_id != shared.dialer.hello.cluster || from != to.0 {
        return Err(Status::failed_precondition("the request and its handshake name two callers"));
    }
    // The pins know the offered manifests' names only: a path is none of them.
    if !shared.config.pins.serves(&name) {
        return Err(Status::not_found(format!("{name} belongs to no snapshot on offer")));
    }
    let place = shared.fetches.clone().try_acquire_owned();
    let place = place.map_err(|_| Status::resource_exhausted("too many snapshots are being sent"))?;
    let (disk, path) = (shared.config.disk.clone(), join(&shared.config.snapshots, &name));
    let opened = spawn_blocking(move || {
        let file = disk.open(&path)?;
        let bytes = file.len()?;
        Ok::<_, std::io::Error>((file, bytes))
    });
    let opened = opened.await.map_err(|_| Status::unavailable("this member stops"))?;
    let (file, bytes) = opened.map_err(|error| Status::not_found(error.to_string()))?;
    let sending = Sending { shared: shared.clone(), to, name, file: Arc::new(file), at: offset, bytes, _place: place };
    Ok(stream::unfold(Some(sending), |sending| async {
        let mut sending = sending?;
        let part = sending.next().await;
        let more = part.is_ok() && sending.at < sending.bytes;
        Some((part, more.then_some(sending)))
    }))
}

struct Sending {
    shared: Arc<Shared>,
    to: MemberId,
    name: String,
    file: Arc<RealFile>,
    at: u64,
    bytes: u64,
    _place: OwnedSemaphorePermit,
}

impl Sending {
    /// The next part; an empty one if the other member has the whole file already.
    async fn next(&mut self) -> Result<FetchPart, Status> {
        let member = self.shared.members.get(&self.to).expect("the handshake looked it up");
        *member.fetched_at.lock() = Instant::now();
        self.shared.config.pins.serves(&self.name);
        let wanted = usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX).min(PEER_PART_BYTES);
        let (file, at) = (self.file.clone(), self.at);
        let read = spawn_blocking(move || {
            let mut data = vec![0; wanted];
            let read = file.read_at(&mut data, at)?;
            data.truncate(read);
            Ok::<_, std::io::Error>(data)
        });
        let data = read.await.map_err(|_| Status::unavailable("this member stops"))?;
        let data = data.map_err(|error| Status::data_loss(error.to_string()))?;
        if data.len() < wanted {
            return Err(Status::data_loss(format!("{} became shorter than {} bytes", self.name, self.bytes)));
        }
        self.at += data.len() as u64;
        let crc = crc32c::crc32c(&data);
        self.shared.config.metrics.peer_sent_bytes_total.with_label_values(&[&member.label]).inc_by(data.len() as u64);
        Ok(FetchPart { data: Bytes::from(data), crc, file_bytes: self.bytes })
    }
}
