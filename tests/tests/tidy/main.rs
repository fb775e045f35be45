//! The rules of style that a program can check, over the sources as text.
//!
//! Where rustc and clippy hold a rule (lints of the workspace), it is not repeated here. Offenders
//! are all named at once: `FILE:LINE: what is wrong`.

mod dependencies;
mod source;

use std::collections::BTreeSet;
use std::fs;

use self::source::{CRATES, Source, product, root, sources};

/// Modules of `engine/src/object/` that are no kinds.
const NOT_KINDS: &[&str] = &["bench", "context", "evidence"];

#[track_caller]
fn none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn unsafe_stays_in_its_two_folders() {
    let inside = |path: &str| {
        ["engine/src/sys/", "engine/src/arch/"].iter().any(|folder| path.starts_with(folder))
            || ["engine/src/sys.rs", "engine/src/arch.rs"].contains(&path)
    };
    let outside = product().into_iter().filter(|source| !inside(&source.path));
    let offenders: Vec<String> = outside
        .flat_map(|source| {
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"]
                .iter()
                .flat_map(|pattern| source.offences(pattern, "unsafe"))
                .collect::<Vec<_>>()
        })
        .collect();
    none("unsafe is for engine/src/sys and engine/src/arch", &offenders);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut offenders = Vec::new();
    for source in sources("engine") {
        for (at, _) in source
            .code()
            .filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe impl"))
        {
            // The comment may stand before the statement that the block is part of.
            let above = &source.lines[at.saturating_sub(12)..at];
            if !above.iter().any(|line| line.contains("SAFETY:")) {
                offenders.push(format!("{}:{at}: no SAFETY comment", source.path));
            }
        }
    }
    none("an unsafe block discharges its obligations in words", &offenders);
}

#[test]
fn libraries_do_not_panic() {
    let patterns =
        [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!("];
    let offenders: Vec<String> = product()
        .iter()
        .flat_map(|source| {
            patterns
                .iter()
                .flat_map(|pattern| source.offences(pattern, pattern))
                .collect::<Vec<_>>()
        })
        .collect();
    none("what cannot be is made unrepresentable, or an Error", &offenders);
}

#[test]
fn files_stay_short() {
    let lengths = product().into_iter().map(|source| (source.code().count(), source.path));
    let long = lengths.filter(|(length, _)| *length > 600);
    let offenders: Vec<String> =
        long.map(|(length, path)| format!("{path}: {length} lines")).collect();
    none("at most 600 lines without tests", &offenders);
}

#[test]
fn functions_stay_short() {
    let offenders: Vec<String> = product().iter().flat_map(long_functions).collect();
    none("at most 70 lines in a function", &offenders);
}

/// Functions end at the brace that is indented like their first line: rustfmt sees to that.
fn long_functions(source: &Source) -> Vec<String> {
    let lines = &source.lines;
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line).filter(|_| source.product[at]) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length =
            lines[at..].iter().position(|line| *line == end).map_or(1, |length| length + 1);
        let one_line = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
        if !one_line && length > 70 {
            long.push(format!("{}:{}: {name} has {length} lines", source.path, at + 1));
        }
    }
    long
}

fn function_name(line: &str) -> Option<&str> {
    let words =
        ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "];
    let mut rest = line.trim_start();
    while let Some(word) = words.iter().find(|word| rest.starts_with(**word)) {
        rest = &rest[word.len()..];
    }
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[test]
fn only_arch_knows_the_machine() {
    let elsewhere =
        product().into_iter().filter(|source| !source.path.starts_with("engine/src/arch"));
    let offenders: Vec<String> =
        elsewhere.flat_map(|source| source.offences("target_arch", "cfg(target_arch)")).collect();
    none("what depends on the machine is in engine/src/arch", &offenders);
}

#[test]
fn only_the_cli_prints() {
    let mut offenders = Vec::new();
    for krate in CRATES.iter().filter(|krate| **krate != "cli") {
        for source in sources(krate).iter().filter(|source| !source.is_test()) {
            for pattern in ["println!(", "print!(", "eprintln!(", "eprint!("] {
                offenders.extend(source.offences(pattern, pattern));
            }
        }
    }
    none("libraries return or trace, the cli prints", &offenders);
}

#[test]
fn no_async_outside_the_supervisor() {
    let offenders: Vec<String> = ["engine", "store", "policies"]
        .iter()
        .flat_map(|krate| sources(krate))
        .flat_map(|source| {
            [source.offences("async fn", "async"), source.offences("tokio::", "tokio")].concat()
        })
        .collect();
    none("ptrace obeys one thread, and decisions need no runtime", &offenders);
}

#[test]
fn decisions_touch_nothing() {
    let pure = sources("policies").into_iter().chain(
        sources("engine").into_iter().filter(|source| source.path.starts_with("engine/src/plan")),
    );
    let patterns =
        ["std::fs", "SystemTime::now", "Instant::now", "Utc::now", "Local::now", "nix::", "tokio"];
    let offenders: Vec<String> = pure
        .flat_map(|source| {
            patterns
                .iter()
                .flat_map(|pattern| source.offences(pattern, pattern))
                .collect::<Vec<_>>()
        })
        .collect();
    none("policies and plan import neither files, clocks nor nix", &offenders);
}

#[test]
fn every_module_opens_with_prose() {
    let all = product().into_iter().chain(sources("tests"));
    let offenders: Vec<String> = all
        .filter(|source| !source.lines.first().is_some_and(|line| line.starts_with("//! ")))
        .map(|source| source.path)
        .collect();
    none("a reader learns at once what a file is", &offenders);
}

#[test]
fn notes_to_self_have_an_issue() {
    let mut offenders = Vec::new();
    for source in product().iter().chain(sources("tests").iter()) {
        for (at, line) in source.lines.iter().enumerate() {
            for word in ["TODO", "FIXME", "XXX"] {
                if line.split(|one: char| !one.is_alphanumeric()).any(|one| one == word)
                    && !line.contains('#')
                {
                    offenders.push(format!("{}:{}: {word}", source.path, at + 1));
                }
            }
        }
    }
    none("what is to be done is an issue", &offenders);
}

/// Kinds are files of `engine/src/object/`, lines of its table, subjects, and rows of SUPPORT.md.
#[test]
fn every_kind_is_listed_tried_and_documented() {
    let table = fs::read_to_string(root().join("engine/src/object.rs")).unwrap();
    let support = fs::read_to_string(root().join("SUPPORT.md")).unwrap_or_default();
    let support = support.to_lowercase().replace(['-', ' '], "_");
    let subjects = kinds_with_subjects();
    let mut offenders = Vec::new();
    for source in sources("engine") {
        let direct =
            source.path.strip_prefix("engine/src/object/").is_some_and(|rest| !rest.contains('/'));
        let kind = source.stem();
        if !direct
            || NOT_KINDS.contains(&kind)
            || !source.lines.iter().any(|line| line.starts_with("impl Object for"))
        {
            continue;
        }
        if !table.contains(&format!("kind::<{kind}::")) {
            offenders.push(format!("{}: not in KINDS", source.path));
        }
        if !support.contains(kind) {
            offenders.push(format!("{}: `{kind}` is not in SUPPORT.md", source.path));
        }
        if !subjects.contains(kind) {
            offenders
                .push(format!("{}: no subject in tests/subjects is for `{kind}`", source.path));
        }
    }
    none("one kind, one file, one line, one subject, one row", &offenders);
}

/// A subject is for the kind of its own name, and for those in its line `// Kinds: ...`.
fn kinds_with_subjects() -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/subjects")).unwrap().flatten() {
        let path = entry.path();
        kinds.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        let text = fs::read_to_string(&path).unwrap();
        let lists = text.lines().filter_map(|line| line.strip_prefix("// Kinds: "));
        kinds.extend(lists.flat_map(|list| list.split(", ")).map(String::from));
    }
    kinds
}
