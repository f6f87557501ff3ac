//! Servers by product and version, and the known faults of each.

use std::fmt;
use std::str::FromStr;

/// The product of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Product {
    /// Redis.
    Redis,
    /// Valkey, which has version numbers of its own and reports 7.2.4 as its Redis version.
    Valkey,
    /// Streams in this process' memory, which replace a server in tests.
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(dead_code, reason = "there are no streams in memory without `testing`")
    )]
    Memory,
    /// A server that reports another name.
    Other(String),
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis => f.write_str("Redis"),
            Self::Valkey => f.write_str("Valkey"),
            Self::Memory => f.write_str("streams in memory"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A release: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The release line: all releases of a line get the same fixes.
    fn line(self) -> (u32, u32) {
        (self.0, self.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = &'static str;

    /// Reads three numbers; a suffix such as `-rc1` is ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().splitn(3, '.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part.get(..digits).and_then(|digits| digits.parse().ok())
        });
        let mut next =
            || parts.next().flatten().ok_or("not a version: expected three numbers, such as 7.4.0");
        Ok(Self(next()?, next()?, next()?))
    }
}

/// A server's product and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The product of a server.
    pub product: Product,
    /// The product's own version.
    pub version: Version,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

/// Whether streamjobs is affected by a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It uses the faulty part.
    Used,
    /// It uses the faulty part, and the fault shows only after a failover.
    Failover,
    /// It never uses the faulty part.
    Unused,
}

/// A known fault of some releases.
#[derive(Debug)]
pub(crate) struct KnownFault {
    /// What goes wrong.
    pub(crate) what: &'static str,
    /// What that means for jobs.
    pub(crate) meaning: &'static str,
    /// Whether jobs are affected.
    pub(crate) reach: Reach,
    /// Ranges of affected releases of Redis: the first affected one, and the one with the fix.
    redis: &'static [(Version, Version)],
    /// Ranges of affected releases of Valkey.
    valkey: &'static [(Version, Version)],
}

impl KnownFault {
    /// The release of the same product that has the fix; `None` if this release is not affected.
    pub(crate) fn fixed_in(&self, release: &Release) -> Option<Version> {
        let ranges = match release.product {
            Product::Redis => self.redis,
            Product::Valkey => self.valkey,
            Product::Memory | Product::Other(_) => return None,
        };
        let has = |(from, fixed): &&(Version, Version)| (*from..*fixed).contains(&release.version);
        ranges.iter().find(has).map(|(_, fixed)| *fixed)
    }
}

/// Whether a release has the known security fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// It has the fixes of August 2026, or no missing fix is known.
    Fixed,
    /// A later release of its line has them: this one.
    Behind(Version),
    /// No release of its line is known to have them. Distributions may backport fixes to such lines
    /// without changing the version.
    LineLeftBehind,
}

/// Whether a release has the security fixes of August 2026.
pub(crate) fn security(release: &Release) -> Security {
    if release.product != Product::Redis {
        return Security::Fixed;
    }
    let version = release.version;
    match SECURE.iter().find(|secure| secure.line() == version.line()) {
        Some(secure) if version < *secure => Security::Behind(*secure),
        Some(_) => Security::Fixed,
        None if SECURE.iter().any(|secure| version < *secure) => Security::LineLeftBehind,
        None => Security::Fixed,
    }
}

/// The oldest releases with the security fixes of August 2026, one for each line.
const SECURE: [Version; 6] = [
    Version(7, 4, 11),
    Version(8, 2, 9),
    Version(8, 4, 6),
    Version(8, 6, 6),
    Version(8, 8, 2),
    Version(8, 10, 1),
];

/// Every fault that this crate knows.
pub(crate) const KNOWN_FAULTS: &[KnownFault] = &[
    KnownFault {
        what: "a blocking read that wakes without an entry restarts its wait (redis#12998)",
        meaning: "reads of a group may exceed their timeout, which costs a connection and \
                  redeliveries where several processes wait for the same stream",
        reach: Reach::Used,
        redis: &[(Version(7, 2, 0), Version(7, 2, 5))],
        valkey: &[],
    },
    KnownFault {
        what: "consumers that a read creates or updates are not replicated exactly (redis#14963)",
        meaning: "after a failover, pending lists may lack recent deliveries: some jobs run again, \
                  with the same event id",
        reach: Reach::Failover,
        redis: &[(Version(7, 0, 0), Version(8, 6, 4))],
        valkey: &[],
    },
    KnownFault {
        what: "the lag of a group stays too high after its stream was trimmed past the group's \
               position (redis#13958)",
        meaning: "streamjobs counts the backlog itself where the server's lag is unreliable; other \
                  tools that show the lag are wrong",
        reach: Reach::Unused,
        redis: &[(Version(7, 0, 0), Version(7, 4, 4))],
        valkey: &[(Version(7, 2, 0), Version(9, 0, 0))],
    },
    KnownFault {
        what: "approximate trimming (~) with ACKED or DELREF removes nothing (redis#14656)",
        meaning: "streamjobs never sends it: it computes what all groups have acknowledged, and \
                  trims below that",
        reach: Reach::Unused,
        redis: &[(Version(8, 2, 0), Version(8, 2, 7)), (Version(8, 4, 0), Version(8, 4, 4))],
        valkey: &[],
    },
    KnownFault {
        what: "XACKDEL with more than eight ids overflows the stack (CVE-2025-62507)",
        meaning: "streamjobs never sends it; any client that may send it can run code on the server",
        reach: Reach::Unused,
        redis: &[(Version(8, 2, 0), Version(8, 2, 3))],
        valkey: &[],
    },
    KnownFault {
        what: "idempotent appends (IDMP) are unsafe with an append-only file that has no preamble",
        meaning: "streamjobs never sends them: duplicates are recognised by their event id",
        reach: Reach::Unused,
        redis: &[(Version(8, 6, 0), Version(8, 6, 2))],
        valkey: &[],
    },
    KnownFault {
        what: "XAUTOCLAIM overflows the heap (CVE-2022-31144, CVE-2022-35951)",
        meaning: "streamjobs never sends it: it claims entries one by one in a script",
        reach: Reach::Unused,
        redis: &[(Version(7, 0, 0), Version(7, 0, 5))],
        valkey: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(version: &str) -> Release {
        Release { product: Product::Redis, version: version.parse().unwrap() }
    }

    fn valkey(version: &str) -> Release {
        Release { product: Product::Valkey, version: version.parse().unwrap() }
    }

    /// Whether a release has the fault whose description contains a word.
    fn has(release: &Release, word: &str) -> bool {
        let known =
            KNOWN_FAULTS.iter().filter(|fault| fault.what.contains(word)).collect::<Vec<_>>();
        assert_eq!(known.len(), 1, "{word} names one fault");
        known[0].fixed_in(release).is_some()
    }

    #[test]
    fn versions_are_read_and_ordered_by_number() {
        assert_eq!("8.10.1".parse(), Ok(Version(8, 10, 1)));
        assert_eq!("8.4.0-rc1\r\n".parse(), Ok(Version(8, 4, 0)));
        assert_eq!("255.255.255".parse(), Ok(Version(255, 255, 255)));
        assert!(Version(8, 10, 0) > Version(8, 9, 99));
        for text in ["", "7", "7.2", "a.b.c", "7..1", "7.2.", "99999999999.0.0"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn approximate_trimming_with_acked_is_faulty_up_to_its_fixes() {
        for version in ["8.2.0", "8.2.3", "8.2.6", "8.4.0", "8.4.3"] {
            assert!(has(&redis(version), "with ACKED"), "{version}");
        }
        for version in ["7.0.15", "8.0.6", "8.2.7", "8.4.4", "8.6.0", "8.10.2"] {
            assert!(!has(&redis(version), "with ACKED"), "{version}");
        }
        assert!(!has(&valkey("8.2.3"), "with ACKED"), "Valkey has neither option");
    }

    #[test]
    fn acknowledging_with_deletion_is_faulty_before_its_fix() {
        for (version, faulty) in [("8.2.0", true), ("8.2.2", true), ("8.2.3", false)] {
            assert_eq!(has(&redis(version), "XACKDEL"), faulty, "{version}");
        }
        assert!(!has(&redis("8.0.6"), "XACKDEL"), "it is not there yet");
    }

    #[test]
    fn other_faults_end_with_the_release_that_fixes_them() {
        for (release, word, faulty) in [
            (redis("7.4.3"), "lag of a group", true),
            (redis("7.4.4"), "lag of a group", false),
            (redis("8.0.0"), "lag of a group", false),
            (valkey("8.0.1"), "lag of a group", true),
            (valkey("9.1.2"), "lag of a group", false),
            (redis("7.0.15"), "restarts its wait", false),
            (redis("7.2.4"), "restarts its wait", true),
            (redis("7.2.5"), "restarts its wait", false),
            (redis("8.6.1"), "IDMP", true),
            (redis("8.6.2"), "IDMP", false),
            (redis("8.6.3"), "not replicated exactly", true),
            (redis("8.6.4"), "not replicated exactly", false),
            (redis("7.0.4"), "XAUTOCLAIM", true),
            (redis("7.0.15"), "XAUTOCLAIM", false),
        ] {
            assert_eq!(has(&release, word), faulty, "{release}: {word}");
        }
    }

    #[test]
    fn security_is_judged_within_a_line() {
        for (version, expected) in [
            ("7.0.15", Security::LineLeftBehind),
            ("7.2.12", Security::LineLeftBehind),
            ("7.4.10", Security::Behind(Version(7, 4, 11))),
            ("7.4.11", Security::Fixed),
            ("8.0.6", Security::LineLeftBehind),
            ("8.2.3", Security::Behind(Version(8, 2, 9))),
            ("8.10.0", Security::Behind(Version(8, 10, 1))),
            ("8.10.2", Security::Fixed),
            ("8.12.0", Security::Fixed),
            ("255.255.255", Security::Fixed),
        ] {
            assert_eq!(security(&redis(version)), expected, "{version}");
        }
        assert_eq!(
            security(&valkey("8.0.1")),
            Security::Fixed,
            "no fixes of Valkey are known here"
        );
    }

    #[test]
    fn no_faults_of_other_products_are_known() {
        let other = Release { product: Product::Other("keydb".into()), version: Version(7, 0, 0) };
        assert!(KNOWN_FAULTS.iter().all(|fault| fault.fixed_in(&other).is_none()));
    }
}
