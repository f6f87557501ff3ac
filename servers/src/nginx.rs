//! A private nginx in front of a server on this machine.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs};

use crate::eventually;
use crate::machine::{
    Ending, Guardian, Missing, ServerError, can_download, download, folder, is_ours, is_program,
    libraries, on_free_port, which,
};

static NGINX: Missing = Missing {
    program: "nginx",
    variable: "STREAMJOBS_NGINX",
    advice: "run `sudo apt-get install nginx` (Debian, Ubuntu), `brew install nginx` (macOS), \
        `sudo dnf install nginx` (Fedora), `sudo apk add nginx` (Alpine) or \
        `sudo pacman -S nginx` (Arch), or set STREAMJOBS_NGINX to the program's path",
    outcome: Mutex::new(None),
};

/// How long nginx may take until it listens, on a machine that is busy with other things.
const READY: Duration = Duration::from_secs(10);

/// A private nginx on a port of its own, which listens on 127.0.0.1. It ends, and its folder is
/// removed, when this is dropped and when this process ends.
#[derive(Debug)]
pub struct Nginx {
    guardian: Guardian,
    port: u16,
}

impl Nginx {
    /// Starts nginx with its default settings, and with these lines in its only `server` block:
    /// `location` blocks with `proxy_pass`.
    ///
    /// # Errors
    ///
    /// If there is no nginx and none can be downloaded, or if it does not start.
    pub fn start(locations: &str) -> Result<Self, ServerError> {
        let program = Program::find_or_install()?;
        on_free_port("Address already in use", |port| {
            let words = |dir: &Path| {
                let config = dir.join("nginx.conf");
                fs::write(&config, configuration(dir, port, locations))?;
                Ok(program.command_line(dir, &config))
            };
            let guardian = Guardian::start(None, &Ending::KILL, words)?;
            let mut nginx = Self { guardian, port };
            nginx.ready().map(|()| nginx)
        })
    }

    /// The port it listens on, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn ready(&mut self) -> Result<(), ServerError> {
        let (port, guardian) = (self.port, &mut self.guardian);
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let answered = eventually::poll(READY, || match guardian.alive() {
            true => listens().then_some(true),
            false => Some(false),
        });
        match answered {
            Some(true) => Ok(()),
            Some(false) => Err(ServerError::Ended { log: guardian.log() }),
            None => Err(ServerError::Silent { log: guardian.log() }),
        }
    }
}

/// One process, with its files in a folder of its own; everything else is nginx's default.
fn configuration(dir: &Path, port: u16, locations: &str) -> String {
    let dir = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\n{temporary}  access_log off;\n  server {{\n    \
         listen 127.0.0.1:{port};\n{locations}\n  }}\n}}\n"
    )
}

/// The program, and the libraries that were downloaded with it.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    libraries: OsString,
}

impl Program {
    /// The program that the environment names, or else an installed one, or else a downloaded one.
    fn find_or_install() -> Result<Self, ServerError> {
        let variable = NGINX.variable;
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let path = std::path::absolute(path)?;
            return match is_program(&path) {
                true => Ok(Self { path, libraries: OsString::new() }),
                false => Err(ServerError::NotAProgram { variable, path, wanted: "program" }),
            };
        }
        let installed = || Some(Self { path: which("nginx")?, libraries: OsString::new() });
        NGINX.find_or_install(|| installed().or_else(Self::fetched), install)
    }

    /// The program that an earlier call of any process downloaded, if it runs.
    fn fetched() -> Option<Self> {
        let folder = folder("nginx").ok()?;
        is_ours(&folder)?.then_some(())?;
        let program = Self { path: folder.join("usr/sbin/nginx"), libraries: libraries(&folder) };
        let mut command = Command::new(&program.path);
        let runs = command.arg("-v").env("LD_LIBRARY_PATH", &program.libraries).output();
        runs.is_ok_and(|output| output.status.success()).then_some(program)
    }

    fn command_line(&self, dir: &Path, config: &Path) -> Vec<OsString> {
        let mut words = Vec::<OsString>::new();
        if !self.libraries.is_empty() {
            let mut libraries = OsString::from("LD_LIBRARY_PATH=");
            libraries.push(&self.libraries);
            words.extend(["env".into(), libraries]);
        }
        words.push(self.path.clone().into());
        // Messages from before the configuration is read would otherwise go to a folder of the
        // system.
        let flags = ["-e".into(), "stderr".into(), "-p".into(), dir.into(), "-c".into()];
        words.extend(flags);
        words.push(config.into());
        words
    }
}

/// Downloads nginx, or installs it if a download is not possible.
fn install() -> Result<(), ServerError> {
    if can_download() {
        let folder = folder("nginx")?;
        NGINX.announce(&format!("downloading Debian's into {}", folder.display()));
        return download(&NGINX, ["nginx", ""], &folder);
    }
    if which("brew").is_some() {
        NGINX.announce("installing nginx with brew");
        return NGINX.run(&["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "nginx"]);
    }
    Err(NGINX.not_found())
}
