//! The area: memory through which tracer and borrowed thread talk.
//!
//! It begins with a control block: the number of requests, then the requests, each 88 bytes. Behind
//! them lies the data room, for what calls point to. Pure layout; who writes it, and how, is the
//! business of `tracee` (through /proc/PID/mem) and of a restore (shared memory).
//!
//! The count is written last: a tracer that dies while it writes requests has asked for nothing.

/// The control block at the start of an area.
pub(crate) struct Control;

impl Control {
    /// Offset of the number of requests; zero again once they are done.
    pub(crate) const COUNT: usize = 0;
    /// Offset of the first request.
    pub(crate) const REQUESTS: usize = 16;
}

/// What a request wants besides the call.
pub(crate) mod flag {
    /// Where the call returns 0, this is a new task, which goes on with the control block `child`.
    pub(crate) const CHILD: u64 = 1;
}

/// One request, as it lies in an area.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// The system call.
    pub(crate) number: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
    /// What it answered.
    pub(crate) result: i64,
    /// Where else the answer goes, if anywhere: e.g. into an argument of a later request.
    pub(crate) store: u64,
    /// See [`flag`].
    pub(crate) flags: u64,
    /// The control block of a child.
    pub(crate) child: u64,
}

impl Request {
    pub(crate) const NUMBER: usize = 0;
    pub(crate) const ARGS: usize = 8;
    pub(crate) const RESULT: usize = 56;
    pub(crate) const STORE: usize = 64;
    pub(crate) const FLAGS: usize = 72;
    pub(crate) const CHILD: usize = 80;
    pub(crate) const BYTES: usize = 88;

    /// As it lies in an area.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let (number, result) = ([self.number.cast_unsigned()], self.result.cast_unsigned());
        let rest = [result, self.store, self.flags, self.child];
        let words = number.into_iter().chain(self.args).chain(rest);
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        bytes
    }

    /// The answers of `requests`, from the bytes of the area behind [`Control::REQUESTS`].
    pub(crate) fn results(requests: &[u8]) -> impl Iterator<Item = i64> {
        let result = |request: &[u8; Self::BYTES]| {
            let bytes = request.get(Self::RESULT..)?.first_chunk()?;
            Some(i64::from_ne_bytes(*bytes))
        };
        requests.as_chunks().0.iter().filter_map(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lies_as_the_agent_reads_it() {
        let args = [1, 2, 3, 4, 5, 6];
        let request = Request { number: 7, args, result: -8, store: 9, flags: 10, child: 11 };
        let bytes = request.encode();
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(Request::NUMBER), word(Request::ARGS + 40)), (7, 6));
        assert_eq!((word(Request::STORE), word(Request::FLAGS), word(Request::CHILD)), (9, 10, 11));
        assert_eq!(Request::results(&[bytes, bytes].concat()).collect::<Vec<_>>(), [-8, -8]);
    }
}
