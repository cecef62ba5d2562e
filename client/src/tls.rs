//! What the client trusts and shows, made into rustls' configuration.

use crate::config::Tls;
use crate::error::Error;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// TLS as one client speaks it to all its endpoints.
pub(crate) struct Secure {
    pub(crate) connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Secure {
    /// Reads the certificates.
    ///
    /// - Errors: [`Error::Config`] names the part that cannot be used.
    pub(crate) fn new(tls: &Tls) -> Result<Self, Error> {
        let bad = |what: &str, why: &dyn std::fmt::Display| Error::Config(format!("{what}: {why}"));
        let mut roots = RootCertStore::empty();
        match &tls.ca {
            Some(pem) => {
                for certificate in certificates(pem).map_err(|why| bad("trusted certificates", &why))? {
                    roots.add(certificate).map_err(|why| bad("trusted certificates", &why))?;
                }
            }
            None => {
                // Some systems hold certificates that nobody can read; the others are still good.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(bad("trusted certificates", &"there is none"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| bad("TLS", &why))?
            .with_root_certificates(roots);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.certificates).map_err(|why| bad("client certificate", &why))?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|why| bad("client key", &why))?;
                builder.with_client_auth_cert(chain, key).map_err(|why| bad("client certificate", &why))?
            }
        };
        // gRPC is HTTP/2 and nothing else.
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server_name = match &tls.server_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|why| bad("server name", &why))?),
            None => None,
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// The name that the certificate of `host` must be for.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>, Error> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()).map_err(|why| Error::Config(format!("host {host:?}: {why}"))),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|why| why.to_string())?;
    if all.is_empty() { Err("no certificate in the PEM".to_owned()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named() {
        let error = Secure::new(&Tls::ca("not PEM")).err().unwrap().to_string();
        assert_eq!(error, "trusted certificates: no certificate in the PEM");
    }
}
