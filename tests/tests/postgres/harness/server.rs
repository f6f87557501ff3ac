//! Servers, their end, and what tests ask of them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::process::{Worker, is_running};
use streamjobs_tests::server::{DemoServer, RedisServer, ServerError};

use super::DEADLINE;

#[test]
fn server_answers_and_is_ours() {
    let server = RedisServer::start().unwrap();
    assert_eq!(server.query::<String>(&["PING"]), "PONG");
    assert_eq!(server.info("process_id"), Some(server.pid().to_string()));
    assert_eq!(server.info("tcp_port"), Some(server.port().to_string()));
}

#[test]
fn two_servers_share_nothing() {
    let (one, other) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    one.command(&["SET", "key", "value"]);
    assert_eq!(other.query::<Option<String>>(&["GET", "key"]), None);
    assert_ne!(one.dir(), other.dir());
}

#[test]
fn many_servers_start_at_once() {
    let start = || std::thread::spawn(|| RedisServer::start().unwrap());
    let started: Vec<_> = std::iter::repeat_with(start).take(8).collect();
    let servers: Vec<_> = started.into_iter().map(|thread| thread.join().unwrap()).collect();
    let ports: std::collections::HashSet<_> = servers.iter().map(RedisServer::port).collect();
    assert_eq!(ports.len(), servers.len());
}

#[test]
fn server_and_its_folder_go_when_dropped() {
    let server = RedisServer::start().unwrap();
    let (pid, dir) = (server.pid(), server.dir());
    assert!(is_running(pid) && dir.is_dir());
    drop(server);
    assert!(!is_running(pid) && !dir.exists());
}

#[test]
fn frozen_server_goes_when_dropped() {
    let server = RedisServer::start().unwrap();
    let pid = server.pid();
    server.freeze();
    drop(server);
    assert!(!is_running(pid));
}

/// The helper starts a server, prints its process id and folder, and aborts.
#[test]
fn server_and_its_folder_go_when_their_process_aborts() {
    let helper = Command::new(env!("CARGO_BIN_EXE_abandon")).output().unwrap();
    assert_eq!(helper.status.code(), None, "it did not abort: {helper:?}");
    assert_all_gone(&String::from_utf8(helper.stdout).unwrap());
}

#[test]
fn server_and_its_folder_go_when_their_process_is_killed() {
    let builder = Worker::builder(env!("CARGO_BIN_EXE_abandon")).arg("serve");
    let mut helper = builder.start().unwrap();
    let printed = helper.wait_for(|line| line.contains('/'), DEADLINE);
    helper.kill();
    assert_all_gone(&printed);
}

#[test]
fn server_and_its_folder_go_although_no_program_is_in_the_path() {
    let builder = Worker::builder(env!("CARGO_BIN_EXE_abandon")).arg("serve").env("PATH", "");
    let mut helper = builder.start().unwrap();
    let printed = helper.wait_for(|line| line.contains('/'), DEADLINE);
    helper.kill();
    assert_all_gone(&printed);
}

fn assert_all_gone(printed: &str) {
    let (pid, dir) = printed.trim().split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    eventually(DEADLINE, "the server ends", || !is_running(pid));
    eventually(DEADLINE, "the folder goes", || !Path::new(dir).exists());
}

#[test]
fn killed_server_has_its_data_back_if_append_only() {
    let server = RedisServer::builder().append_only(true).start().unwrap();
    let (pid, port) = (server.pid(), server.port());
    server.command(&["XADD", "orders", "1-1", "name", "value"]);
    server.kill();
    server.kill();
    assert!(!is_running(pid));
    assert!(server.try_query::<()>(&["PING"]).is_err());
    server.restart().unwrap();
    assert_eq!((server.port(), server.length("orders")), (port, 1));
    assert_ne!(server.pid(), pid);
}

#[test]
fn restarted_server_is_empty_unless_append_only() {
    let server = RedisServer::start().unwrap();
    server.command(&["SET", "key", "value"]);
    server.restart().unwrap();
    assert_eq!(server.query::<usize>(&["DBSIZE"]), 0);
}

/// A request sent to a frozen server stays unanswered on an open connection until it is thawed.
#[test]
fn frozen_server_answers_once_thawed() {
    let server = RedisServer::start().unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    server.freeze();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client.write_all(b"PING\r\n").unwrap();
    assert!(replies.next().unwrap().is_err());
    server.thaw();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "+PONG");
}

#[test]
fn settings_reach_the_server() {
    let server = RedisServer::builder().config("maxmemory", "1mb").start().unwrap();
    assert_eq!(server.info("maxmemory").as_deref(), Some("1048576"));
}

#[test]
fn server_that_rejects_a_setting_says_so_at_once() {
    let error = RedisServer::builder().config("no-such-setting", "1").start().unwrap_err();
    assert!(matches!(error, ServerError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[test]
fn server_without_a_port_gives_up_with_its_log() {
    let taken = RedisServer::start().unwrap();
    let builder = RedisServer::builder().config("port", taken.port().to_string());
    let error = builder.start().unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn password_is_asked_for_and_never_shown() {
    let builder = RedisServer::builder().password("hush").config("masterauth", "hush");
    assert!(!format!("{builder:?}").contains("hush"));
    let server = builder.start().unwrap();
    assert!(!format!("{server:?}").contains("hush"));
    let bare = redis::Client::open(("127.0.0.1", server.port())).unwrap();
    let refused = bare.get_connection().and_then(|mut c| redis::cmd("PING").query::<()>(&mut c));
    assert!(refused.unwrap_err().to_string().contains("NOAUTH"));
    assert_eq!(server.query::<String>(&["PING"]), "PONG");
    server.restart().unwrap();
}

#[test]
fn server_listens_on_a_unix_socket_if_asked() {
    let server = RedisServer::builder().unix_socket(true).password("hush").start().unwrap();
    let client = redis::Client::open(server.unix_url().unwrap()).unwrap();
    let pong: String = redis::cmd("PING").query(&mut client.get_connection().unwrap()).unwrap();
    assert_eq!(pong, "PONG");
    assert_eq!(RedisServer::start().unwrap().unix_url(), None);
}

#[test]
fn ageing_an_entry_keeps_its_owner_and_delivery_count() {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "mail", "0", "MKSTREAM"]);
    server.command(&["XADD", "orders", "1-1", "name", "value"]);
    server.command(&["XREADGROUP", "GROUP", "mail", "here", "STREAMS", "orders", ">"]);
    server.age("orders", "mail", "1-1", Duration::from_secs(3600));
    let pending = server.pending("orders", "mail");
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].id.as_str(), pending[0].consumer.as_str()), ("1-1", "here"));
    assert_eq!(pending[0].deliveries, 1);
    assert!(pending[0].idle >= Duration::from_secs(3600), "{pending:?}");
}

#[test]
#[should_panic(expected = "entry 1-1 of stream orders is not pending in group mail")]
fn ageing_an_entry_that_is_not_pending_panics() {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "mail", "0", "MKSTREAM"]);
    server.age("orders", "mail", "1-1", Duration::from_secs(1));
}

#[test]
fn entries_come_with_their_fields_in_order() {
    let server = RedisServer::start().unwrap();
    server.command(&[&b"XADD"[..], b"orders", b"1-1", b"b", b"\xff", b"a", b"text"]);
    let entries = server.entries("orders");
    assert_eq!((entries.len(), entries[0].id.as_str()), (1, "1-1"));
    assert_eq!(entries[0].fields[0], (b"b".to_vec(), b"\xff".to_vec()));
    assert_eq!(entries[0].text("a").as_deref(), Some("text"));
}

#[test]
fn client_list_names_connections_but_not_the_one_that_asks() {
    let server = RedisServer::start().unwrap();
    let mut client = redis::Client::open(server.plain_url()).unwrap().get_connection().unwrap();
    redis::cmd("CLIENT").arg("SETNAME").arg("reader").exec(&mut client).unwrap();
    let clients = server.client_list();
    assert_eq!(clients.len(), 1, "{clients:?}");
    assert_eq!(clients[0].name, "reader");
    server.command(&["CLIENT", "KILL", "ID", &clients[0].id.to_string()]);
    assert!(redis::cmd("PING").exec(&mut client).is_err());
}

#[test]
fn demo_runs_on_the_server_it_is_given() {
    let server = RedisServer::start().unwrap();
    let given = DemoServer::start(Some(&server.url())).unwrap();
    assert_eq!(given.url(), server.url());
    assert!(!format!("{given:?}").contains(&server.port().to_string()));
}
