//! Prints text for people, and ignores write errors. The standard macros would panic then, and the daemon would exit
//! with the code of a program fault.

/// Prints a line on standard output, as `println!`.
macro_rules! outln {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stdout(), $($text)*);
    }};
}

/// Prints text on standard output, as `print!`.
macro_rules! out {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::write!(::std::io::stdout(), $($text)*);
    }};
}

/// Prints a line on standard error, as `eprintln!`.
macro_rules! errln {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stderr(), $($text)*);
    }};
}

/// Prints text on standard error, as `eprint!`.
macro_rules! err {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::write!(::std::io::stderr(), $($text)*);
    }};
}
