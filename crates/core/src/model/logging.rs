//! The settings of the log.

use alloc::string::String;

/// The directives `logfile`, `debugfile`, `logfacility`, `debug`, `log_badpack` and `syslogmsgfmt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The file for normal messages.
    pub logfile: Option<String>,
    /// The file for all messages, debugging included.
    pub debugfile: Option<String>,
    /// The name of a syslog facility.
    pub facility: Option<String>,
    /// The debug level; 0 is quiet.
    pub debug: u8,
    /// `log_badpack`: whether frames with a wrong key are logged.
    pub bad_packets: bool,
    /// `syslogmsgfmt off`: lines in files begin with the process and contain the year.
    pub dated: bool,
}
