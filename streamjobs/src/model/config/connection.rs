//! How a client connects, beside the address.

#[cfg(feature = "tls")]
use super::tls::TlsOptions;

/// What a client was told about its connections beside the address.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionOptions {
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsOptions>,
}
