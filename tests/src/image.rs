//! Images that nobody would dump: a good one, with something about it changed.

use std::path::Path;

use engine::image::{decode, encode};
use engine::inventory::Inventory;
use store::{Compression, NewSnapshot, Options, Store};

/// The workload's name in images of `dump`.
const IMAGE: &str = "image";

/// Writes a copy of the image in `from` into `to`, its inventory changed by `alter`, checksums and
/// all: what a dump on a machine that we do not have would have written.
pub fn altered(from: &Path, to: &Path, alter: impl FnOnce(&mut Inventory)) {
    let options = Options { catalog: false, ..Options::default() };
    let source = Store::open(from, options).expect("an image");
    let seq = *source.numbers(IMAGE).expect("its folder").last().expect("its snapshot");
    let reader = source.read(IMAGE, seq).expect("a good image");
    let mut inventory = decode(&reader.record().expect("its record")).expect("a good record");
    alter(&mut inventory);
    let target = Store::create(to, options).expect("a new store");
    let new =
        NewSnapshot { workload: IMAGE.into(), parent: None, compression: Compression::Waiting };
    let mut writer = target.begin(new).expect("a writer");
    writer.definition(reader.definition()).expect("its definition");
    for stream in reader.streams().expect("its streams") {
        reader
            .stream(&stream.name, &mut |at, bytes| Ok(writer.stream(&stream.name, at, bytes)?))
            .expect("its bytes");
    }
    writer.record(&encode(&inventory)).expect("the changed record");
    writer.commit(reader.snapshot().meta.clone()).expect("a snapshot");
}
