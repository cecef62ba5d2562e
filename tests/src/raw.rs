//! A gRPC call of any bytes to any path, for what the generated stubs cannot send.

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Passes bytes through.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}

/// Sends `message` to `path` (`/package.Service/Method`) with extra metadata; returns the bytes of the answer, of
/// which there must be one.
pub async fn call(channel: Channel, path: &str, message: Bytes, metadata: &[(&str, &[u8])]) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = path.parse().map_err(|_| Status::internal("the path is no path"))?;
    let mut request = Request::new(message);
    for (name, value) in metadata {
        let name: tonic::metadata::MetadataKey<_> = name.parse().map_err(|_| Status::internal("no metadata key"))?;
        let value = (*value).try_into().map_err(|_| Status::internal("no metadata value"))?;
        request.metadata_mut().insert(name, value);
    }
    Ok(grpc.unary(request, path, RawCodec).await?.into_inner())
}
