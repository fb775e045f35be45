//! What a detached keeper tells the command that started it, until the workload runs.
use std::sync::Arc;

use crate::error::Error;
use crate::wire::{Channel, Fault, FromKeeper, Info, Progress, from_keeper};

/// A connection to it.
#[derive(Debug, Clone)]
pub struct Report(Arc<Channel>);

impl Report {
    /// By this connection.
    #[must_use]
    pub fn new(command: Channel) -> Self {
        Self(Arc::new(command))
    }

    /// That nobody listens any more is no failure of ours.
    fn tell(&self, of: from_keeper::Of) {
        drop(self.0.send(&FromKeeper { of: Some(of) }, &[]));
    }

    pub(super) fn up(&self, info: Info) {
        self.tell(from_keeper::Of::Info(info));
    }

    pub(super) fn progress(&self, progress: Progress) {
        self.tell(from_keeper::Of::Progress(progress));
    }

    /// It will not run.
    pub(crate) fn refuse(&self, error: &Error) {
        self.tell(from_keeper::Of::Refused(Fault::of(error)));
    }
}
