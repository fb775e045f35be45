//! Messages in a stream of bytes: four bytes of length, little-endian, then protobuf.
use prost::Message;

/// No message of ours comes near; longer ones are another program's, or damage.
pub const MAX_FRAME: usize = 16 << 20;

/// What is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its length is absurd.
    #[error("a message of {0} bytes")]
    Long(usize),
    /// Its contents are not what they should be.
    #[error("a message that does not decode")]
    Decode(#[from] prost::DecodeError),
}

/// Bytes that came, and the messages in them.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(FrameError::Long(len));
        }
        let Some(body) = self.0.get(4..4 + len) else { return Ok(None) };
        let message = M::decode(body)?;
        self.0.drain(..4 + len);
        Ok(Some(message))
    }
}

/// A message with its length before it.
#[must_use]
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    let body = message.encode_to_vec();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ToShim, to_shim};
    use super::*;

    fn input(data: &[u8]) -> ToShim {
        ToShim { of: Some(to_shim::Of::Input(data.to_vec())) }
    }

    proptest! {
        #[test]
        fn messages_arrive_however_they_are_cut(
            all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8),
            step in 1usize..40,
        ) {
            let bytes: Vec<u8> = all.iter().flat_map(|data| encode(&input(data))).collect();
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(step) {
                frames.push(piece);
                while let Some(message) = frames.next::<ToShim>().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, all.iter().map(|data| input(data)).collect::<Vec<_>>());
        }

        #[test]
        fn damage_is_an_error_and_nothing_worse(bytes: Vec<u8>) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next::<ToShim>() {}
        }
    }
}
