//! Servers behind TLS, with certificates that are made for each test.

use std::time::Duration;

use streamjobs::config::TlsOptions;
use streamjobs::error::ConnectError;
use streamjobs::{Backoff, Client, Runtime, handlers};
use streamjobs_tests::server::RedisServer;

use self::authority::Authority;
use crate::app::{DEADLINE, Work, options, order, quick, settled, until, work};

mod authority;

/// The error of an attempt to connect.
async fn error(url: &str, tls: TlsOptions) -> ConnectError {
    Client::builder(url).tls(tls).connect().await.unwrap_err()
}

/// The text of an error that names a setting.
async fn setting(tls: TlsOptions) -> String {
    match error("rediss://localhost:1", tls).await {
        ConnectError::Setting(text) => text,
        error => panic!("{error}"),
    }
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions::new().ca_pem(authority.ca.as_str())
}

#[tokio::test]
async fn a_pem_without_what_it_should_hold_is_refused_by_name_before_connecting() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.sign("one"), authority.sign("other"));
    let shown =
        |certificate: &str, key: &str| TlsOptions::new().client_certificate_pem(certificate, key);
    for ca in ["", "canary", one.key.as_str()] {
        let text = setting(TlsOptions::new().ca_pem(ca)).await;
        assert_eq!(text, "ca_pem holds no certificate in PEM form");
    }
    let cut = authority.ca.replace("-----END CERTIFICATE-----", "");
    assert_eq!(setting(TlsOptions::new().ca_pem(cut)).await, "ca_pem is not in PEM form");
    let broken = "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n";
    let text = setting(TlsOptions::new().ca_pem(broken)).await;
    assert!(text.starts_with("a certificate of ca_pem cannot be used: "), "{text}");
    assert_eq!(
        setting(shown(&one.key, &one.key)).await,
        "the certificate of client_certificate_pem holds no certificate in PEM form"
    );
    for key in ["canary", one.certificate.as_str()] {
        let text = setting(shown(&one.certificate, key)).await;
        assert!(
            text.starts_with("the key of client_certificate_pem is not a private key"),
            "{text}"
        );
    }
    let text = setting(shown(&one.certificate, &other.key)).await;
    assert_eq!(text, "the key of client_certificate_pem does not fit its certificate");
    let text = setting(TlsOptions::new().server_name("not a name")).await;
    assert_eq!(text, "server_name \"not a name\" is neither a host name nor an IP address");
    let text = error("redis://localhost:1", trusting(&authority)).await.to_string();
    assert_eq!(text, "invalid client setting: tls needs an address that begins with rediss://");
    let debug = format!("{:?}", shown(&one.certificate, &one.key).server_name("host"));
    assert!(debug.contains("host") && !debug.contains("BEGIN"), "{debug}");
}

#[tokio::test]
async fn a_server_whose_certificate_our_authority_did_not_sign_is_refused() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let Some(server) = ours.server("localhost", false) else { return };
    let url = server.tls_url("localhost").unwrap();
    let text = error(&url, trusting(&others)).await.to_string();
    assert!(text.contains("no certificate of TlsOptions::ca_pem signed it"), "{text}");
    // An authority of the same name with another key.
    let text = error(&url, trusting(&Authority::new("ours"))).await.to_string();
    assert!(text.contains("no certificate of TlsOptions::ca_pem signed it"), "{text}");
    let text = Client::connect(&url).await.unwrap_err().to_string();
    assert!(text.contains("no root certificate of the system signed it"), "{text}");
    Client::builder(&url).tls(trusting(&ours)).connect().await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_both_names_unless_it_is_expected() {
    let authority = Authority::new("ours");
    let Some(server) = authority.server("redis.example", false) else { return };
    let url = server.tls_url("127.0.0.1").unwrap();
    let text = error(&url, trusting(&authority)).await.to_string();
    assert!(text.contains("the server's certificate has another name than expected"), "{text}");
    assert!(text.contains("\"127.0.0.1\"") && text.contains("redis.example"), "{text}");
    assert!(text.contains("TlsOptions::server_name"), "{text}");
    let text = error(&url, trusting(&authority).server_name("other.example")).await.to_string();
    assert!(text.contains("\"other.example\"") && text.contains("redis.example"), "{text}");
    let tls = trusting(&authority).server_name("redis.example");
    let client = Client::builder(&url).tls(tls).connect().await.unwrap();
    client.publish(&order(1)).await.unwrap();
    assert_eq!(server.length("orders"), 1);
    assert!(format!("{client:?}").contains("127.0.0.1"), "{client:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_told_apart_and_gets_ours() {
    let (authority, others) = (Authority::new("ours"), Authority::new("others"));
    let Some(server) = authority.server("127.0.0.1", true) else { return };
    let url = server.tls_url("127.0.0.1").unwrap();
    let text = error(&url, trusting(&authority)).await.to_string();
    assert!(text.contains("the server asks for a client certificate"), "{text}");
    assert!(text.contains("TlsOptions::client_certificate_pem"), "{text}");
    let foreign = others.sign("client");
    let tls = trusting(&authority).client_certificate_pem(foreign.certificate, foreign.key);
    let text = error(&url, tls).await.to_string();
    assert!(text.contains("the server does not accept the client certificate"), "{text}");
    let own = authority.sign("client");
    let tls = trusting(&authority).client_certificate_pem(own.certificate, own.key);
    Client::builder(&url).tls(tls).connect().await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_and_one_with_tls_only_are_told_apart_from_a_dead_one() {
    let plain = RedisServer::start().unwrap();
    let url = format!("rediss://127.0.0.1:{}", plain.port());
    let text = Client::connect(&url).await.unwrap_err().to_string();
    let expected =
        "no connection within 4 s: the host does not answer, or the server does not speak TLS";
    assert!(text.contains(expected) && !text.contains("redis://"), "{text}");
    let authority = Authority::new("ours");
    let Some(secured) = authority.server("127.0.0.1", false) else { return };
    let url = secured.tls_url("127.0.0.1").unwrap();
    let text = Client::connect(&url.replace("rediss:", "redis:")).await.unwrap_err().to_string();
    assert!(text.contains("perhaps the server speaks only TLS"), "{text}");
    secured.kill();
    for url in [url.clone(), url.replace("rediss:", "redis:")] {
        let text = Client::connect(&url).await.unwrap_err().to_string();
        assert!(text.contains("refused") && !text.contains("TLS"), "{text}");
    }
}

/// Only the TLS port is reachable with the client's own address, and the server asks each connection
/// for a certificate.
#[tokio::test]
async fn jobs_run_and_are_retried_with_every_connection_behind_a_client_certificate() {
    let authority = Authority::new("ours");
    let Some(server) = authority.server("redis.example", true) else { return };
    let own = authority.sign("client");
    let tls = trusting(&authority).client_certificate_pem(own.certificate, own.key);
    let url = server.tls_url("127.0.0.1").unwrap();
    let client = Client::builder(&url).tls(tls.server_name("redis.example"));
    let client = client.connect().await.unwrap();
    let twice = Work::new(|_, job| async move {
        if job.attempt() == 1 { Err("once more".into()) } else { Ok(()) }
    });
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(twice.clone());
    let options = options().backoff(Backoff::fixed(Duration::from_millis(20)));
    let runtime = quick(builder.group("work", options)).start().await.unwrap();
    for id in 0..20 {
        client.publish(&order(id)).await.unwrap();
    }
    twice.wait_for(40).await;
    let ours = server.client_list().into_iter().filter(|row| row.name == "streamjobs").count();
    assert!(ours >= 3, "the client's, the runtime's and its reader's: {ours}");
    // More readers share connections, and another one tells them what has changed.
    for _ in 0..5 {
        runtime.add_consumer("work").await.unwrap();
    }
    let told = || server.client_list().iter().any(|client| client.flags.contains('t'));
    until(DEADLINE, "readers are told", told).await;
    // All of them are opened anew.
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until(DEADLINE, "killed", || runtime.counters().server_errors > 0).await;
    let mut published = 0;
    while published == 0 {
        published += usize::from(client.publish(&order("after")).await.is_ok());
        tokio::task::yield_now().await;
    }
    until(DEADLINE, "done after", || twice.distinct() == 21 && twice.count() >= 42).await;
    until(DEADLINE, "readers are told again", told).await;
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
}
