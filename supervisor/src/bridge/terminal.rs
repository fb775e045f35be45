//! `--shell-job`: a terminal that is held outside of the tree, and the one that takes its place.
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use engine::external::External;
use engine::inventory::Inventory;
use engine::view;
use nix::fcntl::OFlag;

use crate::error::{Error, Result, cannot};

/// What images call it.
const KEY: &str = "terminal";
/// Slaves of pseudo-terminals (`Documentation/admin-guide/devices.txt`).
const SLAVES: std::ops::Range<u64> = 136..144;

/// The controlling terminal of a process, as something held outside.
pub(super) fn of_process(pid: i32) -> Result<Vec<External>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let stat = stat.map_err(cannot(format!("read /proc/{pid}/stat")))?;
    // Field 7, behind the name: tty_nr.
    let number = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(4));
    let number = number.and_then(|number| number.parse::<i32>().ok()).unwrap_or(0);
    let device = u64::from(number.cast_unsigned());
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    if !SLAVES.contains(&major) {
        let text = format!("process {pid} has no pseudo-terminal for --shell-job to leave out");
        return Err(Error::Refused(text));
    }
    let path = format!("/dev/pts/{}", (major - SLAVES.start) * 256 + minor);
    let mut how = OpenOptions::new();
    how.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let slave = how.open(&path).map_err(cannot(format!("open {path}")))?;
    Ok(vec![External { key: KEY.into(), fd: slave.into() }])
}

/// Our own one, for an image that lacks its own; refused if the one is there without the other.
pub(super) fn for_image(inventory: &Inventory, ours: bool) -> Result<Vec<External>> {
    let lacking = view::files(inventory)?.iter().any(|file| file.target == KEY);
    match (lacking, ours) {
        (false, _) => Ok(Vec::new()),
        (true, false) => Err(Error::Refused(
            "the image was dumped without its terminal: --shell-job gives it this one".into(),
        )),
        (true, true) => Ok(vec![External { key: KEY.into(), fd: own()? }]),
    }
}

fn own() -> Result<OwnedFd> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let standard = match (input.is_terminal(), output.is_terminal(), error.is_terminal()) {
        (true, ..) => input.as_fd().try_clone_to_owned(),
        (_, true, _) => output.as_fd().try_clone_to_owned(),
        (.., true) => error.as_fd().try_clone_to_owned(),
        _ => File::options().read(true).write(true).open("/dev/tty").map(Into::into),
    };
    standard.map_err(cannot("find a terminal for --shell-job"))
}
