//! Sentinels and servers in this process, which answer as each test wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::super::dial::{Opened, open_shared};
use super::super::scan::FrameScanner;
use super::*;

/// Answers a request, given its words; `None` is `+OK`.
type Answer = dyn Fn(&[&str]) -> Option<String> + Send + Sync;

/// A server that stops when this is dropped.
struct Fake {
    port: u16,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Fake {
    async fn start(answer: impl Fn(&[&str]) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Arc<Answer> = Arc::new(answer);
        let asked = Arc::new(AtomicUsize::new(0));
        let (mut serving, count) = (JoinSet::new(), Arc::clone(&asked));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(socket, Arc::clone(&answer)));
            }
        });
        Self { port, asked, _serving: serving }
    }

    /// A Sentinel that names a server.
    async fn naming(port: u16, epoch: u64) -> Self {
        Self::start(move |words| match words {
            ["SENTINEL", "get-master-addr-by-name", _] => {
                Some(list(&["127.0.0.1", &port.to_string()]))
            }
            ["SENTINEL", "master", _] => Some(list(&["config-epoch", &epoch.to_string()])),
            ["SUBSCRIBE", channel] => {
                Some(format!(">3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel)))
            }
            _ => None,
        })
        .await
    }

    /// A server of this role.
    async fn of_role(role: &'static str) -> Self {
        Self::start(move |words| match words {
            ["ROLE"] => Some(list(&[role])),
            ["INFO", ..] => Some(bulk("redis_version:8.8.0\r\nredis_mode:standalone\r\n")),
            _ => None,
        })
        .await
    }

    fn connections(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve(mut socket: TcpStream, answer: Arc<Answer>) {
    let mut asked = BytesMut::new();
    while socket.read_buf(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
        while let Ok(Some(end)) = FrameScanner::new().end(&asked) {
            let request = String::from_utf8(asked.split_to(end).to_vec()).unwrap();
            let words = request.split("\r\n").skip(2).step_by(2).collect::<Vec<_>>();
            let answer = answer(&words).unwrap_or_else(|| "+OK\r\n".to_owned());
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn list(items: &[&str]) -> String {
    let items = items.iter().copied().map(bulk).collect::<Vec<_>>();
    format!("*{}\r\n{}", items.len(), items.concat())
}

/// A port on which nothing listens. The socket keeps it from tests that run at the same time.
struct ClosedPort {
    port: u16,
    _socket: TcpSocket,
}

impl ClosedPort {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { port: socket.local_addr().unwrap().port(), _socket: socket }
    }
}

fn watching(ports: &[u16]) -> Sentinel {
    let seeds = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
    let text = format!(":canary@{}/jobs", seeds.join(","));
    Sentinel::new(&text, ConnectionOptions::default()).unwrap()
}

async fn connected(sentinel: &Sentinel) -> Result<Opened, String> {
    sentinel.connect(open_shared).await.map_err(|error| cause(&error))
}

#[tokio::test]
async fn the_error_says_what_each_sentinel_said() {
    let replica = Fake::of_role("slave").await;
    let one = Fake::naming(replica.port, 1).await;
    let none = Fake::start(|words| match words {
        ["SENTINEL", "get-master-addr-by-name", _] => Some("*-1\r\n".to_owned()),
        _ => None,
    })
    .await;
    let other = Fake::start(|words| match words {
        ["SENTINEL", ..] => Some("-ERR unknown command 'SENTINEL', with args\r\n".to_owned()),
        _ => None,
    })
    .await;
    let closed = ClosedPort::new();
    let ports = [one.port, none.port, other.port, closed.port, one.port];
    let error = connected(&watching(&ports)).await.map(drop).unwrap_err();
    for part in [
        "no primary jobs was found: ".to_owned(),
        format!("127.0.0.1:{}: it named 127.0.0.1:{}: it is a replica", one.port, replica.port),
        format!("127.0.0.1:{}: it knows no primary named jobs", none.port),
        format!("127.0.0.1:{}: it is not a Sentinel", other.port),
        format!("127.0.0.1:{}: Connection refused", closed.port),
    ] {
        assert!(error.contains(&part), "{part}: {error}");
    }
    assert!(!error.contains("canary"), "{error}");
    assert_eq!(replica.connections(), 1, "it was named twice and tried once");
}

#[tokio::test]
async fn the_sentinel_that_answered_is_asked_first_the_next_time() {
    let primary = Fake::of_role("master").await;
    let silent = Fake::start(|words| match words {
        ["SENTINEL", ..] => Some("*0\r\n".to_owned()),
        _ => None,
    })
    .await;
    let knows = Fake::naming(primary.port, 1).await;
    let sentinel = watching(&[silent.port, knows.port]);
    connected(&sentinel).await.unwrap();
    assert_eq!((silent.connections(), primary.connections()), (1, 1));
    connected(&sentinel).await.unwrap();
    assert_eq!((silent.connections(), primary.connections()), (1, 2));
}

/// Makes a client know this primary.
fn know(sentinel: &Sentinel, port: u16, epoch: u64) {
    let named = Named { host: "127.0.0.1".to_owned(), port, epoch: Some(epoch) };
    assert!(sentinel.known.commit(&Candidate::new(named), false));
}

#[tokio::test]
async fn an_older_answer_counts_if_there_is_no_newer_one() {
    let (old, new) = (Fake::of_role("master").await, Fake::of_role("master").await);
    let (behind, ahead) = (Fake::naming(old.port, 4).await, Fake::naming(new.port, 5).await);
    let sentinel = watching(&[behind.port, ahead.port]);
    // The first sentinel is the one that answered last, with what was true at that time.
    know(&sentinel, new.port, 5);
    let first = connected(&sentinel).await.unwrap();
    assert_eq!((old.connections(), new.connections()), (0, 1));
    drop(ahead);
    let second = connected(&sentinel).await.unwrap();
    assert_eq!((old.connections(), new.connections()), (0, 2), "the known one still opens");
    assert!(!first.closed.is_cancelled() && !second.closed.is_cancelled());
    drop(new);
    let third = connected(&sentinel).await.unwrap();
    assert_eq!(old.connections(), 1);
    assert!(second.closed.is_cancelled() && !third.closed.is_cancelled());
}

#[tokio::test]
async fn a_sentinel_that_names_a_replica_ends_no_connection() {
    let (primary, replica) = (Fake::of_role("master").await, Fake::of_role("slave").await);
    let (foreign, knows) =
        (Fake::naming(replica.port, 9).await, Fake::naming(primary.port, 1).await);
    let sentinel = watching(&[foreign.port, knows.port]);
    know(&sentinel, primary.port, 1);
    let tenure = sentinel.known.primary().unwrap().tenure().connection();
    let opened = connected(&sentinel).await.unwrap();
    assert_eq!((primary.connections(), replica.connections()), (1, 1));
    let watch = Watch::new(&sentinel.known, sentinel.primary.clone(), sentinel.stop.clone());
    let named = Named { host: "127.0.0.1".to_owned(), port: replica.port, epoch: Some(9) };
    assert_eq!(watch.take(0, named.clone(), false).await, Some(false));
    let unclear = Named { epoch: None, ..named.clone() };
    assert_eq!(watch.take(0, unclear, false).await, Some(false));
    let older = Named { epoch: Some(0), ..named.clone() };
    assert_eq!(watch.take(0, older, true).await, Some(false));
    assert!(!opened.closed.is_cancelled() && !tenure.is_cancelled());
    assert_eq!(watch.take(0, named, true).await, Some(true), "the failover itself was heard");
    assert!(opened.closed.is_cancelled() && tenure.is_cancelled());
}

#[tokio::test]
async fn a_known_primary_that_became_a_replica_does_not_hold_the_client() {
    let (was, primary) = (Fake::of_role("slave").await, Fake::of_role("master").await);
    let (behind, anew) = (Fake::naming(was.port, 5).await, Fake::naming(primary.port, 0).await);
    let sentinel = watching(&[behind.port, anew.port]);
    know(&sentinel, was.port, 5);
    connected(&sentinel).await.unwrap();
    assert_eq!((was.connections(), primary.connections()), (1, 1));
}

#[tokio::test]
async fn the_former_primary_is_not_used_while_the_new_one_cannot_be_reached() {
    let (old, new) = (Fake::of_role("master").await, ClosedPort::new());
    let (behind, ahead) = (Fake::naming(old.port, 4).await, Fake::naming(new.port, 5).await);
    let sentinel = watching(&[behind.port, ahead.port]);
    know(&sentinel, new.port, 5);
    let error = connected(&sentinel).await.map(drop).unwrap_err();
    let expected = format!("it named 127.0.0.1:{}, the primary before the last failover", old.port);
    assert!(error.contains(&expected), "{error}");
    assert_eq!(old.connections(), 0);
}

/// This test takes a second of the real clock.
#[tokio::test]
async fn a_sentinel_that_does_not_answer_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let primary = Fake::of_role("master").await;
    let knows = Fake::naming(primary.port, 1).await;
    let silent_port = silent.local_addr().unwrap().port();
    connected(&watching(&[silent_port, knows.port])).await.unwrap();
    assert_eq!(primary.connections(), 1);
    let error = connected(&watching(&[silent_port])).await.map(drop).unwrap_err();
    assert!(error.ends_with(&format!("127.0.0.1:{silent_port}: timed out")), "{error}");
}

/// This test takes a few seconds of the real clock.
#[tokio::test]
async fn a_search_without_time_for_all_sentinels_is_continued_by_the_next() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let primary = Fake::of_role("master").await;
    let knows = Fake::naming(primary.port, 1).await;
    let sentinel = watching(&[port, port, port, port, port, port, knows.port]);
    let error = connected(&sentinel).await.map(drop).unwrap_err();
    let expected = format!("127.0.0.1:{}: it was not asked in time", knows.port);
    assert!(error.contains(&expected), "{error}");
    connected(&sentinel).await.unwrap();
    assert_eq!(primary.connections(), 1);
}

#[tokio::test]
async fn a_sentinel_that_refuses_to_tell_of_failovers_is_asked_again_and_again() {
    let (old, new) = (Fake::of_role("master").await, Fake::of_role("master").await);
    let named = Arc::new(AtomicUsize::new(old.port.into()));
    let now = Arc::clone(&named);
    let sentinel = Fake::start(move |words| match words {
        ["SENTINEL", "get-master-addr-by-name", _] => {
            Some(list(&["127.0.0.1", &now.load(Ordering::Relaxed).to_string()]))
        }
        ["SENTINEL" | "SUBSCRIBE", ..] => Some("-NOPERM no permissions\r\n".to_owned()),
        _ => None,
    })
    .await;
    let watching = watching(&[sentinel.port]);
    let opened = connected(&watching).await.unwrap();
    let reading = opened.tenure.within(std::future::pending::<RedisResult<()>>());
    named.store(new.port.into(), Ordering::Relaxed);
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
    assert!(ended.is_err() && opened.closed.is_cancelled());
    connected(&watching).await.unwrap();
    // Without an epoch, the watch asks the new server for its role before it ends the former
    // primary's tenure.
    assert_eq!((old.connections(), new.connections()), (1, 2));
}

/// The first sentinel is cut off together with the former primary, and continues to name it.
#[tokio::test]
async fn a_failover_is_heard_of_although_the_sentinel_that_is_listened_to_was_not_told() {
    let (old, new) = (Fake::of_role("master").await, Fake::of_role("master").await);
    let (behind, ahead) = (Fake::naming(old.port, 4).await, Fake::naming(new.port, 5).await);
    let closed = ClosedPort::new();
    let sentinel = watching(&[behind.port, closed.port, ahead.port]);
    let opened = connected(&sentinel).await.unwrap();
    assert_eq!((old.connections(), new.connections()), (1, 0));
    let reading = opened.tenure.within(std::future::pending::<RedisResult<()>>());
    let ended = tokio::time::timeout(Duration::from_secs(40), reading).await.unwrap();
    assert!(ended.is_err() && opened.closed.is_cancelled());
    let again = connected(&sentinel).await.unwrap();
    assert_eq!((old.connections(), new.connections()), (1, 2), "it was asked for its role before");
    assert!(!again.closed.is_cancelled());
}

#[tokio::test]
async fn without_any_sentinel_the_known_primary_is_used_if_it_still_is_one() {
    let primary = Fake::of_role("master").await;
    let knows = Fake::naming(primary.port, 1).await;
    let sentinel = watching(&[knows.port]);
    let first = connected(&sentinel).await.unwrap();
    drop(knows);
    let second = connected(&sentinel).await.unwrap();
    assert_eq!(primary.connections(), 2);
    assert!(!first.closed.is_cancelled() && !second.closed.is_cancelled());
    let (replica, closed) = (Fake::of_role("slave").await, ClosedPort::new());
    let sentinel = watching(&[closed.port]);
    know(&sentinel, replica.port, 1);
    let error = connected(&sentinel).await.map(drop).unwrap_err();
    let known =
        format!("the primary that was known is 127.0.0.1:{}: it is a replica", replica.port);
    assert!(error.contains(&known), "{error}");
}

#[tokio::test]
async fn a_login_that_the_primary_refuses_is_its_own_error() {
    let primary = Fake::start(|words| match words {
        ["CLIENT", ..] => Some("-NOAUTH Authentication required.\r\n".to_owned()),
        _ => None,
    })
    .await;
    let knows = Fake::naming(primary.port, 1).await;
    let error = watching(&[knows.port]).connect(open_shared).await.map(drop).unwrap_err();
    assert!(is_authentication(&error), "{error}");
}

#[tokio::test]
async fn a_login_that_one_named_server_refuses_does_not_end_the_search() {
    let foreign = Fake::start(|words| match words {
        ["CLIENT", ..] => Some("-NOAUTH Authentication required.\r\n".to_owned()),
        _ => None,
    })
    .await;
    let primary = Fake::of_role("master").await;
    let other = Fake::naming(foreign.port, 1).await;
    let knows = Fake::naming(primary.port, 1).await;
    connected(&watching(&[other.port, knows.port])).await.unwrap();
    assert_eq!((foreign.connections(), primary.connections()), (1, 1));
    drop(primary);
    let alone = watching(&[other.port, knows.port]);
    let error = alone.connect(open_shared).await.map(drop).unwrap_err();
    assert!(is_authentication(&error), "no other server worked: {error}");
}

#[tokio::test]
async fn the_watch_ends_with_its_client() {
    let primary = Fake::of_role("master").await;
    let knows = Fake::naming(primary.port, 1).await;
    let sentinel = watching(&[knows.port]);
    connected(&sentinel).await.unwrap();
    let watch = sentinel.watches.lock().unwrap().pop().unwrap().1;
    drop(sentinel);
    tokio::time::timeout(Duration::from_secs(20), watch).await.unwrap().unwrap();
}

#[tokio::test]
async fn each_executor_that_connects_has_a_watch_of_its_own() {
    let primary = Fake::of_role("master").await;
    let knows = Fake::naming(primary.port, 1).await;
    let sentinel = Arc::new(watching(&[knows.port]));
    let watches = |sentinel: &Sentinel| sentinel.watches.lock().unwrap().len();
    for _ in 0..2 {
        connected(&sentinel).await.unwrap();
        assert_eq!(watches(&sentinel), 1);
    }
    let other = Arc::clone(&sentinel);
    let elsewhere = tokio::task::spawn_blocking(move || {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        executor.block_on(connected(&other)).unwrap();
        watches(&other)
    });
    assert_eq!(elsewhere.await.unwrap(), 2);
    connected(&sentinel).await.unwrap();
    assert_eq!(watches(&sentinel), 1, "the other executor is gone");
}
