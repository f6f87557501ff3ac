//! Finds the primary of a name through its sentinels, and notices when another server becomes the primary.
//!
//! The sentinels are asked one after the other, first the one that answered last. A sentinel that has not learned of
//! the last failover is recognised by its epoch. It is believed only if no other sentinel answers and no connection to
//! the known primary can be opened: during a failover by hand, it names the former primary, which still accepts writes.
//! A server that says in `ROLE` that it is not a primary is not used, and the connections to the known primary stay
//! until another server was accepted as the primary.
//!
//! A user of the servers needs `ROLE` in addition to what the store lists. A user of the sentinels needs
//! `SENTINEL|GET-MASTER-ADDR-BY-NAME` and, to learn of a failover at once, `SUBSCRIBE` to
//! `+switch-master`. `SENTINEL|MASTER` and `CLIENT|SETNAME` are used where they are allowed.

mod ask;
mod known;
mod url;
mod watch;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::runtime::{Handle, Id};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::ask::{Named, PRIMARY_DEADLINE, ask_once};
use self::known::{Candidate, Judged, Known};
use self::url::SentinelUrl;
use self::watch::Watch;
use super::address::Address;
use super::deadlines::CONNECT_DEADLINE;
use super::error::{cause, is_authentication};
use super::server::{Server, is_not_primary};
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;

/// The primary of one name. All connections of a client share it.
pub(crate) struct Sentinel {
    known: Arc<Known>,
    /// The credentials for the primary, wherever it is.
    primary: Address,
    /// One watch on each executor that connects. While a handler blocks an executor, the watch there hears of no
    /// failover, and without a watch of its own, another executor, such as that of a runtime's own thread, would go on
    /// with the former primary.
    watches: Mutex<Vec<(Id, JoinHandle<()>)>>,
    /// Ends the watches.
    stop: CancellationToken,
}

impl Sentinel {
    /// Reads what follows the scheme of an address. The options apply to connections to the primary.
    pub(crate) fn new(text: &str, options: ConnectionOptions) -> Result<Self, ConnectError> {
        let fault = |fault: &str| ConnectError::Address(fault.to_owned());
        let url = SentinelUrl::new(text).map_err(fault)?;
        let primary = Address::at(url.name.clone(), 0, url.login.clone());
        let primary = primary.map_err(|error| fault(&error.to_string()))?.with(options)?;
        let known = Arc::new(Known::new(url));
        Ok(Self { known, primary, watches: Mutex::default(), stop: CancellationToken::new() })
    }

    /// The user that logs in to the primary, or the last one that did.
    pub(crate) fn user(&self) -> String {
        self.primary.user()
    }

    /// Opens a connection to the primary with this function, which checks the server's role.
    ///
    /// The error contains the answer of each sentinel, or is the refused login if a named server refused
    /// it.
    pub(crate) async fn connect<T, F>(&self, open: impl Fn(Server) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let primary = self.primary.with_credentials().await?;
        let mut search = Search::new(Instant::now() + SEARCH_DEADLINE, primary);
        for (index, seed) in self.known.in_turn() {
            if Instant::now() < search.until {
                search.last_asked = index;
            }
            let asking = ask_once(seed, &self.known.url.name);
            let named = match timeout_at(search.until, asking).await {
                Ok(Ok(named)) => named,
                Ok(Err(fault)) => {
                    search.said.push(format!("{seed}: {fault}"));
                    continue;
                }
                Err(_) => {
                    search.said.push(format!("{seed}: it was not asked in time"));
                    continue;
                }
            };
            let candidate = match self.known.judge(&named) {
                Judged::Older => {
                    search.older.push((index, seed, named));
                    continue;
                }
                Judged::Same(known) => Candidate { named, ..known },
                Judged::Newer | Judged::Unclear => Candidate::new(named),
            };
            if let Some(opened) =
                search.attempt(self, said_by(seed), &candidate, false, &open).await
            {
                self.known.prefer(index);
                return Ok(opened);
            }
        }
        // The next search begins where this one ended, which might not have had time for all sentinels.
        self.known.pass_over(search.last_asked);
        if let Some(opened) = self.fall_back(&mut search, &open).await {
            return Ok(opened);
        }
        if let Some(refused) = search.refused {
            return Err(refused);
        }
        let said = search.said.join("; ");
        let text = format!("no primary {} was found: {said}", self.known.url.name);
        Err(io::Error::other(text).into())
    }

    /// Connects although no answer is up to date: to the known primary, or to one from an older answer. An
    /// operator may have registered the name anew, which starts again at the first epoch.
    async fn fall_back<'s, T, F>(
        &'s self,
        search: &mut Search<'s>,
        open: impl Fn(Server) -> F,
    ) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut older = std::mem::take(&mut search.older);
        older.sort_by_key(|(_, _, named)| std::cmp::Reverse(named.epoch));
        let known = self.known.primary().filter(|_| !search.is_up_to_date);
        if let Some(known) = known
            && let Some(opened) =
                search.attempt(self, KNOWN_BEFORE.to_owned(), &known, true, &open).await
        {
            return Some(opened);
        }
        for (index, seed, named) in older {
            if search.is_up_to_date {
                let text =
                    format!("{seed}: it named {named}, the primary before the last failover");
                search.said.push(text);
                continue;
            }
            let candidate = Candidate::new(named);
            if let Some(opened) = search.attempt(self, said_by(seed), &candidate, true, &open).await
            {
                self.known.prefer(index);
                return Some(opened);
            }
        }
        None
    }

    /// Starts a watch on this executor unless one runs there. It ends with the client, or with the executor.
    fn ensure_watch(&self) {
        let mut running = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, watch)| !watch.is_finished());
        let executor = Handle::current();
        if running.iter().all(|(watched, _)| *watched != executor.id()) {
            let watch = Watch::new(&self.known, self.primary.clone(), self.stop.clone());
            running.push((executor.id(), executor.spawn(watch.run())));
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
struct Search<'s> {
    until: Instant,
    /// With the user and the password in force now.
    primary: Address,
    /// Servers that could not be used, and why.
    tried: Vec<(Named, String)>,
    /// What each sentinel answered, for people.
    said: Vec<String>,
    /// Answers that are older than what is known.
    older: Vec<(usize, &'s Address, Named)>,
    /// Whether some answer was as new as what is known, or newer, and named a server that may be the
    /// primary.
    is_up_to_date: bool,
    last_asked: usize,
    /// The first login that a server refused. Another named server may accept it.
    refused: Option<RedisError>,
}

impl Search<'_> {
    fn new(until: Instant, primary: Address) -> Self {
        let (tried, said, older) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            until,
            primary,
            tried,
            said,
            older,
            is_up_to_date: false,
            last_asked: 0,
            refused: None,
        }
    }

    /// Connects to the named server, and records it as the primary if that succeeds. `None` if it cannot
    /// be used.
    async fn attempt<T, F>(
        &mut self,
        sentinel: &Sentinel,
        by: String,
        candidate: &Candidate,
        is_older: bool,
        open: impl Fn(Server) -> F,
    ) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let named = &candidate.named;
        let fault = match self.tried.iter().find(|(other, _)| named.is_at(other)) {
            Some((_, fault)) => fault.clone(),
            None => {
                let address = self.primary.clone().moved_to(named.host.clone(), named.port);
                let server = Server::primary(address, candidate.tenure());
                let until = self.until.min(Instant::now() + PRIMARY_DEADLINE);
                let opening = timeout_at(until, open(server)).await;
                let is_other = matches!(&opening, Ok(Err(error)) if is_not_primary(error));
                self.is_up_to_date |= !is_older && !is_other;
                match opening {
                    Ok(Ok(opened)) if sentinel.known.commit(candidate, is_older) => {
                        sentinel.ensure_watch();
                        return Some(opened);
                    }
                    Ok(Ok(_)) => "another server became the primary".to_owned(),
                    Ok(Err(error)) => {
                        let fault = cause(&error);
                        if is_authentication(&error) {
                            self.refused.get_or_insert(error);
                        }
                        fault
                    }
                    Err(_) => "timed out".to_owned(),
                }
            }
        };
        self.said.push(format!("{by} {named}: {fault}"));
        self.tried.push((named.clone(), fault));
        None
    }
}

fn said_by(seed: &Address) -> String {
    format!("{seed}: it named")
}

const KNOWN_BEFORE: &str = "the primary that was known is";
/// How long the sentinels and the servers that they name may take together. Connecting therefore takes no
/// longer than to a server with an address of its own, except for the time of a credentials provider.
const SEARCH_DEADLINE: Duration = CONNECT_DEADLINE;

#[cfg(test)]
mod tests;
