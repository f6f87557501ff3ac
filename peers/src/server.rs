//! A private Redis for one measurement.

use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::peers::Failure;

/// How long a server may take to answer.
const READY: Duration = Duration::from_secs(10);

/// Names of the server program. Debian's tools packages install it under the last two.
const NAMES: [&str; 4] = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"];

/// Starts the server, prints its process id, and kills it and removes its folder when the input is
/// closed, which also happens when the benchmark crashes.
const GUARD: &str = r#"trap '' INT; dir=$1; shift
"$@" >/dev/null & echo $!
read -r line; kill -9 $!; wait; rm -r "$dir""#;

/// A server on a free port of 127.0.0.1, without persistence. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    guard: Child,
    port: u16,
    version: String,
}

impl Server {
    pub(crate) fn start() -> Result<Self, Failure> {
        let found = find()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = env::temp_dir().join(format!("streamjobs-peers-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir)?;
        // The program decides by its name whether it is a server.
        let program = dir.join("redis-server");
        symlink(found, &program)?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).args([&dir, &program]);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&dir);
        let guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut server = Self { guard, port, version: String::new() };
        server.ready()?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The product and the version that the server reports.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Waits until the process on the port is the one that was started, and reads its version.
    fn ready(&mut self) -> Result<(), Failure> {
        let output = self.guard.stdout.take().ok_or("the server's guard has no output")?;
        let mut pid = String::new();
        BufReader::new(output).read_line(&mut pid)?;
        let began = Instant::now();
        while began.elapsed() < READY {
            let info = self.info().unwrap_or_default();
            if field(&info, "process_id") == Some(pid.trim()) {
                let valkey =
                    field(&info, "valkey_version").map(|version| format!("Valkey {version}"));
                let redis = || format!("Redis {}", field(&info, "redis_version").unwrap_or("?"));
                self.version = valkey.unwrap_or_else(redis);
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Err(format!("the server did not answer within {READY:?}").into())
    }

    fn info(&self) -> redis::RedisResult<String> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd("INFO").arg("server").query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // There is no way to handle a failure here.
        let _ended = self.guard.wait();
    }
}

/// The value of a field of an `INFO` reply.
fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

/// The program that `STREAMJOBS_REDIS_SERVER` names, else one on the `PATH`.
fn find() -> io::Result<PathBuf> {
    if let Some(path) = env::var_os("STREAMJOBS_REDIS_SERVER").filter(|path| !path.is_empty()) {
        return std::path::absolute(path);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).collect::<Vec<_>>();
    let installed =
        |name: &&str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    NAMES.iter().find_map(installed).ok_or_else(|| {
        let advice = "no redis-server: install redis-tools, or set STREAMJOBS_REDIS_SERVER";
        io::Error::new(io::ErrorKind::NotFound, advice)
    })
}
