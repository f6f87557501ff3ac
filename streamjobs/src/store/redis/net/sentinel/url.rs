//! Addresses of the form
//! `redis+sentinel://[user:password@]host[:port],host[:port],…/name[/database]`.

use std::net::Ipv6Addr;

use redis::RedisConnectionInfo;

use super::super::address::Address;

/// A checked address: which primary, and which sentinels know where it is.
pub(super) struct SentinelUrl {
    /// The primary's name.
    pub(super) name: String,
    /// The sentinels, with the credentials for them.
    pub(super) seeds: Vec<Address>,
    /// The credentials for the primary, and the database.
    pub(super) login: RedisConnectionInfo,
}

impl SentinelUrl {
    /// Reads what follows the scheme.
    ///
    /// Its errors quote no part of the address: each part of a broken address could be the
    /// password.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        if text.contains('#') {
            return Err("it has a fragment; in a user or password write %23 for #");
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let (place, path) = text.split_once('/').ok_or(NAME_MISSING)?;
        let (user, hosts) = place.rsplit_once('@').unwrap_or(("", place));
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        let (name, database) = (name_of_primary(name)?, database_of(database)?);
        let at_sentinels = settings(query)?;
        let hosts = hosts.split(',').collect::<Vec<_>>();
        if hosts.len() > SEEDS_MAX {
            return Err("it has more than 32 sentinels");
        }
        let seed = |host: &&str| seed(host, at_sentinels.clone());
        let seeds = hosts.iter().map(seed).collect::<Result<Vec<_>, _>>()?;
        let login = match user.split_once(':') {
            Some((user, password)) => login(&decoded(user)?, &decoded(password)?)?,
            None if user.is_empty() => RedisConnectionInfo::default(),
            None => return Err("it names a user without a password"),
        };
        Ok(Self { name, seeds, login: login.set_db(database) })
    }
}

/// Reads the name of a primary, which may have only the characters that a Sentinel accepts.
fn name_of_primary(text: &str) -> Result<String, &'static str> {
    let name = decoded(text)?;
    if name.is_empty() {
        return Err(NAME_MISSING);
    }
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
    if !name.chars().all(is_known) {
        return Err("the name of the primary has other characters than letters, digits and .-_; \
                    in a user or password write %2F for /");
    }
    Ok(name)
}

fn database_of(text: &str) -> Result<i64, &'static str> {
    match text.parse() {
        Ok(number) if number >= 0 => Ok(number),
        Err(_) if text.is_empty() => Ok(0),
        _ => Err("the database is not a number from 0 on"),
    }
}

/// The user and password for the sentinels.
fn settings(query: &str) -> Result<RedisConnectionInfo, &'static str> {
    let (mut user, mut password) = (None, None);
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let place = match name {
            "sentinel_user" => &mut user,
            "sentinel_password" => &mut password,
            _ => return Err("it has an unknown setting; in a user or password write %3F for ?"),
        };
        if place.replace(decoded(value)?).is_some() {
            return Err("it has a setting twice");
        }
    }
    match (user, password) {
        (None, None) => Ok(RedisConnectionInfo::default()),
        (Some(_), None) => Err("it has sentinel_user without sentinel_password"),
        (user, Some(password)) => login(&user.unwrap_or_default(), &password),
    }
}

/// An empty user means the default one.
fn login(user: &str, password: &str) -> Result<RedisConnectionInfo, &'static str> {
    if password.is_empty() {
        return Err("a password is empty");
    }
    let login = RedisConnectionInfo::default().set_password(password);
    Ok(if user.is_empty() { login } else { login.set_username(user) })
}

fn seed(text: &str, login: RedisConnectionInfo) -> Result<Address, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(SEED)?;
            host.parse::<Ipv6Addr>().map_err(|_| SEED)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(SEED)?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || ".-_:".contains(letter);
    if host.is_empty() || !host.chars().all(is_known) {
        return Err(SEED);
    }
    let port = port.map_or(Ok(PORT), str::parse).map_err(|_| SEED)?;
    if port == 0 {
        return Err(SEED);
    }
    Address::at(host.to_owned(), port, login).map_err(|_| SEED)
}

/// The text with each `%XX` replaced by the byte that it stands for.
fn decoded(text: &str) -> Result<String, &'static str> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => digit(rest.next())
                .zip(digit(rest.next()))
                .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
                .ok_or("a % is not followed by two hexadecimal digits; write %25 for %")?,
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| "it has a part that is not UTF-8")
}

/// The port on which a Sentinel listens by default.
const PORT: u16 = 26379;
const SEEDS_MAX: usize = 32;
const NAME_MISSING: &str = "it does not name the primary; the form is \
    redis+sentinel://[user:password@]host[:port],host[:port]/name[/database]";
const SEED: &str = "a sentinel is not given as host, host:port, [IPv6] or [IPv6]:port; special \
    characters in user and password are written as %XX";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &SentinelUrl) -> String {
        let seeds = url.seeds.iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("{} {} {}", url.name, seeds.join(" "), url.login.db())
    }

    #[test]
    fn name_sentinels_database_and_logins_are_read() {
        let url = SentinelUrl::new("h").map(drop).unwrap_err();
        assert!(url.contains("does not name"), "{url}");
        let url = SentinelUrl::new("h/mymaster").unwrap();
        assert_eq!(shown(&url), "mymaster h:26379 0");
        assert_eq!((url.login.username(), url.login.password()), (None, None));
        let text = "al%40ce:p%23%2C%2Fs@a,b.example:7,[::1],[::1]:8/jobs-1.x/3\
                    ?sentinel_user=bob&sentinel_password=s%26%2B+t";
        let url = SentinelUrl::new(text).unwrap();
        assert_eq!(shown(&url), "jobs-1.x a:26379 b.example:7 ::1:26379 ::1:8 3");
        assert_eq!((url.login.username(), url.login.password()), (Some("al@ce"), Some("p#,/s")));
        for seed in &url.seeds {
            let login = seed.settings();
            assert_eq!((login.username(), login.password()), (Some("bob"), Some("s&++t")));
            assert_eq!(login.db(), 0);
        }
        let url = SentinelUrl::new(":secret@h/m/?sentinel_password=other").unwrap();
        assert_eq!((url.login.username(), url.login.password()), (None, Some("secret")));
        assert_eq!(url.seeds[0].settings().password(), Some("other"));
    }

    #[test]
    fn broken_addresses_are_refused_without_repeating_them() {
        for text in [
            "",
            "/canary",
            "h/",
            "h",
            "h,/canary",
            ":1/canary",
            "h:0/canary",
            "h:99999/canary",
            "h:canary/m",
            "::1/canary",
            "[canary]/m",
            "[::1]canary/m",
            "[::1/canary",
            "h canary/m",
            "h/m/canary",
            "h/m/-1",
            "h/m/1/canary",
            "h/m canary",
            "h/m%2Fcanary",
            "u:canary/x@h/m",
            "u:12#canary@h/m",
            "u:12?canary@h/m",
            "canary@h/m",
            "u:@canary/m",
            "u:canary%zz@h/m",
            "u:canary%4",
            "u:canary%4@h/m",
            "u:canary%FF@h/m",
            "h/m?canary",
            "h/m?canary=1",
            "h/m?protocol=canary",
            "h/m?sentinel_user=canary",
            "h/m?sentinel_user=canary&sentinel_password=",
            "h/m?sentinel_password=canary&sentinel_password=canary",
            "h/m?sentinel_password=canary%F",
        ] {
            let error = SentinelUrl::new(text).map(drop).unwrap_err();
            assert!(!error.contains("canary"), "{text}: {error}");
        }
        assert!(SentinelUrl::new(&format!("{}/m", ["h"; SEEDS_MAX].join(","))).is_ok());
        assert!(SentinelUrl::new(&format!("{}/m", ["h"; SEEDS_MAX + 1].join(","))).is_err());
    }
}
