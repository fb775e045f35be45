//! The command `snapd`, in its first, rough shape: enough to try things by hand.
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use supervisor::error::Sort;
use supervisor::home::Home;
use supervisor::keeper::Begin;
use supervisor::wire::Fault;
use supervisor::{Error, Result, bridge, client, launch, log, shim, worker};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("", &[][..]), |(c, rest)| (c.as_str(), rest));
    let code = match command {
        "__shim" => shim::main().map(|()| 0),
        "__worker" => worker::main().map(|()| 0),
        "__keeper" => launch::keeper_main(rest),
        _ => perform(command, rest),
    };
    let code = code.unwrap_or_else(|error| {
        let fault = Fault::of(&error);
        eprintln!("error: {}", fault.text);
        for found in &fault.obstacles {
            eprintln!(
                "  {} of {}: {} [{}]",
                found.object, found.inner_pid, found.reason, found.code
            );
        }
        exit_code(error.sort())
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn exit_code(sort: Sort) -> i32 {
    match sort {
        Sort::Failed => 1,
        Sort::Missing => 3,
        Sort::Damaged => 4,
        Sort::Busy => 5,
        Sort::NotExecutable => 126,
        Sort::NotFound => 127,
    }
}

fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).map(String::as_str)
}

fn perform(command: &str, args: &[String]) -> Result<i32> {
    let env = std::env::var("SNAPD_DIR").ok();
    let dir = option(args, "--dir").map(str::to_owned).or(env);
    let dir = dir.unwrap_or_else(|| "/var/lib/snapd-checkpoints".to_owned());
    match command {
        "dump" => {
            let taken = dump(args)?;
            say(&format!("pause {} ms\n", taken.pause_ms));
            return Ok(0);
        }
        "undump" => return undump(args),
        _ => {}
    }
    let home = Home::open(Path::new(&dir))?;
    let name = args.first().map_or("", String::as_str);
    match command {
        "run" => return run(home, args),
        "ls" => {
            for one in client::list(&home)? {
                let state =
                    one.live.as_ref().map_or(one.entry.state.as_str(), |i| i.state.as_str());
                let pid = one.live.as_ref().map_or(0, |live| live.pid);
                say(&format!("{} {} {}\n", one.entry.definition.name, state, pid));
            }
        }
        "stop" => client::stop(&home, name, 15, Duration::from_secs(10))?,
        "kill" => client::kill(&home, name)?,
        "checkpoint" => {
            let stop = args.iter().any(|arg| arg == "--stop");
            say(&format!("{name}@{}\n", client::checkpoint(&home, name, stop, Vec::new())?));
        }
        "rollback" => {
            let (name, seq) = name.split_once('@').unwrap_or((name, "0"));
            client::rollback(&home, name, seq.parse().unwrap_or(0))?;
        }
        "logs" => {
            let lines = log::visible(&client::log_path(&home, name)).unwrap_or_default();
            let all = args.iter().any(|arg| arg == "--all");
            for line in lines.iter().filter(|line| line.record.source.is_output()) {
                if all || !line.undone {
                    drop(std::io::stdout().write_all(&line.record.bytes));
                }
            }
        }
        "events" => {
            for one in supervisor::book::Book::open(&home)?.happenings(name)? {
                say(&format!("{} {} {:?} {}\n", one.at_ms, one.kind, one.seq, one.reason));
            }
        }
        _ => return Ok(2),
    }
    Ok(0)
}

fn dump(args: &[String]) -> Result<supervisor::wire::Taken> {
    bridge::dump(&bridge::Dump {
        pid: option(args, "--pid").and_then(|pid| pid.parse().ok()).unwrap_or(0),
        images: option(args, "--images").unwrap_or(".").into(),
        leave_running: args.iter().any(|arg| arg == "--leave-running"),
        keep_files: option(args, "--files") == Some("keep"),
        close_tcp: option(args, "--tcp") == Some("close"),
        freeze_timeout: Duration::from_secs(1),
    })
}

fn undump(args: &[String]) -> Result<i32> {
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let brought = bridge::undump(bridge::Undump {
        images: option(args, "--images").unwrap_or(".").into(),
        accept_changed: has("--accept-changed"),
        keep_files: option(args, "--files") == Some("keep"),
        close_tcp: option(args, "--tcp") == Some("close"),
        detach: has("--detach"),
        terminal: None,
    })?;
    for note in &brought.notes {
        eprintln!("note: {note}");
    }
    if let Some(path) = option(args, "--pidfile") {
        drop(std::fs::write(path, format!("{}\n", brought.first)));
    }
    if has("--detach") {
        return Ok(0);
    }
    bridge::wait_for(brought.first)
}

fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn run(home: Home, args: &[String]) -> Result<i32> {
    let at = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (options, command) = args.split_at(at);
    let command: Vec<_> = command.iter().skip(1).map(|arg| arg.clone().into_bytes()).collect();
    let first = command.first().cloned().unwrap_or_default();
    let path = String::from_utf8_lossy(&first).into_owned();
    let name = match option(options, "--name") {
        Some(name) => name.to_owned(),
        None => client::free_name(&home, Path::new(&path))?,
    };
    let mut definition = launch::define(&name, command)?;
    if let Some(every) = option(options, "--every") {
        definition.every_ms = every.parse().map_err(|_| Error::Refused("--every MS".into()))?;
    }
    definition.host_pids = option(options, "--pidns") == Some("host");
    if options.iter().any(|arg| arg == "-d") {
        if let Some(code) = launch::detached(&home, &definition, Begin::Fresh)? {
            return Ok(code);
        }
        say(&format!("{name}\n"));
        return Ok(0);
    }
    let json = options.iter().any(|arg| arg == "--json");
    launch::foreground(home, definition, Begin::Fresh, json)
}
