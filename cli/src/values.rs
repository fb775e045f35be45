//! Values of options: parsed by the policies, so that a bad one is named with what is accepted.
use std::time::Duration;

use policies::{duration, name};

/// A duration, zero included.
pub(crate) fn duration(text: &str) -> Result<Duration, policies::Unaccepted> {
    duration::parse(text)
}

/// A duration above zero.
pub(crate) fn interval(text: &str) -> Result<Duration, policies::Unaccepted> {
    duration::parse_interval(text)
}

/// `10/60s`.
pub(crate) fn limit(text: &str) -> Result<policies::backoff::Limit, policies::Unaccepted> {
    text.parse()
}

/// A workload's name.
pub(crate) fn name(text: &str) -> Result<String, policies::Unaccepted> {
    name::check(text)?;
    Ok(text.to_owned())
}
