//! The voice: what people see of a running daemon.
