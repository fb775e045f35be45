//! `^C`: while something is being saved the program runs on, and the exit code says 130; while we wait
//! for a program, it is the program's.
//!
//! Our death at any moment harms nobody, that is the engine's law; so there is nothing to undo here.
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Failure};

/// From now on, `^C` and SIGTERM end this process with the exit code for it.
pub(crate) fn heed() -> Result<(), Failure> {
    let mut signals = watch(&[SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            exit::leave(&Failure::Interrupted);
        }
    });
    Ok(())
}

/// From now on, signals that end programs are passed on to this one, for which we wait.
pub(crate) fn pass_on(pid: i32) -> Result<(), Failure> {
    let mut signals = watch(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    std::thread::spawn(move || {
        for number in signals.forever() {
            let signal = Signal::try_from(number).ok();
            let _ = kill(Pid::from_raw(pid), signal); // It has ended: so do we.
        }
    });
    Ok(())
}

fn watch(which: &[i32]) -> Result<Signals, Failure> {
    let wait = |source| supervisor::Error::Io { what: "wait for signals".into(), source };
    Ok(Signals::new(which).map_err(wait)?)
}
