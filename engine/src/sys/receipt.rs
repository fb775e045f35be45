//! The memory that a recvmsg(2) needs which somebody else makes for us, to receive descriptors.
use std::os::fd::RawFd;

use nix::libc;

/// The memory that a recvmsg(2) made elsewhere needs, to receive one byte and so many descriptors:
/// `struct msghdr`, an iovec, the byte, and the control message (`include/linux/socket.h`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    count: usize,
}

/// Where the parts are, by offset.
const IOVEC: usize = 64;
const BYTE: usize = 80;
const CONTROL: usize = 96;
/// `struct cmsghdr`: length, level, type.
const CONTROL_HEAD: usize = 16;

const _: () =
    assert!(size_of::<libc::msghdr>() == 56 && size_of::<libc::cmsghdr>() == CONTROL_HEAD);

impl Receipt {
    pub(crate) fn for_descriptors(count: usize) -> Self {
        Self { count }
    }

    /// Bytes of everything.
    pub(crate) fn len(self) -> usize {
        CONTROL + self.control()
    }

    fn control(self) -> usize {
        CONTROL_HEAD + (self.count * size_of::<RawFd>()).next_multiple_of(8)
    }

    /// Everything, to be written to `base`, where the message's head is.
    pub(crate) fn bytes(self, base: u64) -> Vec<u8> {
        let at = |offset: usize| base + offset as u64;
        let head = [0, 0, at(IOVEC), 1, at(CONTROL), self.control() as u64, 0, 0];
        let words: Vec<u64> = head.into_iter().chain([at(BYTE), 1]).collect();
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.resize(self.len(), 0);
        bytes
    }

    /// The numbers that arrived, read back from `bytes`.
    pub(crate) fn descriptors(self, bytes: &[u8]) -> Vec<RawFd> {
        let control = bytes.get(CONTROL..).unwrap_or_default();
        let len = control.first_chunk().map_or(0, |len| u64::from_ne_bytes(*len));
        let len = usize::try_from(len).unwrap_or(0);
        let numbers = control.get(CONTROL_HEAD..len).unwrap_or_default();
        numbers.as_chunks().0.iter().map(|bytes| RawFd::from_ne_bytes(*bytes)).collect()
    }
}
