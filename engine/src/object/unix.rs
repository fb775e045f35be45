//! A Unix socket that is not one of two: unconnected, bound, listening, waiting to be accepted, or a
//! datagram socket that sends to another one.
//!
//! Bound ones are built last, for connections that were accepted under the same name need it for a
//! moment. Kernel: `net/unix/af_unix.c`.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc::{AF_UNIX, SYS_listen};
use nix::sys::stat::fstat;

use super::socket::diag::UnixSocket;
use super::socket::makers::Maker;
use super::socket::options::{self, When};
use super::socket::place::{self, Name};
use super::socket::{ELSEWHERE, Peer, STAY, create, is_elsewhere, queue};
use super::view::{SocketView, sort, unix_name};
use super::{Build, Claim, Collect, Ends, Evidence, Identity, Object, Place, StandIn, View};
use crate::error::{Cause, Result, kernel};
use crate::inventory::{End, OpenFileId, Pid};
use crate::remote::Arg;

use crate::sys::net;

pub(super) struct Unix;
const WHOLE: End = End(0);

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// `SOCK_*`.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, required, tag = "2")]
    name: Name,
    #[prost(message, repeated, tag = "3")]
    queue: Vec<queue::Message>,
    #[prost(uint32, tag = "4")]
    shutdown: u32,
    #[prost(message, repeated, tag = "5")]
    options: Vec<options::Value>,
    /// Its backlog, if it listens.
    #[prost(uint32, optional, tag = "6")]
    listens: Option<u32>,
    /// The socket it sends to, or whose door it waits at.
    #[prost(uint32, optional, tag = "7")]
    connected: Option<u32>,
    /// By name or, where that is no longer to be found, by its file.
    #[prost(bytes = "vec", tag = "8")]
    connected_name: Vec<u8>,
    /// Who called listen(2), or connect(2).
    #[prost(message, optional, tag = "9")]
    maker: Option<Maker>,
}

const FOREIGN: Cause = Cause { code: "unix:namespace", reason: ELSEWHERE, remedy: STAY };
const STRANGER: Cause = Cause {
    code: "unix:stranger",
    reason: "it is connected to a socket held outside the tree",
    remedy: "checkpoint the holder too, or have the program close the connection",
};
const PENDING: Cause = Cause {
    code: "unix:pending",
    reason: "a connection waits to be accepted whose maker is outside the tree, or has sent something",
    remedy: "let the program accept it",
};
const MESSAGES: Cause = Cause {
    code: "unix:messages",
    reason: queue::UNREPEATABLE,
    remedy: "let the program read them",
};
const UNNAMED: Cause = Cause {
    code: "unix:unnamed",
    reason: "messages wait in it, or others send to it, but it has no name to send to",
    remedy: "let the program read them, or close it",
};

impl Object for Unix {
    const NAME: &'static str = "unix";
    const CAUSES: &'static [Cause] = &[FOREIGN, STRANGER, PENDING, MESSAGES, UNNAMED];
    const LATE: u8 = 1;
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let socket = seen.socket.as_ref().filter(|socket| socket.domain == AF_UNIX)?;
        let single = !matches!(socket.peer, Peer::Mutual(_) | Peer::Gone);
        single.then(|| Claim::whole(Identity::Inode(seen.inode)))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let Some(fd) = with.end(WHOLE) else { return Ok(State::default()) };
        let inode = fstat(fd).map_err(kernel("fstat"))?.st_ino;
        if is_elsewhere(fd)? {
            with.obstacle(&FOREIGN);
        }
        let seen = with.sockets.get(inode).unwrap_or_default();
        let kind = i32::from(seen.kind);
        let name = Name::of(fd, true)?;
        let queue = if seen.listening {
            Vec::new()
        } else {
            queue::collect(with, WHOLE, fd, kind, &MESSAGES)?
        };
        if !queue::all_seen(with, &[&queue]) {
            with.obstacle(&MESSAGES);
        }
        if !queue.is_empty() && !name.is_bound() {
            with.obstacle(&UNNAMED);
        }
        let is_waiting = seen.peer == Some(0);
        let mut state = State {
            kind,
            name,
            queue,
            shutdown: seen.shutdown.into(),
            options: options::collect(fd)?,
            listens: seen.listening.then_some(seen.unread),
            maker: if is_waiting { Some(Maker::now(with.holder)?) } else { Maker::of(fd, with)? },
            ..State::default()
        };
        waiting(with, &seen);
        state.find_peer(with, fd, inode, &seen);
        Ok(state)
    }

    fn place(state: &State) -> Place {
        let maker = state.maker.as_ref();
        maker.map_or(Place::Coordinator, |maker| Place::Process(Pid(maker.pid)))
    }

    fn stand_ins(state: &State) -> Vec<StandIn> {
        state.maker.iter().filter_map(Maker::stand_in).collect()
    }

    fn needs(state: &State) -> Vec<OpenFileId> {
        queue::needs(&state.queue).chain(state.connected.map(OpenFileId)).collect()
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        let made = create(AF_UNIX, state.kind, 0)?;
        let fd = made.as_fd();
        options::restore(fd, &state.options, When::BeforeBind)?;
        state.name.bind(fd)?;
        if let Some(backlog) = state.listens {
            state.listen(with, fd, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        }
        if !state.queue.is_empty() {
            let file = place::file_of(fd)?;
            let to = match &file {
                Some((file, _)) => format!("/proc/self/fd/{}", file.as_raw_fd()),
                None => String::from_utf8_lossy(&state.name.path).into_owned(),
            };
            queue::send(with, WHOLE, &state.queue, None, Some(&to), usize::MAX)?;
        }
        state.connect(with, fd)?;
        if let Ok(how @ 1..=3) = i32::try_from(state.shutdown) {
            net::shutdown(fd, how - 1).map_err(kernel("shutdown"))?;
        }
        options::restore(fd, &state.options, When::Last)?;
        Ok(Ends::one(made))
    }

    fn view(state: &State, _: End) -> View {
        let connected = state.connected.is_some() || !state.connected_name.is_empty();
        let socket = SocketView {
            family: "unix",
            sort: sort(state.kind),
            local: unix_name(&state.name.path),
            peer: unix_name(&state.connected_name),
            state: match state.listens {
                Some(_) => "listening",
                None if connected => "connected",
                None => "unconnected",
            },
        };
        View { socket: Some(socket), ..View::default() }
    }
}

/// Connections wait at its door: each is an object of its own, which connects again, so long as it
/// is in the tree and has sent nothing, for that could not be looked at.
fn waiting(with: &mut Collect<'_>, seen: &UnixSocket) {
    let repeatable = |guest: &u64| {
        let silent = with.sockets.get(*guest).is_some_and(|guest| guest.unread == 0);
        silent && with.tree.open_file_of(*guest).is_some()
    };
    if !seen.waiting.iter().all(repeatable) {
        with.obstacle(&PENDING);
    }
}

impl State {
    fn find_peer(
        &mut self,
        with: &mut Collect<'_>,
        fd: BorrowedFd<'_>,
        own: u64,
        seen: &UnixSocket,
    ) {
        let door = |(inode, door): (u64, &UnixSocket)| door.waiting.contains(&own).then_some(inode);
        let peer = match seen.peer {
            None => return,
            Some(0) => with.sockets.iter().find_map(door),
            Some(peer) => Some(peer),
        };
        self.connected_name = place::sun_path(&net::peer_name(fd).unwrap_or_default());
        if peer == Some(own) {
            return; // To itself: by its own name.
        }
        self.connected = peer.and_then(|peer| with.tree.open_file_of(peer)).map(|id| id.0);
        if self.connected.is_none() {
            with.obstacle(&STRANGER);
        } else if self.connected_name.is_empty() {
            with.obstacle(&UNNAMED);
        }
    }

    fn listen(&self, with: &mut Build<'_>, fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
        match &self.maker {
            Some(maker) => {
                let args = [backlog.into(), Arg::Value(0)];
                maker.call_on(with, fd, ("listen", SYS_listen), args)
            }
            None => net::listen(fd, backlog).map_err(kernel("listen")),
        }
    }

    fn connect(&self, with: &mut Build<'_>, fd: BorrowedFd<'_>) -> Result<()> {
        if self.connected_name.is_empty() {
            return Ok(());
        }
        let file = match self.connected {
            Some(id) => place::file_of(with.open_file(OpenFileId(id))?)?,
            None => place::file_of(fd)?,
        };
        let name = Name { path: self.connected_name.clone(), file: None };
        place::connect(with, self.maker.as_ref(), fd, (file, &name))
    }
}

#[cfg(test)]
mod tests;
