//! A snapshot for people: what it is, then a table for each part.
use std::fmt::Write as _;

use supervisor::definition::Definition;

use crate::json::show::{Area, File, Process, Show, Socket, Timer};
use crate::render::units::{millis, size, time};
use crate::render::{Align, Style, Table};

/// All of it.
pub(super) fn text(one: &store::Snapshot, what: &Definition, shown: &Show) -> String {
    let mut text = about(one, what);
    let mut part = |title: &str, table: Option<Table>| {
        if let Some(table) = table {
            let title = Style::of_stdout().bold(title);
            let _ = write!(text, "\n{title} ({})\n{}", table.len(), table.text());
        }
    };
    part("Processes", shown.tree.as_deref().map(tree));
    part("Memory", shown.memory.as_deref().map(memory));
    part("Files", shown.files.as_deref().map(files));
    part("Sockets", shown.sockets.as_deref().map(sockets));
    part("Timers", shown.timers.as_deref().map(timers));
    text
}

fn about(one: &store::Snapshot, what: &Definition) -> String {
    let meta = &one.meta;
    let words = what.command.iter().map(|word| String::from_utf8_lossy(word));
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("snapshot", format!("{}@{}", one.workload, one.seq));
    line("id", one.id.clone());
    line("command", words.collect::<Vec<_>>().join(" "));
    line("taken", format!("{} ({})", time(meta.taken_at), meta.trigger));
    if let Some(parent) = one.parent {
        line("parent", format!("{}@{parent}", one.workload));
    }
    line("pause", format!("{}, took {}", millis(meta.pause_ms), millis(meta.took_ms)));
    let (held, new) = (size(meta.memory_bytes), size(meta.changed_bytes));
    line(
        "memory",
        format!("{held}, {new} of it new ({}), {} stored", meta.tracker, size(one.stored_bytes)),
    );
    line("tree", format!("{} processes, {} threads", meta.processes, meta.threads));
    if !meta.tags.is_empty() {
        line("tags", meta.tags.join(", "));
    }
    line("state", format!("{}{}", one.state, if one.pinned { ", pinned" } else { "" }));
    meta.notes.iter().for_each(|note| line("note", note.clone()));
    text
}

fn tree(rows: &[Process]) -> Table {
    use Align::{Cut, Left, Right};
    let mut table = Table::new(&[
        ("PID", Right),
        ("PPID", Right),
        ("PGID", Right),
        ("SID", Right),
        ("STATE", Left),
        ("THREADS", Right),
        ("COMMAND", Cut),
    ]);
    for row in rows {
        let numbers = [row.pid, row.ppid, row.pgid, row.sid].map(|number| number.to_string());
        let rest = [row.state.to_owned(), row.threads.to_string(), row.command.clone()];
        table.row(numbers.into_iter().chain(rest));
    }
    table
}

fn memory(rows: &[Area]) -> Table {
    use Align::{Cut, Left, Right};
    let mut table = Table::new(&[
        ("PID", Right),
        ("AREA", Left),
        ("PERM", Left),
        ("SIZE", Right),
        ("RESIDENT", Right),
        ("NAME", Cut),
    ]);
    for row in rows {
        table.row([
            row.pid.to_string(),
            format!("{:x}-{:x}", row.start, row.end),
            row.perm.clone(),
            size(row.end - row.start),
            size(row.resident_bytes),
            row.name.clone(),
        ]);
    }
    table
}

fn files(rows: &[File]) -> Table {
    use Align::{Cut, Left, Right};
    let mut table = Table::new(&[
        ("PID", Right),
        ("FD", Right),
        ("KIND", Left),
        ("POSITION", Right),
        ("FLAGS", Right),
        ("TARGET", Cut),
    ]);
    for row in rows {
        table.row([
            row.pid.to_string(),
            row.fd.to_string(),
            row.kind.clone(),
            row.position.to_string(),
            format!("0{:o}", row.flags),
            row.target.clone(),
        ]);
    }
    table
}

fn sockets(rows: &[Socket]) -> Table {
    use Align::{Cut, Left, Right};
    let mut table = Table::new(&[
        ("PID", Right),
        ("FD", Right),
        ("FAMILY", Left),
        ("TYPE", Left),
        ("STATE", Left),
        ("LOCAL", Cut),
        ("PEER", Cut),
    ]);
    for row in rows {
        let words = [row.family, row.sort, row.state, &row.local, &row.peer].map(str::to_owned);
        table.row([row.pid.to_string(), row.fd.to_string()].into_iter().chain(words));
    }
    table
}

fn timers(rows: &[Timer]) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PID", Right),
        ("KIND", Left),
        ("WHICH", Right),
        ("CLOCK", Left),
        ("REMAINING", Right),
        ("INTERVAL", Right),
    ]);
    for row in rows {
        let which = row.fd.map(|fd| format!("fd {fd}"));
        table.row([
            row.pid.to_string(),
            row.kind.to_owned(),
            which.or(row.id.map(|id| id.to_string())).unwrap_or_default(),
            row.clock.clone(),
            millis(row.remaining_ms),
            millis(row.interval_ms),
        ]);
    }
    table
}
