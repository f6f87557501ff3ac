//! Faults on the way to a server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use super::DEADLINE;

/// How long to listen before believing that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

#[test]
fn all_passes_at_first_and_connections_are_counted() {
    let (_server, proxy) = start();
    assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!((proxy.connections(), proxy.faults()), (2, 0));
    eventually(DEADLINE, "both links are gone", || proxy.links() == 0);
}

#[test]
fn clients_of_the_redis_crate_pass_with_their_password() {
    let server = RedisServer::builder().plain().password("hush").start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let mut client = redis::Client::open(proxy.url()).unwrap().get_connection().unwrap();
    redis::cmd("SET").arg("key").arg(1).exec(&mut client).unwrap();
    assert_eq!(server.query::<usize>(&["GET", "key"]), 1);
    assert!(!format!("{proxy:?}").contains("hush"));
}

#[test]
fn new_connections_go_where_the_proxy_is_aimed() {
    let (server, proxy) = start();
    let other = RedisServer::builder().plain().start().unwrap();
    let mut before = Client::connect(&proxy);
    // Its link is made once it has been answered.
    assert_eq!(before.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    proxy.aim(&other);
    assert_eq!(Client::connect(&proxy).ask("INCR key"), Heard::Reply(":1\r\n".into()));
    assert_eq!(before.ask("APPEND key ours"), Heard::Reply(":4\r\n".into()));
    assert_eq!(other.query::<usize>(&["GET", "key"]), 1);
    assert_eq!(server.query::<String>(&["GET", "key"]), "ours");
}

#[test]
fn dropped_replies_belong_to_requests_that_were_carried_out() {
    let (server, proxy) = start();
    let mut client = Client::connect(&proxy);
    proxy.set(Mode::DropReplies);
    client.ask_in_vain("INCR key");
    assert_eq!(server.query::<usize>(&["GET", "key"]), 1);
    proxy.set(Mode::Pass);
    assert_eq!(client.ask("INCR key"), Heard::Reply(":2\r\n".into()));
}

#[test]
fn lost_reply_closes_one_link_and_is_over() {
    let (server, proxy) = start();
    let (mut one, mut other) = (Client::connect(&proxy), Client::connect(&proxy));
    proxy.set(Mode::LoseReply);
    assert_eq!(one.ask("INCR key"), Heard::Closed(String::new()));
    assert_eq!(server.query::<usize>(&["GET", "key"]), 1);
    assert_eq!(other.ask("INCR key"), Heard::Reply(":2\r\n".into()));
    assert_eq!(proxy.faults(), 1);
}

#[test]
fn reply_is_lost_to_the_request_that_was_named() {
    let (server, proxy) = start();
    let mut client = Client::connect(&proxy);
    proxy.set(Mode::LoseReplyTo("INCR".into()));
    assert_eq!(client.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!(client.ask("INCR key"), Heard::Closed(String::new()));
    assert_eq!(server.query::<usize>(&["GET", "key"]), 1);
    let again = Client::connect(&proxy).ask("INCR key");
    assert_eq!(again, Heard::Reply(":2\r\n".into()));
}

#[test]
fn cut_reply_ends_after_the_bytes_asked_for() {
    let (_server, proxy) = start();
    let mut client = Client::connect(&proxy);
    proxy.set(Mode::CutReplies { after: 10 });
    assert_eq!(client.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!(client.ask("PING"), Heard::Closed("+PO".into()));
    assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Reply("+PONG\r\n".into()));
}

#[test]
fn black_hole_holds_requests_until_it_is_over() {
    let (server, proxy) = start();
    let mut old = Client::connect(&proxy);
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    proxy.set(Mode::BlackHole);
    let mut new = Client::connect(&proxy);
    old.ask_in_vain("INCR key");
    new.ask_in_vain("INCR key");
    assert_eq!(server.query::<usize>(&["EXISTS", "key"]), 0);
    proxy.set(Mode::Pass);
    assert!(matches!(old.hear(DEADLINE), Heard::Reply(_)));
    assert!(matches!(new.hear(DEADLINE), Heard::Reply(_)));
    assert_eq!(server.query::<usize>(&["GET", "key"]), 2);
}

#[test]
fn severed_and_dropped_links_close_in_a_black_hole_too() {
    let (server, proxy) = start();
    proxy.set(Mode::BlackHole);
    let mut client = Client::connect(&proxy);
    client.ask_in_vain("INCR key");
    proxy.sever();
    assert_eq!(client.hear(DEADLINE), Heard::Closed(String::new()));
    let mut client = Client::connect(&proxy);
    client.ask_in_vain("INCR key");
    drop(proxy);
    assert_eq!(client.hear(DEADLINE), Heard::Closed(String::new()));
    assert_eq!(server.query::<usize>(&["EXISTS", "key"]), 0);
}

#[test]
fn new_connections_are_refused_and_old_ones_stay() {
    let (_server, proxy) = start();
    let mut old = Client::connect(&proxy);
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    proxy.set(Mode::Refuse);
    assert_eq!(Client::connect(&proxy).hear(DEADLINE), Heard::Closed(String::new()));
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!((proxy.connections(), proxy.faults()), (2, 1));
}

#[test]
fn delayed_replies_come_late() {
    let (_server, proxy) = start();
    let mut client = Client::connect(&proxy);
    let delay = Duration::from_millis(60);
    proxy.set(Mode::Delay(delay));
    let begin = Instant::now();
    client.send("PING");
    assert_eq!(client.hear(DEADLINE), Heard::Reply("+PONG\r\n".into()));
    assert!(begin.elapsed() >= delay * 2, "once each way: {:?}", begin.elapsed());
}

#[test]
fn next_connections_have_a_mode_of_their_own() {
    let (_server, proxy) = start();
    let mut old = Client::connect(&proxy);
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    proxy.set_next(2, Mode::CutReplies { after: 2 });
    for _ in 0..2 {
        assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Closed("+P".into()));
    }
    assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Reply("+PONG\r\n".into()));
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
}

#[test]
fn proxy_finds_a_restarted_server() {
    let (server, proxy) = start();
    let mut old = Client::connect(&proxy);
    assert_eq!(old.ask("PING"), Heard::Reply("+PONG\r\n".into()));
    server.kill();
    assert_eq!(old.hear(DEADLINE), Heard::Closed(String::new()));
    assert_eq!(Client::connect(&proxy).hear(DEADLINE), Heard::Closed(String::new()));
    server.restart().unwrap();
    assert_eq!(Client::connect(&proxy).ask("PING"), Heard::Reply("+PONG\r\n".into()));
}

fn start() -> (RedisServer, FaultProxy) {
    let server = RedisServer::builder().plain().start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    (server, proxy)
}

/// What a client gets to hear.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Reply(String),
    /// The connection closed after this much.
    Closed(String),
    Nothing,
}

/// The plainest client there is: commands and replies as bytes.
struct Client(TcpStream);

impl Client {
    fn connect(proxy: &FaultProxy) -> Self {
        let (_, address) = proxy.url().rsplit_once('/').unwrap();
        Self(TcpStream::connect(address).unwrap())
    }

    fn send(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    /// Sends a command that is answered, or whose link is closed.
    fn ask(&mut self, command: &str) -> Heard {
        self.send(command);
        self.hear(DEADLINE)
    }

    /// Sends a command that nothing comes back to.
    fn ask_in_vain(&mut self, command: &str) {
        self.send(command);
        assert_eq!(self.hear(SILENCE), Heard::Nothing);
    }

    /// Listens until a whole line has come, the connection closes, or nothing comes for `wait`.
    fn hear(&mut self, wait: Duration) -> Heard {
        self.0.set_read_timeout(Some(wait)).unwrap();
        let (mut heard, mut buffer) = (Vec::new(), [0; 256]);
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break Heard::Closed(text(&heard)),
                Ok(count) => heard.extend(&buffer[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break Heard::Nothing;
                }
                Err(_) => break Heard::Closed(text(&heard)),
            }
            if heard.ends_with(b"\r\n") {
                break Heard::Reply(text(&heard));
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
