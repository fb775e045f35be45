//! Nobody else sees a store, and none that others could have written is believed.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{snap, store};
use crate::{Error, Options, Store};

fn all(dir: &Path, found: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode();
        found.push((entry.path().display().to_string(), mode));
        if entry.path().is_dir() {
            all(&entry.path(), found);
        }
    }
}

#[test]
fn files_and_directories_are_private_whatever_the_umask() {
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let (dir, store) = store();
    snap(&store, None, b"x");
    snap(&store, Some(1), b"y");
    store.put_workload(&crate::Workload::default()).unwrap();
    store.forget("web", &[1, 2]).unwrap();
    store.prune().unwrap();
    nix::sys::stat::umask(before);
    let mut found = Vec::new();
    all(dir.path(), &mut found);
    assert!(found.len() > 5);
    for (path, mode) in found {
        // 0o40000 is S_IFDIR.
        let wanted = if mode & 0o40000 != 0 { 0o700 } else { 0o600 };
        assert_eq!(mode & 0o7777, wanted, "{path}");
    }
}

#[test]
fn what_others_can_write_is_refused_unless_trusted() {
    for (part, mode) in
        [("", 0o770), ("packs", 0o702), ("manifests", 0o1777), ("manifests/web", 0o720)]
    {
        let (_dir, store) = store();
        snap(&store, None, b"x");
        let path = store.dir().join(part);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let opened = Store::open(store.dir(), Options::default());
        let error = opened.and_then(|store| store.read("web", 1)).unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{part}: {error}");
        let trusted = Options { trust: true, ..Options::default() };
        Store::open(store.dir(), trusted).unwrap().read("web", 1).unwrap();
    }
}

#[test]
fn an_empty_directory_is_closed_to_others_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    Store::create(dir.path(), Options::default()).unwrap();
    assert_eq!(mode(dir.path()), 0o755);
    let full = tempfile::tempdir().unwrap();
    fs::write(full.path().join("of_somebody"), b"x").unwrap();
    fs::set_permissions(full.path(), Permissions::from_mode(0o777)).unwrap();
    let error = Store::create(full.path(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::Exposed { .. }), "{error}");
    assert_eq!(mode(full.path()), 0o777);
}

#[test]
fn what_another_user_owns_is_refused() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: it gives a directory away");
    for part in ["", "packs", "manifests", "manifests/web"] {
        let (_dir, store) = store();
        snap(&store, None, b"x");
        std::os::unix::fs::chown(store.dir().join(part), Some(65_534), None).unwrap();
        let opened = Store::open(store.dir(), Options::default());
        let error = opened.and_then(|store| store.read("web", 1)).unwrap_err();
        assert!(matches!(error, Error::Foreign { owner: 65_534, .. }), "{part}: {error}");
    }
}
