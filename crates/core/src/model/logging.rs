//! Where the log goes.

use alloc::string::String;

/// `logfile`, `debugfile`, `logfacility`, `debug`, `syslogmsgfmt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// Normal messages.
    pub logfile: Option<String>,
    /// All messages, debugging included.
    pub debugfile: Option<String>,
    /// A syslog facility's name.
    pub facility: Option<String>,
    /// 0 is quiet.
    pub debug: u8,
    /// `log_badpack`
    pub bad_packets: bool,
    /// `syslogmsgfmt off`: lines of the files begin with the process and have the year.
    pub dated: bool,
}
