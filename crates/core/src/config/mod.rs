//! The three files of `/etc/ha.d`.
