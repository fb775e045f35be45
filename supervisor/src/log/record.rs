//! The bytes of a log.

/// Length, source, nanoseconds since 1970; then so many bytes as the length says.
pub const HEAD: usize = 4 + 1 + 8;
/// No record is longer: longer ones are damage.
pub const MAX: usize = 1 << 20;

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
    /// The terminal that stands for both.
    Terminal,
    /// Ours: what was written from the position in the bytes on is undone.
    Undone,
    /// Ours: a run begins here.
    Begin,
    /// Ours, and the first of all: what was here is gone, the log goes on at the position in the
    /// bytes.
    Cut,
}

impl Source {
    const ALL: [(Self, u8); 6] = [
        (Self::Output, 1),
        (Self::Error, 2),
        (Self::Terminal, 3),
        (Self::Undone, 16),
        (Self::Begin, 17),
        (Self::Cut, 18),
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or(0, |(_, code)| *code)
    }

    /// Whether the workload wrote it.
    #[must_use]
    pub fn is_output(self) -> bool {
        matches!(self, Self::Output | Self::Error | Self::Terminal)
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it comes from.
    pub source: Source,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// What.
    pub bytes: Vec<u8>,
}

impl Record {
    /// A mark that what was written from `position` on is undone.
    #[must_use]
    pub fn undone(position: u64, time: u64) -> Self {
        Self { source: Source::Undone, time, bytes: position.to_le_bytes().to_vec() }
    }

    /// A mark that the log goes on at `position`.
    #[must_use]
    pub fn cut(position: u64, time: u64) -> Self {
        Self { source: Source::Cut, time, bytes: position.to_le_bytes().to_vec() }
    }

    /// Where the log goes on, if this is such a mark.
    #[must_use]
    pub fn goes_on_at(&self) -> Option<u64> {
        let position = self.bytes.first_chunk::<8>()?;
        (self.source == Source::Cut).then_some(u64::from_le_bytes(*position))
    }

    /// From where on things are undone, if this is such a mark.
    #[must_use]
    pub fn undoes(&self) -> Option<u64> {
        let position = self.bytes.first_chunk::<8>()?;
        (self.source == Source::Undone).then_some(u64::from_le_bytes(*position))
    }

    /// As it is in the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let mut whole = Vec::with_capacity(HEAD + self.bytes.len());
        whole.extend_from_slice(&len.to_le_bytes());
        whole.push(self.source.code());
        whole.extend_from_slice(&self.time.to_le_bytes());
        whole.extend_from_slice(&self.bytes);
        whole
    }

    /// The record that `bytes` begin with and its length; `None` if it is not whole, or none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (code, rest) = rest.split_first()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= MAX)?;
        let source = Source::ALL.iter().find(|(_, known)| known == code)?.0;
        let bytes = rest.get(..len)?.to_vec();
        Some((Self { source, time: u64::from_le_bytes(*time), bytes }, HEAD + len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, time: u64) {
            let record = Record { source: Source::Terminal, time, bytes };
            let whole = record.encode();
            let len = whole.len();
            prop_assert_eq!(Record::decode(&whole[..len - 1]), None);
            prop_assert_eq!(Record::decode(&whole), Some((record, len)));
        }

        #[test]
        fn damage_is_no_record(bytes: Vec<u8>) {
            if let Some((record, len)) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), &bytes[..len]);
            }
        }
    }
}
