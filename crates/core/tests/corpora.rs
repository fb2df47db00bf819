//! The corpora of the fuzz targets, replayed without libFuzzer.

use std::{fs, path::Path};

#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "for the fuzz targets it is a library")]
mod targets;

/// Runs every file of a target's corpus through it.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a directory can be read to its end").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        println!("{}", file.display()); // shown when the check panics
        check(&fs::read(&file).expect("a corpus file can be read"));
    }
}

#[test]
fn authkeys() {
    replay("authkeys", targets::authkeys::check);
}

#[test]
fn frame() {
    replay("frame", targets::frame::check);
}

#[test]
fn ha_cf() {
    replay("ha_cf", targets::ha_cf::check);
}

#[test]
fn haresources() {
    replay("haresources", targets::haresources::check);
}

#[test]
fn native_frame() {
    replay("native_frame", targets::native_frame::check);
}

#[test]
fn ledger() {
    replay("ledger", targets::ledger::check);
}

#[test]
fn locum_toml() {
    replay("locum_toml", targets::locum_toml::check);
}

#[test]
fn serial_cutter() {
    replay("serial_cutter", targets::serial_cutter::check);
}
