//! Building the subjects: small programs in `tests/subjects/` that check themselves.
//!
//! A C or Go subject is built once for each version of its source, into the target directory; its
//! first line says how (`// cc: COMMAND`). Scripts are used where they are.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The executable of a subject.
pub(crate) fn built(file: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects").join(file);
    let text = read(&source);
    let Some(how) = text.lines().next().and_then(|line| line.strip_prefix("// cc: ")) else {
        return source;
    };
    let header = read(&source.with_file_name("subject.h"));
    let mut hasher = DefaultHasher::new();
    (&text, &header).hash(&mut hasher);
    let stem = file.replace('.', "-");
    let folder = target().join("subjects");
    let path = folder.join(format!("{stem}-{:016x}", hasher.finish()));
    if !path.exists() {
        fs::create_dir_all(&folder).expect("the target directory");
        build(how, &source, &path);
    }
    path
}

/// Builds under a name of its own, then links: tests that need the same subject do not meet, and none
/// finds that the executable it runs was replaced. A PID would be no such name: in its namespace, each
/// trial is process 1.
fn build(how: &str, source: &Path, path: &Path) {
    let folder = path.parent().expect("a file in the target directory");
    let drafts = tempfile::tempdir_in(folder).expect("a folder for the draft");
    let draft = drafts.path().join("draft");
    let mut words = how.split_whitespace();
    let tool = words.next().expect("`// cc:` is followed by a command");
    let mut command = Command::new(tool);
    command.args(words).arg("-o").arg(&draft).arg(source);
    // Libraries come last on a C compiler's command line; Go takes none.
    if tool != "go" {
        command.args(["-pthread", "-lrt", "-lutil"]);
    }
    command
        .env("GOCACHE", target().join("go-cache"))
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off");
    let output = command.output().unwrap_or_else(|error| panic!("{tool} is missing: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} does not build:\n{said}", source.display());
    if let Err(error) = fs::hard_link(&draft, path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        panic!("{}: {error}", path.display());
    }
}

fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("our own path");
    exe.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
