//! gRPC's framing by hand: one byte "compressed?" and four of length before each message.
//!
//! A message that arrived in one piece is a slice of what was read, without a copy; only one that is cut over several HTTP/2
//! frames is put together. Left out: compression, which is never asked for.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::failure::Failure;

const HEADER_BYTES: usize = 5;
/// What a server may answer in one message; larger is a fault of the framing.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("a request is smaller than 4 GiB"));
    message.encode_raw(&mut out);
    out.freeze()
}

/// Cuts what arrives into messages. At most one of the two buffers holds something.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    chunk: Bytes,
    gathered: BytesMut,
}

impl Deframer {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() && self.gathered.is_empty() {
            self.chunk = chunk;
            return;
        }
        if !self.chunk.is_empty() {
            let whole = length(&self.chunk).ok().flatten().unwrap_or_default();
            self.gathered = BytesMut::with_capacity((HEADER_BYTES + whole).max(self.chunk.len() + chunk.len()));
            self.gathered.extend_from_slice(&std::mem::take(&mut self.chunk));
        }
        self.gathered.extend_from_slice(&chunk);
    }

    /// The next message, once all of it is there.
    pub(crate) fn next_message(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.chunk.is_empty() {
            let Some(end) = end(&self.gathered)? else { return Ok(None) };
            let mut message = self.gathered.split_to(end).freeze();
            message.advance(HEADER_BYTES);
            return Ok(Some(message));
        }
        let Some(end) = end(&self.chunk)? else { return Ok(None) };
        let mut message = self.chunk.split_to(end);
        message.advance(HEADER_BYTES);
        Ok(Some(message))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.gathered.is_empty()
    }
}

/// Where the first message of `bytes` ends, if all of it is there.
fn end(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    Ok(length(bytes)?.map(|length| HEADER_BYTES + length).filter(|end| *end <= bytes.len()))
}

fn length(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(([compressed, length @ ..], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).expect("32 bits fit");
    if *compressed != 0 || length > MESSAGE_BYTES_MAX {
        return Err(Failure::Transport(format!("no gRPC message: begins with {compressed}, {length} bytes long")));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use quorate_client::proto::etcdserverpb as pb;

    use super::*;

    fn messages() -> Vec<pb::PutRequest> {
        let sizes = [0, 1, 100, 70_000, 3];
        let put =
            |size| pb::PutRequest { key: vec![b'k'; 8].into(), value: vec![7; size].into(), ..Default::default() };
        sizes.into_iter().map(put).collect()
    }

    #[test]
    fn messages_come_back_however_they_were_cut() {
        let sent = messages();
        let wire: Vec<u8> = sent.iter().flat_map(frame).collect();
        for piece in [1, 2, 4, 5, 6, 113, 16_384, wire.len()] {
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            for chunk in wire.chunks(piece) {
                deframer.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = deframer.next_message().unwrap() {
                    got.push(pb::PutRequest::decode(message).unwrap());
                }
            }
            assert_eq!(got, sent, "cut every {piece} bytes");
            assert!(deframer.is_empty());
        }
    }

    #[test]
    fn a_compressed_or_absurd_message_is_refused() {
        for wire in [&[1, 0, 0, 0, 1, 9][..], &[0, 255, 255, 255, 255, 0]] {
            let mut deframer = Deframer::default();
            deframer.push(Bytes::copy_from_slice(wire));
            assert!(matches!(deframer.next_message(), Err(Failure::Transport(_))));
        }
    }
}
