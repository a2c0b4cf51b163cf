//! Receivers with TLS, good ones and bad ones, over HTTP and gRPC.

use std::path::PathBuf;

use collector::export::destination::Protocol;
use collector::export::reply::Accepted;
use collector::export::transport::Refusal;
use collector::export::{Endpoint, Signal};
use tests::client::Client;
use tests::faults::grpc::{GrpcServer, RpcBehaviour};
use tests::faults::tls::{Authority, Identity, config};
use tests::faults::{Behaviour, Options, Security, Server};
use tests::generate::Generator;
use tests::receivers::TempDir;

/// How an attempt ended.
type Outcome = Result<Accepted, Refusal>;

/// Whether TLS is built in; says so if not.
fn built_in() -> bool {
    let built_in = Endpoint::parse("https://localhost").is_ok();
    if !built_in {
        println!("skipped: collector is built without its feature tls");
    }
    built_in
}

/// Files for a client that trusts `authority`.
struct Files(TempDir);

impl Files {
    fn new(name: &str, authority: &Authority) -> Self {
        let directory = TempDir::new(name);
        std::fs::write(directory.join("roots.pem"), authority.pem()).unwrap();
        Self(directory)
    }

    fn client(self, identity: &Identity) -> Self {
        std::fs::write(self.0.join("client.pem"), &identity.pem).unwrap();
        std::fs::write(self.0.join("client.key"), identity.key_pem()).unwrap();
        self
    }

    /// Sends a request with these files.
    fn send(&self, protocol: Protocol, endpoint: &str) -> Outcome {
        let path = |name: &str| self.0.join(name).to_str().unwrap().to_owned();
        let [roots, certificate, key] = ["roots.pem", "client.pem", "client.key"].map(path);
        let mut variables = vec![("PROTOCOL", protocol.name()), ("CERTIFICATE", &roots)];
        if PathBuf::from(&key).exists() {
            variables.extend([("CLIENT_CERTIFICATE", &*certificate), ("CLIENT_KEY", &*key)]);
        }
        Client::new(endpoint, &variables).send(&Generator::default().request(Signal::Traces, 0..10))
    }
}

/// A receiver of either protocol.
enum Receiver {
    Http(Server),
    Grpc(GrpcServer),
}

impl Receiver {
    fn start(protocol: Protocol, security: Security) -> Self {
        let options = Options { security: security.clone(), ..Options::default() };
        match protocol {
            Protocol::Grpc => {
                Self::Grpc(GrpcServer::with(options.address, security, |_| RpcBehaviour::default()).unwrap())
            }
            _ => Self::Http(Server::with(options, |_| Behaviour::default()).unwrap()),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Http(server) => server.url(),
            Self::Grpc(server) => server.url(),
        }
    }

    fn taken(&self) -> usize {
        match self {
            Self::Http(server) => server.log().taken(Signal::Traces).len(),
            Self::Grpc(server) => server.log().taken(Signal::Traces).len(),
        }
    }
}

/// The protocols that are built in, each with what it asks for in the handshake.
fn protocols() -> impl Iterator<Item = (Protocol, &'static [&'static str])> {
    let all: [(Protocol, &[&str]); 2] = [(Protocol::HttpProtobuf, &["http/1.1"]), (Protocol::Grpc, &["h2"])];
    all.into_iter().filter(|(protocol, _)| built_in() && protocol.is_built_in())
}

#[test]
fn a_trusted_receiver_takes_everything() {
    for (protocol, alpn) in protocols() {
        let authority = Authority::new();
        let files = Files::new("trusted", &authority);
        let security = Security::Tls(config(&authority.host("localhost"), None, alpn));
        let receiver = Receiver::start(protocol, security);
        files.send(protocol, &receiver.url()).unwrap();
        assert_eq!(receiver.taken(), 10);
        // By its address too, if that is what the certificate says.
        let security = Security::Tls(config(&authority.host("127.0.0.1"), None, alpn));
        let receiver = Receiver::start(protocol, security);
        files.send(protocol, &receiver.url().replace("localhost", "127.0.0.1")).unwrap();
    }
}

#[test]
fn certificates_that_prove_nothing() {
    for (protocol, alpn) in protocols() {
        let (authority, unknown) = (Authority::new(), Authority::new());
        let files = Files::new("untrusted", &authority);
        let cases = [
            ("expired", authority.expired("localhost")),
            ("of another name", authority.host("example.com")),
            ("of an unknown authority", unknown.host("localhost")),
            ("of a client", authority.client("localhost")),
        ];
        for (name, identity) in cases {
            let receiver = Receiver::start(protocol, Security::Tls(config(&identity, None, alpn)));
            let refusal = files.send(protocol, &receiver.url()).expect_err(name);
            assert!(!refusal.ambiguous, "{protocol:?}, {name}: {refusal:?}");
            assert_eq!(receiver.taken(), 0, "{protocol:?}, {name}");
        }
    }
}

#[test]
fn a_client_shows_its_certificate() {
    for (protocol, alpn) in protocols() {
        let authority = Authority::new();
        let security = Security::Tls(config(&authority.host("localhost"), Some(&authority), alpn));
        let receiver = Receiver::start(protocol, security);
        let nobody = Files::new("nobody", &authority);
        assert!(nobody.send(protocol, &receiver.url()).is_err(), "{protocol:?}");
        let files = Files::new("client", &authority).client(&authority.client("agent"));
        files.send(protocol, &receiver.url()).unwrap();
        assert_eq!(receiver.taken(), 10);
        let stranger = Files::new("stranger", &authority).client(&Authority::new().client("agent"));
        assert!(stranger.send(protocol, &receiver.url()).is_err(), "{protocol:?}");
    }
}

#[test]
fn receivers_that_have_no_tls() {
    for (protocol, _) in protocols() {
        let files = Files::new("plain", &Authority::new());
        let hang_up = Receiver::start(protocol, Security::HangUp);
        let refusal = files.send(protocol, &hang_up.url()).expect_err("a hang-up");
        assert!(refusal.failure.is_retryable() && !refusal.ambiguous, "{protocol:?}: {refusal:?}");
        let plain = Receiver::start(protocol, Security::None);
        let endpoint = plain.url().replace("http://", "https://");
        let refusal = files.send(protocol, &endpoint).expect_err("plain text");
        assert!(!refusal.ambiguous, "{protocol:?}: {refusal:?}");
        assert_eq!(plain.taken(), 0);
    }
}

#[test]
fn a_client_without_tls_gets_nowhere() {
    if !built_in() {
        return;
    }
    let authority = Authority::new();
    let security = Security::Tls(config(&authority.host("localhost"), None, &["http/1.1"]));
    let receiver = Receiver::start(Protocol::HttpProtobuf, security);
    let endpoint = receiver.url().replace("https://", "http://");
    let request = Generator::default().request(Signal::Traces, 0..10);
    let outcome = Client::new(&endpoint, &[]).send(&request);
    assert!(outcome.is_err(), "{outcome:?}");
}
