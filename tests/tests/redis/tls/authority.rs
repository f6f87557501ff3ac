//! An authority of a test, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use streamjobs_tests::server::{RedisServer, ServerError, ServerTls};

/// A certificate and its key, in PEM form.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// An authority with a key of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub ca: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), ca }
    }

    /// A certificate for a host name or an IP address.
    pub fn sign(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// A server that shows a certificate for this name. `None` where the server program has no TLS.
    pub fn server(&self, name: &str, ask_clients: bool) -> Option<RedisServer> {
        let Pair { certificate, key } = self.sign(name);
        let tls = ServerTls { ca: self.ca.clone(), certificate, key, ask_clients };
        match RedisServer::builder().plain().tls(tls).start() {
            Ok(server) => Some(server),
            // In the words of two versions.
            Err(ServerError::Ended { log })
                if log.contains("Failed finding TLS support") || log.contains("tls-port") =>
            {
                eprintln!("not tested: the server was built without TLS");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}
