//! What is printed for people. Where it cannot be, nobody is there to be told: the standard macros would panic, and a
//! daemon's exit code would be that of a fault in the program.

/// A line on standard output, as `println!`.
macro_rules! outln {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stdout(), $($text)*);
    }};
}

/// Text on standard output, as `print!`.
macro_rules! out {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::write!(::std::io::stdout(), $($text)*);
    }};
}

/// A line on standard error, as `eprintln!`.
macro_rules! errln {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stderr(), $($text)*);
    }};
}

/// Text on standard error, as `eprint!`.
macro_rules! err {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::write!(::std::io::stderr(), $($text)*);
    }};
}
