//! Signals that a keeper gets, most of them meant for its workload.
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::shell::Heard;
use crate::error::{Result, cannot};

/// Those that are passed on, or tell of the terminal.
const WATCHED: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// From now on they are reported.
pub(super) fn watch(heard: &UnboundedSender<Heard>) -> Result<()> {
    for which in WATCHED {
        let kind = SignalKind::from_raw(which as i32);
        let mut stream = signal(kind).map_err(cannot("watch signals"))?;
        let heard = heard.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if heard.send(Heard::Signal(which)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
