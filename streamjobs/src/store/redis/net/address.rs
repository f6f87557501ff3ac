//! The server's address: where it is, and which user logs in.

use std::time::Duration;
use std::{fmt, io};

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisResult,
};

use super::login::Login;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::model::config::{ConnectionOptions, Credentials};
use crate::model::error::ConnectError;

/// A checked address. `Debug` and `Display` never show the password.
#[derive(Clone)]
pub(crate) struct Address {
    info: ConnectionInfo,
    /// The source of user and password, unless the address itself has them.
    login: Option<Login>,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// Where a node of a cluster is, as the cluster announces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Reads an address.
    ///
    /// Its errors quote no part of the address: each part of a broken address could be the
    /// password.
    pub(crate) fn new(url: &str) -> Result<Self, ConnectError> {
        let read = || {
            check_form(url)?;
            let info = url.into_connection_info().map_err(|error| reason(&error))?;
            check_parts(url, &info)?;
            Ok(Self {
                info,
                login: None,
                #[cfg(feature = "tls")]
                tls: Tls::default(),
            })
        };
        read().map_err(|fault: String| ConnectError::Address(fault))
    }

    /// The server at this place, with these credentials.
    pub(crate) fn at(host: String, port: u16, login: RedisConnectionInfo) -> RedisResult<Self> {
        let info = ConnectionAddr::Tcp(host, port).into_connection_info()?;
        Ok(Self {
            info: info.set_redis_settings(login),
            login: None,
            #[cfg(feature = "tls")]
            tls: Tls::default(),
        })
    }

    /// Another server with the same user and the same transport security.
    pub(crate) fn moved_to(mut self, host: String, port: u16) -> Self {
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.info = self.info.set_addr(addr);
        self
    }

    /// Host and port; `None` for a path of a socket.
    pub(crate) fn node(&self) -> Option<NodeAddress> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(NodeAddress { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }

    /// The address with these options, if they fit it.
    pub(crate) fn with(mut self, options: ConnectionOptions) -> Result<Self, ConnectError> {
        if let Some(provider) = options.credentials {
            if self.settings().password().is_some() {
                return Err(ConnectError::Setting(TWO_PASSWORDS.to_owned()));
            }
            self.login = Some(Login::new(provider));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = options.tls {
            if !self.is_tls() {
                return Err(ConnectError::Setting(TLS_WITHOUT_TLS.to_owned()));
            }
            self.tls = Tls::new(tls).map_err(ConnectError::Setting)?;
        }
        Ok(self)
    }

    /// The user that logs in, or the last one that did.
    pub(crate) fn user(&self) -> String {
        let provided = self.login.as_ref().and_then(Login::user);
        let written = || self.settings().username().unwrap_or("default").to_owned();
        provided.unwrap_or_else(written)
    }

    /// The address with the user and password in force now, for one connection.
    pub(crate) async fn with_credentials(&self) -> RedisResult<Self> {
        let mut address = self.clone();
        // The returned address does not ask the provider again.
        if let Some(login) = address.login.take() {
            let Credentials { user, password } =
                login.credentials().await.map_err(io::Error::other)?;
            let settings = self.settings().clone().set_username(user).set_password(password);
            address.info = address.info.set_redis_settings(settings);
        }
        Ok(address)
    }

    /// Host and port, or the socket's path.
    pub(crate) fn server(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    /// User, password and database.
    pub(crate) fn settings(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }

    /// A client of this address. It resolves the host's name at each connect.
    pub(crate) fn client(&self, protocol: ProtocolVersion) -> RedisResult<Client> {
        // Without no-delay, a small command waits until the previous packet is acknowledged.
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
        let settings = self.info.redis_settings().clone();
        let settings = settings.set_protocol(protocol).set_skip_set_lib_name();
        let info = self.info.clone().set_tcp_settings(tcp).set_redis_settings(settings);
        #[cfg(feature = "tls")]
        if self.is_tls() {
            return self.tls.client(info);
        }
        Client::open(info)
    }

    /// Whether connections are secured.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// How connections are secured, if they are.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.is_tls().then_some(&self.tls)
    }
}

/// Detects within about a minute that the other end is gone.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.info.addr(), f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.info.redis_settings();
        f.debug_struct("Address")
            .field("server", &format_args!("{self}"))
            .field("tls", &self.is_tls())
            .field("user", &settings.username())
            .field("database", &settings.db())
            .finish_non_exhaustive()
    }
}

/// Rejects what the parser accepts silently: a `#` or `?` in a password ends it early, and the
/// parser would then connect to a wrong host.
fn check_form(url: &str) -> Result<(), &'static str> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("rediss") if cfg!(not(feature = "tls")) => {
            Err("rediss:// needs the feature `tls` of streamjobs")
        }
        Some("redis" | "rediss" | "redis+unix" | "unix") if url.contains('#') => {
            Err("it has a fragment; in a user or password write %23 for #")
        }
        Some("redis" | "rediss" | "redis+unix" | "unix") => Ok(()),
        Some("rediss+sentinel") => Err("TLS is not supported together with Sentinel"),
        _ => {
            Err("it does not begin with redis://, rediss://, redis+cluster://, rediss+cluster://, \
             redis+sentinel://, redis+unix:// or unix://")
        }
    }
}

fn check_parts(url: &str, info: &ConnectionInfo) -> Result<(), &'static str> {
    let known: &[&str] = match info.addr() {
        ConnectionAddr::Unix(_) => &["db", "user", "pass", "protocol"],
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.is_empty() || *port == 0 =>
        {
            return Err("the host or the port is missing");
        }
        _ => &["protocol"],
    };
    let is_known = |setting: &str| known.contains(&setting.split('=').next().unwrap_or_default());
    if url.split_once('?').is_some_and(|(_, query)| !query.split('&').all(is_known)) {
        return Err("it has an unknown setting; in a user or password write %3F for ?");
    }
    let settings = info.redis_settings();
    if settings.db() < 0 {
        return Err("the database is a negative number");
    }
    if settings.username().is_some() && settings.password().is_none() {
        return Err("it names a user without a password");
    }
    Ok(())
}

/// The parser's error without the parts of the address that it quotes.
fn reason(error: &redis::RedisError) -> String {
    let text = error.to_string();
    match text.split(" - ").next() {
        Some("Redis URL did not parse") | None => PARSE_HINT.to_owned(),
        Some(reason) => reason.to_lowercase(),
    }
}

const PARSE_HINT: &str = "it is not of the form redis://[user:password@]host[:port][/database]; \
    special characters in user and password are written as %XX";
#[cfg(feature = "tls")]
const TLS_WITHOUT_TLS: &str = "tls needs an address that begins with rediss://";
const TWO_PASSWORDS: &str = "the address has a password, and credentials are provided as well";
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        format!("{:?}", Address::new(url).unwrap())
    }

    #[test]
    fn usual_addresses_are_understood() {
        assert_eq!(Address::new("redis://127.0.0.1").unwrap().to_string(), "127.0.0.1:6379");
        assert_eq!(Address::new("redis://h:1/3?protocol=resp3").unwrap().to_string(), "h:1");
        assert_eq!(
            Address::new("redis+unix:///run/r.sock?db=2").unwrap().to_string(),
            "/run/r.sock"
        );
        assert_eq!(Address::new("unix:///run/r.sock").unwrap().to_string(), "/run/r.sock");
        let address = Address::new("redis://al%40ce:p%23%3F%2Fs%20s%40@[::1]:7/4").unwrap();
        let settings = address.info.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("al@ce"), Some("p#?/s s@")));
        assert_eq!((settings.db(), address.to_string().as_str()), (4, "::1:7"));
    }

    #[test]
    fn bad_addresses_are_refused_without_repeating_them() {
        let bad = [
            "",
            "canary",
            "http://:canary@host",
            "valkey://:canary@host",
            "redis://",
            "redis:///0",
            "redis://:canary@",
            "redis://:canary@host:99999",
            "redis://:canary@host:port",
            "redis://:canary@host:0",
            "redis://:canary@host/x",
            "redis://:canary@host/-1",
            "redis://:canary@host/0/1",
            "redis://:canary@0.0.0.0",
            "redis://:canary#1@host",
            "redis://u:12#canary@host",
            "redis://u:12?canary@host",
            "redis://u:12/canary@host",
            "redis://host?protocol=canary",
            "redis://host?canary=1",
            "redis://canary@host",
            "redis://:canary%FF@host",
            "redis+unix://host/canary",
            "redis+unix:///r.sock?db=canary",
            "redis+unix:///r.sock?password=canary",
            "rediss://:canary@host#insecure",
        ];
        for url in bad {
            let error = Address::new(url).unwrap_err();
            assert!(matches!(error, ConnectError::Address(_)), "{url}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("canary"), "{url}: {text}");
        }
    }

    #[test]
    fn debug_shows_everything_but_the_password() {
        let text = shown("redis://alice:canary@host:1/2");
        assert!(
            text.contains("host:1") && text.contains("alice") && !text.contains("canary"),
            "{text}"
        );
        let text = shown("redis+unix:///r.sock?user=alice&pass=canary");
        assert!(text.contains("alice") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn tls_without_its_feature_says_which_feature() {
        let address = Address::new("rediss://host");
        if cfg!(feature = "tls") {
            assert!(address.is_ok());
        } else {
            assert!(address.unwrap_err().to_string().contains("feature `tls`"));
        }
    }
}
