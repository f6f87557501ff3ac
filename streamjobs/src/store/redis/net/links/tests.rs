//! Tries links with servers that answer as far as each test wants.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::super::scan::FrameScanner;
use super::*;
use crate::model::config::ConnectionOptions;

/// Answers one connection's requests as a server of this version does, until this command. It
/// answers that command only if the command is part of opening a connection.
async fn serve_until(listener: &TcpListener, version: &str, last: &str) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let info = format!("redis_version:{version}\r\n");
    let info = format!("${}\r\n{info}\r\n", info.len());
    let mut asked = BytesMut::new();
    loop {
        while let Some(end) = FrameScanner::new().end(&asked).unwrap() {
            let request = String::from_utf8(asked.split_to(end).to_vec()).unwrap();
            let command = request.split("\r\n").nth(2).unwrap();
            let answer = match command {
                "PING" if last == "PING" => return,
                "INFO" => info.as_str(),
                _ => "+OK\r\n",
            };
            socket.write_all(answer.as_bytes()).await.unwrap();
            if command == last {
                return;
            }
        }
        socket.read_buf(&mut asked).await.unwrap();
    }
}

#[tokio::test]
async fn each_connection_learns_anew_what_the_server_can_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let link = Link::new(
        Endpoint::new(&format!("redis://127.0.0.1:{port}"), ConnectionOptions::default()).unwrap(),
        &[],
    );
    assert!(format!("{link:?}").contains("capabilities: None"));
    let asking = async {
        for version in ["7.0.15", "8.8.0"] {
            link.inner.lock().pause.clear();
            let release = link.capabilities().await.unwrap().release.unwrap();
            assert_eq!(release.to_string(), format!("Redis {version}"));
            assert!(format!("{link:?}").contains(version));
            link.command(&redis::cmd("PING")).await.unwrap_err();
            assert!(format!("{link:?}").contains("capabilities: None"));
        }
    };
    let serving = async {
        serve_until(&listener, "7.0.15", "PING").await;
        serve_until(&listener, "8.8.0", "PING").await;
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn a_connection_that_breaks_as_soon_as_it_is_open_is_replaced_for_the_next_command() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let link = Link::new(
        Endpoint::new(&format!("redis://127.0.0.1:{port}"), ConnectionOptions::default()).unwrap(),
        &[],
    );
    let asking = async {
        link.capabilities().await.unwrap();
        let closed = link.inner.lock().live.as_ref().unwrap().closed.clone();
        closed.cancelled().await;
        link.command(&redis::cmd("ECHO")).await.unwrap();
    };
    let serving = async {
        serve_until(&listener, "8.8.0", "INFO").await;
        serve_until(&listener, "8.8.0", "ECHO").await;
    };
    tokio::join!(asking, serving);
}

#[test]
fn an_attempt_to_connect_of_an_executor_that_does_not_run_is_not_waited_for_without_end() {
    let blocked = Builder::new_current_thread().enable_all().build().unwrap();
    let other = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let link = Link::new(Endpoint::new(&address, ConnectionOptions::default()).unwrap(), &[]);
    let (first, listener_there) = (link.clone(), listener.try_clone().unwrap());
    // The attempt waits for the answer to its first request, which the server reads and does not
    // answer.
    let mut asking = JoinSet::new();
    let _unanswered = blocked.block_on(async {
        asking.spawn(async move { first.command(&redis::cmd("ECHO")).await });
        let listener = TcpListener::from_std(listener_there).unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_u8().await.unwrap();
        socket
    });
    other.block_on(async {
        let waiting = timeout(2 * OPENING_DEADLINE, link.pinned()).await;
        let error = waiting.expect("it ends by itself").err();
        assert!(matches!(error, Some(StoreError::Unreachable(_))), "{error:?}");
        tokio::time::resume();
        let listener = TcpListener::from_std(listener).unwrap();
        let echo = redis::cmd("ECHO");
        let serving = serve_until(&listener, "8.8.0", "ECHO");
        let (answer, ()) = tokio::join!(link.command(&echo), serving);
        answer.unwrap();
    });
}

#[tokio::test]
async fn callers_during_the_pause_get_the_cause_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let link = Link::new(
        Endpoint::new(&format!("redis://:canary@127.0.0.1:{port}"), ConnectionOptions::default())
            .unwrap(),
        &[],
    );
    for text in ["refused", "waiting before the next attempt"] {
        let error = link.command(&redis::cmd("PING")).await.unwrap_err();
        let StoreError::Unreachable(cause) = error else { panic!("{error:?}") };
        assert!(cause.to_string().contains(text), "{cause}");
    }
    assert!(!format!("{link:?}").contains("canary"));
}
