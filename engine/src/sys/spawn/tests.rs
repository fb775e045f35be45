use std::io::Read;
use std::os::fd::AsFd;

use nix::sys::wait::{WaitStatus, waitpid};

use super::*;

fn strings(of: &[&str]) -> Vec<CString> {
    of.iter().map(|s| CString::new(*s).unwrap()).collect()
}

fn program<'a>(paths: &[&str], args: &[&str]) -> Program<'a> {
    Program {
        paths: strings(paths),
        args: strings(args),
        env: strings(&["A=b"]),
        cwd: Some(c"/".to_owned()),
        umask: Some(0o027),
        fds: Vec::new(),
        pid: None,
        own_group: true,
        foreground_of: None,
        credentials: None,
    }
}

#[test]
fn a_program_finds_what_it_was_given() {
    let (out, into) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let script = "for n in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
        [ -e /proc/$$/fd/$n ] && printf $n >&7; done; echo ' '$A $(umask) $(pwd) >&7";
    let mut it = program(&["/nonexistent/sh", "/bin/sh"], &["sh", "-c", script]);
    it.fds = vec![(into.as_fd(), 7)];
    let pid = spawn(&it).unwrap();
    drop(it);
    drop(into);
    let mut said = String::new();
    std::fs::File::from(out).read_to_string(&mut said).unwrap();
    assert_eq!(said, "7 b 0027 /\n");
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let missing = spawn(&program(&["/nonexistent"], &["x"])).unwrap_err();
    assert_eq!(missing, SpawnError::Execute(Errno::ENOENT));
    let denied = spawn(&program(&["/nonexistent", "/etc/passwd", "/also/not"], &["x"]));
    assert_eq!(denied.unwrap_err(), SpawnError::Execute(Errno::EACCES));
    let nowhere =
        Program { cwd: Some(c"/nonexistent".to_owned()), ..program(&["/bin/true"], &["true"]) };
    assert_eq!(spawn(&nowhere).unwrap_err(), SpawnError::Prepare("chdir", Errno::ENOENT));
}

#[test]
fn a_script_without_a_first_line_goes_to_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, "exit 7\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let pid = spawn(&program(&[path.to_str().unwrap()], &["script"])).unwrap();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 7));
}
