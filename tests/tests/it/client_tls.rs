//! The client library over TLS, to a real etcd: Mechi does not speak it yet.

use mechi_client::{Client, Error, Tls, WatchOptions};
use mechi_tests::grounds::config;
use mechi_tests::port::Port;
use mechi_tests::process::{Kind, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::path::Path;

struct Made {
    certificate: String,
    key: String,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs itself")
}

fn issue(authority: &Authority, names: &[&str]) -> Made {
    let key = KeyPair::generate().expect("a key");
    let mut params =
        CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).expect("names");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, authority).expect("signs");
    Made { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// An etcd that also listens for TLS; returns that endpoint.
fn start(authority: &Authority, names: &[&str], flags: &[&str]) -> (Server, String, (tempfile::TempDir, Port)) {
    let home = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(home.path().join(name), text).expect("writes");
    };
    let server = issue(authority, names);
    write("ca.pem", &authority.pem());
    write("server.pem", &server.certificate);
    write("server.key", &server.key);
    let flag = |name: &str, file: &str| format!("--{name}={}", Path::display(&home.path().join(file)));
    let mut etcd = Server::at(Kind::Etcd, home.path(), flags);
    let port = Port::keep();
    let secure = format!("https://127.0.0.1:{port}");
    etcd.flags.push(flag("cert-file", "server.pem"));
    etcd.flags.push(flag("key-file", "server.key"));
    if flags.contains(&"--client-cert-auth") {
        // With this file alone etcd asks every client for a certificate.
        etcd.flags.push(flag("trusted-ca-file", "ca.pem"));
    }
    // The plain one is what the harness asks whether the server is ready.
    etcd.flags.push(format!("--listen-client-urls=http://{},{secure}", etcd.endpoint()));
    etcd.flags.push(format!("--advertise-client-urls={secure}"));
    etcd.spawn().expect("starts");
    (etcd, secure, (home, port))
}

fn refusal(error: Error) -> String {
    match error {
        Error::Unavailable { last } => last,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_certificate_is_checked() {
    let authority = authority();
    let (_etcd, secure, _home) = start(&authority, &["127.0.0.1", "etcd.example"], &[]);
    let client = Client::connect(config([secure.clone()]).tls(Tls::ca(authority.pem()))).await.expect("trusts it");
    client.put("k", "v").await.expect("writes");
    let mut watch = client.watch(WatchOptions::key("k")).await.expect("watches");
    client.put("k", "w").await.expect("writes");
    assert_eq!(watch.next().await.expect("goes on").expect("a batch").events().len(), 1);

    let other = self::authority();
    let error = Client::connect(config([secure.clone()]).tls(Tls::ca(other.pem()))).await.expect_err("is another's");
    let text = refusal(error);
    assert!(text.contains("certificate"), "{text}");
    let named = |name: &str| config([secure.clone()]).tls(Tls::ca(authority.pem()).server_name(name));
    Client::connect(named("etcd.example")).await.expect("is one of its names");
    let text = refusal(Client::connect(named("else.example")).await.expect_err("is none of its names"));
    assert!(text.contains("certificate"), "{text}");
    // Without TLS to a port that speaks it, and with it to one that does not.
    let plain = secure.replace("https://", "http://");
    let hasty =
        Client::lazy(config([plain]).request_timeout(std::time::Duration::from_secs(1))).expect("is an endpoint");
    assert!(hasty.get("k").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown() {
    let authority = authority();
    let (_etcd, secure, _home) = start(&authority, &["127.0.0.1"], &["--client-cert-auth"]);
    let me = issue(&authority, &["client.example"]);
    let with = |tls: Tls| config([secure.clone()]).tls(tls);
    let client = Client::connect(with(Tls::ca(authority.pem()).identity(me.certificate, me.key))).await;
    client.expect("is known").put("k", "v").await.expect("writes");
    // TLS 1.3 lets the client believe for a moment that it is connected; nothing goes through.
    let hasty = with(Tls::ca(authority.pem())).request_timeout(std::time::Duration::from_secs(3));
    let stranger = Client::lazy(hasty).expect("is a configuration");
    assert!(stranger.get("k").await.is_err());
    let broken =
        Client::lazy(with(Tls::ca(authority.pem()).identity("no PEM", "no PEM"))).expect_err("is no certificate");
    assert!(matches!(&broken, Error::Config(text) if text.contains("client certificate")), "{broken:?}");
}
