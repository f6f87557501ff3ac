//! The credentials of a login: the application is asked for them at each connect.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::error::ConnectionFailed;
use crate::model::cause::{bounded_text, chain, panic_text};
use crate::model::config::{Credentials, CredentialsProvider};

/// The application's provider, and what it returned last.
#[derive(Clone)]
pub(crate) struct Login {
    provider: CredentialsProvider,
    last: Arc<Mutex<Option<Credentials>>>,
}

impl Login {
    pub(crate) fn new(provider: CredentialsProvider) -> Self {
        Self { provider, last: Arc::default() }
    }

    /// Asks for the credentials of a connection. The error names the provider and never shows what it
    /// returned before.
    pub(crate) async fn credentials(&self) -> Result<Credentials, ConnectionFailed> {
        let provider = self.provider.clone();
        // The function itself may panic as well, so it is called inside the future.
        let asking = AssertUnwindSafe(async move { provider.ask().await }).catch_unwind();
        let text = match timeout(DEADLINE, asking).await {
            Ok(Ok(Ok(credentials))) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(credentials.clone());
                return Ok(credentials);
            }
            Ok(Ok(Err(error))) => {
                format!("the credentials provider failed: {}", self.redacted(&chain(&*error)))
            }
            Ok(Err(panic)) => {
                format!("the credentials provider panicked: {}", self.redacted(&panic_text(panic)))
            }
            Err(_) => {
                format!("the credentials provider gave no answer within {} s", DEADLINE.as_secs())
            }
        };
        Err(ConnectionFailed(text))
    }

    /// The user that logged in last.
    pub(crate) fn user(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|credentials| credentials.user.clone())
    }

    fn redacted(&self, text: &str) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let password = last.as_ref().map(|credentials| credentials.password.as_str());
        match password.filter(|password| !password.is_empty()) {
            Some(password) => bounded_text(&text.replace(password, "***")),
            None => bounded_text(text),
        }
    }
}

/// How long the provider may take. This leaves time to connect within the deadline for all steps together.
const DEADLINE: Duration = Duration::from_secs(3);
