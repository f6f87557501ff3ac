//! Passwords that rotate: the application is asked who logs in at each connect.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use streamjobs::config::Credentials;
use streamjobs::error::ConnectError;
use streamjobs::{Client, ClientBuilder, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::app::{DEADLINE, Work, options, order, quick, settled, until, work};

/// A store of secrets, which may be sealed.
#[derive(Clone)]
struct Vault {
    password: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn new(password: &str) -> Self {
        let password = Mutex::new(Some(password.to_owned())).into();
        Self { password, asked: Arc::default() }
    }

    fn set(&self, password: Option<&str>) {
        *self.password.lock().unwrap() = password.map(str::to_owned);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn provides(&self, server: &RedisServer) -> ClientBuilder {
        let vault = self.clone();
        builder(server).credentials(move || {
            vault.asked.fetch_add(1, Ordering::Relaxed);
            let password = vault.password.lock().unwrap().clone();
            async move {
                let password = password.ok_or("the vault of first-secret is sealed")?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Credentials::new("bob", password))
            }
        })
    }
}

/// A server that serves only users who have logged in.
fn server() -> RedisServer {
    RedisServer::builder().password("harness").start().unwrap()
}

/// A client of the server, without a login.
fn builder(server: &RedisServer) -> ClientBuilder {
    Client::builder(&server.url_without_login())
}

/// Gives the user this password and no other.
fn set_password(server: &RedisServer, password: &str) {
    let password = format!(">{password}");
    server.command(&["ACL", "SETUSER", "bob", "reset", "on", &password, "~*", "&*", "+@all"]);
}

fn kill(server: &RedisServer) {
    server.command(&["CLIENT", "KILL", "USER", "bob"]);
}

async fn running(client: &Client, counted: &Work) -> Runtime {
    let builder = Runtime::builder(client).handlers(handlers![work]).state(counted.clone());
    quick(builder.group("work", options())).start().await.unwrap()
}

/// A runtime whose passwords come from a vault.
struct Started {
    server: RedisServer,
    vault: Vault,
    client: Client,
    fine: Work,
    runtime: Runtime,
}

impl Started {
    async fn new() -> Self {
        let server = server();
        set_password(&server, "first-secret");
        let vault = Vault::new("first-secret");
        let client = vault.provides(&server).connect().await.unwrap();
        let fine = Work::fine();
        let runtime = running(&client, &fine).await;
        Self { server, vault, client, fine, runtime }
    }
}

#[tokio::test]
async fn a_rotated_password_is_used_at_the_next_connect_and_jobs_go_on() {
    let Started { server, vault, client, fine, runtime } = Started::new().await;
    client.publish(&order("before")).await.unwrap();
    fine.wait_for(1).await;
    let checkup = client.doctor().await.unwrap();
    assert!(checkup.server.ends_with("as user bob"), "{}", checkup.server);
    for round in 1..=2 {
        let password = format!("secret {round}");
        set_password(&server, &password);
        vault.set(Some(&password));
        let asked = vault.asked();
        kill(&server);
        let next = order(round);
        eventually_async(DEADLINE, "published", async || client.publish(&next).await.is_ok()).await;
        until(DEADLINE, "done", || fine.distinct() == 1 + round).await;
        assert!(vault.asked() >= asked + 2, "for the shared connection and for the reader's");
    }
    // More readers share connections, and another one tells them what has changed.
    for _ in 0..5 {
        runtime.add_consumer("work").await.unwrap();
    }
    let told = || server.client_list().iter().any(|client| client.flags.contains('t'));
    until(DEADLINE, "readers are told", told).await;
    set_password(&server, "last secret");
    vault.set(Some("last secret"));
    kill(&server);
    let next = order("last");
    eventually_async(DEADLINE, "published", async || client.publish(&next).await.is_ok()).await;
    until(DEADLINE, "done", || fine.distinct() == 4).await;
    until(DEADLINE, "readers are told again", told).await;
    settled(&runtime).await;
    assert_eq!(runtime.counters().failed, 0);
    assert!(!format!("{client:?}").contains("secret"), "{client:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_provider_that_fails_is_named_without_the_secret_and_asked_again() {
    let Started { server, vault, client, fine, runtime } = Started::new().await;
    vault.set(None);
    kill(&server);
    let asked = vault.asked();
    until(DEADLINE, "asked again", || vault.asked() >= asked + 3).await;
    let error = client.publish(&order(1)).await.unwrap_err();
    assert!(!error.is_unconfirmed());
    let text = format!("{error} {error:?}");
    assert!(text.contains("the credentials provider failed: the vault of *** is sealed"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    vault.set(Some("first-secret"));
    let next = order(2);
    eventually_async(DEADLINE, "published", async || client.publish(&next).await.is_ok()).await;
    until(DEADLINE, "done", || fine.count() >= 1).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_provider_that_hangs_or_panics_or_gives_a_wrong_password_is_an_error_that_says_so() {
    let server = server();
    set_password(&server, "first-secret");
    let error = |builder: ClientBuilder| async { builder.connect().await.unwrap_err().to_string() };
    let hanging =
        builder(&server).credentials(std::future::pending::<Result<Credentials, std::io::Error>>);
    let text = error(hanging).await;
    assert!(text.contains("the credentials provider gave no answer within 3 s"), "{text}");
    let panicking = builder(&server).credentials(|| async {
        if true {
            panic!("no vault");
        }
        Ok::<_, std::io::Error>(Credentials::new("bob", ""))
    });
    let text = error(panicking).await;
    assert!(text.contains("the credentials provider panicked: no vault"), "{text}");
    let text = error(Vault::new("another-secret").provides(&server)).await;
    assert!(text.contains("the login is missing or wrong: "), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_password_in_the_address_beside_a_provider_is_refused() {
    let provider = || async { Ok::<_, std::io::Error>(Credentials::new("bob", "first-secret")) };
    for url in ["redis://:canary@127.0.0.1:1", "redis://bob:canary@127.0.0.1:1"] {
        let error = Client::builder(url).credentials(provider).connect().await.unwrap_err();
        let ConnectError::Setting(text) = error else { panic!("{error}") };
        assert_eq!(text, "the address has a password, and credentials are provided as well");
    }
    let debug = format!("{:?}", Credentials::new("bob", "canary"));
    assert!(debug.contains("bob") && !debug.contains("canary"), "{debug}");
}

/// Also the connection on which readers that share others are told of changes.
#[tokio::test]
async fn every_connection_of_a_process_has_the_provided_login() {
    let server = RedisServer::start().unwrap();
    set_password(&server, "first-secret");
    let client = Vault::new("first-secret").provides(&server).connect().await.unwrap();
    let fine = Work::fine();
    let runtime = running(&client, &fine).await;
    for _ in 0..5 {
        runtime.add_consumer("work").await.unwrap();
    }
    let is_told = || server.client_list().iter().any(|row| row.told.is_some());
    until(DEADLINE, "the readers are told of changes", is_told).await;
    let list: String = server.query(&["CLIENT", "LIST"]);
    let ours = list.lines().filter(|row| row.contains("name=streamjobs"));
    let users = ours.map(|row| row.contains("user=bob")).collect::<Vec<_>>();
    assert!(users.len() > 2 && users.iter().all(|is_bob| *is_bob), "{list}");
    let _ = runtime.shutdown().await;
}
