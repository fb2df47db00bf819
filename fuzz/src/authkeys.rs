//! `authkeys`: any bytes give a set of keys, or an error that contains no word of the file.

use locum_core::config::{failed, keys};

pub fn check(input: &[u8]) {
    let (keys, diags) = keys(input);
    assert_eq!(keys.is_none(), failed(&diags));
    assert!(diags.iter().all(|diag| diag.text.is_empty() && !diag.to_string().contains(char::is_control)));
    if let Some(keys) = keys {
        assert!(keys.all().iter().any(|key| key.number == keys.signing().number));
    }
    // A word that can only be a secret must not appear in a diagnostic.
    let secret = b"Qq-secret-of-the-cluster";
    let with_secret = [input, secret, b"\n", input].concat();
    let said = format!("{:?}", locum_core::config::keys(&with_secret).1);
    assert!(!said.contains("Qq-secret"), "{said}");
}
