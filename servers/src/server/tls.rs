//! A server that speaks TLS on a second port.

use std::path::Path;
use std::{fmt, fs, io};

use super::{RedisServer, RedisServerBuilder};

/// The certificate of a server and its requirements for clients on its TLS port, in PEM form.
#[derive(Clone)]
pub struct ServerTls {
    /// The authority that must have issued the clients' certificates.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Whether clients must show a certificate.
    pub ask_clients: bool,
}

impl ServerTls {
    /// Writes the files and returns the settings that name them.
    pub(super) fn settings(&self, port: u16, dir: &Path) -> io::Result<Vec<String>> {
        let mut settings = vec!["--tls-port".to_owned(), port.to_string()];
        for (name, file, text) in [
            ("ca-cert-file", "ca.pem", &self.ca),
            ("cert-file", "server.pem", &self.certificate),
            ("key-file", "server-key.pem", &self.key),
        ] {
            let file = dir.join(file);
            fs::write(&file, text)?;
            settings.extend([format!("--tls-{name}"), file.display().to_string()]);
        }
        let ask = if self.ask_clients { "yes" } else { "no" };
        settings.extend(["--tls-auth-clients".to_owned(), ask.to_owned()]);
        Ok(settings)
    }
}

impl fmt::Debug for ServerTls {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("ask_clients", &self.ask_clients).finish_non_exhaustive()
    }
}

impl RedisServerBuilder {
    /// Makes the server speak TLS on a second port too. A server that was built without TLS does
    /// not start then.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl RedisServer {
    /// The URL for clients with TLS, by this name or address of this machine, if the server was
    /// started with TLS.
    pub fn tls_url(&self, host: &str) -> Option<String> {
        let port = self.tls_port?;
        Some(match &self.password {
            Some(password) => format!("rediss://:{password}@{host}:{port}"),
            None => format!("rediss://{host}:{port}"),
        })
    }
}
