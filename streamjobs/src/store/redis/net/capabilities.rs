//! What a server can do, learned each time a connection is opened.

use std::collections::HashMap;
use std::fmt;

use redis::{Cmd, Value};

use crate::model::version::{Product, Release, Version};
use crate::store::StoreError;
use crate::store::redis::reply;

/// What the server at the other end of one connection is and can do.
///
/// It belongs to the connection and ends with it: after a failover or an update, the same address
/// leads to another server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Product and version, as far as the server reports them.
    pub(crate) release: Option<Release>,
    /// The version of Redis that the server is or is compatible with, as it reports it.
    redis_version: Option<String>,
    /// Whether it serves alone, is a node of a cluster, or watches other servers.
    pub(crate) mode: Option<Mode>,
}

/// How a server is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It has all keys.
    Standalone,
    /// It is a node of a cluster.
    Cluster,
    /// It watches other servers, and has no keys.
    Sentinel,
}

/// Something that only some servers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// `CLIENT TRACKING`, whose messages arrive on a connection with version 3 of the protocol.
    Tracking,
    /// `XACKDEL`, without the overflow bug of its first releases.
    AcknowledgeAndDelete,
    /// `XREADGROUP … CLAIM`.
    ClaimingRead,
    /// `XNACK`.
    ReleaseToGroup,
}

impl Feature {
    const ALL: [Self; 4] =
        [Self::Tracking, Self::AcknowledgeAndDelete, Self::ClaimingRead, Self::ReleaseToGroup];

    /// The first releases of Redis and of Valkey that have the feature.
    fn since(self) -> (Version, Option<Version>) {
        match self {
            Self::Tracking => (Version(6, 0, 0), Some(Version(7, 2, 0))),
            Self::AcknowledgeAndDelete => (Version(8, 2, 3), None),
            Self::ClaimingRead => (Version(8, 4, 0), None),
            Self::ReleaseToGroup => (Version(8, 8, 0), None),
        }
    }
}

impl Capabilities {
    /// The request whose answer contains all of this. It costs no round trip of its own.
    pub(crate) fn request() -> Cmd {
        let mut command = redis::cmd(INFO);
        command.arg("server");
        command
    }

    /// Reads the answer to the request.
    pub(crate) fn from_answer(answer: Value) -> Result<Self, StoreError> {
        Ok(Self::from_info(&Info::new(&reply::text(answer, INFO)?)))
    }

    pub(crate) fn from_info(info: &Info) -> Self {
        Self {
            release: release(info),
            redis_version: info.text("redis_version").map(str::to_owned),
            // Valkey has another name for this field.
            mode: match info.text("redis_mode").or_else(|| info.text("server_mode")) {
                Some("standalone") => Some(Mode::Standalone),
                Some("cluster") => Some(Mode::Cluster),
                Some("sentinel") => Some(Mode::Sentinel),
                _ => None,
            },
        }
    }

    /// Whether the server's release has a feature. Features that are not known for a product count
    /// as missing. Access lists and managed servers may still refuse what the release has.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        let Some(Release { product, version }) = &self.release else { return false };
        let (redis, valkey) = feature.since();
        match product {
            Product::Redis => *version >= redis,
            Product::Valkey => valkey.is_some_and(|valkey| *version >= valkey),
            Product::Memory | Product::Other(_) => false,
        }
    }

    /// Refuses server versions whose `XCLAIM` handles an entry without payload differently from what
    /// the scripts rely on.
    pub(crate) fn check_version(&self) -> Result<(), String> {
        let version = self.redis_version.as_deref();
        let version = version.ok_or("the server does not report its version")?;
        match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
            Some(major) if major >= VERSION_MIN => Ok(()),
            Some(_) => Err(format!(
                "the server has version {version}, and {VERSION_MIN}.0 or newer is needed"
            )),
            None => Err("the server's version cannot be read".to_owned()),
        }
    }
}

/// Shows what was learned, in a form for people.
impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = Feature::ALL.into_iter().filter(|feature| self.has(*feature));
        f.debug_struct("Capabilities")
            .field("release", &self.release.as_ref().map(ToString::to_string))
            .field("mode", &self.mode)
            .field("features", &features.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The lines of an answer to `INFO`, by their names.
#[derive(Debug)]
pub(crate) struct Info(HashMap<String, String>);

impl Info {
    pub(crate) fn new(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// Redis does not report its name. Other products report theirs, and in addition the version of
/// Redis with which they are compatible.
fn release(info: &Info) -> Option<Release> {
    let product = match info.text("server_name") {
        None | Some("redis") => Product::Redis,
        Some("valkey") => Product::Valkey,
        Some(other) => Product::Other(other.to_owned()),
    };
    let version = match product {
        Product::Valkey => info.text("valkey_version"),
        _ => info.text("redis_version"),
    };
    Some(Release { product, version: version?.parse().ok()? })
}

const INFO: &str = "INFO";
const VERSION_MIN: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(info: &str) -> Capabilities {
        Capabilities::from_info(&Info::new(info))
    }

    fn features(info: &str) -> Vec<Feature> {
        let capabilities = of(info);
        Feature::ALL.into_iter().filter(|feature| capabilities.has(*feature)).collect()
    }

    fn valkey(version: &str) -> String {
        format!("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{version}\r\n")
    }

    #[test]
    fn servers_from_seven_on_are_good_enough() {
        let check = |info: &str| of(info).check_version();
        assert_eq!(check("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"), Ok(()));
        assert_eq!(check("redis_version:7.2.4\r\nserver_name:valkey\r\n"), Ok(()));
        assert_eq!(check("redis_version:255.255.255\r\n"), Ok(()));
        let error = check("redis_version:6.2.16\r\n").unwrap_err();
        assert_eq!(error, "the server has version 6.2.16, and 7.0 or newer is needed");
        assert!(check("redis_version:unstable\r\n").is_err());
        assert!(check("").is_err());
    }

    #[test]
    fn a_server_is_what_it_calls_itself_by_its_own_count() {
        let release = of("redis_version:7.0.15\r\n").release.unwrap();
        assert_eq!(release, Release { product: Product::Redis, version: Version(7, 0, 15) });
        assert_eq!(of(&valkey("9.1.2")).release.unwrap().to_string(), "Valkey 9.1.2");
        let other = of("redis_version:6.2.0\r\nserver_name:x\r\n").release.unwrap();
        assert_eq!(other.to_string(), "x 6.2.0");
        assert_eq!(of("redis_version:unstable\r\n").release, None);
        assert_eq!(of("").release, None);
    }

    #[test]
    fn features_go_by_the_releases_that_brought_them() {
        let redis = |version: &str| features(&format!("redis_version:{version}\r\n"));
        let all = Feature::ALL;
        for (version, count) in [
            ("5.0.14", 0),
            ("7.0.15", 1),
            ("8.2.2", 1),
            ("8.2.3", 2),
            ("8.4.0", 3),
            ("8.6.3", 3),
            ("8.8.0", 4),
            ("8.10.2", 4),
        ] {
            assert_eq!(redis(version), all[..count], "{version}");
        }
        for version in ["7.2.11", "8.0.1", "9.1.2"] {
            assert_eq!(features(&valkey(version)), [Feature::Tracking], "{version}");
        }
        assert!(features("redis_version:8.10.2\r\nserver_name:x\r\n").is_empty());
        assert!(features("").is_empty());
    }

    #[test]
    fn the_mode_is_the_servers_own_word() {
        for (word, mode) in [
            ("standalone", Some(Mode::Standalone)),
            ("cluster", Some(Mode::Cluster)),
            ("sentinel", Some(Mode::Sentinel)),
            ("other", None),
        ] {
            assert_eq!(of(&format!("redis_mode:{word}\r\n")).mode, mode);
            assert_eq!(of(&format!("{}server_mode:{word}\r\n", valkey("9.1.2"))).mode, mode);
        }
        assert_eq!(of("").mode, None);
    }

    #[test]
    fn debug_lists_the_features_by_name() {
        let text = format!("{:?}", of("redis_version:8.4.1\r\nredis_mode:cluster\r\n"));
        let expected = "release: Some(\"Redis 8.4.1\"), mode: Some(Cluster), \
             features: [Tracking, AcknowledgeAndDelete, ClaimingRead]";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn an_answer_that_is_no_text_is_an_error() {
        assert!(Capabilities::from_answer(Value::Int(1)).is_err());
        assert!(Capabilities::from_answer(Value::BulkString(b"\xff".to_vec())).is_err());
        let empty = Capabilities::from_answer(Value::BulkString(Vec::new())).unwrap();
        assert_eq!(empty, of(""));
    }
}
