//! A server that speaks TLS too.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fmt, fs, io};

use super::PgServerBuilder;
use crate::machine::Account;

/// What a server shows to clients that ask for TLS, in PEM form.
#[derive(Clone)]
pub(super) struct PgTls {
    certificate: String,
    key: String,
}

impl PgTls {
    /// Writes the files where a server looks for them. It refuses a key that others may read.
    pub(super) fn write(&self, data: &Path, account: Option<Account>) -> io::Result<()> {
        for (name, text) in [("server.crt", &self.certificate), ("server.key", &self.key)] {
            let path = data.join(name);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            if let Some(account) = account {
                account.own(&path)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PgTls {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTls").finish_non_exhaustive()
    }
}

impl PgServerBuilder {
    /// Speaks TLS with clients that ask for it, with this certificate and its private key, in PEM form.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some(PgTls { certificate: certificate.into(), key: key.into() });
        self
    }
}
