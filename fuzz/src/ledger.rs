//! A ledger's file: any bytes are read or refused. A content that was read is written and read again the same. The
//! first byte chooses the form of the rest: a whole file (refused by its checksum, except those of the corpus), or
//! lines whose checksum is added here.

use locum_core::native::{ledger::LedgerContent, wire::members::MemberTable};
use sha2::{Digest as _, Sha256};

pub fn check(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let members = MemberTable::new(["web1", "web2", "third"].map(String::from));
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { summed(rest) };
    match LedgerContent::read(&bytes, &members) {
        Err(fault) => assert!(!fault.to_string().contains(char::is_control), "{fault}"),
        Ok(content) => {
            let again = LedgerContent::read(content.write(&members).as_bytes(), &members)
                .expect("what we write we read");
            let parts = |content: LedgerContent| (content.generation, content.sequence, content.durable);
            assert_eq!(parts(again), parts(content));
        }
    }
}

/// These lines, and a last one with a checksum over all before it.
fn summed(lines: &[u8]) -> Vec<u8> {
    let mut bytes = lines.to_vec();
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.extend_from_slice(format!("sha256 {sum}\n").as_bytes());
    bytes
}
