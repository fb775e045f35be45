//! Calls as bytes of an area: requests first, then what they read, then room for what they write.
use crate::remote::area::{Control, Request};
use crate::remote::{Arg, Call, Reply};

/// How many calls travel at once.
pub(super) const CALLS_AT_ONCE: usize = 256;
/// What calls point to lies on such boundaries.
const ALIGNMENT: usize = 64;

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// How large an area these calls need.
pub(super) fn need(calls: &[Call]) -> u64 {
    let of = |arg: &Arg| match arg {
        Arg::Value(_) => 0,
        Arg::In(bytes) => padded(bytes.len()),
        Arg::Out(bytes) => padded(*bytes),
    };
    let data: usize = calls.iter().flat_map(|call| &call.args).map(of).sum();
    (Control::REQUESTS + calls.len() * Request::BYTES + 2 * ALIGNMENT + data) as u64
}

/// Calls, ready to be written behind [`Control::REQUESTS`].
#[derive(Debug)]
pub(super) struct Marshalled {
    /// How many requests.
    pub(super) count: usize,
    /// Requests, and what they read.
    pub(super) bytes: Vec<u8>,
    /// How much room behind them they write to.
    pub(super) out_bytes: usize,
}

/// Lays calls out for an area at this address.
pub(super) fn marshal(calls: &[Call], area: u64) -> Marshalled {
    let base = area + Control::REQUESTS as u64;
    let mut input = Vec::new();
    let read_at = padded(calls.len() * Request::BYTES);
    for bytes in calls.iter().flat_map(|call| &call.args).filter_map(input_of) {
        input.extend_from_slice(bytes);
        input.resize(padded(input.len()), 0);
    }
    let write_at = read_at + input.len();
    let (mut next_in, mut next_out) = (read_at, write_at);
    let mut bytes = Vec::with_capacity(write_at);
    for call in calls {
        let mut request = Request { number: call.number, ..Request::default() };
        for (place, arg) in request.args.iter_mut().zip(&call.args) {
            *place = match arg {
                Arg::Value(value) => value.cast_unsigned(),
                Arg::In(data) => base + step(&mut next_in, data.len()),
                Arg::Out(room) => base + step(&mut next_out, *room),
            };
        }
        bytes.extend_from_slice(&request.encode());
    }
    bytes.resize(read_at, 0);
    bytes.append(&mut input);
    Marshalled { count: calls.len(), bytes, out_bytes: next_out - write_at }
}

fn input_of(arg: &Arg) -> Option<&Vec<u8>> {
    match arg {
        Arg::In(bytes) => Some(bytes),
        _ => None,
    }
}

/// Where the next one lies; and steps over it.
fn step(next: &mut usize, bytes: usize) -> u64 {
    let here = *next;
    *next += padded(bytes);
    here as u64
}

impl Marshalled {
    /// Hands the answers out; `area` is what lies behind [`Control::REQUESTS`] afterwards.
    pub(super) fn replies(&self, calls: &[Call], results: &[i64], area: &[u8]) -> Vec<Reply> {
        let mut next = self.bytes.len();
        let reply = |(call, result): (&Call, &i64)| {
            let mut out = Vec::new();
            for arg in &call.args {
                if let Arg::Out(room) = arg {
                    out.extend_from_slice(area.get(next..next + room).unwrap_or_default());
                    next += padded(*room);
                }
            }
            Reply { call: call.name, result: *result, out }
        };
        calls.iter().zip(results).map(reply).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_point_to_their_bytes_and_answers_come_from_their_room() {
        let args = vec![Arg::In(b"name".into()), Arg::Out(3), Arg::Value(-1)];
        let calls =
            [Call { name: "x", number: 7, args }, Call { name: "y", number: 8, args: vec![] }];
        let marshalled = marshal(&calls, 0x10000);
        let word = |at: usize| {
            let bytes = marshalled.bytes[at..at + 8].try_into().unwrap();
            usize::try_from(u64::from_ne_bytes(bytes)).unwrap()
        };
        let base = 0x10000 + Control::REQUESTS;
        let name = word(Request::ARGS) - base;
        assert_eq!(&marshalled.bytes[name..name + 4], b"name");
        let mut area = marshalled.bytes.clone();
        area.resize(area.len() + marshalled.out_bytes, 0);
        let room = word(Request::ARGS + 8) - base;
        area[room..room + 3].copy_from_slice(b"out");
        let replies = marshalled.replies(&calls, &[1, -2], &area);
        assert_eq!((replies[0].out.as_slice(), replies[0].result), (&b"out"[..], 1));
        assert_eq!((replies[1].out.len(), replies[1].result), (0, -2));
        assert!(need(&calls) >= (area.len() + Control::REQUESTS) as u64);
    }
}
