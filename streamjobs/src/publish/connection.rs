//! The settings of a client that say how it connects.

use super::client::ClientBuilder;
use crate::model::cause::BoxError;
#[cfg(feature = "tls")]
use crate::model::config::TlsOptions;
use crate::model::config::{Credentials, CredentialsProvider};

impl ClientBuilder {
    /// Sets the function that returns the credentials for a login, for passwords and tokens that change. It is called
    /// for each connection that is opened: a few times when a runtime starts, and again after each connection that
    /// broke. Open connections stay as they are.
    ///
    /// By default, user and password come from the address. With this function, the address must have no password.
    ///
    /// The function has 3 seconds. When it fails, panics or takes longer, the attempt to connect fails with an error
    /// that says so and is repeated after the usual pause, 0.2 to 2 seconds. The text of the function's error is part
    /// of that error and of log lines; the last password that it returned is cut out of the text. After a login that
    /// the server refused, the next attempt is made 10 seconds later, because servers count refused logins.
    ///
    /// ```no_run
    /// # async fn secret(name: &str) -> Result<String, std::io::Error> { Ok(name.to_owned()) }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::Client;
    /// use streamjobs::config::Credentials;
    ///
    /// let client = Client::builder("redis://redis.internal").credentials(|| async {
    ///     Ok::<_, std::io::Error>(Credentials::new("worker", secret("redis-worker").await?))
    /// });
    /// let client = client.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials<F, R, E>(mut self, provide: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.connection.credentials = Some(CredentialsProvider::new(provide));
        self
    }

    /// How connections to a `rediss://` address are secured; other addresses cannot be used with these options.
    ///
    /// By default, the operating system's root certificates decide which servers are trusted.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.connection.tls = Some(options);
        self
    }
}
