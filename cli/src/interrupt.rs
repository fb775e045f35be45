//! `^C` while something is being saved: the program runs on, the exit code says 130.
//!
//! Our death at any moment harms nobody, that is the engine's law; so there is nothing to undo here.
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Failure};

/// From now on, `^C` and SIGTERM end this process with the exit code for it.
pub(crate) fn heed() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|source| supervisor::Error::Io { what: "wait for signals".into(), source })?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            exit::leave(&Failure::Interrupted);
        }
    });
    Ok(())
}
