//! `locum demo-httpd start|stop|status`, hidden: the demo's web server, called like a resource script. It serves one
//! page with the name of the node that serves it.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use locum_lab::clock::await_some;
use locum_sys::process::Process;

/// The name of the hidden command.
pub const COMMAND: &str = "demo-httpd";

const READY: &str = "ready\n";
const PORT: u16 = 80;
const PID_FILE: &str = "/run/httpd.pid";
/// "Not running", as a resource script says it (Linux Standard Base).
const NOT_RUNNING: u8 = 3;
/// A client that sends nothing for this time is disconnected.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request that are read at most.
const REQUEST_BYTES_MAX: u64 = 8 * 1024;
/// A server that has not stopped within this time after the request will not stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The operation of the hidden command.
#[derive(Debug, Args)]
pub struct DemoHttpdOptions {
    #[arg(value_enum)]
    operation: Operation,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Operation {
    Start,
    Stop,
    Status,
    /// Serve in the foreground, as `start` does in the background.
    Serve,
}

/// # Errors
/// The server cannot be started or stopped.
pub fn run(options: &DemoHttpdOptions) -> anyhow::Result<ExitCode> {
    match options.operation {
        Operation::Start => start(),
        Operation::Stop => stop(),
        Operation::Status => Ok(status()),
        Operation::Serve => serve(),
    }
}

/// Starts the server and returns when it answers.
fn start() -> anyhow::Result<ExitCode> {
    if running().is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut server = Command::new(program);
    // In a process group of its own, so that the server survives the end of the script's.
    server.args([COMMAND, "serve"]).process_group(0);
    server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = server.spawn().context("start the server")?;
    let mut word = String::new();
    if let Some(output) = server.stdout.take() {
        BufReader::new(output).read_line(&mut word).context("wait for the server")?;
    }
    if word == READY { Ok(ExitCode::SUCCESS) } else { bail!("the server did not start: {word}") }
}

fn stop() -> anyhow::Result<ExitCode> {
    if let Some(server) = running() {
        server.terminate().context("end the server")?;
        if await_some(STOP_LIMIT, || running().is_none().then_some(())).is_none() {
            bail!("the server does not end");
        }
    }
    let _ = fs::remove_file(PID_FILE);
    Ok(ExitCode::SUCCESS)
}

fn status() -> ExitCode {
    let running = running().is_some();
    outln!("{}", if running { "running" } else { "stopped" });
    if running { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) }
}

fn running() -> Option<Process> {
    let pid: u32 = fs::read_to_string(PID_FILE).ok()?.trim().parse().ok()?;
    // The process number may belong to another process by now.
    let command = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    let ours = command.split(|&byte| byte == 0).any(|word| word == COMMAND.as_bytes());
    ours.then(|| Process::open(pid).ok())?
}

fn serve() -> anyhow::Result<ExitCode> {
    let listener = prepare().inspect_err(|error| out!("{error}")).context("serve")?;
    out!("{READY}");
    io::stdout().flush().context("say that the server is ready")?;
    let page = format!("hello world from {}\n", crate::files::host_name());
    for client in listener.incoming().flatten() {
        let page = page.clone();
        // A client that disconnects early is normal.
        let _ = thread::Builder::new().spawn(move || answer(client, &page));
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    fs::write(PID_FILE, format!("{}\n", std::process::id()))?;
    Ok(listener)
}

fn answer(client: TcpStream, page: &str) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(Read::take(&client, REQUEST_BYTES_MAX));
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head =
        format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", page.len());
    (&client).write_all(format!("{head}{page}").as_bytes())
}
