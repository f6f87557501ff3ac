//! Finds the primary of a name through its sentinels, and notices when another server becomes it.
//!
//! Sentinels are asked in turn, first the one that answered last. One that has not been told of the
//! last failover yet is recognised by its epoch and believed only if no other one answers: while a
//! failover by hand goes on, it names the former primary, which still accepts writes. A server that
//! says in `ROLE` that it is not a primary is not used.
//!
//! A user of the servers needs `ROLE` in addition to what the store lists. A user of the sentinels needs
//! `SENTINEL|GET-MASTER-ADDR-BY-NAME` and, to hear of a failover at once, `SUBSCRIBE` to `+switch-master`.
//! `SENTINEL|MASTER` and `CLIENT|SETNAME` are used where they are allowed.

mod ask;
mod known;
mod url;
mod watch;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::ask::{ASK_DEADLINE, Named, ask};
use self::known::Known;
use self::url::SentinelUrl;
use self::watch::Watch;
use super::address::Address;
use super::dial::{CONNECT_DEADLINE, open_for_reading, within};
use super::error::{cause, is_authentication};
use super::server::{Server, Tenure};
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;

/// The primary of one name. All connections of a client share it.
pub(crate) struct Sentinel {
    known: Arc<Known>,
    /// What logs in to the primary, wherever it is.
    primary: Address,
    watch: Mutex<Option<JoinHandle<()>>>,
    /// Ends the watch.
    stop: CancellationToken,
}

impl Sentinel {
    /// Reads what follows the scheme of an address. The options are those of connections to the primary.
    pub(crate) fn new(text: &str, options: ConnectionOptions) -> Result<Self, ConnectError> {
        let fault = |fault: &str| ConnectError::Address(fault.to_owned());
        let url = SentinelUrl::new(text).map_err(fault)?;
        let primary = Address::at(url.name.clone(), 0, url.login.clone());
        let primary = primary.map_err(|error| fault(&error.to_string()))?.with(options)?;
        let known = Arc::new(Known::new(url));
        Ok(Self { known, primary, watch: Mutex::default(), stop: CancellationToken::new() })
    }

    /// The user that logs in at the primary, or the one that did last.
    pub(crate) fn user(&self) -> String {
        self.primary.user()
    }

    /// Opens a connection to the primary with this function, which checks the server's role.
    ///
    /// The error says what each sentinel said, unless the primary refused the login.
    pub(crate) async fn connect<T, F>(&self, open: impl Fn(Server) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let until = Instant::now() + SEARCH_DEADLINE;
        let primary = self.primary.with_credentials().await?;
        let mut search = Search { until, primary, tried: Vec::new() };
        let (mut said, mut older) = (Vec::new(), Vec::new());
        let mut is_up_to_date = false;
        for (index, seed) in self.known.in_turn() {
            let asked = match timeout_at(search.until, self.ask_once(seed)).await {
                Ok(asked) => asked,
                Err(_) => Err("it was not asked in time".to_owned()),
            };
            match asked {
                Err(fault) => said.push(format!("{seed}: {fault}")),
                Ok(named) => match self.known.note(index, &named, false) {
                    None => older.push((index, seed, named)),
                    Some(tenure) => {
                        is_up_to_date = true;
                        match search.attempt(self, &named, tenure, &open).await? {
                            Ok(opened) => return Ok(opened),
                            Err(fault) => said.push(format!("{seed}: {fault}")),
                        }
                    }
                },
            }
        }
        // An operator may have made the name anew, which begins with the first epoch again.
        older.sort_by_key(|(_, _, named)| std::cmp::Reverse(named.epoch));
        for (index, seed, named) in older {
            let tenure = if is_up_to_date { None } else { self.known.note(index, &named, true) };
            let fault = match tenure {
                Some(tenure) => match search.attempt(self, &named, tenure, &open).await? {
                    Ok(opened) => return Ok(opened),
                    Err(fault) => fault,
                },
                None => {
                    format!("it named {}:{}, as before the last failover", named.host, named.port)
                }
            };
            said.push(format!("{seed}: {fault}"));
        }
        let text = format!("no primary {} was found: {}", self.known.url.name, said.join("; "));
        Err(io::Error::other(text).into())
    }

    async fn ask_once(&self, seed: &Address) -> Result<Named, String> {
        let opening = within(ASK_DEADLINE, open_for_reading(seed)).await;
        let (mut connection, _closed) = opening.map_err(|error| cause(&error))?;
        ask(&mut connection, &self.known.url.name).await
    }

    /// Starts the watch unless it runs. It ends with the client, or with the executor that it was
    /// started on.
    #[expect(clippy::disallowed_methods, reason = "it ends when this is dropped")]
    fn ensure_watch(&self) {
        let mut running = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(JoinHandle::is_finished) {
            let watch = Watch::new(&self.known, self.stop.clone());
            *running = Some(tokio::spawn(watch.run()));
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Sentinel", self.known.url.name)?;
        for (index, seed) in self.known.url.seeds.iter().enumerate() {
            write!(f, "{} {seed}", if index > 0 { "," } else { "" })?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel")
            .field("server", &format_args!("{self}"))
            .field("user", &self.user())
            .field("database", &self.known.url.login.db())
            .finish_non_exhaustive()
    }
}

/// One search for the primary.
struct Search {
    until: Instant,
    /// With the user and the password of now.
    primary: Address,
    /// Servers that could not be used, and why.
    tried: Vec<(Named, String)>,
}

impl Search {
    /// Connects to the server that was named. Why it cannot be used is for people; the error is a
    /// refused login, which no other sentinel's answer would change.
    async fn attempt<T, F>(
        &mut self,
        sentinel: &Sentinel,
        named: &Named,
        tenure: Tenure,
        open: impl Fn(Server) -> F,
    ) -> Result<Result<T, String>, RedisError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let fault = match self.tried.iter().find(|(other, _)| named.is_at(other)) {
            Some((_, fault)) => fault.clone(),
            None => {
                let address = self.primary.clone().moved_to(named.host.clone(), named.port);
                let until = self.until.min(Instant::now() + PRIMARY_DEADLINE);
                match timeout_at(until, open(Server { address, tenure })).await {
                    Ok(Ok(opened)) => {
                        sentinel.ensure_watch();
                        return Ok(Ok(opened));
                    }
                    Ok(Err(error)) if is_authentication(&error) => return Err(error),
                    Ok(Err(error)) => cause(&error),
                    Err(_) => "timed out".to_owned(),
                }
            }
        };
        let text = format!("it named {}:{}: {fault}", named.host, named.port);
        self.tried.push((named.clone(), fault));
        Ok(Err(text))
    }
}

/// How long the server that was named may take, before another sentinel is asked.
const PRIMARY_DEADLINE: Duration = Duration::from_secs(2);
/// Leaves the caller, who waits for `CONNECT_DEADLINE`, time to hear what each sentinel said.
const SEARCH_DEADLINE: Duration = CONNECT_DEADLINE.saturating_sub(Duration::from_millis(500));

#[cfg(test)]
mod tests;
