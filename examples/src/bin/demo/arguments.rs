//! The command line of the demo.

use std::net::IpAddr;
use std::time::Duration;

use clap::{ArgAction, Parser};
use streamjobs::StreamName;

use crate::live::options::{Options, Place, Store};

/// The demo's tasks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// The page, until it is stopped.
    Page(Options),
    /// The story in the terminal, on a given server or on a private one.
    Story { url: Option<String> },
    /// The page of a cluster, until it is stopped.
    Cluster(Place),
    /// The story of a cluster, in the terminal.
    ClusterStory,
    /// The second process of the story, which is killed in it.
    Helper { url: String },
    /// The story of the Postgres companion.
    Postgres(Wish),
    /// The process that charges orders, which is killed in that story. It reads its servers' addresses
    /// from the environment, because other users can see the arguments of a process.
    Charger,
    /// A worker process of the page, which reads its orders from its standard input.
    Worker,
}

/// Which database the Postgres story is to be told on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// A given one, or none for a private server.
    pub(crate) url: Option<String>,
    /// Whether the role of a given one may be a superuser.
    pub(crate) as_superuser: bool,
}

/// A small web shop with two groups: a page with controls for every situation, and the dashboard.
///
/// Without options, `cargo demo` serves the page on http://127.0.0.1:8083 with a private Redis, until
/// Ctrl-C.
#[derive(Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", disable_version_flag = true)]
struct Words {
    /// Serve the page on this loopback address
    #[arg(long, default_value = "127.0.0.1", value_parser = loopback)]
    host: IpAddr,
    /// Serve the page on this port; 0 takes any that is free
    #[arg(long, default_value_t = 8083)]
    port: u16,
    /// Use this server instead of a private one: redis://, rediss:// or unix://, with user, password
    /// and database (also: REDIS_URL)
    #[arg(long)]
    redis_url: Option<String>,
    /// Use the server on this host instead of a private one
    #[arg(long, conflicts_with = "redis_url")]
    redis_host: Option<String>,
    /// The port of --redis-host; 6379 by default
    #[arg(long, requires = "redis_host", value_parser = clap::value_parser!(u16).range(1..))]
    redis_port: Option<u16>,
    /// The stream of the page
    #[arg(long, default_value = "streamjobs-demo:shop", value_parser = stream_key)]
    stream_key: String,
    /// Entries of history to keep, in addition to unfinished ones; 0 keeps all
    #[arg(long, default_value_t = 2_000)]
    maxlen: u64,
    /// The lease in milliseconds: how long an entry can go without renewal before others claim it
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    claim_idle_ms: u64,
    /// Delete the page's own stream first, with its groups and dead letters
    #[arg(long, conflicts_with = "no_reset")]
    reset: bool,
    /// Keep existing data, which is the default
    #[arg(long, action = ArgAction::SetTrue)]
    no_reset: bool,
    /// Archive the page's dead letters in a private Postgres, with a private Redis
    #[arg(long, conflicts_with_all = ["redis_url", "redis_host", "archive_url"])]
    archive: bool,
    /// Archive the page's dead letters on this Postgres, in the schema streamjobs_demo, which stays
    #[arg(long)]
    archive_url: Option<String>,
    /// Tell the story of a crash and its recovery in the terminal instead
    #[arg(long)]
    story: bool,
    /// Use a private cluster of three masters and their replicas, and a stream of 12 partitions: a page
    /// to kill masters, move slots and add nodes, or with --story the same in the terminal
    #[arg(long, conflicts_with_all = [
        "redis_url", "redis_host", "archive", "archive_url", "reset", "postgres", "postgres_url",
    ])]
    cluster: bool,
    /// Tell the story of effects once per event, of the archive and of the outbox, on a private Redis
    /// and a private Postgres
    #[arg(long, conflicts_with_all = ["story", "redis_url", "redis_host"])]
    postgres: bool,
    /// Tell that story on this database, in a schema of its own that goes afterwards
    #[arg(long, conflicts_with_all = ["story", "redis_url", "redis_host"])]
    postgres_url: Option<String>,
    /// Even if the role in that URL is a superuser
    #[arg(long, requires = "postgres_url")]
    as_superuser: bool,
    #[arg(long, hide = true)]
    helper: Option<String>,
    #[arg(long, hide = true)]
    charger: bool,
    #[arg(long, hide = true)]
    worker: bool,
}

fn loopback(text: &str) -> Result<IpAddr, String> {
    let address = if text == "localhost" { "127.0.0.1" } else { text };
    let address = address.parse::<IpAddr>().map_err(|_| "it is not an IP address".to_owned())?;
    if address.is_loopback() {
        return Ok(address);
    }
    Err("the page has no login, so it is served to this machine only".to_owned())
}

fn stream_key(text: &str) -> Result<String, String> {
    StreamName::new(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// Reads the arguments.
///
/// # Errors
///
/// Names the argument that is wrong, or is the help that was asked for.
pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Arguments, clap::Error> {
    let program = std::iter::once("cargo demo".to_owned());
    let words = Words::try_parse_from(program.chain(arguments))?;
    if words.worker {
        return Ok(Arguments::Worker);
    }
    if words.charger {
        return Ok(Arguments::Charger);
    }
    if let Some(url) = words.helper {
        return Ok(Arguments::Helper { url });
    }
    if words.postgres || words.postgres_url.is_some() {
        let wish = Wish { url: words.postgres_url, as_superuser: words.as_superuser };
        return Ok(Arguments::Postgres(wish));
    }
    let place = Place { host: words.host, port: words.port };
    if words.cluster {
        return Ok(if words.story { Arguments::ClusterStory } else { Arguments::Cluster(place) });
    }
    let port = words.redis_port.unwrap_or(6_379);
    let by_host = words.redis_host.map(|host| format!("redis://{host}:{port}"));
    let redis_url = words.redis_url.filter(|url| !url.is_empty()).or(by_host);
    if words.story {
        return Ok(Arguments::Story { url: redis_url });
    }
    Ok(Arguments::Page(Options {
        place,
        redis_url,
        stream_key: words.stream_key,
        maxlen: words.maxlen,
        lease: Duration::from_millis(words.claim_idle_ms),
        reset: words.reset,
        archive: words.archive_url.map(Store::Given).or(words.archive.then_some(Store::Private)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Arguments, clap::Error> {
        read(text.split_whitespace().map(str::to_owned))
    }

    fn page(text: &str) -> Options {
        match words(text).unwrap() {
            Arguments::Page(options) => options,
            other => panic!("{other:?}"),
        }
    }

    fn refused(text: &str, because: &str) {
        let fault = words(text).unwrap_err().to_string();
        assert!(fault.contains(because), "{text}: {fault}");
    }

    #[test]
    fn the_page_has_the_defaults_of_its_help() {
        let options = page("");
        assert_eq!(
            (options.place.host.to_string().as_str(), options.place.port),
            ("127.0.0.1", 8083)
        );
        assert_eq!((options.maxlen, options.lease), (2_000, Duration::from_secs(5)));
        assert!(!options.reset && options.redis_url.is_none());
        assert_eq!(page("--no-reset"), options, "it is the default");
        assert!(page("--reset").reset);
        let given = page(
            "--redis-host h --redis-port 7000 --stream-key s --maxlen 0 --claim-idle-ms 1000 --port 0 --host ::1",
        );
        assert_eq!(given.redis_url.as_deref(), Some("redis://h:7000"));
        assert_eq!((given.stream_key.as_str(), given.maxlen, given.place.port), ("s", 0, 0));
        assert!(page("--archive").archive == Some(Store::Private));
        let archive = page("--redis-host h --archive-url postgres://h/d").archive;
        assert!(archive == Some(Store::Given("postgres://h/d".to_owned())));
        let url = page("--redis-url rediss://user:pass@h:1/3").redis_url;
        assert_eq!(url.as_deref(), Some("rediss://user:pass@h:1/3"));
    }

    #[test]
    fn invalid_arguments_are_refused_by_name() {
        refused("--host 0.0.0.0", "this machine only");
        refused("--host example.com", "not an IP address");
        refused("--port 70000", "--port");
        refused("--maxlen=-1", "--maxlen");
        refused("--maxlen many", "--maxlen");
        refused("--claim-idle-ms 5", "--claim-idle-ms");
        refused("--redis-port 6379", "--redis-host");
        refused("--redis-host h --redis-port 0", "--redis-port");
        refused("--redis-host h --redis-url redis://h", "--redis-url");
        refused("--reset --no-reset", "--no-reset");
        refused("--archive --redis-url redis://h", "--redis-url");
        refused("--archive --archive-url postgres://h/d", "--archive-url");
        refused("--surprise", "--surprise");
        refused("--stream-key a{b", "--stream-key");
    }

    #[test]
    fn the_stories_are_asked_for_by_their_names() {
        let url = Some("redis://h".to_owned());
        assert_eq!(words("--story").unwrap(), Arguments::Story { url: None });
        assert_eq!(words("--story --redis-url redis://h").unwrap(), Arguments::Story { url });
        let given = |as_superuser| Wish { url: Some("postgres://h/d".to_owned()), as_superuser };
        assert_eq!(words("--postgres").unwrap(), Arguments::Postgres(Wish::default()));
        let story = words("--postgres-url postgres://h/d").unwrap();
        assert_eq!(story, Arguments::Postgres(given(false)));
        let story = words("--postgres --postgres-url postgres://h/d --as-superuser").unwrap();
        assert_eq!(story, Arguments::Postgres(given(true)));
        refused("--postgres-url", "--postgres-url");
        refused("--postgres --as-superuser", "--postgres-url");
        refused("--postgres --redis-url redis://h", "--redis-url");
    }

    #[test]
    fn a_cluster_is_private_and_has_a_page_and_a_story() {
        let place = page("--port 0").place;
        assert_eq!(words("--cluster --port 0").unwrap(), Arguments::Cluster(place));
        assert_eq!(words("--cluster --story").unwrap(), Arguments::ClusterStory);
        refused("--cluster --redis-url redis://h", "--redis-url");
        refused("--cluster --archive", "--archive");
        refused("--cluster --postgres", "--postgres");
    }

    #[test]
    fn an_address_with_a_password_is_never_shown() {
        let shown = format!("{:?}", page("--redis-url redis://u:canary@h"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
