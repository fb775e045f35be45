//! `snapd stop`.
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;
use supervisor::client;
use supervisor::options::{self, Ear};

use crate::context::Context;
use crate::exit::Outcome;
use crate::output::print;
use crate::values;

/// Ends a workload: by a signal, then by force
///
/// Waits until it has ended. Being stopped is no crash: nothing brings it back. Its snapshots stay,
/// and `snapd restore` goes on from the newest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd stop train                 SIGTERM, and SIGKILL after 10 seconds
  snapd stop train --checkpoint    save it first; it ends without having run on
  snapd stop train --signal INT --timeout 1m")]
pub(crate) struct Stop {
    /// The workload
    #[arg(value_parser = values::name)]
    name: String,
    /// Takes a snapshot first, and ends it in that very state
    #[arg(long)]
    checkpoint: bool,
    /// How long it may take to end before it is killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration, allow_hyphen_values = true)]
    timeout: Duration,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    signal: Signal,
}

impl Stop {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        if self.checkpoint {
            return super::checkpoint::take(context, &home, &self.name, true, Vec::new());
        }
        let (timeout, signal) = (self.timeout, self.signal as i32);
        let how = options::Stop { checkpoint: false, timeout, signal };
        client::stop(&home, &self.name, &how, &Ear::default())?;
        print("")?;
        Ok(0)
    }
}

/// `TERM`, `SIGTERM` or `15`.
fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let whole = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let numbered = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let found = numbered.or_else(|| whole.parse().ok());
    found.ok_or_else(|| format!("{text:?} is not a signal like TERM, SIGINT or 15"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_and_number() {
        for text in ["TERM", "sigterm", "SIGTERM", "15"] {
            assert_eq!(signal(text), Ok(Signal::SIGTERM), "{text}");
        }
        for bad in ["", "0", "99", "TERMINATE"] {
            assert!(signal(bad).unwrap_err().contains("SIGINT"), "{bad}");
        }
    }
}
