//! TLS: how its options are passed to the client crate, and what a failed handshake means.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use redis::io::AsyncDNSResolver;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore};

use super::error::{is_closed, of_socket};
use crate::model::config::TlsOptions;

/// Checked options of a `rediss://` address.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    certificates: Option<TlsCertificates>,
    server_name: Option<String>,
}

impl Tls {
    /// Checks the options; the error names the one that cannot be used, and quotes no key.
    pub(crate) fn new(options: TlsOptions) -> Result<Self, String> {
        choose_crypto();
        let roots = options.ca.as_deref().map(roots).transpose()?;
        if let Some(certificate) = &options.certificate {
            check_key(&certificate.chain, &certificate.key)?;
        }
        if let Some(name) = &options.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            return Err(format!("server_name {name:?} is neither a host name nor an IP address"));
        }
        let client_tls = options.certificate.map(|certificate| ClientTlsConfig {
            client_cert: certificate.chain,
            client_key: certificate.key,
        });
        let own = roots.is_some() || client_tls.is_some();
        let certificates = own.then_some(TlsCertificates { client_tls, root_cert: options.ca });
        Ok(Self { certificates, server_name: options.server_name })
    }

    /// A client of the client crate.
    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        choose_crypto();
        let info = match (&self.server_name, info.addr()) {
            (Some(name), ConnectionAddr::TcpTls { port, .. }) => {
                let (host, port) = (name.clone(), *port);
                let named =
                    ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                info.set_addr(named)
            }
            _ => info,
        };
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// Where to connect, if the certificate must have another name.
    pub(crate) fn resolver(&self, server: &ConnectionAddr) -> Option<HostOfAddress> {
        match (&self.server_name, server) {
            (Some(_), ConnectionAddr::TcpTls { host, .. }) => Some(HostOfAddress(host.clone())),
            _ => None,
        }
    }

    /// The error of a failed attempt to connect, with words that say what to do.
    pub(crate) fn explained(&self, error: RedisError) -> RedisError {
        let said = match of_socket(&error) {
            Some(cause) => match cause.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(cause) => self.words(cause),
                None if is_closed(cause) => {
                    Some(format!("{NO_TLS}it closed the connection; {USE_PLAIN}"))
                }
                None => None,
            },
            None => None,
        };
        let said = said.or_else(|| {
            let seconds = DEADLINE.as_secs();
            let text = || format!("no connection within {seconds} s: {SILENT}");
            error.is_timeout().then(text)
        });
        said.map_or(error, |text| io::Error::other(text).into())
    }

    fn words(&self, cause: &rustls::Error) -> Option<String> {
        Some(match cause {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the server's certificate has another name than expected: {cause}; \
                 TlsOptions::server_name sets the expected name"
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => format!(
                "the server's certificate is not signed by a trusted authority: {}",
                match self.certificates.as_ref().is_some_and(|own| own.root_cert.is_some()) {
                    true => "no certificate of TlsOptions::ca_pem signed it",
                    false =>
                        "no root certificate of the system signed it; TlsOptions::ca_pem sets others",
                }
            ),
            rustls::Error::InvalidCertificate(_) => {
                format!("the server's certificate cannot be accepted: {cause}")
            }
            rustls::Error::AlertReceived(alert) => return self.refusal(*alert),
            rustls::Error::InvalidMessage(_) => {
                format!("{NO_TLS}its answer to the handshake is not TLS; {USE_PLAIN}")
            }
            _ => return None,
        })
    }

    /// The server ended the handshake.
    fn refusal(&self, alert: AlertDescription) -> Option<String> {
        let own = self.certificates.as_ref().is_some_and(|own| own.client_tls.is_some());
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure if !own => {
                Some(format!(
                    "the server asks for a client certificate ({alert:?}); \
                     TlsOptions::client_certificate_pem sets one"
                ))
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
                if own =>
            {
                Some(format!("the server does not accept the client certificate ({alert:?})"))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Resolves the host of the address, whatever name the server's certificate must have.
pub(crate) struct HostOfAddress(String);

impl AsyncDNSResolver for HostOfAddress {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _name: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((self.0.as_str(), port)).await?;
            let found = found.collect::<Vec<_>>().into_iter();
            Ok(Box::new(found) as Box<dyn Iterator<Item = SocketAddr> + Send + 'a>)
        })
    }
}

/// Installs a TLS provider for the process, unless the application has chosen one. Without a
/// provider, connecting panics.
fn choose_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have installed one meanwhile, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "ca_pem")? {
        let unusable = |error| format!("a certificate of ca_pem cannot be used: {error}");
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    // The parser's own text may quote lines, which may belong to a key.
    let read = read.map_err(|_| format!("{what} is not in PEM form"))?;
    match read.is_empty() {
        true => Err(format!("{what} holds no certificate in PEM form")),
        false => Ok(read),
    }
}

fn check_key(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let chain = certificates(chain, "the certificate of client_certificate_pem")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NO_KEY.to_owned())?;
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
    match config.with_client_auth_cert(chain, key) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err("the key of client_certificate_pem does not fit its certificate".to_owned())
        }
        Err(error) => Err(format!("client_certificate_pem cannot be used: {error}")),
    }
}

/// How long one attempt to connect with TLS may take: shorter than the deadline for all steps of
/// connecting, so that the error names this step.
pub(crate) const DEADLINE: Duration = Duration::from_secs(4);
const NO_TLS: &str = "perhaps the server does not speak TLS: ";
/// The host may be out of reach, so this does not advise to send a password without TLS.
const SILENT: &str = "the host does not answer, or the server does not speak TLS";
const USE_PLAIN: &str = "an address without TLS begins with redis://";
const NO_KEY: &str =
    "the key of client_certificate_pem is not a private key in PEM form without a passphrase";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_host_is_not_taken_for_a_server_without_tls() {
        let explained = |kind: io::ErrorKind| {
            Tls::default().explained(io::Error::from(kind).into()).to_string()
        };
        let text = explained(io::ErrorKind::TimedOut);
        assert!(text.contains("no connection within 4 s: the host does not answer, or"), "{text}");
        assert!(!text.contains("redis://"), "{text}");
        let text = explained(io::ErrorKind::ConnectionReset);
        assert!(text.contains(USE_PLAIN), "{text}");
    }
}
