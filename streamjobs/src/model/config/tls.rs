//! How a client checks the server's certificate, and which certificate it presents itself.

use std::fmt;

/// How a connection to a `rediss://` address is secured.
///
/// By default, the operating system's root certificates decide which servers are trusted, the host of the address is
/// the name that the server's certificate must have, and the client presents no certificate. `Debug` never shows a
/// key.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use streamjobs::Client;
/// use streamjobs::config::TlsOptions;
///
/// let tls = TlsOptions::new()
///     .ca_pem(std::fs::read("ca.pem")?)
///     .client_certificate_pem(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?);
/// let client = Client::builder("rediss://redis.internal:6380").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct TlsOptions {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) certificate: Option<ClientCertificate>,
    pub(crate) server_name: Option<String>,
}

/// A certificate with its chain, and its private key.
#[derive(Clone)]
pub(crate) struct ClientCertificate {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl TlsOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The certificates of the only authorities that are trusted, one or more in PEM form. By default, those of the
    /// operating system are trusted.
    ///
    /// Connecting fails when the text holds no certificate, or when none of them signed the
    /// server's certificate.
    pub fn ca_pem(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(certificates.into());
        self
    }

    /// The certificate that the client presents, followed by the intermediate certificates, and its
    /// private key without a passphrase, both in PEM form. By default the client presents none, and
    /// a server that requires one (`tls-auth-clients yes`) refuses the client.
    ///
    /// Connecting fails when the certificate or the key is missing, or when the key does not belong
    /// to the certificate.
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificate = Some(ClientCertificate { chain: certificate.into(), key: key.into() });
        self
    }

    /// The host name or IP address that the server's certificate must have: by default the host of the address. It is
    /// for addresses that the certificate does not name, such as the address of a tunnel.
    ///
    /// The client still connects to the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.is_some())
            .field("client_certificate", &self.certificate.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
