//! `DIR/run/NAME.control`: where commands ask.
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::shell::Heard;
use crate::error::{Result, cannot};
use crate::home::Home;
use crate::wire::{Frames, FromKeeper, ToKeeper, encode, from_keeper};

/// Takes any number of [`from_keeper::Of::Progress`] and then one answer.
pub(super) type Reply = UnboundedSender<from_keeper::Of>;

/// Takes requests from now on.
pub(super) fn listen(home: &Home, name: &str, heard: UnboundedSender<Heard>) -> Result<()> {
    let listener = home.listen(name, "control")?;
    listener.set_nonblocking(true).map_err(cannot("take requests"))?;
    let listener = UnixListener::from_std(listener).map_err(cannot("take requests"))?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, heard.clone()));
        }
    });
    Ok(())
}

async fn serve(mut socket: UnixStream, heard: UnboundedSender<Heard>) {
    let (mut frames, mut room) = (Frames::default(), [0; 4096]);
    while let Ok(len @ 1..) = socket.read(&mut room).await {
        frames.push(room.get(..len).unwrap_or_default());
        while let Ok(Some(ToKeeper { of: Some(request) })) = frames.next::<ToKeeper>() {
            let (reply, mut answers) = unbounded_channel();
            if heard.send(Heard::Asked(request, reply)).is_err() {
                return;
            }
            while let Some(of) = answers.recv().await {
                if socket.write_all(&encode(&FromKeeper { of: Some(of) })).await.is_err() {
                    return;
                }
            }
        }
    }
}
