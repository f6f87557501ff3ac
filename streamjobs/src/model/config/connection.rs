//! How a client connects, apart from the address.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

#[cfg(feature = "tls")]
use super::tls::TlsOptions;
use crate::model::cause::BoxError;

/// A client's connection settings apart from the address.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionOptions {
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) credentials: Option<CredentialsProvider>,
}

/// The user and password of a login, for [`ClientBuilder::credentials`](crate::ClientBuilder::credentials). `Debug`
/// never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Credentials {
    /// A user of the server and this user's password. On a server without access lists, the user is `default`.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a provider answers.
type Provided = BoxFuture<'static, Result<Credentials, BoxError>>;

/// The application's function that returns the credentials.
#[derive(Clone)]
pub(crate) struct CredentialsProvider(Arc<dyn Fn() -> Provided + Send + Sync>);

impl CredentialsProvider {
    pub(crate) fn new<F, R, E>(provide: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let provide = move || -> Provided {
            let answer = provide();
            Box::pin(async move { answer.await.map_err(Into::into) })
        };
        Self(Arc::new(provide))
    }

    /// Calls the function, and waits for its answer without a deadline.
    pub(crate) async fn ask(&self) -> Result<Credentials, BoxError> {
        (self.0)().await
    }
}

impl fmt::Debug for CredentialsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider")
    }
}
