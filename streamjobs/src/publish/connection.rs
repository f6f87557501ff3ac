//! The settings of a client that say how it connects.

use super::client::ClientBuilder;
#[cfg(feature = "tls")]
use crate::model::config::TlsOptions;

impl ClientBuilder {
    /// How connections to a `rediss://` address are secured; other addresses cannot be used with it.
    ///
    /// By default, the operating system's root certificates decide which servers are trusted.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.connection.tls = Some(options);
        self
    }
}
