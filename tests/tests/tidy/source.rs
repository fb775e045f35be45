//! The sources as text: which lines are product, and what of them is code.
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose sources are product, not test.
pub(crate) const CRATES: &[&str] = &["engine", "store", "policies", "supervisor", "cli"];

/// A source file.
pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
    /// For each line, whether it is product: not part of an item that is `#[cfg(test)]`.
    pub(crate) product: Vec<bool>,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<String> = text.lines().map(String::from).collect();
        let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let product = without_test_items(&lines);
        Self { path, lines, product }
    }

    pub(crate) fn stem(&self) -> &str {
        Path::new(&self.path).file_stem().and_then(|stem| stem.to_str()).unwrap()
    }

    /// Whether all of it is compiled for tests only: a module beside what it tests.
    pub(crate) fn is_test(&self) -> bool {
        self.stem() == "tests"
            || self.path.contains("/tests/")
            || self.stem() == "bench"
            || self.stem() == "here"
    }

    /// Lines of product code without comments and strings, with their numbers.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, String)> {
        let numbered = self.lines.iter().enumerate().filter(|(at, _)| self.product[*at]);
        numbered.map(|(at, line)| (at + 1, without_words(line)))
    }

    /// The numbers of code lines where `pattern` stands.
    pub(crate) fn offences(&self, pattern: &str, wrong: &str) -> Vec<String> {
        let found = self.code().filter(|(_, line)| line.contains(pattern));
        found.map(|(at, _)| format!("{}:{at}: {wrong}", self.path)).collect()
    }
}

/// An item ends with the line that is indented like its attribute and is a closing brace, or with a
/// semicolon on its first line.
fn without_test_items(lines: &[String]) -> Vec<bool> {
    let mut product = vec![true; lines.len()];
    for at in 0..lines.len() {
        if lines[at].trim_start() != "#[cfg(test)]" {
            continue;
        }
        let indent = lines[at].len() - lines[at].trim_start().len();
        let end = |line: &String| *line == format!("{}}}", " ".repeat(indent));
        let one_line = lines.get(at + 1).is_some_and(|line| line.ends_with(';'));
        let length = lines[at..].iter().position(end).filter(|_| !one_line).unwrap_or(1);
        product.iter_mut().skip(at).take(length + 1).for_each(|line| *line = false);
    }
    product
}

/// A line without what is in quotes or after `//`. Strings over several lines are not known here.
fn without_words(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(one) = chars.next() {
        match one {
            '\\' if quoted => drop(chars.next()),
            '\'' if !quoted && chars.peek() == Some(&'"') => drop(chars.nth(1)),
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(one),
        }
    }
    code
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

pub(crate) fn sources(krate: &str) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    gather(&root.join(krate).join("src"), &mut files);
    assert!(!files.is_empty(), "{krate} has no sources: has it moved?");
    files.iter().map(|path| Source::read(&root, path)).collect()
}

pub(crate) fn product() -> Vec<Source> {
    CRATES.iter().flat_map(|krate| sources(krate)).filter(|source| !source.is_test()).collect()
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

#[test]
fn words_and_comments_are_not_code() {
    assert_eq!(without_words(r#"let a = "unsafe { }"; // .unwrap()"#), "let a = ; ");
    assert_eq!(without_words(r#"a('"', b) "\" x" c"#), "a(, b)  c");
}
