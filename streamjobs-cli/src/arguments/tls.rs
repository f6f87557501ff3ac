//! How a connection to a `rediss://` address is secured.

use std::path::PathBuf;

use clap::Args;

/// The files and names of TLS. Without any of them, the system's root certificates decide.
#[derive(Args, Debug)]
pub(crate) struct Tls {
    /// With rediss://, trust only the authorities in this PEM file.
    #[arg(long, global = true, value_name = "FILE", env = "STREAMJOBS_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// With rediss://, show this certificate; --tls-key has its key.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STREAMJOBS_TLS_CERT",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, a PEM file without a passphrase.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STREAMJOBS_TLS_KEY",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// With rediss://, expect this name in the server's certificate.
    #[arg(long, global = true, value_name = "NAME", env = "STREAMJOBS_TLS_SERVER_NAME")]
    pub(crate) tls_server_name: Option<String>,
}
