//! One request of any kind, by its path, as bytes or as a message; and the answer in one line.

use anyhow::{Context as _, Result};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Messages as they are on the wire, right or wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[derive(Clone)]
pub struct Sender(Channel);

impl Sender {
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Self(Endpoint::from_shared(url.to_owned())?.connect().await.context("connect to the member")?))
    }

    pub fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// The bytes of a unary answer.
    pub async fn raw(&self, path: &str, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc =
            Grpc::new(self.0.clone()).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20);
        grpc.ready().await.map_err(|error| Status::unknown(format!("not ready: {error}")))?;
        let path = path.parse().map_err(|_| Status::internal("a path that is none"))?;
        grpc.unary(Request::new(message), path, Raw).await.map(tonic::Response::into_inner)
    }

    pub async fn send<M: Message>(&self, path: &str, message: M) -> Result<Bytes, Status> {
        self.raw(path, message.encode_to_vec().into()).await
    }
}

/// Code and text, or `ok`.
pub fn line<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => "ok".into(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}
